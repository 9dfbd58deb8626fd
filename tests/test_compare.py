"""The comparison and its report on trajectories whose answers are known."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dtmd import report
from dtmd.compare import CompareSettings, compare
from dtmd.errors import DtmdError
from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import number
from dtmd.report import write_report
from dtmd.report_summary import SUMMARY_COLUMNS, short_names, summary_rows, with_interval
from dtmd.trajectory import Trajectory

CELL = np.array([[12.3, 0, 0], [-6.15, 10.652112, 0], [0, 0, 14.0]])
NUMBERS = np.array([1, 1, 6, 6, 46])


def trajectory(name, seed, n_frames=60, breaks_at=None):
    """H₂ over three atoms, apart from frame `breaks_at` on; velocities, forces and energies made up."""
    rng = np.random.default_rng(seed)
    start = np.array([[0.1, 0.2, 5.0], [0.1, 0.94, 5.0], [3.0, 0, 0], [5.0, 4.0, 0.2], [4.0, 2.0, 2.0]])
    positions = start + np.cumsum(rng.normal(scale=0.01, size=(n_frames, 5, 3)), axis=0)
    times = 0.5 * np.arange(n_frames)
    if breaks_at is not None:
        positions[breaks_at:, 1, 1] += 2.0
    return Trajectory(
        numbers=NUMBERS, masses=np.array([1.008, 1.008, 12.011, 12.011, 106.42]), pbc=np.ones(3, bool),
        cells=np.broadcast_to(CELL, (n_frames, 3, 3)), times=times, positions=positions,
        velocities=rng.normal(scale=0.01, size=positions.shape), forces=rng.normal(size=positions.shape),
        energies=rng.normal(scale=0.001, size=n_frames), source=f"aimd/{name}",
    )


@pytest.fixture(scope="module")
def aimd():
    return [trajectory("a.xyz", 1), trajectory("b.xyz", 2, breaks_at=20), trajectory("c.xyz", 3)]


@pytest.fixture(scope="module")
def md(aimd):
    """Two runs on AIMD starts with a known force error, one from elsewhere and three times as long."""
    on_start = [
        replace(aimd[1].window(5, 60), times=aimd[1].times[5:] - 2.5, source="md/1/run.lammpstrj"),
        replace(aimd[2], source="md/2/run.lammpstrj"),
    ]
    errors = (0.1, 0.3)
    on_start = [replace(run, forces=run.forces + error) for run, error in zip(on_start, errors, strict=True)]
    return [*on_start, replace(trajectory("", 9, n_frames=180), source="md/3/run.lammpstrj")]


@pytest.fixture(scope="module")
def comparison(md, aimd):
    return compare(md, aimd, CompareSettings())


def test_force_error_along_the_rollout(comparison):
    rollout = comparison.rollout
    assert [Path(run.reference).name for run in rollout.runs] == ["b.xyz", "c.xyz"]
    assert [run.start.frame for run in rollout.runs] == [5, 0]
    assert rollout.n_steps == 54 and rollout.spacing == 0.5 and rollout.elements == ["H", "C", "Pd"]
    assert [run.mepa for run in rollout.runs] == pytest.approx([0.3, 0.9])
    assert rollout.mepa.value == pytest.approx(0.6)
    assert [term.value for term in rollout.species] == pytest.approx([0.2] * 3)
    assert 0.0 <= rollout.mepa.low < 0.6 < rollout.mepa.high
    assert rollout.reference_force == pytest.approx(3 * np.sqrt(2 / np.pi), rel=0.1)
    assert rollout.end_rmsd == pytest.approx(0.0, abs=1e-12)
    assert comparison.skipped == [
        ("rollout error", "md/3/run.lammpstrj: its first frame is on no AIMD frame within 0.001 Å")]


def test_dissociation_on_both_sides(md, aimd):
    settings = CompareSettings()
    settings = replace(settings, criterion=replace(settings.criterion, persistence=15.0))
    comparison = compare(md, aimd, settings)
    whole = comparison.windows[0]
    seen = [(source, event.time) for source, event in whole.aimd_dissociation.events]
    assert seen == [("aimd/b.xyz", 10.0)]
    seen = [(source, event.time) for source, event in whole.md_dissociation.events]
    assert seen == [("md/1/run.lammpstrj", 7.5)]
    assert (whole.md_dissociation.n_trajectories, whole.aimd_dissociation.n_trajectories) == (3, 3)


def test_windows_cut_the_md_to_the_length_of_the_aimd(comparison):
    assert [(window.label, window.duration) for window in comparison.windows] == [
        ("whole runs", 89.5), ("first 29.5 fs", 29.5)]
    assert [d.pair for d in comparison.windows[0].distances] == ["all", "H–H", "H–C", "H–Pd", "C–C", "C–Pd"]
    assert comparison.composition == {"H": 2, "C": 2, "Pd": 1}


def test_aimd_against_itself_is_equal(aimd):
    comparison = compare(aimd, aimd)
    assert len(comparison.windows) == 1 and comparison.skipped == []
    for distance in comparison.windows[0].distances:
        assert distance.wasserstein.value == pytest.approx(0.0, abs=1e-12)
        assert distance.overlap.value == pytest.approx(1.0)
        assert distance.outside == pytest.approx(0.0, abs=1e-12)
        assert distance.split_half > 0.01
    assert comparison.rollout.mepa.value == pytest.approx(0.0, abs=1e-12)
    assert comparison.md.drift == comparison.aimd.drift


def test_given_starts_and_their_mistakes(md, aimd):
    given = compare(md[2:], aimd, CompareSettings(starts={"md/3/run.lammpstrj": ("a.xyz", 3)}))
    assert given.rollout.runs[0].start.frame == 3 and given.rollout.n_steps == 56
    with pytest.raises(DtmdError, match=r"frame 99 given, a\.xyz has 60"):
        compare(md[2:], aimd, CompareSettings(starts={"run.lammpstrj": ("a.xyz", 99)}))
    with pytest.raises(DtmdError, match="not among the AIMD files"):
        compare(md[2:], aimd, CompareSettings(starts={"run.lammpstrj": ("z.xyz", 0)}))


def test_other_velocities_are_no_rollout(md, aimd):
    comparison = compare([replace(md[1], velocities=-md[1].velocities)], aimd)
    assert comparison.rollout is None and "velocities differ" in comparison.skipped[0][1]


def test_what_is_missing_is_said(md, aimd, tmp_path):
    bare = replace(md[1], velocities=None, forces=None, energies=None)
    comparison = compare([bare], [replace(t, energies=None) for t in aimd])
    reasons = dict(comparison.skipped)
    assert "no forces in md/2/run.lammpstrj" in reasons["rollout error"]
    assert reasons["temperature, energy (MD)"] == "md/2/run.lammpstrj: no velocities"
    assert "no potential energy" in reasons["energy conservation (AIMD)"]
    text = write_report(comparison, tmp_path).read_text(encoding="utf-8")
    assert "no potential energy" in text and "Not available" in text
    observables = {row.observable.split(" (")[0] for row in summary_rows(comparison)}
    assert observables >= {"Data", "Distances, all pairs"}


def cluster(run):
    return replace(run, pbc=np.array([True, True, False]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: replace(run, numbers=np.array([1, 1, 6, 6, 28])), "H2 C2 Ni1.*H2 C2 Pd1"),
        (lambda run: replace(run, cells=run.cells * 1.05), "same cell"),
        (lambda run: replace(run, cells=run.cells * np.array([[1], [-1], [1]])), "same cell"),
        (cluster, "periodic in xy"),
    ],
    ids=["species", "cell", "angle", "pbc"],
)
def test_runs_of_another_system_are_refused(md, aimd, change, message):
    with pytest.raises(DtmdError, match=message) as caught:
        compare([md[0], change(md[1])], aimd)
    assert "md/2/run.lammpstrj" in str(caught.value)


def test_temperature_of_a_single_run_keeps_its_block_interval(md, aimd):
    comparison = compare(md[:1], aimd)
    assert comparison.md.temperature == comparison.md.runs[0].temperature
    assert comparison.md.temperature.low < comparison.md.temperature.value
    means = [run.temperature.value for run in comparison.aimd.runs]
    assert comparison.aimd.temperature.value == pytest.approx(np.mean(means))


def test_nothing_and_bad_bonds_are_refused(md, aimd):
    with pytest.raises(DtmdError, match="0 MD and 3 AIMD"):
        compare([], aimd)
    with pytest.raises(DtmdError, match="bond 1-8: give two different atom ids between 1 and 5"):
        compare(md, aimd, CompareSettings(bonds=[(0, 7)]))


def test_another_order_of_atoms_leaves_distributions_comparable(aimd):
    first, order = aimd[0], [4, 3, 2, 1, 0]
    run = replace(
        first, source="md/run", numbers=NUMBERS[order], masses=first.masses[order],
        positions=first.positions[:, order], velocities=first.velocities[:, order],
        forces=first.forces[:, order],
    )
    comparison = compare([run], aimd[:1])
    assert comparison.windows[0].distances[0].wasserstein.value == pytest.approx(0.0, abs=1e-12)
    assert "another order" in dict(comparison.skipped)["rollout error"]


class Page(HTMLParser):
    """Collects sections, links, images and open tags of a page."""

    def __init__(self):
        super().__init__()
        self.sections, self.addresses, self.images, self.open_tags = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[key] for key in ("href", "src") if key in attributes]
        self.images += tag == "img"
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag not in ("meta", "img", "br", "link"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


def test_report_is_one_file_with_all_sections(comparison, tmp_path):
    path = write_report(comparison, tmp_path / "new", {"cutoff": "5 Å <b>"})
    assert sorted(p.name for p in path.parent.iterdir()) == ["metrics.json", "report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open_tags == []
    assert page.sections == ["summary", "distances", "dissociation", "rollout", "energy", "temperature",
                             "skipped", "provenance"]
    assert all(address.startswith(("#", "data:image/svg+xml;base64,")) for address in page.addresses)
    assert "http" not in text and "<script" not in text and "@import" not in text
    assert page.images == 1 + 5 + 2 + 3 + 2 + 2
    assert "5 Å &lt;b&gt;" in text
    for row in summary_rows(comparison):
        assert row.observable in text and len(SUMMARY_COLUMNS) == 5
    assert "0.60 eV/Å" in text.replace("\u00a0", " ")


def test_metrics_hold_the_numbers(comparison, tmp_path):
    write_report(comparison, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rollout"]["mepa"]["value"] == pytest.approx(0.6)
    assert metrics["windows"][0]["distances"][0]["pair"] == "all"
    assert len(metrics["md"]["runs"]) == 3 and metrics["provenance"]["versions"]["dtmd"]


def test_same_input_gives_the_same_metrics(md, aimd):
    first, second = (report.metrics_json(compare(md, aimd), {}) for _ in range(2))
    assert first == second


def test_texts():
    assert number(0.0123456, 2) == "0.012" and number(-3.14159) == "−3.14" and number(1234.5) == "1234"
    assert with_interval(Estimate(0.4792, 0.4746, 0.4838), "eV/Å") == "0.479\u00a0eV/Å (0.475 to 0.484)"
    assert with_interval(Estimate(2.0)) == "2.00"
    assert short_names(["x/1/run.d", "x/2/run.d", "y/a.d"]) == {
        "x/1/run.d": "1/run.d", "x/2/run.d": "2/run.d", "y/a.d": "y/a.d"}
    assert number(-0.0) == "0.00" and number(0.0) == "0.00"
