"""The dump reader against dumps written by hand and by `lmp` itself."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtmd.errors import DtmdError
from dtmd.ingest.lammps_dump import read_dump

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
        assert bool(run.notes) == ("\n" in last[:length])
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
