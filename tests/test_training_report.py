"""Curves, page and TensorBoard events of a training, from the records of its epochs."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from dtmd.config import dump_config, load_config
from dtmd.errors import DtmdError
from dtmd.training_report.about import write_about
from dtmd.training_report.curves import DIAGRAMS
from dtmd.training_report.records import best_by_length, mepa_curves, read_records, stages
from dtmd.training_report.summary import summary_html, write_summary
from dtmd.training_report.tensorboard import EventWriter, require_tensorboard

ABOUT = {
    "training": {"runs": ["a", "b"], "frames": 640, "subsequences": 80},
    "validation": {"runs": ["<c>"], "frames": 320, "rollouts": 8},
    "systems": ["C49H2Pd6"], "timesteps_fs": [0.5], "reference_energies_eV": {"H": -3.0, "Pd": -8.0},
    "parameters": 513281, "device": "cpu", "data_sha256": 64 * "a", "versions": {"dtmd": "0.1.0", "torch": "2.13"},
}


def record(epoch, stage, length, mepa, ends=None):
    """One epoch of ten updates; without a MEPA its validation diverged."""
    sound = {} if mepa is None else {
        "by_species": {"H": 0.75 * mepa, "Pd": 0.25 * mepa}, "first_frame": 0.5 * mepa, "last_frame": 1.5 * mepa,
        "energy_per_atom": 0.01,
        "by_step": {"sum": [0.5 * mepa, mepa, 1.5 * mepa], "H": [0.3, 0.4, 0.5], "Pd": [0.1, 0.2, 0.3]},
    }
    return {
        "epoch": epoch, "stage": stage, "S": length, "learning_rate": 1e-3 / stage, "updates": 10 * (epoch + 1),
        "loss": 2.0 / (epoch + 1), "gradient_norm": 3.0, "validation": {"mepa": mepa} | sound,
        "best_of_stage": True, "ends": ends, "seconds": 30.0, "updates_per_second": 0.4,
    }


RECORDS = [
    record(0, 1, 1, 0.9), record(1, 1, 1, 0.8, ends="stage"), record(2, 2, 2, None), record(3, 2, 2, 0.4),
    record(4, 2, 2, 0.6, ends="stage"), record(5, 3, 2, 0.5),
]


@pytest.fixture
def run(tmp_path):
    """A folder as a training that was killed in its third stage leaves it."""
    folder = tmp_path / "my run"
    folder.mkdir()
    lines = [json.dumps(r) for r in RECORDS]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + lines[0][:40])  # killed while it wrote
    (folder / "config.yaml").write_text(dump_config(load_config(None)))
    write_about(ABOUT, folder)
    return folder


def test_records_by_stage_and_length(run):
    records = read_records(run)
    assert records == RECORDS
    assert [(s.length, s.epochs, s.best["epoch"], s.seconds, s.ended) for s in stages(records)] == [
        (1, (0, 1), 1, 60.0, True), (2, (2, 4), 3, 90.0, True), (2, (5, 5), 5, 30.0, False)]
    assert {length: best["epoch"] for length, best in best_by_length(records).items()} == {1: 1, 2: 3}
    curves = mepa_curves(records)
    assert list(curves) == ["sum", "H", "Pd"] and math.isnan(curves["sum"][2]) and math.isnan(curves["H"][2])
    assert curves["H"][3] == pytest.approx(0.3)


@pytest.mark.parametrize(("text", "message"), [
    (None, r"metrics.jsonl: cannot be read .*give the folder of a run"),
    ("", "no epoch in it yet"),
    ('{"epoch": 0}\n', "line 1: stage, S, .* missing; another version"),
    ("5\n", "line 1: not a record of dtmd train"),
    ("{\n", "line 1: not a record of dtmd train"),
])
def test_what_is_no_run_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(DtmdError, match=message):
        write_summary(tmp_path)
    assert not (tmp_path / "summary.html").exists()


def drawn(name, records):
    """Label → ordinates of the lines of a diagram."""
    axes = Figure().add_subplot()
    DIAGRAMS[name](axes, records)
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}, axes


def test_the_diagrams_show_the_metrics():
    lines, axes = drawn("mepa", RECORDS)
    assert np.array_equal(lines["MEPA"], [0.9, 0.8, np.nan, 0.4, 0.6, 0.5], equal_nan=True)
    assert list(lines["best of S"]) == [0.8, 0.4]
    assert [text.get_text() for text in axes.texts] == ["S = 1", "S = 2", "S = 2"]
    lines, _ = drawn("lengths", RECORDS)
    assert {label: list(values) for label, values in lines.items()} == {
        "S = 1": [0.4, 0.8, 1.2000000000000002], "S = 2": [0.2, 0.4, 0.6000000000000001]}
    lines, _ = drawn("species", RECORDS)
    assert list(lines["H"]) == [0.3, 0.4, 0.5]
    lines, _ = drawn("loss", RECORDS)
    assert [len(values) for values in lines.values()] == [2, 3, 1]
    lines, _ = drawn("rate", RECORDS)
    assert [list(values) for values in lines.values()] == [[1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 1e-3 / 3]]


@pytest.mark.parametrize("records", [RECORDS[:1], RECORDS[2:3]], ids=["one epoch", "diverged"])
def test_little_is_drawn_too(run, records):
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert all(path.stat().st_size > 1000 for path in write_summary(run))


class Reader(HTMLParser):
    """Text, and everything that a page refers to."""

    def __init__(self):
        super().__init__()
        self.links, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_of_a_killed_run(run):
    style = dict(mpl.rcParams)
    png, svg, page = write_summary(run)
    assert dict(mpl.rcParams) == style
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and "<svg" in svg.read_text()
    reader = Reader()
    reader.feed(page.read_text())
    assert all(re.match("#|data:image/svg", link) for link in reader.links) and len(reader.links) == 10
    assert "http" not in page.read_text().replace("http-equiv", "")
    text = " ".join(reader.text.split())
    assert "Not finished: S = 2, stage 3 of 4 after 6 epochs, 60 updates and 0:03:00 h." in text
    assert "Best MEPA 0.4000 eV/Å (S = 2, epoch 3)" in text
    assert "1 0.8000 0.6000 0.2000 0.4000 1.2000 1 2 20 1.0e-03 0:01:00" in text
    assert "2 0.4000 0.3000 0.1000 0.2000 0.6000 3 3 50 5.0e-04 0:01:30" in text
    assert "2 (goes on) 0.5000" in text and "513281 parameters" in text and "H -3.0000 eV" in text
    assert f"dtmd export '{run}'" in text and "validation_length: 60" in text and "<c>" in text
    assert not list(run.glob(".*"))


def test_the_page_of_a_finished_run(run):
    html = summary_html([RECORDS[0] | {"ends": "training"}], load_config(None), ABOUT, run)
    assert "Finished after 1 epoch," in " ".join(html.split())


def test_the_verb(run):
    result = subprocess.run([sys.executable, "-m", "dtmd", "summary", run], capture_output=True, text=True)
    assert result.returncode == 0 and "summary.html" in result.stdout, result.stderr


def test_events_of_a_killed_run_are_not_doubled(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    killed = EventWriter(tmp_path, last_update=0)
    for r in RECORDS[:5]:
        killed.write(r)
    resumed = EventWriter(tmp_path, last_update=RECORDS[1]["updates"])  # the checkpoint was that of the second epoch
    for r in RECORDS[2:]:
        resumed.write(r)
    resumed.close()
    events = reading.EventAccumulator(str(tmp_path)).Reload()
    assert [e.step for e in events.Scalars("training/loss")] == [r["updates"] for r in RECORDS]
    assert [e.value for e in events.Scalars("validation/MEPA")] == pytest.approx([0.9, 0.8, 0.4, 0.6, 0.5])
    assert {"species/H", "species/Pd", "training/learning_rate", "training/S"} <= set(events.Tags()["scalars"])


def test_tensorboard_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("dtmd.training_report.tensorboard.find_spec", lambda name: None)
    with pytest.raises(DtmdError, match="pip install tensorboard"):
        require_tensorboard()
