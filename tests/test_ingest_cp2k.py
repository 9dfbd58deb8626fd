"""CP2K: files joined by step; literal numbers are the digits in the files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase.data import atomic_masses
from raw_runs import read_run

from dtmd.errors import DtmdError
from dtmd.ingest.readers.by_step import Companion
from dtmd.ingest.readers.cp2k import FORMAT
from dtmd.ingest.source import CutShort, candidate
from dtmd.units import ACCELERATION, ATOMIC_TIME, BOHR, HARTREE

FORCE = HARTREE / BOHR
VELOCITY = BOHR / ATOMIC_TIME
ETHANE = "aimd/c2h6_cp2k_nvt/sys_1"
WATER = "formats/cp2k_cp2kdata/aimd_nvt_restart"
NVE = "formats/nomad/cp2k/molecular_dynamics"
NPT = "formats/cp2k_cp2kdata/aimd_npt_f"


@pytest.fixture
def run_of(shared_data, tmp_path):
    """Copies the files of a run, with its first `n_frames` frames, so that they may be damaged."""
    def copy(name: str, n_frames: int | None = None, drop: tuple[str, ...] = ()):
        for path in (shared_data / name).iterdir():
            text = path.read_text()
            if n_frames and path.suffix == ".xyz" and " i =" in text:
                text = "\n".join(text.split("\n")[:n_frames * (int(text.split()[0]) + 2)]) + "\n"
            if not any(word in path.name for word in drop):
                (tmp_path / path.name).write_text(text)
        return tmp_path
    return copy


def replace(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def frames_of(text: str, n_atoms: int) -> list[str]:
    """The frames of an XYZ file as text."""
    lines = text.splitlines(keepends=True)
    return ["".join(lines[k:k + n_atoms + 2]) for k in range(0, len(lines), n_atoms + 2)]


def motion(run, frames) -> tuple[float, float]:
    """Largest relative deviation from F/m·Δt², what a thermostat takes from all atoms left out, and of the work."""
    r, forces = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "forces"))
    masses = atomic_masses[run.numbers] if run.masses is None else run.masses
    expected = ACCELERATION * forces[1:-1] / masses[:, None] * run.timestep**2
    off, along = r[2:] - 2.0 * r[1:-1] + r[:-2] - expected, 0.5 * (r[2:] - r[:-2])
    off -= (np.sum(off * along, axis=(1, 2)) / np.sum(along**2, axis=(1, 2)))[:, None, None] * along
    work = -0.5 * np.sum((forces[1:] + forces[:-1]) * np.diff(r, axis=0), axis=(1, 2))
    gain = np.diff([frame.energy for frame in frames])
    return (float(np.sqrt(np.max(np.sum(off**2, axis=(1, 2)) / np.sum(expected**2, axis=(1, 2))))),
            float(np.linalg.norm(work - gain) / np.linalg.norm(gain)))


def test_ethane_first_and_last_frame(shared_data):
    run, frames = read_run(FORMAT, shared_data / ETHANE / "test-pos-1.xyz")
    first, last = frames[0], frames[-1]
    assert (len(frames), first.step, last.step) == (1001, 0, 1000)
    assert first.energy == pytest.approx(-14.9507520345 * HARTREE) and last.energy == pytest.approx(
        -14.9521706120 * HARTREE)
    assert first.positions[2] == pytest.approx([-3.16518345, 1.79605303, 0.90490827])
    assert last.positions[7] == pytest.approx([-1.3735886392, 2.1071463868, -1.1299804081])
    assert first.forces[0] == pytest.approx(np.array([-0.0244583961, 0.0000123864, 0.0000391681]) * FORCE)
    assert last.forces[7] == pytest.approx(np.array([0.0024376725, -0.0006751583, -0.0023771747]) * FORCE)
    assert last.velocities[7] == pytest.approx(np.array([-0.0002435871, 0.0004474638, -0.0002332207]) * VELOCITY)
    assert first.cell == pytest.approx(10.0 * np.eye(3)) and run.pbc.all()
    assert list(run.numbers) == [6, 6] + [1] * 6 and run.masses is None and run.precision is None
    assert (run.timestep, run.timestep_from) == (0.5, "TIMESTEP")
    assert run.settings["functional"] == "PBE" and run.settings["thermostat"] == "NOSE"
    assert run.settings["plumed"] == "no bias" and run.notes == []


def test_ethane_follows_from_its_forces(shared_data):
    run, frames = read_run(FORMAT, shared_data / ETHANE / "test-pos-1.xyz")
    off, work = motion(run, frames)
    assert off < 1e-4 and work < 2e-3
    r, v = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "velocities"))
    assert np.abs(v[1:-1] - (r[2:] - r[:-2]) / (2.0 * run.timestep)).max() < 1e-4 * np.abs(v).max()


def test_metadynamics_is_said_and_shows_in_the_energies_only(shared_data):
    run, frames = read_run(FORMAT, shared_data / "aimd/c2h6_cp2k_nvt/sys_4/test-pos-1.xyz")
    off, work = motion(run, frames)
    assert len(frames) == 3001 and off < 1e-4 and work > 0.25
    assert run.settings["plumed"] == "METAD" and "METAD" in run.notes[0]


def test_recomputed_frames_whose_times_are_all_zero(shared_data):
    run, frames = read_run(FORMAT, shared_data / "formats/cp2k_dpdata_aimd/DPGEN-pos-1.xyz")
    assert [frame.step for frame in frames] == list(range(1, 31))
    assert frames[0].energy == pytest.approx(-12660.6289171951 * HARTREE)
    assert frames[-1].positions[-1] == pytest.approx([0.0995970400, 0.4841682800, 36.8331353100])
    assert frames[-1].forces[-1] == pytest.approx(np.array([-0.0103069555, 0.0028206267, 0.0167262733]) * FORCE)
    assert frames[0].cell == pytest.approx(np.diag([10.451, 12.068, 39.754]))
    assert run.timestep is None and frames[0].velocities is None
    assert "REFTRAJ" in run.notes[0] and "stands still" in run.notes[1]
    assert dict(zip(*np.unique(run.numbers, return_counts=True), strict=True)) == {1: 270, 8: 199, 27: 64}


def test_changing_cell(shared_data):
    run, frames = read_run(FORMAT, shared_data / NPT / "cp2k-pos-1.xyz")
    assert len(frames) == 11 and frames[-1].cell == pytest.approx(np.array([
        [10.8741956665, -0.0023156293, -0.0031094830], [-0.0025007800, 11.7518359120, -0.0053422777],
        [-1.1628366788, -0.0056952212, 13.0673100682]]))
    assert frames[-1].energy == pytest.approx(-1434.9369656943 * HARTREE)
    assert frames[-1].positions[-1] == pytest.approx([7.0650887539, 1.4309807116, 10.3668526956])


def test_restarted_run_with_log_and_without_input(shared_data):
    run, frames = read_run(FORMAT, shared_data / WATER / "H2O_restart-pos-1.xyz")
    assert [frame.step for frame in frames] == [20, 21, 22] and run.version == "2023.2"
    last = np.array([0.0000510254, 0.0001585657, -0.0017250385])
    assert frames[-1].velocities[-1] == pytest.approx(last * VELOCITY)
    assert frames[0].energy == pytest.approx(-68.9778215227 * HARTREE)
    assert list(run.masses[:3]) == [15.9994, 1.0079, 1.0079] and run.timestep == pytest.approx(1.0)
    assert run.settings["ensemble"] == "NVT"


def test_positions_without_forces(shared_data):
    run, frames = read_run(FORMAT, shared_data / NVE / "H2O-32-pos-1.xyz")
    assert len(frames) == 11 and frames[0].forces is None and frames[0].velocities is None
    assert frames[-1].energy == pytest.approx(-34.3282870379 * HARTREE)
    assert frames[-1].positions[-1] == pytest.approx([1.8669280879, 2.9877213524, 7.2364955946])
    assert frames[0].cell == pytest.approx(9.8528 * np.eye(3)) and run.timestep == 0.5


def test_files_at_other_intervals_are_joined_by_step(run_of):
    folder = run_of(ETHANE, 12)
    _, everything = read_run(FORMAT, folder / "test-pos-1.xyz")
    forces = frames_of((folder / "test-frc-1.xyz").read_text(), 8)
    cells = (folder / "test-1.cell").read_text().splitlines(keepends=True)
    (folder / "test-frc-1.xyz").write_text("".join(forces[::5]))
    (folder / "test-1.cell").write_text("".join(cells[:1] + cells[1::10]))
    run, frames = read_run(FORMAT, folder / "test-pos-1.xyz")
    assert [frame.step for frame in frames] == [0, 5, 10]
    for frame in frames:
        assert np.array_equal(frame.forces, everything[frame.step].forces)
        assert np.array_equal(frame.positions, everything[frame.step].positions)
    assert "9 frames left out" in run.notes[-1]


def test_restart_that_repeats_steps(run_of):
    folder = run_of(ETHANE, 10, drop=(".ener", ".cell"))
    for role in ("pos", "vel", "frc"):
        path = folder / f"test-{role}-1.xyz"
        frames = frames_of(path.read_text(), 8)
        path.write_text("".join(frames[:8] + frames[5:]))
    _, frames = read_run(FORMAT, folder / "test-pos-1.xyz")
    assert [frame.step for frame in frames] == [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9]
    assert np.array_equal(frames[5].velocities, frames[8].velocities)


def test_second_piece_continues_the_run(run_of):
    folder = run_of(ETHANE, 10, drop=(".ener", ".cell"))
    for role in ("pos", "vel", "frc"):
        path = folder / f"test-{role}-1.xyz"
        frames = frames_of(path.read_text(), 8)
        path.write_text("".join(frames[:4]))
        (folder / f"test-{role}-2.xyz").write_text("".join(frames[4:]))
    _, frames = read_run(FORMAT, folder / "test-pos-2.xyz")
    assert [frame.step for frame in frames] == list(range(10))


def test_several_projects_in_a_folder(run_of, shared_data):
    folder = run_of(NPT, 3)
    run_of(WATER)
    shutil.copyfile(shared_data / ETHANE / "init.xyz", folder / "init.xyz")
    found = {source.main.name: {path.name for path in source.companions.values()}
             for source in FORMAT.find([candidate(p) for p in sorted(folder.iterdir())])}
    assert found == {
        "cp2k-pos-1.xyz": {"cp2k-frc-1.xyz", "cp2k-1.ener", "cp2k-1.cell", "cp2k.inp"},
        "H2O_restart-pos-1.xyz": {"H2O_restart-vel-1.xyz", "H2O_restart-frc-1.xyz", "H2O_restart-1.ener",
                                  "H2O_restart-1.cell", "output"},
    }


@pytest.mark.parametrize("cell, rows", [
    ("ABC [bohr] 10 20 30", np.diag([10, 20, 30]) * BOHR),
    ("ABC 4 4 10\n ALPHA_BETA_GAMMA 90 90 120", [[4, 0, 0], [-2, 2 * 3**0.5, 0], [0, 0, 10]]),
    ("A 1 2 3\n B [nm] 0 1 0\n c 0 0 9 ! comment", [[1, 2, 3], [0, 10, 0], [0, 0, 9]]),
    ("@SET L 7.5\n ABC ${L} $L ${M-8}", np.diag([7.5, 7.5, 8.0])),
    ("ABC 1 2 3\n MULTIPLE_UNIT_CELL 2 1 3", np.diag([2.0, 2.0, 9.0])),
])
def test_cell_of_the_input(run_of, cell, rows):
    folder = run_of(NVE, drop=(".out",))
    replace(folder / "H2O-32.inp", "ABC 9.8528 9.8528 9.8528", cell + "\n PERIODIC XZ")
    run, frames = read_run(FORMAT, folder / "H2O-32-pos-1.xyz")
    assert frames[0].cell == pytest.approx(np.array(rows), abs=1e-9) and run.pbc.tolist() == [True, False, True]


def test_units_masses_kinds_and_fixed_atoms_of_the_input(run_of):
    folder = run_of(NVE, drop=(".out",))
    replace(folder / "H2O-32.inp", "TIMESTEP 0.5", "TIMESTEP [ps] 5.0E-4")
    replace(folder / "H2O-32.inp", "  &END MD", "  &END MD\n &CONSTRAINT\n &FIXED_ATOMS\n LIST 1 3..4\n "
            "COMPONENTS_TO_FIX YZ\n &END\n &END\n &PRINT\n &TRAJECTORY\n UNIT bohr\n &END\n &END")
    replace(folder / "H2O-32.inp", "&KIND H", "&KIND H\n MASS 2.014")
    run, frames = read_run(FORMAT, folder / "H2O-32-pos-1.xyz")
    assert run.timestep == pytest.approx(0.5)
    assert frames[0].positions[0] == pytest.approx(np.array([2.280398, 9.146539, 5.088696]) * BOHR)
    assert run.masses == pytest.approx([15.999, 15.999, 2.014, 2.014, 2.014, 2.014])
    assert run.fixed.tolist() == [[False, k in (0, 2, 3), k in (0, 2, 3)] for k in range(6)]


@pytest.mark.parametrize("old, new, message", [
    ("TIMESTEP 0.5", "TIMESTEP 1.0", "TIMESTEP in the input is 1 fs, H2O-32-1.ener shows 0.5 fs per step"),
    ("TIMESTEP 0.5", "TIMESTEP fast", "TIMESTEP: expected numbers"),
    ("ENSEMBLE NVE", "ENSEMBLE NPT_I", "the cell changes in this run; put PROJECT-1.cell"),
    ("ABC 9.8528 9.8528 9.8528", "", "no cell; put PROJECT-1.cell, the input or the log"),
    ("ABC 9.8528 9.8528 9.8528", "ABC 9.8528 9.8528", "expected three numbers each"),
    ("ABC 9.8528 9.8528 9.8528", "@INCLUDE 'cell.inc'", "line 29: 'cell.inc' is included but not there"),
    ("ABC 9.8528 9.8528 9.8528", "ABC ${L} ${L} ${L}", "variable L has no value"),
    ("  &END MD", "  &END MD\n &PRINT\n &TRAJECTORY\n UNIT furlong\n &END\n &END", "unit 'furlong' of TRAJECTORY"),
    ("  &END MD", "  &END MD\n &CONSTRAINT\n &FIXED_ATOMS\n LIST 5..7\n &END\n &END", "FIXED_ATOMS 5..7"),
])
def test_contradictions_and_gaps_in_the_input(run_of, old, new, message):
    folder = run_of(NVE, drop=(".out",))
    replace(folder / "H2O-32.inp", old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(FORMAT, folder / "H2O-32-pos-1.xyz")


def test_restart_file_in_place_of_the_input(run_of):
    folder = run_of(NVE, drop=(".out",))
    text = "# Version information for this restart file\n" + (folder / "H2O-32.inp").read_text()
    (folder / "H2O-32.inp").unlink()
    (folder / "H2O-32-1.restart").write_text(text)
    run, frames = read_run(FORMAT, folder / "H2O-32-1.restart")
    assert frames[0].cell[0, 0] == 9.8528 and run.timestep_from == "TIMESTEP"


def test_energies_that_end_early_are_not_missed(run_of):
    folder = run_of(NVE)
    text = (folder / "H2O-32-1.ener").read_text()
    (folder / "H2O-32-1.ener").write_text(text[:-300])
    _, frames = read_run(FORMAT, folder / "H2O-32-pos-1.xyz")
    assert len(frames) == 11 and frames[-1].energy == pytest.approx(-34.3282870379 * HARTREE)


def test_cell_from_the_log_and_none_at_all(run_of):
    folder = run_of(NVE, drop=(".inp",))
    run, frames = read_run(FORMAT, folder / "H2O-32-pos-1.xyz")
    assert frames[0].cell == pytest.approx(9.853 * np.eye(3)) and "cell from the log" in " ".join(run.notes)
    (folder / "H2O-32.out").unlink()
    with pytest.raises(DtmdError, match="no cell"):
        read_run(FORMAT, folder / "H2O-32-pos-1.xyz")


@pytest.mark.parametrize("name, old, new, message", [
    ("test-frc-1.xyz", "0.0000123864", "garbage", "test-frc-1.xyz: line 3: forces of step 0: expected C"),
    ("test-pos-1.xyz", "C        -2.7700694500", "N        -2.7700694500", "expected N with three numbers as atom 1"),
    ("test-pos-1.xyz", "-2.7700694500", "*************", r"test-pos-1.xyz: line 3: positions of step 0"),
    ("test-vel-1.xyz", "8\n i =        1", "9\n i =        1", "line 11: 9 atoms, the first frame has 8"),
    ("test-vel-1.xyz", " i =        1,", " something,", "line 12: expected a comment line"),
    ("test-frc-1.xyz", "E =       -14.9505665125", "E =       -14.9405665125", "at step 1, test-pos-1.xyz has"),
    ("test-pos-1.xyz", "time =        1.500", "time =        2.000", "1 fs from step 2 to 3, expected 0.5 fs"),
    ("test-1.ener", "-14.950566513", "-14.940566513", "energy -14.940566513 Hartree at step 1"),
    ("test-1.ener", "-14.950566513", "oops", r"test-1.ener: line 3: expected step and 4 numbers"),
    ("test-1.cell", "1       0.500       10.0000000000", "1       0.500       ten", "test-1.cell: line 3"),
    ("test-pos-1.xyz", "time =        0.000, ", "", "a geometry optimisation"),
])
def test_damage_is_one_clear_error(run_of, name, old, new, message):
    folder = run_of(ETHANE, 4)
    replace(folder / name, old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(FORMAT, folder / "test-pos-1.xyz")


@pytest.mark.parametrize("name", ["test-pos-1.xyz", "test-frc-1.xyz"])
@pytest.mark.parametrize("drop", [(), (".ener", ".inp")])
def test_a_file_cut_in_a_frame_gives_the_frames_before(run_of, name, drop):
    folder = run_of(ETHANE, 6, drop)
    text = (folder / name).read_text()
    (folder / name).write_text(text[:text.index("i =        4") + 200])
    run = FORMAT.read(FORMAT.find([candidate(p) for p in sorted(folder.iterdir())])[0])
    steps = []
    with pytest.raises(CutShort, match=name):
        for frame in run.frames:
            steps.append(frame.step)
    assert steps == [0, 1, 2, 3]


def test_forces_that_end_early_or_belong_to_another_run(run_of):
    folder = run_of(ETHANE, 6)
    forces = frames_of((folder / "test-frc-1.xyz").read_text(), 8)
    (folder / "test-frc-1.xyz").write_text("".join(forces[:3]))
    with pytest.raises(CutShort, match="ends with MD step 2, the run goes on to step 3"):
        read_run(FORMAT, folder / "test-pos-1.xyz")
    (folder / "test-frc-1.xyz").write_text("".join(forces).replace("i =        ", "i =       9"))
    with pytest.raises(DtmdError, match="none of its steps is also in all of"):
        read_run(FORMAT, folder / "test-pos-1.xyz")


@pytest.mark.parametrize("main, other, expected", [
    ([0, 1, 2], [0, 1, 2], [0, 1, 2]),
    ([0, 10, 20], list(range(25)), [0, 10, 20]),
    ([0, 1, 2, 3, 4], [0, 2, 4], [0, None, 1, None, 2]),
    ([0, 1, 2, 1, 2, 3], [0, 1, 2, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
    ([90, 100], [90, 91, 92, 91, 92, 100], [0, 5]),
    ([0, 1, 2, 3, 1, 2], [0, 1, 2, 1, 2], [0, 1, 2, None, 3, 4]),
    ([0, 1, 2, 1, 2], [0, 1, 2, 3, 1, 2], [0, 1, 2, 4, 5]),
    ([0, 5, 6, 7, 6, 7, 10], [0, 5, 10], [0, 1, None, None, None, None, 2]),
])
def test_joining_by_step(tmp_path, main, other, expected):
    """Records are numbered in file order, so that a repeated step must come from the same pass."""
    companion = Companion(tmp_path, iter([(step, k) for k, step in enumerate(other)]), needed=False)
    assert [companion.at(step) for step in main] == expected
