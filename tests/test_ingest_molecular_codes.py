"""Gaussian, OpenMX, Qbox, CPMD and NWChem: numbers read off the real files, their physics, and damaged copies."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from raw_runs import read_run

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers import cpmd, gaussian, nwchem, openmx, qbox
from dtmd.ingest.source import CutShort, candidate

BOHR, HARTREE = 0.529177210903, 27.211386245988
FORCE = HARTREE / BOHR
ATOMIC_TIME = 0.024188843265857

CODES = {
    "gaussian": (gaussian.FORMAT, "formats/gaussian_dpdata/aimd_gaussian_CH4_output"),
    "openmx": (openmx.FORMAT, "formats/nomad/openmx/C2H2_molecular_dynamics/C2H2.md"),
    "qbox": (qbox.FORMAT, "formats/nomad/qbox/13_h2o_64_bomd.r"),
    "cpmd": (cpmd.FORMAT, "formats/nomad/cpmd/md/TRAJECTORY"),
    "nwchem": (nwchem.FORMAT, "formats/nomad/nwchem/molecular_dynamics.out"),
}


@pytest.fixture
def run_of(shared_data):
    """Reads the real run of a code."""
    return lambda code: read_run(CODES[code][0], shared_data / CODES[code][1])


@pytest.fixture
def copy_of(shared_data, tmp_path):
    """Copies the folder of the real run of a code and gives the path of the main file in it."""
    def copy(code: str) -> Path:
        original = shared_data / CODES[code][1]
        for path in original.parent.iterdir():
            shutil.copyfile(path, tmp_path / path.name)
        return tmp_path / original.name
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def close(found, expected) -> bool:
    return np.allclose(found, expected, rtol=1e-12, atol=1e-12)


def misfits(run, frames) -> tuple[float, float, float]:
    """Second differences against F/m·Δt² with the best friction in each frame, the factor between them, and the work
    of the forces against the change of energy."""
    r, forces = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "forces"))
    expected = units.ACCELERATION * forces[1:-1] / run.masses[:, None] * run.timestep**2
    second, along = r[2:] - 2.0 * r[1:-1] + r[:-2], r[2:] - r[:-2]
    rest = [s - e - np.sum((s - e) * a) / np.sum(a * a) * a for s, e, a in zip(second, expected, along)]
    work = -0.5 * np.sum((forces[1:] + forces[:-1]) * (r[1:] - r[:-1]), axis=(1, 2))
    gain = np.diff([frame.energy for frame in frames])
    return (np.linalg.norm(rest) / np.linalg.norm(expected), np.sum(second * expected) / np.sum(expected**2),
            np.linalg.norm(work - gain) / np.linalg.norm(gain))


def velocity_misfit(run, frames) -> float:
    r, v = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "velocities"))
    central = (r[2:] - r[:-2]) / (2.0 * run.timestep)
    return np.linalg.norm(v[1:-1] - central) / np.linalg.norm(central)


def test_gaussian_numbers_read_off_the_file(run_of):
    run, frames = run_of("gaussian")
    first, last = frames[0], frames[-1]
    assert run.code == "Gaussian" and run.version == "EM64L-G09RevB.01" and "/B3LYP/6-31G" in run.settings["route"]
    assert run.numbers.tolist() == [1, 1, 1, 1, 6] and not run.pbc.any() and not first.cell.any()
    assert len(frames) == 22 and [first.step, last.step] == [0, 21] and run.timestep == 0.1
    assert close([first.energy, last.energy], [-40.5096755 * HARTREE, -40.4505474 * HARTREE])
    assert close(first.positions[0], BOHR * np.array([6.470158273036e-01, -1.189685802020, -1.598902310053]))
    assert close(last.positions[4], BOHR * np.array([-3.851448154581e-02, -7.801044559352e-02, -5.618364446651e-02]))
    assert close(first.forces[0], FORCE * np.array([-0.006678199, 0.008590903, 0.004647135]))
    assert close(last.forces[4], FORCE * np.array([0.026496537, 0.150921796, 0.196224244]))
    # √u·bohr/s, and the mass of ¹²C.
    assert close(last.velocities[4], np.array([-4.122981348439e13, -1.116534220321e14, -4.099637680301e13])
                 * BOHR * 1e-15 / np.sqrt(12.0))


def test_gaussian_moves_the_commonest_isotopes(run_of):
    run, frames = run_of("gaussian")
    assert np.round(run.masses, 6).tolist() == [1.007825] * 4 + [12.0]
    rest, scale, work = misfits(run, frames)
    assert rest < 1e-4 and abs(scale - 1.0) < 1e-5 and work < 1e-3
    assert velocity_misfit(run, frames) < 1e-7


def test_openmx_numbers_read_off_the_files(run_of):
    run, frames = run_of("openmx")
    first, last = frames[0], frames[-1]
    assert run.numbers.tolist() == [6, 6, 1, 1] and run.pbc.all() and run.masses is None and run.fixed is None
    assert len(frames) == 100 and run.timestep == 0.5 and run.timestep_from == "MD.TimeStep"
    assert [first.step, frames[1].step, last.step] == [0, 1, 99] and run.precision == 1e-5
    assert run.settings["MD.Type"] == "NVT_NH" and run.settings["scf.XcType"] == "LDA"
    assert close([first.energy, last.energy], [-12.66356 * HARTREE, -12.67007 * HARTREE])
    assert first.positions[3].tolist() == [-1.80150, 0.0, 0.0]
    assert last.positions[1].tolist() == [-0.60605, -0.00793, 0.04438]
    assert np.array_equal(last.cell, np.diag([21.16709, 15.87532, 15.87532]))
    assert close(last.forces[2], FORCE * np.array([-0.05025, 0.00810, -0.00989]))


def test_openmx_velocities_are_those_of_half_a_step_before(run_of, shared_data):
    run, frames = run_of("openmx")
    assert frames[0].velocities is None and "half a step" in run.notes[0]
    lines = (shared_data / CODES["openmx"][1]).read_text().splitlines()
    written = np.array([[row.split()[7:10] for row in lines[k + 2 : k + 6]] for k in range(0, 600, 6)], float) * 1e-5
    r = np.array([frame.positions for frame in frames])
    backward = (r[1:] - r[:-1]) / 0.5
    assert np.linalg.norm(written[1:] - backward) < 0.001 * np.linalg.norm(backward)
    central = (r[2:] - r[:-2]) / 1.0
    assert np.linalg.norm(written[1:-1] - central) > 0.1 * np.linalg.norm(central)


def test_openmx_without_its_input_has_times(copy_of):
    path = copy_of("openmx")
    path.with_suffix(".dat").unlink()
    run, frames = read_run(openmx.FORMAT, path)
    assert run.timestep is None and [frames[3].time, frames[3].step] == [1.5, None]


def test_openmx_masses_and_fixed_atoms_of_the_input(copy_of):
    path = copy_of("openmx")
    edit(path.with_suffix(".dat"), "H_PBE19", "H_PBE19 2.0")
    edit(path.with_suffix(".dat"), "MD.Type", "<MD.Fixed.XYZ\n 2 1 0 1\nMD.Fixed.XYZ>\nMD.Type")
    run, _ = read_run(openmx.FORMAT, path)
    assert run.masses.tolist() == [12.011, 12.011, 2.0, 2.0]
    assert np.argwhere(run.fixed).tolist() == [[1, 0], [1, 2]]


def test_qbox_numbers_read_off_the_file(run_of):
    run, frames = run_of("qbox")
    first, last = frames[0], frames[-1]
    assert run.version == "1.63.2" and run.numbers.tolist() == [8] * 64 + [1] * 128 and run.pbc.all()
    assert run.masses.tolist() == [16.0] * 64 + [2.014] * 128
    assert len(frames) == 10 and [first.step, last.step] == [1, 10] and close(run.timestep, 10 * ATOMIC_TIME)
    assert run.settings["thermostat"] == "BDP" and run.settings["xc"] == "PBE"
    assert close([first.energy, last.energy], [-1100.52155672 * HARTREE, -1100.50290386 * HARTREE])
    assert close(first.positions[0], BOHR * np.array([-6.48337908, 6.01757097, 12.37774040]))
    assert close(last.positions[191], BOHR * np.array([13.32149172, 5.34810032, 26.75931152]))
    assert close(last.forces[191], FORCE * np.array([-0.01055367, -0.00391991, -0.00458736]))
    assert close(first.velocities[0], BOHR / ATOMIC_TIME * np.array([-0.00018626, -0.00020031, 0.00028804]))
    assert close(last.cell, 23.46 * BOHR * np.eye(3))


def test_qbox_frames_follow_from_the_forces(run_of):
    run, frames = run_of("qbox")
    rest, scale, _ = misfits(run, frames)
    assert rest < 1e-4 and abs(scale - 1.0) < 1e-3 and velocity_misfit(run, frames) < 1e-3
    # The first steps are not converged; energy, forces and positions of one iteration belong together.
    assert misfits(run, frames[6:])[2] < 1e-3


def test_qbox_iterations_without_dynamics_are_left_out(copy_of):
    path = copy_of("qbox")
    edit(path, "[qbox] <cmd>set atoms_dyn MD</cmd>\n", "")
    edit(path, '<iteration count="4">', '[qbox] <cmd>set atoms_dyn MD</cmd>\n<iteration count="4">')
    run, frames = read_run(qbox.FORMAT, path)
    assert [frame.step for frame in frames] == [4, 5, 6, 7, 8, 9, 10] and "3 iterations" in run.notes[0]


def test_cpmd_numbers_read_off_the_files(run_of):
    run, frames = run_of("cpmd")
    first, last = frames[0], frames[-1]
    assert run.version.startswith("4.1") and run.numbers.tolist() == [1, 1] and run.masses.tolist() == [1.008, 1.008]
    assert close(run.timestep, 4 * ATOMIC_TIME) and run.pbc.all() and close(first.cell, 15.1178 * BOHR * np.eye(3))
    assert len(frames) == 50 and [first.step, last.step] == [1, 50] and first.forces is None
    assert close([first.energy, last.energy], [-1.1023492072 * HARTREE, -1.1160488582 * HARTREE])
    assert close(last.positions[1], BOHR * np.array([-0.74008446227396, -0.04594660027294, -0.04979009712617]))
    assert close(first.velocities[0], BOHR / ATOMIC_TIME
                 * np.array([0.00039772295627, 0.00024115257177, 0.00026132422738]))
    assert velocity_misfit(run, frames) < 1e-9
    assert "electrons have a mass" in run.notes[0] and "TRAJECTORY FORCES" in run.notes[1]


def test_cpmd_forces_and_restarts(copy_of):
    path = copy_of("cpmd")
    rows = [f"{row}  0.1 -0.2 {k}e-3" for k, row in enumerate(path.read_text().splitlines())]
    rows.insert(6, "  <<<<<<  NEW DATA  >>>>>>")
    path.with_name("FTRAJECTORY").write_text("".join(f"{row}\n" for row in rows))
    (path.parent / "ENERGIES").write_text("".join((path.parent / "ENERGIES").read_text().splitlines(True)[1:]))
    run, frames = read_run(cpmd.FORMAT, path.with_name("FTRAJECTORY"))
    assert len(frames) == 50 and close(frames[3].forces[1], FORCE * np.array([0.1, -0.2, 0.007]))
    assert frames[0].energy is None and close(frames[1].energy, -1.1128688938 * HARTREE)
    assert "restart at line 7" in run.notes[1]


def test_nwchem_numbers_read_off_the_file(run_of):
    run, frames = run_of("nwchem")
    first, last = frames[0], frames[-1]
    assert run.version == "6.6" and run.numbers.tolist() == [8, 1, 1] and not run.pbc.any()
    assert run.masses.tolist() == [15.994910, 1.007825, 1.007825] and run.settings["Thermostat"] == "svr"
    assert close(run.timestep, 10 * ATOMIC_TIME) and [frame.step for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert close([first.energy, last.energy], [-76.325066149291 * HARTREE, -76.323441706703 * HARTREE])
    assert close(last.positions[2], BOHR * np.array([0.0, -1.300501, -1.116390]))
    # The file holds the gradients 0.000000 0.003514 -0.023728 and 0.000000 -0.007515 -0.008923.
    assert close(first.forces[0], FORCE * np.array([0.0, -0.003514, 0.023728]))
    assert close(last.forces[2], FORCE * np.array([0.0, 0.007515, 0.008923]))
    assert first.velocities is None and close(run.precision, 1e-6 * BOHR)


def test_nwchem_frames_follow_from_the_forces_and_the_thermostat(run_of):
    rest, _, work = misfits(*run_of("nwchem"))
    assert rest < 1e-3 and work < 2e-3


@pytest.mark.parametrize("code, name, old, new, message", [
    ("gaussian", "", "X=   6.502716152732D-01", "X=   6.5027*****32D-01", "line 426: summary of step 1, coordinates"),
    ("gaussian", "", "       -0.004970580", "       -0.00497o580", "line 391: forces: expected numbers"),
    ("gaussian", "", " Cartesian coordinates:\n I=    1 X=   6.502", " I=    1 X=   6.502", "step 1: no 'Cart"),
    ("gaussian", "", "0.344109   -0.619720", "0.345109   -0.619720", "line 436: step 1: the forces .* 8.0e-04 Å off"),
    ("gaussian", "", "   1           0        0.344109", "   9           0        0.344109", "are not those of the"),
    ("gaussian", "", "EPot   =    -40.5096755", "EPot   =    ***********", "no number after 'EPot'"),
    ("gaussian", "", "for step      1", "for step    ***", "no step number"),
    ("gaussian", "", "Forces (Hartrees/Bohr)", "Fxrces (Hartrees/Bohr)", "line 304: a step without"),
    ("openmx", "", "0.60300 -0.00338", "0.60300 -0.0.338", "line 9: frame 1: expected element"),
    ("openmx", "", "Energy= -12.66618", "Energy= *********", "line 8: frame 1: no numbers"),
    ("openmx", "", "Cell_Vectors= 21.16709", "Cell_Vectors=", "line 2: frame 0: no numbers"),
    ("openmx", "", "   C   -0.60005", "   H   -0.60005", "line 12: the atoms above are not those"),
    ("openmx", "", "   C    0.60300", "   C    0.60050  0.0\n   C    0.60300", "frame 1: expected element"),
    ("openmx", "", "time=    0.500", "time=    0.700", "0.7 fs, which is no multiple of the 0.5 fs"),
    ("openmx", "C2H2.dat", "NVT_NH", "Opt", "MD.Type OPT, which is no molecular dynamics"),
    ("openmx", "C2H2.dat", " 4  H  -1.8015", "#4  H  -1.8015", "3 atoms in the input"),
    ("openmx", "C2H2.dat", " 0.5\nNH.Mass", " 0,5\nNH.Mass", "C2H2.dat: MD.TimeStep"),
    ("qbox", "", "-6.48337908 6.01757097", "-6.48337908 6.0175x097", "line 294: no number or vector"),
    ("qbox", "", "<etotal>   -1100.52155672", "<etotal>   **************", "line 284: no number or vector"),
    ("qbox", "", "    <force> 0.04230527 -0.00186082 0.01796086 </force>\n", "", "iteration 1 has not one"),
    ("qbox", "", 'a=" 23.46000000', 'a="*23.46000000', "line 292: no cell vectors"),
    ("qbox", "", 'name="H128" species="hydrogen"', 'name="H128" species="hydr"', "species 'hydr'"),
    ("qbox", "", "<mass>2.014</mass>", "", "atomic number and mass of the species 'hydrogen'"),
    ("qbox", "", "<cmd>set atoms_dyn MD</cmd>", "<cmd>set atoms_dyn CG</cmd>", "no iteration with `set"),
    ("qbox", "", '<iteration count="5">', '<cmd>set dt 20</cmd>\n<iteration count="5">', "dt changes from 10 to 20"),
    ("cpmd", "", "0.70427017594465", "0.704270*7594465", "TRAJECTORY: line 3: expected 7 numbers"),
    ("cpmd", "", "      2       -0.70427", "      3       -0.70427", "line 4: the 2 atoms above do not"),
    ("cpmd", "ENERGIES", "232.496", "*******", "ENERGIES: line 2: expected 8 numbers"),
    ("cpmd", "output.out", "TIME STEP FOR IONS", "TIME STEP", "kind of dynamics, atoms, time step or cell"),
    ("cpmd", "output.out", " NR   TYPE", " NR   TXPE", "kind of dynamics, atoms"),
    ("nwchem", "", "1.520797  -0.645137", "1.520797  *********", "expected '2 H x y z dx dy dz'"),
    ("nwchem", "", "   3 H      -0.000000  -1.286347", "   2 H      -0.000000  -1.286347", "expected '3 H x"),
    ("nwchem", "", "Pot. energy (a.u.):        1", "Pot. energy (a.u.):       **", "2 gradients before this table"),
    ("nwchem", "", "DFT ENERGY GRADIENTS", "MP2 ENERGY GRADIENTS", "gradients of MP2"),
    ("nwchem", "", "Nuclear time step", "Nuclear time", "no geometry or no 'QMD Run Parameters'"),
])
def test_damage_is_named(copy_of, code, name, old, new, message):
    path = copy_of(code)
    edit(path.with_name(name) if name else path, old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(CODES[code][0], path)


def read_whole_frames(format_, source) -> tuple[list, bool]:
    """The frames, and whether the file ended inside one."""
    frames = []
    try:
        for frame in format_.read(source).frames:
            frames.append(frame)
    except CutShort:
        return frames, True
    return frames, False


@pytest.mark.parametrize("code, place, whole_steps", [
    ("gaussian", "EKinC      =      0.0985248", 3), ("openmx", "   5.500 (fs)", 11), ("nwchem", "0.725665", 3),
    ("qbox", "<iteration count=\"2\">", 1), ("cpmd", "     10       -0.72", 9),
])
def test_a_file_cut_inside_a_frame_gives_the_frames_before(copy_of, code, place, whole_steps):
    path = copy_of(code)
    text = path.read_text()
    size = text.index(place) + 40
    (source,) = CODES[code][0].find([candidate(p) for p in path.parent.iterdir()])
    whole, _ = read_whole_frames(CODES[code][0], source)
    path.write_text(text[:size])
    frames, cut = read_whole_frames(CODES[code][0], source)
    assert cut and len(frames) == whole_steps
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(frames, whole))


@pytest.mark.parametrize("code", CODES)
def test_random_damage_never_gives_a_traceback(copy_of, code):
    path, chance = copy_of(code), random.Random(5)
    (source,) = CODES[code][0].find([candidate(p) for p in path.parent.iterdir()])
    targets = [file for file in source.files if file.stat().st_size < 200_000] or [path]
    lines = {file: file.read_text().splitlines(keepends=True) for file in targets}
    for _ in range(25):
        file = chance.choice(targets)
        damaged = list(lines[file])
        for _ in range(6):
            k = chance.randrange(len(damaged))
            line = damaged[k]
            damaged[k] = chance.choice(["", "x" + line[1:], line[: len(line) // 2] + "\n", "nan " * 9 + "\n",
                                        line * 2, "é\x00-1 1e999\n", damaged[chance.randrange(len(damaged))]])
        file.write_text("".join(damaged[: chance.randrange(len(damaged) // 2, len(damaged))]), encoding="latin-1")
        try:
            list(CODES[code][0].read(source).frames)
        except DtmdError as error:
            assert str(error).startswith(str(path.parent))
        file.write_text("".join(lines[file]))


def test_no_reader_claims_the_files_of_another(shared_data):
    folders = {code: (shared_data / path).parent for code, (_, path) in CODES.items()}
    candidates = [candidate(path) for folder in folders.values() for path in sorted(folder.iterdir())]
    for code, (format_, path) in CODES.items():
        (source,) = format_.find(candidates)
        assert all(file.parent == folders[code] for file in source.files) and shared_data / path in source.files
