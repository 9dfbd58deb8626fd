"""Quantum ESPRESSO: pw.x output and XML, cp.x files; literal numbers are the digits in the files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from raw_runs import read_run

from dtmd.errors import DtmdError
from dtmd.ingest.readers import qe_cp, qe_pw, qe_xml
from dtmd.ingest.source import CutShort, candidate
from dtmd.units import ACCELERATION, ATOMIC_TIME, BOHR, HARTREE, RYDBERG

RY_FORCE = RYDBERG / BOHR
HA_FORCE = HARTREE / BOHR
VELOCITY = BOHR / ATOMIC_TIME


@pytest.fixture
def folder(shared_data, tmp_path):
    """Copies some of the shared files so that they may be damaged."""
    def copy(*names: str):
        for name in names:
            shutil.copyfile(shared_data / "formats" / name, tmp_path / name.rpartition("/")[2])
        return tmp_path
    return copy


def replace(path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def residuals(run, frames) -> np.ndarray:
    """Deviation of r(t+1) − 2r(t) + r(t−1) from F/m·Δt², relative, for each inner frame."""
    r, forces = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "forces"))
    expected = ACCELERATION * forces[1:-1] / run.masses[:, None] * run.timestep**2
    second = r[2:] - 2.0 * r[1:-1] + r[:-2]
    return np.sqrt(np.sum((second - expected) ** 2, axis=(1, 2)) / np.sum(expected**2, axis=(1, 2)))


def test_pw_tio2_first_and_last_frame(shared_data):
    run, frames = read_run(qe_pw.FORMAT, shared_data / "formats/qe_pw_md_libra/x0.md.out")
    first, last = frames[0], frames[-1]
    assert (len(frames), first.step, last.step) == (100, 0, 99)
    assert first.energy == pytest.approx(-368.82444682 * RYDBERG, abs=1e-9)
    assert last.energy == pytest.approx(-369.08755413 * RYDBERG, abs=1e-9)
    assert first.forces[2] == pytest.approx(np.array([-0.14002785, -0.13951315, -0.00006483]) * RY_FORCE)
    assert last.forces[5] == pytest.approx(np.array([0.04095412, -0.00130192, -0.01257399]) * RY_FORCE)
    assert first.positions[5] == pytest.approx(np.array([0.8044740, 0.1955260, 0.3247125]) * 8.705547 * BOHR)
    assert last.positions[0] == pytest.approx([0.068212673, 0.211500827, 0.007364354])
    assert frames[1].positions[0] == pytest.approx([0.001113952, -0.000123837, 0.000002724])
    assert first.cell == pytest.approx(np.diag([1.0, 1.0, 0.649425]) * 8.705547 * BOHR)
    assert list(run.numbers) == [22, 22, 8, 8, 8, 8]
    assert list(run.masses) == [47.867, 47.867, 15.999, 15.999, 15.999, 15.999]
    assert run.timestep == pytest.approx(20.67 * 2 * 2.4188843265857e-2)
    assert first.velocities is None and run.version == "6.2" and run.settings["functional"].startswith("PBE")
    assert run.settings["thermostat"] == "Andersen thermostat"


def test_pw_tio2_kicks_of_the_thermostat_show_and_nothing_else(shared_data):
    run, frames = read_run(qe_pw.FORMAT, shared_data / "formats/qe_pw_md_libra/x0.md.out")
    off = residuals(run, frames)
    assert np.median(off) < 1e-3 and off.max() > 2.0


def test_pw_silicon_in_alat(shared_data):
    run, frames = read_run(qe_pw.FORMAT, shared_data / "formats/nomad/quantumespresso/Si_md/out.out")
    assert [frame.step for frame in frames] == list(range(50))
    assert frames[-1].positions[1] == pytest.approx(np.array([0.123035840, 0.123035840, 0.123035841]) * 10.18 * BOHR)
    assert frames[-1].energy == pytest.approx(-14.44798787 * RYDBERG, abs=1e-9)
    assert frames[-1].forces[0] == pytest.approx(np.full(3, -0.02286566) * RY_FORCE)
    assert frames[0].cell[0] == pytest.approx(np.array([-0.5, 0.0, 0.5]) * 10.18 * BOHR)
    assert run.timestep == pytest.approx(0.9676, abs=5e-5) and run.precision == pytest.approx(1e-7 * 10.18 * BOHR)
    assert residuals(run, frames).max() < 2e-3


def test_pw_output_that_stops_gives_its_whole_frames(folder):
    path = folder("nomad/quantumespresso/Si_md/out.out") / "out.out"
    text = path.read_text()
    path.write_text(text[:text.index("iteration =    20")])
    run = qe_pw.FORMAT.read(qe_pw.FORMAT.find([candidate(path)])[0])
    steps = []
    with pytest.raises(CutShort, match="out.out: ends after line"):
        for frame in run.frames:
            steps.append(frame.step)
    assert steps == list(range(20))


@pytest.mark.parametrize("old, new, message", [
    ("!    total energy              =     -14.44796266", "!    total energy              =     ************",
     "line 292: MD step 1: no number after 'total energy'"),
    ("-0.02308264   -0.02308255", "-0.02308264   garbage", r"line \d+: forces of MD step 1: expected 3 numbers"),
    ("Forces acting on atoms (Ry/au):\n\n     atom    1 type  1   force =    -0.02308", "gone 1 type -0.02308",
     "MD step 2 starts without"),
    ("\nSi      -0.123071192", "\nGe      -0.123071192", "expected Si with its position as atom 1, found 'Ge"),
    ("(alat)\nSi      -0.123071192", "(parsec)\nSi      -0.123071192", "unknown unit"),
    ("     Molecular Dynamics Calculation", "     BFGS Geometry Optimization", "a relaxation"),
    ("number of atoms/cell      =            2", "number of atoms/cell      =            x", "no number after"),
])
def test_pw_damage_is_one_clear_error(folder, old, new, message):
    path = folder("nomad/quantumespresso/Si_md/out.out") / "out.out"
    replace(path, old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(qe_pw.FORMAT, path)


def test_pw_fixed_atoms(folder):
    path = folder("nomad/quantumespresso/Si_md/out.out") / "out.out"
    replace(path, "-0.123017881  -0.123017881  -0.123017881", "-0.123017881  -0.123017881  -0.123017881   0   0   1")
    run, _ = read_run(qe_pw.FORMAT, path)
    assert run.fixed.tolist() == [[True, True, False], [False, False, False]]


def test_xml_co2(shared_data):
    run, frames = read_run(qe_xml.FORMAT, shared_data / "formats/qe_pw_md_libra/x0_co2.xml")
    first, last = frames[0], frames[-1]
    assert (len(frames), first.step, last.step) == (500, 1, 500)
    assert last.energy == pytest.approx(-37.74310542948045 * HARTREE)
    assert last.forces[1] == pytest.approx(
        np.array([2.191395685701077e-2, 5.573475851056662e-3, -2.327443020795047e-6]) * HA_FORCE)
    assert last.positions[0, 1] == pytest.approx(2.046150967891959e-1 * BOHR)
    assert first.positions[1] == pytest.approx([1.3, 0.1, 0.0], abs=1e-8)
    assert first.cell == pytest.approx(15.0 * np.eye(3), abs=1e-7)
    assert list(run.numbers) == [6, 8, 8] and list(run.masses) == [12.001, 16.0, 16.0]
    assert run.timestep == pytest.approx(20.67055 * 2 * 2.4188843265857e-2) and run.settings["cutoff"] == "40 Ry"
    assert residuals(run, frames).max() < 1e-10


@pytest.mark.parametrize("old, new, error, message", [
    ('<step n_step="5">', '<step n_step="5"', DtmdError, r"line \d+: no valid XML"),
    ("-3.769870607114354e1", "-3.7x", DtmdError, "step 2: expected 1 numbers in <etot>"),
    ('<step n_step="3">\n', '<step n_step="three">\n', DtmdError, "n_step is 'three'"),
    ('<atom name="O" index="2">2.451974487', '<atom name="C" index="2">2.451974487', DtmdError, "step 2: atoms"),
])
def test_xml_damage_is_one_clear_error(folder, old, new, error, message):
    path = folder("qe_pw_md_libra/x0_co2.xml") / "x0_co2.xml"
    replace(path, old, new)
    with pytest.raises(error, match=message):
        read_run(qe_xml.FORMAT, path)


def test_xml_cut_short(folder):
    path = folder("qe_pw_md_libra/x0_co2.xml") / "x0_co2.xml"
    text = path.read_text()
    path.write_text(text[:text.index('<step n_step="4">') + 300])
    run = qe_xml.FORMAT.read(qe_xml.FORMAT.find([candidate(path)])[0])
    assert [next(run.frames).step for _ in range(3)] == [1, 2, 3]
    with pytest.raises(CutShort):
        next(run.frames)


def test_each_reader_leaves_the_files_of_the_others(shared_data):
    files = [p for name in ("qe_pw_md_libra", "qe_cp_aiida", "qe_cp_dpdata", "nomad/quantumespresso/Si_md")
             for p in sorted((shared_data / "formats" / name).iterdir()) if p.is_file()]
    found = {form: [source.main.name for source in form.find([candidate(p) for p in files])]
             for form in (qe_pw.FORMAT, qe_xml.FORMAT, qe_cp.FORMAT)}
    assert list(found.values()) == [["x0.md.out", "out.out"], ["x0_co2.xml"], ["aiida.pos", "oh-md.pos", "traj6.pos"]]


def test_cp_silicon(shared_data):
    run, frames = read_run(qe_cp.FORMAT, shared_data / "formats/qe_cp_dpdata/si/si.pos")
    assert [frame.step for frame in frames] == [20, 30]
    assert frames[0].energy == pytest.approx(-45.33322432 * HARTREE)
    assert frames[1].energy == pytest.approx(-45.33323102 * HARTREE)
    assert frames[1].forces[7] == pytest.approx(
        np.array([-0.77656387976694e-3, -0.11736525993363e-2, 0.14442073730829e-2]) * HA_FORCE)
    assert frames[0].positions[0] == pytest.approx(
        np.array([-0.55955613343180e-3, -0.13280468681160e-1, -0.12170559744533e-1]) * BOHR)
    assert frames[0].cell == pytest.approx(10.64076206 * BOHR * np.eye(3))
    assert run.timestep == pytest.approx(5.0 * 2.4188843265857e-2) and run.timestep_from == "dt"
    assert set(run.masses) == {28.0855} and "emass = 300" in run.notes[0]


def test_cp_elements_by_group_cell_from_the_input_and_heavy_hydrogen(shared_data):
    run, frames = read_run(qe_cp.FORMAT, shared_data / "formats/qe_cp_dpdata/oh-md.pos")
    assert list(run.numbers) == [8] * 64 + [1] * 127 and run.masses[-1] == 2.01410178
    assert frames[0].cell == pytest.approx(23.5170 * BOHR * np.eye(3))
    second = np.array([1.4320529568791, 5.4323288734215, 16.038550911723])
    assert frames[0].positions[1] == pytest.approx(second * BOHR)
    assert frames[1].energy == pytest.approx(-1100.03189493 * HARTREE)


def test_cp_columns_of_the_cell_file_are_the_vectors(shared_data):
    run, frames = read_run(qe_cp.FORMAT, shared_data / "formats/qe_cp_dpdata/traj6.pos")
    assert frames[0].cell / BOHR == pytest.approx(np.array([
        [5.157620138324029, 0, 0], [8.882263018337733e-02, 5.782217839848956, 0],
        [4.531494312205264e-02, 1.857154025688013e-01, 5.855553673164934]]))
    assert [frame.step for frame in frames] == [195, 200, 201, 202, 203, 204]
    assert any("time stands still from step 200" in note for note in run.notes)


def test_cp_velocities_and_the_time_step_that_the_autopilot_changed(shared_data):
    run, frames = read_run(qe_cp.FORMAT, shared_data / "formats/qe_cp_aiida/aiida.pos")
    assert [frame.step for frame in frames] == [10, 12, 15, 18, 21, 24, 27, 30]
    assert run.timestep == pytest.approx(3.0 * 2.4188843265857e-2, rel=1e-5)
    assert any("dt is 0.24189 fs" in note for note in run.notes)
    assert list(run.numbers) == [1, 1, 8] and run.masses == pytest.approx([1.0, 1.0, 16.0], rel=1e-5)
    assert frames[-1].velocities[0] == pytest.approx(
        np.array([0.58210437808501e-3, 0.76675084385057e-3, 0.11130803928384e-2]) * VELOCITY)
    assert frames[0].energy == pytest.approx(-17.17438447 * HARTREE) and frames[0].forces is None
    before, now, after = frames[4:7]
    central = (after.positions - before.positions) / (6 * run.timestep)
    assert np.linalg.norm(now.velocities - central) < 0.02 * np.linalg.norm(central)


def test_cp_mixed_species_need_the_output(folder):
    path = folder("qe_cp_aiida/aiida.pos", "qe_cp_aiida/aiida.evp", "qe_cp_aiida/aiida.cel", "qe_cp_aiida/aiida.out")
    (path / "aiida.in").write_text(
        "&control\n calculation='cp'\n dt=3.0\n/\nATOMIC_SPECIES\nH 1.0 h.upf\nO 16.0 o.upf\n"
        "ATOMIC_POSITIONS bohr\nH 0.57 0.94 0.97\nO -0.33 -0.51 0.41\nH -0.24 -0.44 -1.38\n")
    run, _ = read_run(qe_cp.FORMAT, path / "aiida.pos")
    assert list(run.numbers) == [1, 1, 8]
    (path / "aiida.out").unlink()
    with pytest.raises(DtmdError, match="mixes the species"):
        read_run(qe_cp.FORMAT, path / "aiida.pos")


@pytest.mark.parametrize("name, old, new, message", [
    ("si.for", "0.17846941660539E-02", "oops", r"si.for: line 2: step 20: expected numbers"),
    ("si.evp", "-45.33323102        -45.33323102", "**** ****", r"si.evp: line 3: expected step, time and energies"),
    ("si.cel", "   10.64076206    0.00000000    0.00000000\n", "", r"si.cel: line 4: step 20: expected numbers"),
    ("si.in", "dt=5.0", "dt=five", "dt: expected a number"),
    ("si.in", "Si 0.75000 0.2500 0.7500  1  1  1", "", "8 atoms in a step, 7 in"),
    ("si.pos", "     30  0.00362833", "     30  0.00900000", "the time step changes"),
    ("si.for", "     30  0.00362833", "     31  0.00374928", None),
])
def test_cp_damage(folder, name, old, new, message):
    path = folder(*(f"qe_cp_dpdata/si/si.{ending}" for ending in ("cel", "evp", "for", "in", "pos")))
    replace(path / name, old, new)
    if message is None:
        run, frames = read_run(qe_cp.FORMAT, path / "si.pos")
        assert [frame.step for frame in frames] == [20] and any("1 steps left out" in note for note in run.notes)
        return
    with pytest.raises(DtmdError, match=message):
        read_run(qe_cp.FORMAT, path / "si.pos")


@pytest.mark.parametrize("name", ["si.for", "si.pos", "si.cel"])
def test_cp_file_that_ends_early(folder, name):
    path = folder(*(f"qe_cp_dpdata/si/si.{ending}" for ending in ("cel", "evp", "for", "in", "pos"))) / name
    text = path.read_text()
    path.write_text(text[:text.index("     30 ") + 45])
    run = qe_cp.FORMAT.read(qe_cp.FORMAT.find([candidate(p) for p in sorted(path.parent.iterdir())])[0])
    assert next(run.frames).step == 20
    with pytest.raises(CutShort, match=name):
        next(run.frames)


def test_cp_without_input_or_output(folder):
    path = folder("qe_cp_dpdata/si/si.pos", "qe_cp_dpdata/si/si.cel") / "si.pos"
    with pytest.raises(DtmdError, match="holds no elements; put the input or output"):
        read_run(qe_cp.FORMAT, path)
