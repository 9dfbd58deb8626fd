"""The report made of sections: its page, also in a browser, its figures, curves and numbers."""

import base64
import csv
import html
import json
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dtmd.comparison_report.curves import groups, points_per_curve, side_names, thinned
from dtmd.comparison_report.data import figure_data
from dtmd.comparison_report.header import Header, Run, Side
from dtmd.comparison_report.page import report_html
from dtmd.comparison_report.report import write_report
from dtmd.comparison_report.summary import key_plots, number_lines, summary_lines, tally, verdict_of
from dtmd.comparison_report.text import estimate_text
from dtmd.errors import DtmdError
from dtmd.ingest import read_aimd
from dtmd.observables.distances import BIN_WIDTH, PairHistogram, pair_distances
from dtmd.observables.force_error import force_error_by_species
from dtmd.observables.histograms import COARSE, coarse, normalised, wasserstein
from dtmd.observables.section import Curve, Map, Plot, Row, Section, Table, Verdict, judged
from dtmd.observables.statistics import Estimate, frame_weights, wilson_interval

INPUTS = Path(__file__).parents[1] / "inputs" / "aimd"
ODD = """</script><b title='"'>&{{ x }}"""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0").split()


def runs_of(*parts):
    return [run for part in parts for run in read_aimd([INPUTS / part])]


@pytest.fixture(scope="module")
def sides():
    """AIMD windows in the part of two models; one of them with bonds that are 3 % too long."""
    aimd = runs_of("train/h2pd6_001_from_000.extxyz.xz", "train/h2pd6_007_from_000.extxyz.xz",
                   "train/h2pd6_106_from_150.extxyz.xz")
    md = runs_of("test", "validation")
    stretched = [replace(run, positions=1.03 * run.positions) for run in md]
    return {"AIMD": aimd, "EGNN, S = 30": md, "MACE": stretched}


def mean_curve(label, side, x, values):
    """Mean over runs, (n_runs, N), with a band of two standard errors."""
    mean, half = values.mean(axis=0), 2.0 * values.std(axis=0) / np.sqrt(len(values))
    return Curve(label, x, mean, mean - half, mean + half, side=side)


def pair_counts(run, pair):
    histogram = PairHistogram(run.numbers)
    histogram.add(run, frame_weights(run.times))
    return histogram.counts[histogram.pairs.index(pair)]


def distances_section(sides):
    rows, plots = [], []
    for pair, numbers in (("H–H", (1, 1)), ("H–Pd", (1, 46))):
        every = {side: [pair_counts(run, numbers) for run in runs] for side, runs in sides.items()}
        n_bins = max(len(h) for histograms in every.values() for h in histograms)
        curves = []
        total = {}
        for side, histograms in every.items():
            padded = np.stack([np.pad(h, (0, n_bins - len(h))) for h in histograms])
            total[side] = padded.sum(axis=0)
            density = coarse(normalised(padded)) / (COARSE * BIN_WIDTH)
            x = COARSE * BIN_WIDTH * (np.arange(density.shape[1]) + 0.5)
            curves.append(mean_curve("density", side, x, density))
        plots.append(Plot(f"distances_{pair}", f"Density of the {pair} distances", "distance (Å)", "density (1/Å)",
                          curves, vertical={"1.5 Å": 1.5} if pair == "H–H" else {}))
        apart = {side: float(wasserstein(total[side], total["AIMD"])) for side in total if side != "AIMD"}
        apart = {side: Estimate(w, 0.8 * w, 1.2 * w) for side, w in apart.items()}
        rows.append(Row(f"Wasserstein-1 distance, {pair}", "Å", None, {}, apart, 0.14,
                        {side: judged(e, 0.5) for side, e in apart.items()}))
    rows.append(Row("share of H–H beyond 1.5 Å", "%", Estimate(31.25, 12.3, 50.2),
                    {side: Estimate(21.0, 4.0, 38.0) for side in total if side != "AIMD"},
                    note="share of time, not of runs"))
    return Section(
        "distances", "Interatomic distances",
        "Density of the distances of all pairs of two elements, minimum image in the actual cell; each frame counts "
        "for the time it stands for.\n\nW₁ = ∫|P(r) − Q(r)| dr is how far, on average, a distance has to be moved to "
        "turn one distribution into the other.", rows, plots,
        rule="Agrees if the whole interval of W₁ is below 0.5 Å, differs if none of it is.",
        caveats=["The MD was watched as long as the AIMD; what happens later is not told here."],
    )


def force_section(sides):
    rng = np.random.default_rng(1)
    curves, rows, final = [], {}, []
    for k, side in enumerate(name for name in sides if name != "AIMD"):
        errors = []
        for run in sides[side]:
            growth = np.minimum(1.0, 0.02 + 0.004 * (k + 1) * np.arange(len(run)))[:, None, None]
            noise = rng.normal(size=run.forces.shape) * growth
            errors.append(force_error_by_species(run.forces + noise, run.forces, run.numbers).sum(axis=-1))
            curves.append(Curve(side, run.times - run.times[0], errors[-1], side=side, run=Path(run.source).name))
        times = sides[side][0].times - sides[side][0].times[0]
        final.append(mean_curve("mean", side, times, np.stack(errors)))
        mepa = np.array([error[1:].mean() for error in errors])
        rows[side] = Estimate(mepa.mean(), mepa.mean() - 0.11, mepa.mean() + 0.11)
    plot = Plot("force_error", "Force error along the rollout; thin: each run, band: 95 % interval",
                "time since the AIMD frame (fs)", "force error (eV/Å)", [*curves, *final],
                horizontal={"no forces at all": 2.9})
    single = replace(plot, name="force_error_log", caption="The same on a logarithmic ordinate", log=True)
    return Section("force_error", "Force error along the rollout", "Sum over the species of the mean absolute force "
                   "error: Σ_s ⟨|F − F_AIMD|⟩_s.", [Row("MEPA", "eV/Å", None, rows)], [plot, single])


def survival_section(sides):
    times = np.linspace(0.0, 160.0, 161)
    curves, rows = [], {}
    for k, side in enumerate(sides):
        alive = [20 if side == "AIMD" else int(20 - (2 + 3 * k) * t / 160.0) for t in times]
        shares = [wilson_interval(n, 20) for n in alive]
        value, low, high = (np.array([getattr(s, key) for s in shares]) for key in ("value", "low", "high"))
        curves.append(Curve("surviving", times, value, low, high, side=side))
        rows[side] = shares[-1]
    aimd = rows.pop("AIMD")
    row = Row("surviving at 160 fs", "", aimd, rows, {s: Estimate(e.value - 1.0, e.low - 1.0, e.high - 0.84)
                                                     for s, e in rows.items()},
              verdict={s: Verdict.UNDECIDED for s in rows})
    table = Table("Runs that ended", ["Run", "Time", "Why"],
                  [[f"run {k}", f"{8 * k} fs", "H–Pd nearer than 0.6 of the covalent sum"] for k in range(14)])
    plot = Plot("survival", "Share of the runs that have not ended", "time (fs)", "share", curves)
    return Section("survival", "Survival", "A run ends when its temperature leaves [0.1, 10⁵] K or two atoms meet.",
                   [row], [plot], [table], rule="Agrees within 0.05.")


def map_section(sides):
    x, y = np.linspace(0.5, 4.5, 61), np.linspace(0.0, 9.0, 61)
    density = {}
    for side, runs in sides.items():
        bond = np.concatenate([pair_distances(run, np.array([[0, 1]]))[:, 0] for run in runs])
        height = np.concatenate([run.positions[:, :2, 2].mean(axis=1) for run in runs])
        density[side] = np.histogram2d(bond, height, bins=(x, y), density=True)[0]
    row = Row("mean height", "Å", Estimate(4.02, 3.1, 4.9), {s: Estimate(4.1, 3.5, 4.7) for s in sides if s != "AIMD"},
              {s: Estimate(0.08, -0.11, 0.27) for s in sides if s != "AIMD"},
              verdict={s: Verdict.AGREES for s in sides if s != "AIMD"})
    plot = Map("height", "Where the molecule is", "H–H distance (Å)", "height over graphene (Å)", x, y, density)
    return Section("adsorbate", "Adsorbate", "Height of the centre of H₂ over the plane z = 0 of graphene.", [row],
                   [plot], rule="Agrees within ± 0.3 Å.")


def header_of(names, n_runs=3, **changes):
    made = [Side(name, [Run(f"run {k}", f"{name}/run_{k}.lammpstrj", 320, 159.5, 64 * "a") for k in range(n_runs)],
                 {} if name == "AIMD" else {"architecture": "EGNN", "cutoff": "4.0 Å"}) for name in names]
    aimd = next((side for side in made if side.name == "AIMD"), None)
    return Header({"H": 2, "C": 49, "Pd": 6}, [side for side in made if side is not aimd], aimd,
                  skipped=[("VACF", "MACE/run_0.lammpstrj: no velocities")],
                  command="dtmd compare md/*.lammpstrj inputs/aimd/train", **changes)


@pytest.fixture(scope="module")
def sections(sides):
    return [make(sides) for make in (map_section, survival_section, distances_section, force_section)]


@pytest.fixture(scope="module")
def written(sections, sides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert write_report(sections, header_of(sides), folder) == folder / "report.html"
    return folder


def simple(names=("MD",), y=(1.0, 2.0, 3.0), **changes):
    """A section of one row and one plot of three points for each side."""
    curves = [Curve("", np.arange(3.0), np.array(y), side=name) for name in ("AIMD", *names)]
    row = Row("mean", "Å", Estimate(2.0, 1.9, 2.1), {name: Estimate(2.5, 2.2, 2.8) for name in names},
              {name: Estimate(0.5, 0.2, 0.8) for name in names}, verdict={name: Verdict.DIFFERS for name in names})
    made = Section("one", "One", "What it is.", [row], [Plot("one", "Caption", "x (Å)", "y (1/Å)", curves)])
    return replace(made, **changes)


class Page(HTMLParser):
    """Texts, attributes that would fetch something, and whether tags are closed in order."""

    VOID = {"meta", "link", "img", "br", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.texts, self.ids, self.data = [], [], [], [], None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.fetched += [values[key] for key in ("src", "href") if not values.get(key, "#").startswith("#")]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append((tag, values.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == ("script", "figures"):
            self.data = json.loads(text)
        elif self.open and self.open[-1][0] not in ("script", "style"):
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_the_page_is_one_small_file_that_fetches_nothing(written):
    text = (written / "report.html").read_text()
    page = Page(text)
    assert page.fetched == [] and len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"https?://[^\"' )]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text and "url(" not in text.replace("url(#${this.clip}-", "")
    assert len(text) < 1_500_000
    assert [spec["name"] for spec in page.data] == [
        "height", "survival", "distances_H_H", "distances_H_Pd", "force_error", "force_error_log"]


def unbroken(text):
    return text.replace("\u00a0", " ")


def test_the_summary_has_a_line_for_each_observable(sections, sides, written):
    text = Page((written / "report.html").read_text()).text
    assert "MD against AIMD: H 2 C 49 Pd 6" in text and "3 trajectories, 960 frames, 478.5 fs in all" in text
    lines = summary_lines(sections, ["EGNN, S = 30", "MACE"])
    assert [line.section.title for line in lines] == [
        "Adsorbate", "Survival", "Interatomic distances", "Force error along the rollout"]
    shown = lines[0].cells["MACE"]
    assert [unbroken(part) for part in (lines[0].aimd, shown.value, shown.difference)] == [
        "4.02 (3.10 to 4.90)", "4.10 (3.50 to 4.70)", "+0.08 (−0.11 to 0.27) from AIMD"]
    assert lines[2].aimd == "halves differ by 0.140" and "× AIMD halves" in unbroken(lines[2].cells["MACE"].difference)
    assert "no velocities" in text and "dtmd compare md/*.lammpstrj" in text and 64 * "a" in text


def test_the_verdict_of_a_section_is_its_worst_and_names_its_row():
    first, second, third = (
        Row(name, "", None, {"a": Estimate(1.0), "b": Estimate(1.0)}, verdict=verdict) for name, verdict in (
            ("x", {"a": Verdict.AGREES, "b": Verdict.UNDECIDED}), ("y", {"a": Verdict.DIFFERS, "b": Verdict.AGREES}),
            ("z", {"a": Verdict.UNDECIDED})))
    section = simple(rows=[first, second, third])
    assert [verdict_of(section, side) for side in "abc"] == [Verdict.DIFFERS, Verdict.UNDECIDED, None]
    (line,) = summary_lines([section], ["a", "b"])
    assert (line.quantity, line.aimd) == ("", "–")
    assert {side: cell.quantity for side, cell in line.cells.items()} == {"a": "y", "b": "x"}
    (line,) = summary_lines([section], ["a"])
    assert (line.quantity, line.cells["a"].quantity, line.cells["a"].value) == ("y", "", "1.00")
    judged = replace(first, md={side: Estimate(1.0, 0.5, 1.5) for side in "abc"})
    texts = [[unbroken(cell.value) for cell in summary_lines([simple(rows=[judged])], sides)[0].cells.values()]
             for sides in (["a", "b"], ["a", "b", "c"])]
    assert texts == [["1.00 (0.50 to 1.50)"] * 2, ["1.00"] * 3]
    assert tally([section, section], "a") == {Verdict.DIFFERS: 2}


def test_a_distance_from_a_single_trajectory_has_no_sign():
    row = Row("W₁", "Å", None, {}, {"a": Estimate(0.2)}, verdict={"a": Verdict.UNDECIDED})
    assert summary_lines([simple(rows=[row])], ["a"])[0].cells["a"].difference == "0.200 apart"
    signed = replace(row, aimd=Estimate(1.0), md={"a": Estimate(1.2)})
    assert summary_lines([simple(rows=[signed])], ["a"])[0].cells["a"].difference == "+0.200 from AIMD"


def test_the_key_figures_are_first_of_what_differs():
    made = [simple(title=title, rows=[Row("q", "", None, {}, verdict=verdict)]) for title, verdict in (
        ("agrees", {"MD": Verdict.AGREES}), ("none", {}), ("differs", {"MD": Verdict.DIFFERS}),
        ("undecided", {"MD": Verdict.UNDECIDED}))]
    assert [section.title for section, _ in key_plots(made, ["MD"])] == ["differs", "undecided", "agrees"]
    assert key_plots([simple(plots=[])], ["MD"]) == []


@pytest.mark.parametrize("names", [("MD",), ("one", "two", "three")])
@pytest.mark.parametrize("reference", [True, False])
def test_one_or_three_sides_with_and_without_aimd(names, reference):
    section = simple(names)
    if not reference:
        row = Row("mean", "Å", None, section.rows[0].md)
        section = replace(section, rows=[row], plots=[replace(section.plots[0], curves=section.plots[0].curves[1:])])
    page = Page(report_html([section], header_of([*(["AIMD"] if reference else []), *names])))
    assert ("AIMD" in page.text) == reference and ("differs" in page.text) == reference
    assert all(name in page.text for name in names) and "2.50 (2.20 to 2.80)" in page.text
    colours = [group["colour"] for group in page.data[0]["groups"]]
    expected = ["var(--line-aimd)"] * reference + [f"var(--line-{k})" for k in range(len(names))]
    assert colours == expected


def test_a_report_without_anything_says_so(tmp_path):
    write_report([], header_of(["AIMD", "MD"]), tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert "No observable could be evaluated" in page.text and page.data == []
    bare = simple(rows=[], plots=[])
    assert "What it is." in Page(report_html([bare], header_of(["AIMD", "MD"]))).text


def test_nan_and_infinity_do_no_harm(tmp_path):
    nan, gap = float("nan"), np.array([1.0, np.nan, 3.0])
    row = Row("mean", "", Estimate(nan, nan, nan), {"MD": Estimate(np.inf)}, {"MD": Estimate(nan)}, equal=0.0)
    plots = [Plot("gap", "c", "x", "y", [Curve("", np.arange(3.0), gap, gap - 1.0, gap + 1.0, "MD")], log=True),
             Plot("none", "c", "x", "y", [Curve("", np.arange(2.0), np.full(2, np.nan), side="MD")]),
             Plot("empty", "c", "x", "y", []),
             Map("map", "c", "x", "y", np.arange(3.0), np.arange(2.0), {"MD": np.array([[nan], [0.0]])})]
    write_report([simple(rows=[row], plots=plots)], header_of(["AIMD", "MD"]), tmp_path)
    section = json.loads((tmp_path / "metrics.json").read_text())["sections"][0]
    assert section["rows"][0]["aimd"] == {"value": None, "low": None, "high": None}
    assert section["plots"][0]["curves"][0]["y"] == [1.0, None, 3.0]
    data = Page((tmp_path / "report.html").read_text()).data
    assert data[0]["groups"][0]["curves"][0]["high"] == [2, None, 4]
    assert data[3]["panels"][0]["density"] == [[None], [0]]
    assert list(csv.reader(open(tmp_path / "curves" / "gap.csv")))[2] == ["MD", "", "", "1", "", "", ""]
    assert len(list((tmp_path / "figures").iterdir())) == 8


def test_a_hundred_runs_stay_light():
    rng = np.random.default_rng(0)
    runs = [Curve("MD", np.arange(5000.0), rng.normal(size=5000).cumsum(), side="MD", run=f"run {k}")
            for k in range(100)]
    page = report_html([simple(plots=[Plot("runs", "c", "x", "y", runs)])], header_of(["AIMD", "MD"], n_runs=100))
    group, = Page(page).data[0]["groups"]
    assert group["label"] == "MD (100 runs)" and group["thin"] and len(group["curves"]) == 100
    assert all(200 < len(curve["x"]) <= points_per_curve(100) == 400 for curve in group["curves"])
    assert len(page) < 1_500_000


def test_odd_names_stay_texts(tmp_path):
    section = simple([ODD], title=ODD, definition=ODD, rule=ODD, caveats=[ODD], tables=[Table(ODD, [ODD], [[ODD]])])
    plot = replace(section.plots[0], name=f"../{ODD}", caption=ODD, x_label=ODD, horizontal={ODD: 2.0})
    header = header_of(["AIMD", ODD])
    write_report([replace(section, plots=[plot])], replace(header, skipped=[(ODD, ODD)], command=ODD), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "<b title" not in text and text.count("</script>") == 2
    assert page.text.count(ODD) > 10 and page.data[0]["groups"][1]["label"] == ODD
    assert [path.name for path in (tmp_path / "curves").iterdir()] == ["script_b_title_x.csv"]


def test_the_metrics_hold_everything_with_seven_digits(sections, sides, written):
    metrics = json.loads((written / "metrics.json").read_text())
    assert metrics["header"]["composition"] == {"H": 2, "C": 49, "Pd": 6}
    assert metrics["header"]["aimd"]["runs"][0]["sha256"] == 64 * "a"
    rows = metrics["sections"][2]["rows"]
    assert rows[0]["verdict"]["MACE"] in [verdict.value for verdict in Verdict] and rows[0]["equal"] == 0.14
    exact = sections[2].rows[0].difference["MACE"].value
    assert rows[0]["difference"]["MACE"]["value"] == float(f"{exact:.7g}") != exact
    curve, told = sections[2].plots[0].curves[1], metrics["sections"][2]["plots"][0]["curves"][1]
    assert told["y"] == pytest.approx(curve.y, rel=1e-6) and told["side"] == curve.side
    density = np.array(metrics["sections"][0]["plots"][0]["density"]["AIMD"])
    assert density == pytest.approx(sections[0].plots[0].density["AIMD"], rel=1e-6)


def test_the_files_beside_the_page(sections, written):
    names = {"height", "survival", "distances_H_H", "distances_H_Pd", "force_error", "force_error_log"}
    assert {path.name for path in (written / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    assert {path.name for path in (written / "curves").iterdir()} == {f"{name}.csv" for name in names}
    head, *lines = csv.reader(open(written / "curves" / "distances_H_H.csv", encoding="utf-8"))
    assert head == ["side", "run", "curve", "distance (Å)", "density (1/Å)", "low", "high"]
    curves = sections[2].plots[0].curves
    assert len(lines) == sum(len(curve.x) for curve in curves)
    assert [float(line[4]) for line in lines if line[0] == "MACE"] == pytest.approx(curves[2].y, rel=1e-6)
    points = list(csv.reader(open(written / "curves" / "height.csv", encoding="utf-8")))[1:]
    area = (4.0 / 60) * (9.0 / 60)
    total = sum(float(point[3]) for point in points if point[0] == "AIMD")
    assert total * area == pytest.approx(1.0, abs=1e-4)


def test_two_figures_of_one_name_are_refused_before_anything_is_written(tmp_path):
    plot = simple().plots[0]
    section = simple(plots=[replace(plot, name="H–H"), replace(plot, name="H H")])
    with pytest.raises(DtmdError, match="two figures would be written to h_h"):
        write_report([section], header_of(["AIMD", "MD"]), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DtmdError, match="metrics.json: cannot be written"):
        write_report([simple()], header_of(["AIMD", "MD"]), tmp_path / "file")


def test_thinned_curves_keep_ends_peaks_and_gaps():
    y = np.sin(np.linspace(0.0, 60.0, 100_003))
    y[4321], y[77_777], y[50_000:60_000] = 9.0, -9.0, np.nan
    curve = thinned(Curve("", np.arange(100_003.0), y, y - 1.0, y + 1.0), 400)
    assert len(curve.x) <= 400 and (curve.x[0], curve.x[-1]) == (0.0, 100_002.0)
    assert np.nanmax(curve.y) == 9.0 and np.nanmin(curve.y) == -9.0 and np.all(np.diff(curve.x) > 0)
    assert np.isnan(curve.y[(curve.x > 50_500) & (curve.x < 59_500)]).all()
    assert np.array_equal(curve.y, y[curve.x.astype(int)], equal_nan=True)
    assert np.array_equal(curve.high, curve.y + 1.0, equal_nan=True)
    short = Curve("", np.arange(3.0), np.arange(3.0))
    assert thinned(short, 400) is short


def test_lines_of_the_legend():
    def curve(label, side="", run=""):
        return Curve(label, np.arange(2.0), np.arange(2.0), side=side, run=run)

    plot = Plot("p", "", "", "", [
        curve("AIMD", "AIMD"), curve("whole runs", "MD"), curve("first 160 fs", "MD"), curve("H"), curve("C"),
        curve("run 1", "MD", "1"), curve("run 2", "MD", "2"), curve("bond", "b", "1"), curve("bond", "b", "2")])
    found = [(g.label, g.colour, g.dash, g.thin) for g in groups(plot, ["MD", "b"])]
    assert found == [
        ("AIMD", None, 0, False), ("MD: whole runs", 0, 0, False), ("MD: first 160 fs", 0, 1, False),
        ("H", 2, 0, False), ("C", 3, 0, False), ("MD (2 runs)", 0, 0, True), ("b: bond (2 runs)", 1, 0, True)]
    section = simple(plots=[plot], rows=[])
    assert side_names([section], header_of(["AIMD", "MD"])) == ["MD", "b"]
    assert [g["dash"] != "" for g in figure_data(plot, "p", ["MD", "b"])["groups"]][:3] == [False, False, True]


@pytest.mark.parametrize("estimate, text", [
    (None, "–"), (Estimate(float("nan"), 0.0, 1.0), "–"), (Estimate(0.12345), "0.123"),
    (Estimate(1.0, 0.9, 1.1), "1.00 (0.90 to 1.10)"), (Estimate(-0.5, float("nan"), 0.0), "−0.500"),
    (Estimate(3e-7), "3.00 · 10⁻⁷"), (Estimate(float("inf")), "∞"),
    (Estimate(2e8, 1e8, 3e8), "2.0 (1.0 to 3.0) · 10⁸"),
    (Estimate(-1.02e-4, -1.3e-4, 7e-6), "−1.0 (−1.3 to 0.1) · 10⁻⁴"),
    (Estimate(4.02, 4.0, 4.04), "4.02 (4.00 to 4.04)"), (Estimate(0.0, 0.0, 0.0), "0.00 (0.00 to 0.00)"),
    (Estimate(-123.4567, -123.4569, -123.4565), "−123.4567 (−123.4569 to −123.4565)"),
])
def test_estimates_as_text(estimate, text):
    assert unbroken(estimate_text(estimate)) == text


def test_no_line_breaks_within_an_interval():
    assert estimate_text(Estimate(1.0, 0.9, 1.1)).split(" ") == ["1.00", "(0.90\u00a0to\u00a01.10)"]


def test_the_table_of_a_section_has_lines_for_the_aimd_and_for_each_side():
    row = Row("W", "Å", None, {}, {"b": Estimate(0.3, 0.2, 0.4)}, 0.14, {"b": Verdict.DIFFERS})
    assert [(n.side, n.value, unbroken(n.difference), n.verdict) for n in number_lines(row, ["a", "b"])] == [
        ("AIMD", "", "0.140 between halves", None), ("b", "", "0.30 (0.20 to 0.40)", Verdict.DIFFERS)]
    row = Row("T", "K", Estimate(300.0), {"a": Estimate(310.0), "b": Estimate(305.0)}, {"b": Estimate(5.0)})
    assert [(n.side, n.value, n.difference) for n in number_lines(row, ["a", "b"])] == [
        ("AIMD", "300", ""), ("a", "310", ""), ("b", "305", "+5.00")]
    assert [(n.side, n.value) for n in number_lines(Row("nothing", "", None, {}), ["a"])] == [("", "–")]


MARK = """<script>window.problems = []; addEventListener("error", (e) => window.problems.push(e.message));</script>"""
LOOK = """<script>addEventListener("load", () => setTimeout(async () => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const charts = all("figure.chart"), wide = charts.find((c) => c.matches("[data-figure='1']:not(.small)"));
  const lines = () => all(".stage g > path[fill=none]", wide).length, shown = [lines()];
  const svg = wide.querySelector(".stage > svg"), button = wide.querySelector(".legend button");
  button.click(); shown.push(lines(), button.getAttribute("aria-pressed")); button.click(); shown.push(lines());
  const texts = () => all(".stage text", wide).map((t) => t.textContent).join();
  const press = (key) => svg.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const before = texts(); press("+"); const zoomed = texts() !== before; press("Escape");
  const box = svg.getBoundingClientRect(), at = (x) => ({clientX: box.left + x, clientY: box.top + 90, bubbles: true,
    button: 0, pointerType: "mouse", pointerId: 1});
  svg.setPointerCapture = () => {};
  for (const [kind, x] of [["pointerdown", 120], ["pointermove", 200], ["pointerup", 200]])
    svg.dispatchEvent(new PointerEvent(kind, at(x)));
  const dragged = texts() !== before;
  wide.querySelector(".stage button").click(); const restored = texts() === before;
  svg.dispatchEvent(new PointerEvent("pointermove", at(120))); const tip = wide.querySelector(".tip").textContent;
  const names = [], blobs = [];
  HTMLAnchorElement.prototype.click = function () { names.push(this.download); };
  URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
  const maps = charts.find((c) => c.matches("[data-figure='0']:not(.small)"));
  for (const chart of [wide, maps]) for (const tool of all(".tools button", chart)) tool.click();
  for (let k = 0; k < 100 && blobs.length < 6; k++) await new Promise((done) => setTimeout(done, 20));
  const saved = {};
  for (const [k, blob] of blobs.entries())
    saved[names[k]] = blob.type === "image/png" ? btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())
      .slice(0, 24))) : await blob.text();
  const background = () => getComputedStyle(document.body).backgroundColor, light = background();
  document.getElementById("theme").click(); const themed = background() !== light;
  const outside = all("body *").filter((e) => !e.closest(".scroll, pre, .tip, .hidden, svg"))
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => `${e.tagName} ${e.className}`);
  parent.postMessage(JSON.stringify({
    problems: window.problems, width: innerWidth, content: document.documentElement.scrollWidth, outside, themed, saved,
    drawn: charts.map((c) => all(".stage g > path, .stage image", c).length), shown, zoomed, dragged, restored, tip,
    above: Math.max(...charts.map((c) => c.querySelector(".stage").offsetTop)),
    named: charts.every((c) => c.querySelector("svg[role=img]").getAttribute("aria-label").includes(" against ")),
  }), "*");
}, 300));</script>"""
FRAME = """<!doctype html><body>
<iframe id="hold" hidden></iframe>
<script>
  const hold = document.getElementById("hold").contentDocument;
  hold.open();
  addEventListener("message", (e) => { document.body.dataset.found = e.data; hold.close(); });
</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe>"""


@pytest.mark.skipif(CHROMIUM is None, reason="not run: no Chromium to open the page in")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(written, tmp_path, width):
    """In a frame, because a window of Chromium is at least 500 pixels wide; beside it one that has not been closed,
    so that Chromium waits for the message before it writes the page out."""
    text = (written / "report.html").read_text()
    (tmp_path / "page.html").write_text(
        text.replace("<head>", "<head>" + MARK).replace("</body>", LOOK + "</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)))
    run = subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path}", "--window-size=1300,1000",
         "--dump-dom", f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "CONSOLE" not in run.stderr
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', run.stdout)[1]))
    assert found["problems"] == [] and found["width"] == width
    assert found["content"] <= width and found["outside"] == []
    assert 0 < found["above"] < 120  # no figure hangs below an empty bar
    assert len(found["drawn"]) == 9 and all(n > 0 for n in found["drawn"]) and found["named"]
    assert found["shown"] == [3, 2, "false", 3]
    assert found["zoomed"] and found["dragged"] and found["restored"] and found["themed"]
    assert found["tip"].startswith("time (fs): ") and "AIMD: 1" in found["tip"]
    check_saved(found["saved"])


def check_saved(saved):
    """What the buttons of a plot and of a map save: data, and figures with the legend that name no colours."""
    assert set(saved) == {f"{name}.{suffix}" for name in ("survival", "height") for suffix in ("csv", "svg", "png")}
    head, first, *_ = csv.reader(saved["survival.csv"].splitlines())
    assert head == ["curve", "run", "time (fs)", "share", "low", "high"] and first[:4] == ["AIMD", "", "0", "1"]
    for name in ("survival", "height"):
        drawing = ElementTree.fromstring(saved[f"{name}.svg"])
        width, height = (float(drawing.get(key)) for key in ("width", "height"))
        words = {node.text for node in drawing.iter("{http://www.w3.org/2000/svg}text")}
        assert {"AIMD", "MACE", "EGNN, S = 30"} <= words and "var(" not in saved[f"{name}.svg"]
        pixels = base64.b64decode(saved[f"{name}.png"])
        assert pixels[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", pixels[16:24]) == pytest.approx((3 * width, 3 * height), abs=3)
