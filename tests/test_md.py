"""MD read in blocks: dumps against the slow way frame by frame, files that `lmp` wrote, joined and damaged files."""

import gzip
import json
import lzma
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write as ase_write
from ase.io.trajectory import TrajectoryWriter

from dtmd.errors import DtmdError
from dtmd.ingest.readers import lammps_blocks
from dtmd.ingest.readers.lammps_frame import read_frame
from dtmd.ingest.source import Source, open_zstd
from dtmd.md import open_run
from dtmd.store import read_store, write_store
from dtmd.trajectory import Trajectory, unwrap

ELEMENTS = np.array(["H", "Pd", "C", "Na"])
BOX = "BOX BOUNDS pp pp pp\n0 10\n0 10\n0 10"
LAYOUTS = {
    "sorted": ("id type element xu yu zu vx vy vz fx fy fz c_pe", "%d", " ", False),
    "any order": ("fz q vx element mol mass vy id y fx vz x fy z v_pe_share", "%d", " ", True),
    "scaled": ("id element xs ys zs", "%d", " ", True),
    "scaled, unwrapped": ("element id xsu ysu zsu", "%d", " ", True),
    "padded": ("id element x y z", "%6d", "  ", True),
    "trailing blank": ("id element x y z", "%d", " ", True),
}


def tilted_box(k: int) -> str:
    return f"BOX BOUNDS xy xz yz pp pp ff\n{-0.25 - k / 500} 11 0.5\n0 {9 + k / 100} {-0.25 - k / 500}\n0 7.5 0.125"


def dump(layout: str, n_frames: int = 60, n_atoms: int = 7) -> str:
    """A dump with a cell that changes, atoms in another order in each frame where the layout says so."""
    columns, number, separator, shuffled = LAYOUTS[layout]
    rng, text = np.random.default_rng(0), ["ITEM: UNITS\nmetal\n"]
    for k in range(n_frames):
        text.append(f"ITEM: TIME\n{k * 0.0005:.16g}\n")
        text.append(f"ITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n{n_atoms}\nITEM: {tilted_box(k)}\nITEM: ATOMS "
                    f"{columns}\n")
        for atom in rng.permutation(n_atoms) if shuffled else range(n_atoms):
            fields = {"id": number % (3 * atom + 1), "type": "1", "element": ELEMENTS[atom % 4], "mol": "water",
                      "mass": "2.014"}
            values = [fields.get(name) or f"{rng.normal(0.4, 0.3):.9g}" for name in columns.split()]
            text.append(separator.join(values) + (" \n" if layout == "trailing blank" else "\n"))
    return "".join(text)


def slowly(text: str) -> list:
    """All frames by `read_frame`."""
    lines, frames = iter(text.splitlines()), []
    while (frame := read_frame(lines, Path("slow"), len(frames), frames[0] if frames else None)) is not None:
        frames.append(frame)
    return frames


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def plain(step: int, x: float) -> str:
    """A frame of two atoms, the first of them at `x`."""
    return (f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n2\nITEM: {BOX}\nITEM: ATOMS id element x y z\n"
            f"1 H {x} 5 5\n2 Pd 1 1 1\n")


def restarted(folder: Path, **steps: range) -> list[Path]:
    """Files of one run with these steps, an atom that moves 0.5 Å per step through the boundary."""
    return [write(folder / name, "ITEM: UNITS\nmetal\n" + "".join(plain(k, (0.5 * k) % 10) for k in numbers))
            for name, numbers in steps.items()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_frames_at_a_time_are_what_they_are_one_by_one(layout, tmp_path, monkeypatch):
    text = dump(layout)
    expected, slow_frames = slowly(text), []

    def counted(lines, path, index, first):
        frame = read_frame(lines, path, index, first)
        slow_frames.extend([index] if frame else [])
        return frame

    monkeypatch.setattr(lammps_blocks, "read_frame", counted)
    path = write(tmp_path / "run.dump", text)
    blocks = list(lammps_blocks.dump_frames(Source(path), max_bytes=2000))
    assert len(blocks) > 4 and sum(map(len, blocks)) == len(expected) == 60
    assert slow_frames == [0]  # all others went the quick way
    for name in ("steps", "times", "cells", "origins"):
        joined = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_array_equal(joined, np.concatenate([getattr(frame, name) for frame in expected]))
    for name in expected[0].values:
        joined = np.concatenate([block.values[name] for block in blocks])
        np.testing.assert_allclose(joined, np.concatenate([frame.values[name] for frame in expected]), rtol=1e-15)
    assert {block.elements for block in blocks} == {expected[0].elements}


@pytest.mark.parametrize("max_bytes", [1, 3000, 1 << 24])
def test_blocks_of_any_size_make_the_same_run(max_bytes, tmp_path):
    path = write(tmp_path / "run.dump", dump("any order"))
    run = open_run(path)
    blocks = list(run.blocks(max_bytes))
    expected = slowly(path.read_text())
    positions = np.concatenate([frame.positions() for frame in expected]) - expected[0].origins[0]
    cells = np.concatenate([frame.cells for frame in expected])
    np.testing.assert_allclose(np.concatenate([block.positions for block in blocks]),
                               unwrap(positions, cells, run.first.pbc), atol=1e-12)
    np.testing.assert_allclose(np.concatenate([block.times for block in blocks]), 0.5 * np.arange(60))
    np.testing.assert_array_equal(run.first.positions, blocks[0].positions[:1])
    for block in blocks:
        arrays = (block.times, block.cells, block.positions, block.velocities, block.forces, block.energies)
        assert len(block) == 1 or sum(values.nbytes for values in arrays) <= max_bytes


def test_positions_go_on_over_the_borders_of_blocks_and_files(tmp_path):
    files = restarted(tmp_path, a=range(0, 45), b=range(45, 100))
    run = open_run(files, timestep=1.0)
    for max_bytes in (1, 2000):
        x = np.concatenate([block.positions[:, 0, 0] for block in run.blocks(max_bytes)])
        np.testing.assert_allclose(x, 0.5 * np.arange(100))
    assert run.notes == [] and run.source == f"{files[0]} + {files[1]}"


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.open), (".xz", lzma.open), (".zst", open_zstd)])
def test_packed_dumps_and_what_is_left_of_one_that_is_cut_short(ending, pack, tmp_path):
    text, path = dump("sorted", n_frames=400), tmp_path / f"run.dump{ending}"
    with pack(path, "wb") as file:
        file.write(text.encode())
    assert len(open_run(path).whole()) == 400
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])
    run = open_run(path)
    n_frames = sum(len(block) for block in run.blocks())
    assert 0 < n_frames < 400
    assert run.notes == [f"frame {n_frames} is cut short and was left out; {n_frames} frames used"]
    path.write_bytes(path.read_bytes()[:1000] + b"nonsense" * 50 + path.read_bytes()[1400:])
    with pytest.raises(DtmdError, match=f"run.dump{ending}"):
        open_run(path).whole()


def test_of_overlapping_files_the_later_one_counts_in_any_order(tmp_path):
    a, b = restarted(tmp_path, a=range(0, 60), b=range(40, 80))
    same, later = b.read_text().split("ITEM: TIMESTEP\n41\n")
    b.write_text(same + "ITEM: TIMESTEP\n41\n" + later.replace(" 1 1 1\n", " 2 1 1\n"))
    run = open_run([b, a], timestep=1.0)
    whole = run.whole()
    np.testing.assert_array_equal(whole.times, np.arange(80))
    np.testing.assert_array_equal(whole.positions[:, 1, 0], np.where(np.arange(80) < 41, 1, 2))
    np.testing.assert_allclose(whole.positions[:, 0, 0], 0.5 * np.arange(80))
    assert whole.notes == (f"from 40 fs on {b} is taken, not {a}",)


@pytest.mark.parametrize(("x", "differs"), [(1.01, False), (11, False), (1.03, True), (1.5, True)])
def test_files_must_be_the_same_where_they_meet_but_for_rounding_and_whole_cells(x, differs, tmp_path):
    a, b = restarted(tmp_path, a=range(0, 60), b=range(40, 80))
    b.write_text(b.read_text().replace("2 Pd 1 1 1\n", f"2 Pd {x} 1 1\n", 1))
    if differs:
        with pytest.raises(DtmdError, match=f"a and .*b differ at 40 fs: atom 2 of 2 is {x - 1:.3g} Å away"):
            open_run([a, b], timestep=1.0).whole()
    else:
        assert len(open_run([a, b], timestep=1.0).whole()) == 80


@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
def test_a_frame_that_a_restart_has_written_again_is_taken_once(max_bytes, tmp_path):
    frames = [plain(k, (0.5 * k) % 10) for k in (*range(50), *range(49, 80))]
    path = write(tmp_path / "run.dump", "".join(frames))
    run = open_run(path, timestep=1.0)
    np.testing.assert_allclose(np.concatenate([block.positions[:, 0, 0] for block in run.blocks(max_bytes)]),
                               0.5 * np.arange(80))
    assert run.notes[1:] == ["1 frames that are the one before again, the first of them frame 50, were left out"]
    frames[50] = plain(49, 4)
    with pytest.raises(DtmdError, match="run.dump: frames 49 and 50 differ at 49 fs: atom 1 of 2 is 0.5 Å away"):
        open_run(write(path, "".join(frames)), timestep=1.0).whole()
    frames[50:] = frames[45:50]
    with pytest.raises(DtmdError, match="frame 50 is at 45 fs, not after frame 49 at 49 fs; .* splitting it there"):
        open_run(write(path, "".join(frames)), timestep=1.0).whole()


def test_unwrapped_positions_go_on_where_a_restart_has_lost_the_images(tmp_path):
    files = [write(tmp_path / name, "".join(plain(k, 3 * k - lost).replace("x y z", "xu yu zu") for k in numbers))
             for name, numbers, lost in (("a", range(30), 0), ("b", range(20, 50), 60), ("c", range(45, 70), 140))]
    x = open_run(files, timestep=1.0).whole().positions[:, 0, 0]
    np.testing.assert_allclose(x, 3.0 * np.arange(70))


def test_a_gap_and_a_cut_between_files_are_noted(tmp_path):
    a, b = restarted(tmp_path, a=range(0, 10), b=range(13, 20))
    a.write_text(a.read_text()[:-5])
    run = open_run([a, b], timestep=2.0)
    assert len(run.whole()) == 16
    assert run.notes == [f"{a}: frame 9 is cut short and was left out; 9 frames used",
                         f"no frames between 16 fs ({a}) and 26 fs ({b})"]
    assert len(run.whole()) == 16 and len(run.notes) == 2  # read again


@pytest.mark.parametrize(("change", "message"), [
    (("Pd", "H"), "not the same atoms"), (("\n2 Pd", "\n3 Pd"), "not the same atoms"),
    (("pp pp pp", "pp pp ff"), "different directions"), (("id element x y z", "id element xu yu zu"), "quantities"),
    (("TIMESTEP\n5\n", "TIMESTEP\n0\n"), "both begin at 0 fs"),
])
def test_files_that_are_not_of_one_run(change, message, tmp_path):
    a, b = restarted(tmp_path, a=range(0, 3), b=range(5, 8))
    b.write_text(b.read_text().replace(*change))
    with pytest.raises(DtmdError, match=message):
        open_run([a, b], timestep=1.0)


@pytest.mark.parametrize(("row", "message"), [
    ("1 H nan 5 5", "x of atom 1 is nan"), ("1 H 1 5 -inf", "z of atom 1 is -inf"), ("1 H ** 5 5", r"\*\*"),
    ("1 H 1 5", "4 values for 5 columns"), ("1 H 1 5 5 5", "6 values for 5 columns"),
    ("1 Pd 1 5 5", "other elements"), ("7 H 1 5 5", "same ids"), ("2 H 1 5 5", "two atoms with the same id"),
    ("1 Zz 1 5 5", "other elements"), ("ITEM: TIMESTEP", "after 0 of 2 atoms"), ("", "0 values for 5 columns"),
    ("1 H 1 5 5\n2 Pd 1 1 1", "expected a line starting with 'ITEM: '"), ("1 H 1\r5 5 5", "damaged|cannot"),
    ("1 \xff 1 5 5", "other elements"),
])
def test_damage_deep_in_a_file_is_named_with_its_frame(row, message, tmp_path):
    frames = ["ITEM: UNITS\nmetal\n", *(plain(k, 1) for k in range(300))]
    frames[201] = frames[201].replace("1 H 1 5 5", row)
    (tmp_path / "run.dump").write_text("".join(frames), encoding="latin-1")
    with pytest.raises(DtmdError, match=message) as caught:
        open_run(tmp_path / "run.dump", timestep=1.0).whole()
    assert "run.dump: frame 20" in str(caught.value)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("ATOMS id element x y z", "ATOMS id element x y z vx", "values for 6 columns"),
    ("ATOMS id element x y z", "ATOMS id element xu yu zu", "differ from id x y z"),
    ("OF ATOMS\n2", "OF ATOMS\n1", "1 atoms, not the 2"), ("OF ATOMS\n2", "OF ATOMS\n0", "0 atoms"),
    ("pp pp pp", "pp pp ff", "periodic in other directions"), ("0 10\n0 10\n0 10", "0 10\n0 10\n0 0", "box lengths"),
    ("0 10\n0 10\n0 10", "0 10\n0 10", "damaged"), ("ITEM: TIMESTEP", "ITEM: UNITS\nreal\nITEM: TIMESTEP", "units"),
    ("ITEM: TIMESTEP", "ITEM: TIME\n0.2\nITEM: TIMESTEP", "having a time"), ("200", "198", "not after frame 199"),
    ("ITEM: TIMESTEP\n200\n", "", "no 'ITEM: TIMESTEP'"), ("ITEM: TIMESTEP", "WARNING: x", "expected a line"),
])
def test_a_damaged_head_deep_in_a_file_is_named(old, new, message, tmp_path):
    frames = ["ITEM: UNITS\nmetal\n", *(plain(k, 1) for k in range(300))]
    frames[201] = frames[201].replace(old, new)
    with pytest.raises(DtmdError, match=message) as caught:
        open_run(write(tmp_path / "run.dump", "".join(frames)), timestep=1.0).whole()
    assert "run.dump: frame 200" in str(caught.value)


def test_frames_written_in_another_way_are_read_all_the_same(tmp_path):
    """Items that dtmd does not know, units named again where a run was appended, and padded numbers."""
    frames = ["ITEM: UNITS\nmetal\n", *(plain(k, k / 100) for k in range(300))]
    frames[100] = "ITEM: LABEL\nsecond part\n" + frames[100]
    frames[150] = "ITEM: UNITS\nmetal\n" + frames[150]
    frames[200] = frames[200].replace("1 H ", "  1   H\t")
    run = open_run(write(tmp_path / "run.dump", "".join(frames)), timestep=1.0)
    np.testing.assert_allclose(run.whole().positions[:, 0, 0], np.arange(300) / 100)


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(n_frames: int) -> int:
        path = write(tmp_path / "run.dump", dump("sorted", n_frames, n_atoms=20))
        tracemalloc.start()
        assert sum(len(block) for block in open_run(path).blocks(50_000)) == n_frames
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(50)  # what is loaded and kept once
    short, long = peak(150), peak(900)
    assert long < 1.2 * short


TILTED = """
units metal
atom_modify map yes
region box prism 0 12 0 11 0 10 -2 1 0.5
create_box 1 box
create_atoms 1 random 40 7 box overlap 2.2 maxtry 1000
mass 1 39.948
pair_style lj/cut 5.0
pair_coeff * * 0.01 3.0
minimize 0 1e-6 100 1000
reset_timestep 0
velocity all create 900 3
fix nve all nve
fix squeeze all deform 1 x final 0 11 xy final 8 y final 0 12 units box remap none
timestep 0.002
dump wrapped all custom 5 wrapped.dump{ending} id element x y z vx vy vz
dump_modify wrapped element Ar time yes units yes format float %.15g
dump unwrapped all custom 5 unwrapped.dump id element xu yu zu
dump_modify unwrapped element Ar time yes units yes format float %.15g
dump scaled all custom 5 scaled.dump id element xs ys zs
dump_modify scaled element Ar sort id format float %.15g
dump dcd all dcd 5 run.dcd
dump xtc all xtc 5 run.xtc
thermo 5
thermo_style custom step lx ly lz xy xz yz temp
thermo_modify format float %.12g
run 1000
"""


@pytest.fixture(scope="module")
def tilted(tmp_path_factory):
    """A run of `lmp` in a tilted cell that changes, written in several ways, and its cells and temperatures."""
    folder = tmp_path_factory.mktemp("tilted")
    (folder / "in.lmp").write_text(TILTED.format(ending=".gz"))
    done = subprocess.run([Path(sys.executable).with_name("lmp"), "-in", "in.lmp"], cwd=folder, text=True,
                          capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.rsplit("   Step ", 1)[1].split("Loop time")[0].splitlines()[1:]
    return folder, np.array([row.split() for row in last if len(row.split()) == 8], dtype=float)


def test_a_tilted_changing_cell_of_lammps_is_unwrapped_as_lammps_does(tilted):
    """It is flipped on the way: LAMMPS does so where the tilt is more than 0.6 of the length."""
    folder, thermo = tilted
    wrapped, unwrapped = (open_run(folder / name) for name in ("wrapped.dump.gz", "unwrapped.dump"))
    r, expected = wrapped.whole(), unwrapped.whole()
    assert len(r) == len(thermo) == 201 and np.ptp(expected.positions, axis=0).max() > 6
    np.testing.assert_allclose(r.cells[:, range(3), range(3)], thermo[:, 1:4], atol=1e-8)
    np.testing.assert_allclose(r.cells[:, (1, 2, 2), (0, 0, 1)], thermo[:, 4:7], atol=1e-8)
    np.testing.assert_allclose(r.temperatures(), thermo[:, 7], rtol=1e-5)
    np.testing.assert_allclose(r.times, 2.0 * thermo[:, 0])
    flips = np.cumsum(np.diff(thermo[:, 4], prepend=thermo[0, 4]) < -10)
    assert flips[-1] == 1
    cells = r.cells.copy()
    cells[:, 1] += flips[:, None] * cells[:, 0]
    moved = np.linalg.solve(np.swapaxes(cells, 1, 2)[:, None], (r.positions - expected.positions)[..., None])[..., 0]
    np.testing.assert_allclose(moved, np.broadcast_to(np.round(moved[0]), moved.shape), atol=1e-6)
    scaled = open_run(folder / "scaled.dump", timestep=2.0).whole()
    np.testing.assert_allclose(scaled.positions, r.positions, atol=1e-8)


@pytest.mark.parametrize(("name", "timestep", "tolerance"), [("run.dcd", 2.0, 1e-4), ("run.xtc", None, 0.006)])
def test_binary_files_of_lammps_are_its_dump_but_rounded(name, timestep, tolerance, tilted):
    pytest.importorskip("MDAnalysis")
    folder, _ = tilted
    like = open_run(folder / "wrapped.dump.gz").first
    expected = open_run(folder / "wrapped.dump.gz").whole()
    run = open_run(folder / name, timestep, like)
    got = run.whole()
    np.testing.assert_allclose(got.times, expected.times, rtol=1e-5)
    np.testing.assert_allclose(got.cells, expected.cells, atol=2e-3)
    shift = got.positions - expected.positions
    np.testing.assert_allclose(shift - np.round(shift[0] @ np.linalg.inv(got.cells[0])) @ got.cells, 0, atol=tolerance)
    assert got.symbols == like.symbols and any(like.source in note for note in run.notes)
    with pytest.raises(DtmdError, match=f"{name}: .*elements"):
        open_run(folder / name, timestep)
    with pytest.raises(DtmdError, match=f"{name}: .*--timestep"):
        open_run(folder / name, None if timestep else 1.0, like)
    with pytest.raises(DtmdError, match="40 atoms, .* has 2"):
        open_run(folder / name, timestep, moving(3))


def moving(n_frames: int) -> Trajectory:
    """Two atoms in a periodic box, with velocities, forces and energies."""
    rng = np.random.default_rng(5)
    steps = rng.normal(0, 0.1, (n_frames, 2, 3))
    return Trajectory(
        numbers=np.array([1, 46]), masses=np.array([1.008, 106.42]), pbc=np.ones(3, dtype=bool),
        cells=np.tile(np.diag([8.0, 9, 10]), (n_frames, 1, 1)), times=0.5 * np.arange(n_frames),
        positions=4 + np.cumsum(steps, axis=0), velocities=steps, forces=rng.normal(0, 1, (n_frames, 2, 3)),
        energies=rng.normal(0, 1, n_frames), source="moving",
    )


def test_amber_netcdf_with_velocities_and_forces(tmp_path):
    """1 kcal/mol is 0.0433641 eV (NIST); AMBER's velocities are to be multiplied by 20.455 Å/ps."""
    scipy_io = pytest.importorskip("scipy.io")
    expected, path = moving(30), tmp_path / "run.nc"
    with scipy_io.netcdf_file(str(path), "w") as file:
        for name, size in (("frame", None), ("atom", 2), ("spatial", 3)):
            file.createDimension(name, size)
        per_atom = ("frame", "atom", "spatial")
        for name, values, dimensions, unit in (
            ("time", expected.times / 1000, ("frame",), "picosecond"),
            ("cell_lengths", np.tile([8.0, 9, 10], (30, 1)), ("frame", "spatial"), "angstrom"),
            ("cell_angles", np.full((30, 3), 90.0), ("frame", "spatial"), "degree"),
            ("coordinates", expected.positions % [8, 9, 10], per_atom, "angstrom"),
            ("velocities", expected.velocities * 1000 / 20.455, per_atom, "angstrom/picosecond"),
            ("forces", expected.forces / 0.0433641, per_atom, "kilocalorie/mole/angstrom"),
        ):
            variable = file.createVariable(name, "d", dimensions)
            variable[:] = values
            variable.units = unit
        file.variables["velocities"].scale_factor = 20.455
    for max_bytes in (1, 1 << 20):
        blocks = list(open_run(path, like=expected).blocks(max_bytes))
        for name in ("times", "cells", "velocities", "forces"):
            joined = np.concatenate([getattr(block, name) for block in blocks])
            np.testing.assert_allclose(joined, getattr(expected, name), rtol=1e-6, atol=1e-9)
        positions = np.concatenate([block.positions for block in blocks])
        np.testing.assert_allclose(positions - positions[0], expected.positions - expected.positions[0], atol=1e-9)


    with scipy_io.netcdf_file(str(path), "a") as file:
        file.variables["forces"][29:] = np.full((1, 2, 3), np.float32(9.9692099683868690e36))
    run = open_run(path, like=expected)
    assert len(run.whole()) == 29 and run.notes[-1] == "frame 29 is cut short and was left out; 29 frames used"


@pytest.mark.parametrize("ending", ["dcd", "xtc", "ncdf"])
def test_binary_files_of_other_programs_and_what_is_left_of_them(ending, tmp_path):
    """Two ns in steps of 0.5 fs, whose times single precision rounds to 0.1 fs."""
    mda = pytest.importorskip("MDAnalysis")
    expected, path, spacing = moving(30), tmp_path / f"run.{ending}", 0.0005
    universe = mda.Universe.empty(2, trajectory=True)
    atoms, frame = universe.atoms, universe.trajectory.ts
    with mda.Writer(str(path), 2) as writer:
        for k in range(30):
            frame.positions, frame.dimensions = expected.positions[k] % [8, 9, 10], [8, 9, 10, 90, 90, 90]
            frame.time, frame.frame, frame.data["step"] = (4_000_000 + k) * spacing, k, 4_000_000 + k
            writer.write(atoms)
    timestep = 0.5 if ending == "dcd" else None
    run = open_run(path, timestep, expected).whole()
    np.testing.assert_allclose(run.positions - run.positions[0], expected.positions - expected.positions[0], atol=1e-5)
    np.testing.assert_allclose(run.times, (0 if ending == "dcd" else 2e6) + expected.times, rtol=1e-7)
    assert run.timestep == pytest.approx(0.5, abs=1e-6) and len(run.notes) == 1
    path.write_bytes(path.read_bytes()[:-30])
    if ending == "ncdf":
        with pytest.raises(DtmdError, match="run.ncdf: cannot be read"):
            open_run(path, timestep, expected)
        return
    run = open_run(path, timestep, expected)
    assert len(run.whole()) == 29 and run.notes[-1] == "frame 29 is cut short and was left out; 29 frames used"


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz"])
def test_ase_files_under_any_name(name, tmp_path):
    expected, path = moving(25), tmp_path / name
    images = [Atoms(expected.symbols, wrapped, cell=expected.cells[0], pbc=True)
              for wrapped in expected.positions % [8, 9, 10]]
    if name == "run.traj":
        with TrajectoryWriter(path) as writer:
            for image in images:
                writer.write(image)
    else:
        ase_write(path, images)
    path = path.rename(tmp_path / "something.else")
    for max_bytes in (1, 1000):
        blocks = list(open_run(path, timestep=0.5).blocks(max_bytes))
        positions = np.concatenate([block.positions for block in blocks])
        np.testing.assert_allclose(positions - positions[0], expected.positions - expected.positions[0], atol=1e-6)
        np.testing.assert_allclose(np.concatenate([block.times for block in blocks]), expected.times)
    with pytest.raises(DtmdError, match="something.else: .*--timestep"):
        open_run(path)
    if name == "run.extxyz":
        path.write_text(path.read_text()[:-20])
        run = open_run(path, timestep=0.5)
        assert len(run.whole()) == 24 and "frame 24 is cut short" in run.notes[-1]


def test_what_the_aimd_held_is_held_in_runs_where_it_is_at_rest(tmp_path):
    velocities = np.ones((3, 7, 3))
    velocities[:, 4:] = 0.0
    numbers = np.array([1, 46, 6, 11, 1, 46, 6])
    run = Trajectory(
        numbers=numbers, masses=np.ones(7), pbc=np.ones(3, bool), cells=np.broadcast_to(20.0 * np.eye(3), (3, 3, 3)),
        times=np.arange(3.0), positions=np.random.default_rng(0).random((3, 7, 3)), velocities=velocities,
    )
    write_store(tmp_path / "run.h5", [run])
    fixed = np.repeat(np.arange(7) >= 4, 3).reshape(7, 3)
    assert open_run(tmp_path / "run.h5").first.fixed is None
    held = open_run(tmp_path / "run.h5", like=replace(run, fixed=fixed))
    assert (held.first.fixed == fixed).all() and (held.whole().fixed == fixed).all()
    for like in (replace(run, fixed=~fixed), replace(run, fixed=fixed, numbers=numbers[::-1].copy())):
        assert open_run(tmp_path / "run.h5", like=like).first.fixed is None


def test_one_trajectory_of_a_store(tmp_path):
    path, expected = tmp_path / "data.h5", moving(40)
    write_store(path, [replace(expected, source="a"), replace(moving(3), source="b")])
    run = open_run(read_store(path)[0].source)
    blocks = list(run.blocks(2000))
    assert len(blocks) > 3 and not any(isinstance(block.positions, np.memmap) for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block.positions for block in blocks]), expected.positions)
    np.testing.assert_allclose(np.concatenate([block.forces for block in blocks]), expected.forces, rtol=1e-6)
    with pytest.raises(DtmdError, match="data.h5: 2 trajectories"):
        open_run(path)
    with pytest.raises(DtmdError, match="0 trajectories"):
        open_run(f"{path}:nothing")


@pytest.mark.parametrize("timestep", [0.0, -0.5, np.inf, np.nan])
def test_a_time_step_is_above_zero(timestep, tmp_path):
    with pytest.raises(DtmdError, match="run.dump: a time step of .*above 0"):
        open_run(write(tmp_path / "run.dump", plain(0, 1) + plain(1, 1)), timestep)


@pytest.mark.slow
def test_the_quick_benchmark_of_dumps_writes_its_figures(tmp_path):
    pytest.importorskip("MDAnalysis")
    subprocess.run([sys.executable, Path(__file__).parents[1] / "tools" / "bench_dump.py", "--quick", "--json",
                    tmp_path / "f.json"], check=True)
    figures = json.loads((tmp_path / "f.json").read_text())
    assert all(case["frames"] > 0 and case["peak_memory_MB"]["whole"] < 1000 for case in figures["cases"].values())


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"ITEM: TIMESTEP\n0\n", b"\x89HDF\r\n\x1a\nnothing"])
def test_files_of_another_kind(content, tmp_path):
    (tmp_path / "run.dump").write_bytes(content)
    with pytest.raises(DtmdError, match="run.dump"):
        open_run(tmp_path / "run.dump")
    with pytest.raises(DtmdError, match="missing.dump: no such file"):
        open_run(tmp_path / "missing.dump")
