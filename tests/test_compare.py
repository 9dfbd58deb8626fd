"""The comparison on trajectories whose answers are known, from memory and from files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from observable_cases import HEXAGONAL

from dtmd.comparison.comparing import compare
from dtmd.comparison.gathering import Held, gather
from dtmd.comparison.settings import KINDS, ComparisonSettings, default_yaml, load_settings
from dtmd.comparison.sides import HeldRun, MDSide, RunFiles, sides_of
from dtmd.comparison_report.report import write_report
from dtmd.comparison_report.terminal import notes
from dtmd.errors import DtmdError
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.statistics import frame_weights
from dtmd.presentation.numbers import number, short_names
from dtmd.store import write_store
from dtmd.trajectory import Trajectory

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
        cells=np.broadcast_to(HEXAGONAL, (n_frames, 3, 3)), times=times, positions=positions,
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


def only(*names, **chosen):
    return ComparisonSettings({name: {} for name in names} | chosen)


def compared(md, aimd, settings=ComparisonSettings(), name="MD"):
    return compare([MDSide(name, [HeldRun(run) for run in md])], aimd, settings)


@pytest.fixture(scope="module")
def comparison(md, aimd):
    return compared(md, aimd)


def section(comparison, name):
    return next(section for section in comparison.sections if section.name == name)


def row(section, beginning):
    return next(row for row in section.rows if row.quantity.startswith(beginning))


def reasons(comparison, name):
    return [reason for observable, reason in comparison.header.skipped if observable == name]


def test_force_error_along_the_rollout(comparison):
    rollout = section(comparison, "rollout")
    mepa = row(rollout, "force error along the rollout").md["MD"]
    assert mepa.value == pytest.approx(0.6) and 0.0 <= mepa.low < 0.6 < mepa.high
    terms = [row(rollout, f"MEPA, term of {element}").md["MD"].value for element in ("H", "C", "Pd")]
    assert terms == pytest.approx([0.2] * 3)
    assert [line[1:4] for line in rollout.tables[0].rows] == [("1", "b.xyz", "5"),
                                                              ("2", "c.xyz", "0")]
    assert "54 steps" in rollout.rows[0].quantity
    assert reasons(comparison, "rollout") == ["3: its first frame is on no AIMD frame within 0.001 Å"]


def test_dissociation_on_both_sides(md, aimd):
    criterion = KINDS["dissociation"]().settings.criterion
    settings = only("dissociation", dissociation={"criterion": replace(criterion, persistence=15.0)})
    found = section(compared(md, aimd, settings), "dissociation")
    shares = row(found, "runs with a dissociation")
    assert shares.md["MD"].value == pytest.approx(1 / 3) and shares.aimd.value == pytest.approx(1 / 3)


def test_windows_cut_the_md_to_the_length_of_the_aimd(comparison):
    names = [section.name for section in comparison.sections]
    assert names.index("distances_window") == names.index("distances") + 1
    assert "first 29.5" in section(comparison, "distances_window").title
    assert "temperature_window" not in names
    plots = [plot.name for section in comparison.sections for plot in section.plots]
    assert len(set(plots)) == len(plots)
    assert comparison.header.composition == {"H": 2, "C": 2, "Pd": 1}
    assert [run.duration for run in comparison.header.md[0].runs] == [27.0, 29.5, 89.5]


def test_a_window_gives_what_the_cut_runs_give(md, aimd):
    settings = only("distances")
    cut = [run.window(0, int(np.sum(run.times <= 29.5))) for run in md]
    window = section(compared(md, aimd, settings), "distances_window")
    alone = section(compared(cut, aimd, settings), "distances")
    for own, expected in zip(window.rows, alone.rows, strict=True):
        assert own.difference == expected.difference and own.md == expected.md


def test_aimd_against_itself_is_equal(aimd):
    found = compared([replace(t, source=f"md/{t.source}") for t in aimd], aimd)
    assert not any(section.name.endswith("_window") for section in found.sections) and not found.differs
    distances = section(found, "distances")
    assert row(distances, "W₁ of all distances").difference["MD"].value == pytest.approx(0.0, abs=1e-12)
    assert section(found, "rollout").rows[0].md["MD"].value == pytest.approx(0.0, abs=1e-12)
    drift = row(section(found, "conservation"), "drift of the total energy")
    assert drift.md["MD"] == drift.aimd


def test_sides_stand_beside_each_other(md, aimd):
    sides = [MDSide("good", [HeldRun(md[0])]), MDSide("bad", [HeldRun(md[1])])]
    found = compare(sides, aimd, only("rollout", "temperature"))
    assert {name: mepa.value for name, mepa in section(found, "rollout").rows[0].md.items()} == pytest.approx(
        {"good": 0.3, "bad": 0.9})
    assert [side.name for side in found.header.md] == ["good", "bad"]


def test_given_starts_and_their_mistakes(md, aimd):
    def given(run, place):
        return compared(md[2:], aimd, ComparisonSettings({"rollout": {}}, {run: place}))

    found = section(given("md/3/run.lammpstrj", ("a.xyz", 3)), "rollout")
    assert found.tables[0].rows[0][3] == "3" and "56 steps" in found.rows[0].quantity
    assert section(given("run.lammpstrj", ("aimd/a.xyz", 3)), "rollout").tables[0].rows[0][2] == "a.xyz"
    with pytest.raises(DtmdError, match=r"frame 99 given, a\.xyz has 60"):
        given("run.lammpstrj", ("a.xyz", 99))
    with pytest.raises(DtmdError, match="not among the AIMD files"):
        given("run.lammpstrj", ("z.xyz", 0))


def test_other_velocities_are_no_rollout(md, aimd):
    found = compared([replace(md[1], velocities=-md[1].velocities)], aimd, only("rollout"))
    assert found.sections == [] and "velocities differ" in reasons(found, "rollout")[0]


def test_what_is_missing_is_said(md, aimd, tmp_path):
    bare = replace(md[1], velocities=None, forces=None, energies=None)
    found = compared([bare, replace(bare, source="md/4/run.lammpstrj")], [replace(t, energies=None) for t in aimd])
    assert reasons(found, "temperature") == ["2 and 1 more: no velocities"]
    assert any("no forces in 2" in reason for reason in reasons(found, "rollout"))
    assert any("a.xyz and 2 more: no energies" in reason for reason in reasons(found, "conservation"))
    assert "skipped: temperature: 2 and 1 more: no velocities" in notes(found.header)
    text = write_report(found.sections, found.header, tmp_path).read_text(encoding="utf-8")
    assert "no velocities" in text


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
        compared([md[0], change(md[1])], aimd, only("temperature"))
    assert "md/2/run.lammpstrj" in str(caught.value)


def test_nothing_and_bad_bonds_are_refused(md, aimd):
    with pytest.raises(DtmdError, match="0 MD and 3 AIMD"):
        compared([], aimd)
    with pytest.raises(DtmdError, match="atoms 1–8: give different atom ids between 1 and 5"):
        compared(md, aimd, only("dissociation", dissociation={"bonds": ((0, 7),)}))


def test_another_order_of_atoms_leaves_distributions_comparable(aimd):
    first, order = aimd[0], [4, 3, 2, 1, 0]
    run = replace(
        first, source="md/run", numbers=NUMBERS[order], masses=first.masses[order],
        positions=first.positions[:, order], velocities=first.velocities[:, order],
        forces=first.forces[:, order],
    )
    found = compared([run], aimd[:1], only("rollout", "distances"))
    distances = section(found, "distances")
    assert row(distances, "W₁ of all distances").difference["MD"].value == pytest.approx(0.0, abs=1e-12)
    assert "another order" in reasons(found, "rollout")[0]


class Recorder:
    """Keeps what it is given."""

    def __init__(self):
        self.times, self.weights = [], []

    def add(self, frames, weights):
        assert len(frames) == len(weights)
        self.times += frames.times.tolist()
        self.weights += weights.tolist()

    def result(self):
        return self


class Recording(Observable):
    name, windowed = "recording", True

    def start(self, first):
        return Recorder()

    def compare(self, md, aimd):
        raise NotImplementedError


@pytest.mark.parametrize("block", [1, 2, 7, 100])
def test_frames_weigh_as_in_the_whole_run_whatever_the_blocks(block):
    whole = trajectory("a.xyz", 1)
    whole = replace(whole, times=np.cumsum(np.random.default_rng(0).uniform(0.5, 3.0, 60)))

    class Blocks(Held):
        def blocks(self):
            return (whole.window(k, k + block) for k in range(0, 60, block))

    found = gather(Blocks(whole), [Recording()], 40.0, "a")
    np.testing.assert_allclose(found.results["recording"].weights, frame_weights(whole.times))
    n_early = int(np.sum(whole.times - whole.times[0] <= 40.0))
    np.testing.assert_allclose(found.early["recording"].weights, frame_weights(whole.times[:n_early]))
    assert found.early["recording"].times == whole.times[:n_early].tolist() and 2 < n_early < 60
    assert (found.n_frames, found.name) == (60, "a")


def test_an_observable_without_meaning_for_a_run_is_left_out_with_its_reason():
    class Refusing(Recording):
        def start(self, first):
            raise NotApplicable("nothing to see")

    found = gather(Held(trajectory("a.xyz", 1)), [Refusing()], 10.0, "a")
    assert found.results == {} and found.early == {} and found.skipped == {"recording": "nothing to see"}


def write_dump(path, run, frames=slice(None)):
    """A text dump in metal units, frames as they are."""
    lines = []
    for k in range(len(run))[frames]:
        cell = run.cells[k]
        tilt = (cell[1, 0], cell[2, 0], cell[2, 1])
        lines += ["ITEM: UNITS", "metal", "ITEM: TIME", f"{run.times[k] / 1000:.10g}", "ITEM: TIMESTEP",
                  f"{round(run.times[k] / 0.5)}", "ITEM: NUMBER OF ATOMS", f"{len(run.numbers)}",
                  "ITEM: BOX BOUNDS xy xz yz pp pp pp"]
        low, high = min(0.0, *tilt[:2], tilt[0] + tilt[1]), max(0.0, *tilt[:2], tilt[0] + tilt[1])
        lines += [f"{low:.10g} {cell[0, 0] + high:.10g} {tilt[0]:.10g}", f"0 {cell[1, 1]:.10g} {tilt[1]:.10g}",
                  f"0 {cell[2, 2]:.10g} {tilt[2]:.10g}",
                  "ITEM: ATOMS id element mass xu yu zu vx vy vz fx fy fz v_pe_share"]
        for n, symbol in enumerate(run.symbols):
            values = [*run.positions[k, n], *(1000 * run.velocities[k, n]), *run.forces[k, n], run.energies[k] / 5]
            lines.append(f"{n + 1} {symbol} {run.masses[n]:g} " + " ".join(f"{value:.10g}" for value in values))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def dumps(md, tmp_path):
    return [write_dump(tmp_path / run.source, run) for run in md]


def same(one, other):
    """All numbers of two comparisons, to what ten digits of a dump allow."""
    for own, expected in zip(one.sections, other.sections, strict=True):
        for a, b in zip(own.rows, expected.rows, strict=True):
            assert a.quantity == b.quantity
            values, wanted = ([estimate.value for estimate in row.md.values()] for row in (a, b))
            assert values == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_files_give_what_memory_gives_on_one_process_and_on_two(dumps, md, aimd, comparison):
    sides = [MDSide("MD", [RunFiles((path,)) for path in dumps])]
    read = []
    alone, spread = compare(sides, aimd, n_jobs=1), compare(sides, aimd, n_jobs=2, watch=read.append)
    same(alone, comparison)
    assert [s.rows for s in spread.sections] == [s.rows for s in alone.sections]
    assert sum(read) == pytest.approx(sum(path.stat().st_size for path in dumps), rel=0.01)
    assert all(len(run.sha256) == 64 for run in spread.header.md[0].runs)


def test_a_damaged_file_ends_the_comparison_on_two_processes(dumps, aimd):
    lines = dumps[1].read_text().splitlines()
    lines[-2] = lines[-2].rpartition(" ")[0] + " nan"
    dumps[1].write_text("\n".join(lines) + "\n")
    with pytest.raises(DtmdError, match="md/2/run.lammpstrj"):
        compare([MDSide("MD", [RunFiles((path,)) for path in dumps])], aimd, n_jobs=2)


def test_files_of_a_restarted_run_stand_together(md, aimd, tmp_path):
    write_dump(tmp_path / "a.lammpstrj", md[2], slice(0, 100))
    write_dump(tmp_path / "b.lammpstrj", md[2], slice(90, 180))
    joined = compare(sides_of([f"{tmp_path}/a.lammpstrj+{tmp_path}/b.lammpstrj"]), aimd)
    (run,) = joined.header.md[0].runs
    assert (run.n_frames, run.duration) == (180, 89.5)
    same(joined, compared(md[2:], aimd))


def test_names_of_sides(dumps):
    first, second, third = map(str, dumps)
    sides = sides_of([f"S = 1={first}", second, f"S = 1={third}"])
    assert [(side.name, len(side.runs)) for side in sides] == [("S = 1", 2), ("MD", 1)]
    (odd,) = sides_of([f"x={first}"])
    assert odd.name == "x" and odd.runs[0].paths == (dumps[0],)
    with pytest.raises(DtmdError, match="no name before ="):
        sides_of([f"={first}"])
    with pytest.raises(DtmdError, match="name of the reference"):
        sides_of([f"AIMD={first}"])
    with pytest.raises(DtmdError, match="no side of this name, only MD"):
        sides_of([first], ["S=model.pt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("observables: {distance: {}}", "unknown key distance; did you mean distances"),
        ("observable: {}", "unknown key observable; did you mean observables"),
        ("observables: {dissociation: {bond: [[1, 2]]}}", "dissociation: unknown key bond; did you mean bonds"),
        ("observables: {dissociation: {bonds: [[0, 2]]}}", "dissociation.bonds: .*atom ids count from 1"),
        ("observables: {dissociation: {criterion: {broken: 2}}}", "criterion: unknown key broken"),
        ("observables: {spectrum: {depth: deep}}", r"spectrum.depth: .*\(found 'deep'\)"),
        ("observables: {rollout: {aimd: x}}", "unknown key aimd"),
        ("- distances", "must be a mapping"),
        ("observables: [", "not valid YAML"),
    ],
)
def test_mistakes_in_settings_are_named(tmp_path, text, message):
    path = tmp_path / "o.yaml"
    path.write_text(text)
    with pytest.raises(DtmdError, match=message) as caught:
        load_settings(path)
    assert "o.yaml" in str(caught.value)


def test_settings_of_a_file_reach_the_observables(tmp_path, aimd):
    path = tmp_path / "o.yaml"
    path.write_text("observables:\n  spectrum: false\n  adsorbate: {molecule: [H], surface: [C, 5]}\n"
                    "  dissociation: {bonds: [[1, 2]], criterion: {broken_above: 1.7}}\n")
    made = {observable.name: observable for observable in load_settings(path).observables(aimd)}
    assert "spectrum" not in made and len(made) == len(KINDS) - 1
    assert made["dissociation"].settings.bonds == ((0, 1),)
    assert made["dissociation"].settings.criterion.broken_above == 1.7
    assert made["dissociation"].settings.criterion.bonded_below == 1.0
    assert made["adsorbate"].settings.surface == ("C", 4)


def test_the_printed_settings_can_be_read(tmp_path, aimd):
    path = tmp_path / "all.yaml"
    path.write_text(default_yaml(), encoding="utf-8")
    printed, default = load_settings(path), ComparisonSettings()
    for own, expected in zip(printed.observables(aimd), default.observables(aimd), strict=True):
        assert type(own) is type(expected)
        if hasattr(own, "settings"):
            assert own.settings == expected.settings


def test_exit_codes(dumps, aimd, md, tmp_path, dtmd_here):
    settings, out = tmp_path / "o.yaml", tmp_path / "out"
    settings.write_text("observables: {" + ", ".join(f"{name}: false" for name in KINDS if name != "temperature") + "}")
    hot = write_dump(tmp_path / "hot" / "run.lammpstrj", replace(md[2], velocities=3.0 * md[2].velocities))
    store = tmp_path / "aimd.h5"
    write_store(store, aimd)
    options = ("--observables", settings, "-o", out, "--jobs", "1")
    code, shown, _ = dtmd_here("compare", hot, store, *options, "--fail-on-difference")
    assert code == 1 and "differs" in shown and json.loads((out / "metrics.json").read_text())["sections"]
    assert dtmd_here("compare", hot, store, *options)[0] == 0
    code, shown, told = dtmd_here("compare", "--against", f"a={dumps[0]}", f"b={dumps[1]}", store, *options,
                                  "--fail-on-difference")
    assert code == 0, shown + told
    assert "dtmd compare --against" in json.loads((out / "metrics.json").read_text())["header"]["command"]
    code, _, told = dtmd_here("compare", tmp_path / "none.lammpstrj", store, *options)
    assert code == 2 and "no such file" in told


def test_texts():
    assert number(0.0123456, 2) == "0.012" and number(-3.14159) == "−3.14" and number(1234.5) == "1234"
    assert short_names(["x/1/run.d", "x/2/run.d", "y/a.d"]) == {
        "x/1/run.d": "1/run.d", "x/2/run.d": "2/run.d", "y/a.d": "y/a.d"}
    assert number(-0.0) == "0.00" and number(0.0) == "0.00"
