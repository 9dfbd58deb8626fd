"""The dump readers, for MD and for training data, against dumps written by hand and by `lmp` itself."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_runs import read_run

from dtmd import units as dtmd_units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_dump import FORMAT
from dtmd.ingest.source import Candidate, CutShort, Source
from dtmd.md import read_dump

COLUMNS = "id element x y z"
PERIODIC = "BOX BOUNDS pp pp pp\n0 10\n0 10\n0 10"
TWO_ATOMS = ["1 H 1.0 2.0 3.0", "2 Pd 4.0 5.0 6.0"]


def frame(step, rows, columns=COLUMNS, box=PERIODIC, time_ps=None, units="metal"):
    lines = [f"ITEM: UNITS\n{units}"] if units else []
    lines += [f"ITEM: TIME\n{time_ps}"] if time_ps is not None else []
    lines += [f"ITEM: TIMESTEP\n{step}", f"ITEM: NUMBER OF ATOMS\n{len(rows)}", f"ITEM: {box}"]
    return "\n".join([*lines, f"ITEM: ATOMS {columns}", *rows]) + "\n"


def write(folder: Path, *frames: str) -> Path:
    path = folder / "run.lammpstrj"
    path.write_text("".join(frames))
    return path


def test_columns_in_any_order_and_unsorted_ids_with_units_converted(tmp_path):
    columns = "fz vx element mass id vy xu yu zu vz fx fy v_pe_share"
    rows = ["-3 4000 Pd 106.4 7 5000 1 2 3 6000 -1 -2 -5.5", "30 400 H 2.014 3 500 7 8 9 600 10 20 -1.5"]
    run = read_dump(write(tmp_path, frame(40, rows, columns, time_ps=0.02)))
    assert run.symbols == ["H", "Pd"]
    np.testing.assert_array_equal(run.masses, [2.014, 106.4])
    np.testing.assert_allclose(run.positions[0], [[7, 8, 9], [1, 2, 3]])
    np.testing.assert_allclose(run.velocities[0], [[0.4, 0.5, 0.6], [4, 5, 6]])
    np.testing.assert_allclose(run.forces[0], [[10, 20, 30], [-1, -2, -3]])
    np.testing.assert_allclose(run.times, [20.0])
    np.testing.assert_allclose(run.energies, [-7.0])
    assert run.notes == ()


def test_triclinic_bounding_box(tmp_path):
    # a = (8, 0, 0), b = (-3, 9, 0), c = (1, 2, 7), origin (0.5, 1, -1), worked out by hand:
    # min(0, xy, xz, xy + xz) = -3, max = 1, min(0, yz) = 0, max = 2.
    box = "BOX BOUNDS xy xz yz pp pp ff\n-2.5 9.5 -3\n1 12 1\n-1 6 2"
    run = read_dump(write(tmp_path, frame(0, TWO_ATOMS, box=box)), timestep=0.5)
    np.testing.assert_allclose(run.cells[0], [[8, 0, 0], [-3, 9, 0], [1, 2, 7]])
    assert run.pbc.tolist() == [True, True, False]
    np.testing.assert_allclose(run.positions[0], [[0.5, 1, 4], [3.5, 4, 7]])


def test_general_triclinic_box(tmp_path):
    box = "BOX BOUNDS abc origin pp pp pp\n0 5 0 1\n-6 0 0 1\n0 0 7 1"
    run = read_dump(write(tmp_path, frame(0, TWO_ATOMS, box=box)), timestep=0.5)
    np.testing.assert_allclose(run.cells[0], [[0, 5, 0], [-6, 0, 0], [0, 0, 7]])
    np.testing.assert_allclose(run.positions[0, 0], [0, 1, 2])


@pytest.mark.parametrize("names", ["xs ys zs", "xsu ysu zsu"])
def test_scaled_coordinates_in_a_tilted_cell(tmp_path, names):
    box = "BOX BOUNDS xy xz yz pp pp pp\n-3 8 -3\n0 9 0\n0 7 0"
    rows = ["1 H 0.5 0.5 0.25", "2 Pd 0.1 0.0 0.0"]
    run = read_dump(write(tmp_path, frame(0, rows, f"id element {names}", box)), timestep=0.5)
    np.testing.assert_allclose(run.positions[0], [[4 - 1.5, 4.5, 1.75], [0.8, 0, 0]])


def test_wrapped_positions_are_unwrapped_only_in_periodic_directions(tmp_path):
    box = "BOX BOUNDS pp pp ff\n0 10\n0 10\n0 10"
    steps = [("9.8", "9.8"), ("0.1", "0.1"), ("0.3", "9.9")]
    frames = [frame(k, [f"1 H {x} 5 {z}"], box=box) for k, (x, z) in enumerate(steps)]
    run = read_dump(write(tmp_path, *frames), timestep=1.0)
    np.testing.assert_allclose(run.positions[:, 0, 0], [9.8, 10.1, 10.3])
    np.testing.assert_allclose(run.positions[:, 0, 2], [9.8, 0.1, 9.9])


def test_time_from_step_and_uneven_frames(tmp_path):
    run = read_dump(write(tmp_path, *(frame(step, TWO_ATOMS) for step in (0, 1, 2, 22))), timestep=0.5)
    np.testing.assert_allclose(run.times, [0.0, 0.5, 1.0, 11.0])
    assert run.velocities is None and run.forces is None and run.energies is None


def test_without_a_time_the_time_step_is_asked_for(tmp_path):
    with pytest.raises(DtmdError, match=r"run\.lammpstrj.*--timestep"):
        read_dump(write(tmp_path, frame(0, TWO_ATOMS)))


def test_units_not_named_are_noted_and_other_units_refused(tmp_path):
    assert "units" in read_dump(write(tmp_path, frame(0, TWO_ATOMS, units=None)), timestep=1.0).notes[0]
    with pytest.raises(DtmdError, match="units real"):
        read_dump(write(tmp_path, frame(0, TWO_ATOMS, units="real")), timestep=1.0)


def test_every_cut_of_the_last_frame_leaves_the_frames_before(tmp_path):
    whole, last = frame(0, TWO_ATOMS, time_ps=0.0), frame(1, TWO_ATOMS, time_ps=0.001)
    for length in range(len(last)):
        run = read_dump(write(tmp_path, whole, last[:length]))
        assert len(run) == 1
        assert bool(run.notes) == (length > 0)
    assert "frame 1 is cut short" in run.notes[0]
    assert len(read_dump(write(tmp_path, whole, last))) == 2


def test_gzip_and_gzip_cut_short(tmp_path):
    text = "".join(frame(k, TWO_ATOMS, time_ps=k / 1000) for k in range(500))
    path = tmp_path / "run.lammpstrj.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert len(read_dump(path)) == 500
    path.write_bytes(path.read_bytes()[:-200])
    run = read_dump(path)
    assert 0 < len(run) < 500 and "cut short" in run.notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1 H 1.0 2.0 3.0", "2 Pd 4.0 x5.0 6.0"], "x5.0"),
        (["1 H 1.0 2.0 3.0", "2 Pd 4.0 5.0"], "4 values for 5 columns"),
        (["1 H 1.0 2.0 3.0", "2 Pd 4.0 nan 6.0"], "y of atom 2 is nan"),
        (["1 H 1.0 2.0 3.0"], "1 atoms, not the 2"),
        (["1 H 1.0 2.0 3.0", "3 Pd 4.0 5.0 6.0"], "same ids"),
    ],
)
def test_a_damaged_frame_in_the_middle_is_named(tmp_path, rows, message):
    path = write(tmp_path, frame(0, TWO_ATOMS), frame(20, rows), frame(40, TWO_ATOMS))
    with pytest.raises(DtmdError, match=message) as caught:
        read_dump(path, timestep=0.5)
    assert "run.lammpstrj: frame 1 (step 20)" in str(caught.value)


def test_a_missing_row_in_the_middle_is_named(tmp_path):
    short = frame(20, TWO_ATOMS).replace("2 Pd 4.0 5.0 6.0\n", "")
    with pytest.raises(DtmdError, match=r"frame 1 \(step 20\) is damaged"):
        read_dump(write(tmp_path, frame(0, TWO_ATOMS), short, frame(40, TWO_ATOMS)), timestep=0.5)


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [("id x y z", "1 0 0 0", "'element'"), ("element x y z", "H 0 0 0", "'id'"),
     ("id element vx", "1 H 0", "positions"), ("id element x y z", "1 Xy 0 0 0", "'Xy' is not an element")],
)
def test_missing_columns_say_what_to_dump(tmp_path, columns, row, message):
    with pytest.raises(DtmdError, match=message):
        read_dump(write(tmp_path, frame(0, [row], columns)), timestep=0.5)


@pytest.mark.parametrize("content", [b"", b"no dump\n", b"\xff\xfe\x00binary\n", b"ITEM: TIMESTEP\n0\n"])
def test_a_file_that_is_no_dump(tmp_path, content):
    path = tmp_path / "run.lammpstrj"
    path.write_bytes(content)
    with pytest.raises(DtmdError, match="run.lammpstrj"):
        read_dump(path)


def test_a_dump_written_by_lammps(tmp_path):
    """A tilted cell with one Lennard-Jones pair: energy, forces and time as LAMMPS reports them."""
    (tmp_path / "in.lmp").write_text(
        "units metal\natom_modify map yes\nregion box prism 1 9 0 8 0 8 -2 0 1\ncreate_box 1 box\n"
        "create_atoms 1 single 2 2 2\ncreate_atoms 1 single 5 2 2\nmass 1 39.948\n"
        "pair_style lj/cut 3.9\npair_coeff * * 0.01 3.0\nvelocity all create 100 1\nfix nve all nve\n"
        "timestep 0.001\nvariable pe_share atom pe/atoms\n"
        "dump frames all custom 5 run.lammpstrj id type element x y z vx vy vz fx fy fz v_pe_share\n"
        "dump_modify frames element Ar time yes units yes format float %.12g\n"
        "thermo 5\nthermo_style custom step pe ke temp\nthermo_modify format float %.12g\nrun 20\n"
    )
    lmp = Path(sys.executable).with_name("lmp")
    done = subprocess.run([lmp, "-in", "in.lmp"], cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.split() for line in done.stdout.split("Step ")[1].split("Loop time")[0].splitlines()[1:]]
    thermo = np.array([row for row in table if len(row) == 4], dtype=float)
    run = read_dump(tmp_path / "run.lammpstrj")
    np.testing.assert_allclose(run.cells[0], [[8, 0, 0], [-2, 8, 0], [0, 1, 8]], atol=1e-12)
    np.testing.assert_allclose(run.times, thermo[:, 0])
    np.testing.assert_allclose(run.energies, thermo[:, 1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(run.kinetic_energies(), thermo[:, 2], rtol=1e-5)
    np.testing.assert_allclose(run.temperatures(), thermo[:, 3], rtol=1e-5)
    np.testing.assert_allclose(run.forces.sum(axis=1), 0.0, atol=1e-10)


LABELLED = "id element xu yu zu vx vy vz fx fy fz c_pe"
ROWS = ["2 Pd 4.5 5 6 -100 0 0.1 -1 0 2 -3.5", "1 H 1.25 2 3 400 0 0 10 20 -30 -1.5"]


def read_raw(path: Path):
    run = FORMAT.read(Source(path))
    return run, list(run.frames)


def test_a_dump_as_training_data(tmp_path):
    """Units are named at the head of a file only, as LAMMPS does it."""
    path = write(tmp_path, frame(0, ROWS, LABELLED, time_ps=0.0),
                 frame(5, ROWS, LABELLED, time_ps=0.0025, units=None))
    run, frames = read_run(FORMAT, path)
    assert run.numbers.tolist() == [1, 46] and run.pbc.all() and run.masses is None and run.code == "LAMMPS"
    assert run.settings == {"labels": "another potential", "units": "metal"} and len(run.notes) == 1
    assert [(f.time, f.step) for f in frames] == [(0.0, None), (2.5, None)]
    assert frames[0].ab_initio and frames[0].energy == -5.0
    np.testing.assert_allclose(frames[1].positions, [[1.25, 2, 3], [4.5, 5, 6]])
    np.testing.assert_allclose(frames[1].velocities, [[0.4, 0, 0], [-0.1, 0, 1e-4]])
    np.testing.assert_allclose(frames[1].forces, [[10, 20, -30], [-1, 0, 2]])
    assert run.precision == pytest.approx(0.01)  # 1.25: three digits


def test_real_units_and_step_numbers(tmp_path):
    """1 kcal/mol is 0.0433641 eV (NIST); velocities are in Å/fs."""
    run, frames = read_raw(write(tmp_path, *(frame(step, ROWS, LABELLED, units="real") for step in (10, 20))))
    assert [(f.time, f.step) for f in frames] == [(None, 10), (None, 20)] and run.timestep is None
    np.testing.assert_allclose(frames[0].velocities[0], [400, 0, 0])
    np.testing.assert_allclose(frames[0].forces[0], np.array([10, 20, -30]) * 0.0433641, rtol=1e-6)
    assert frames[0].energy == pytest.approx(-5.0 * 0.0433641, rel=1e-6)
    assert read_raw(write(tmp_path, frame(0, ROWS, LABELLED, time_ps=7.0, units="real")))[1][0].time == 7.0


def test_units_that_are_not_named_or_not_known(tmp_path):
    run, _ = read_raw(write(tmp_path, frame(0, ROWS, LABELLED, units=None)))
    assert "read as metal" in run.notes[1]
    with pytest.raises(DtmdError, match="`units lj`"):
        read_raw(write(tmp_path, frame(0, ROWS, LABELLED, units="lj")))
    with pytest.raises(DtmdError, match="frame 1 .step 1. differs from frame 0 in its units"):
        read_raw(write(tmp_path, frame(0, ROWS, LABELLED), frame(1, ROWS, LABELLED, units="real")))
    with pytest.raises(DtmdError, match="frame 1 .step 1. differs from frame 0"):
        read_raw(write(tmp_path, frame(0, ROWS, LABELLED), frame(1, ROWS, LABELLED, time_ps=0.1, units=None)))


def test_a_dump_of_positions_only_has_no_labels(tmp_path):
    run, (only,) = read_raw(write(tmp_path, frame(3, ["1 H 0.5 0.125 0.25"], "id element xs ys zs")))
    assert only.forces is None and only.energy is None and only.velocities is None
    np.testing.assert_allclose(only.positions, [[5, 1.25, 2.5]])
    assert run.precision == pytest.approx(0.01)  # a thousandth of the box


def test_a_real_dump_without_elements_is_refused_with_what_to_write(shared_data):
    path = shared_data / "formats" / "dynaphopy" / "si.lammpstrj"
    with pytest.raises(DtmdError, match=r"si.lammpstrj: frame 0 \(step 10000\) has the columns x y z, and no 'id' "
                                        r"and no 'element'; write .*dump 1 all custom 1 .* id element"):
        read_run(FORMAT, path)


@pytest.mark.parametrize(("rows", "message"), [
    (["1 H 1 2 3", "2 Pd 4 ***** 6"], r"could not convert string '\*\*\*\*\*'"),
    (["1 Pd 1 2 3", "2 H 4 5 6"], "other elements than in frame 0"),
    (["1 H 1 2 3", "1 Pd 4 5 6"], "two atoms with the same id"),
    (["1 H 1 2 3"], "1 atoms, not the 2 of frame 0"),
    (["1 H 1 2 3", "ITEM: TIMESTEP"], "'ITEM: TIMESTEP' after 1 of 2 atoms"),
    (["1 H 1 2 inf", "2 Pd 4 5 6"], "z of atom 1 is inf"),
])
def test_damage_in_training_data_is_named(tmp_path, rows, message):
    path = write(tmp_path, frame(0, TWO_ATOMS), frame(20, rows), frame(40, TWO_ATOMS))
    with pytest.raises(DtmdError, match=message) as caught:
        read_raw(path)
    assert "run.lammpstrj: frame 1 (step 20)" in str(caught.value)


@pytest.mark.parametrize("box", ["BOX BOUNDS xy xz yz pp pp pp\n0 1\n0 1\n0 1", "BOX BOUNDS pp pp pp\n0 1\n0 1\n0 x",
                                 "BOX BOUNDS\n0 1\n0 1\n0 1", "BOX BOUNDS pp pp pp\n0 1\n0 0\n0 1"])
def test_a_damaged_box_is_named(tmp_path, box):
    with pytest.raises(DtmdError, match=r"frame 0 \(step 8\) is damaged"):
        read_raw(write(tmp_path, frame(8, TWO_ATOMS, box=box)))


def test_cut_training_data_gives_the_whole_frames_before(tmp_path):
    whole, last = frame(0, TWO_ATOMS), frame(1, TWO_ATOMS)
    for length in range(1, len(last) - 1):  # a last line that only lacks its end is whole
        frames = FORMAT.read(Source(write(tmp_path, whole, last[:length]))).frames
        assert next(frames).step == 0
        with pytest.raises(CutShort, match="run.lammpstrj: ends inside frame 1"):
            next(frames)


@pytest.mark.parametrize("head", ["", "ITEM: ", "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ENTRIES\n1\nITEM: ENTRIES c_1\n",
                                  "LAMMPS data file\n", "# ITEM: TIMESTEP ITEM: ATOMS"])
def test_other_files_are_left_alone(head):
    assert FORMAT.find([Candidate(Path("run.lammpstrj"), head)]) == []


def test_training_data_written_by_lammps_moves_as_its_forces_say(tmp_path):
    """Argon with `units real`, wrapped positions, the time step from the times that LAMMPS writes."""
    (tmp_path / "in.lmp").write_text(
        "units real\natom_modify map yes\nlattice fcc 5.3\nregion box block 0 2 0 2 0 2\ncreate_box 1 box\n"
        "create_atoms 1 box\nmass 1 39.948\npair_style lj/cut 5.0\npair_coeff * * 0.2379 3.405\n"
        "velocity all create 300 1\nfix nve all nve\ntimestep 2.0\ncompute pe all pe/atom\n"
        "dump 1 all custom 1 run.lammpstrj id element x y z vx vy vz fx fy fz c_pe\n"
        "dump_modify 1 element Ar units yes time yes format float %.12g\nrun 20\n"
    )
    done = subprocess.run([Path(sys.executable).with_name("lmp"), "-in", "in.lmp"], cwd=tmp_path, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    run, frames = read_run(FORMAT, tmp_path / "run.lammpstrj")
    r, f, v = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "forces", "velocities"))
    dt = frames[1].time - frames[0].time
    assert len(frames) == 21 and dt == pytest.approx(2.0) and run.precision is None
    step = np.diff(r, axis=0)
    step -= 10.6 * np.round(step / 10.6)
    expected = dtmd_units.ACCELERATION * f[1:-1] / 39.948 * dt**2
    assert np.linalg.norm(step[1:] - step[:-1] - expected) < 1e-4 * np.linalg.norm(expected)
    assert np.linalg.norm(v[1:-1] - (step[1:] + step[:-1]) / (2 * dt)) < 1e-4 * np.linalg.norm(v)
    kinetic = 0.5 * dtmd_units.KINETIC * 39.948 * (v**2).sum(axis=(1, 2))
    total = kinetic + [frame.energy for frame in frames]
    assert np.ptp(total) < 0.02 * np.ptp(kinetic)
