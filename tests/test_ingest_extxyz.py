"""Extended XYZ: numbers read off real files, ASE's way of writing it, and everything that can be wrong."""

import bz2
import gzip
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian
from raw_runs import FILE, first_lines, read_run, write

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.extxyz import FORMAT
from dtmd.ingest.source import Candidate, CutShort, Source, candidate

@pytest.fixture(scope="module")
def frames() -> list[list[str]]:
    """The first frames of a real file, as lines."""
    return first_lines()


@pytest.fixture
def structures(frames, tmp_path):
    return ase.io.read(write(tmp_path / "structures.extxyz", frames), ":")


def read(path: Path):
    """Without looking for other files, and without sparing broken ones."""
    run = FORMAT.read(Source(path))
    return run, list(run.frames)


def test_numbers_read_off_the_embedded_file():
    run, frames = read_run(FORMAT, FILE)
    assert len(frames) == 320 and [frame.step for frame in frames] == list(range(320))
    assert run.numbers.tolist() == [1] * 2 + [6] * 49 + [46] * 6
    assert run.pbc.tolist() == [True] * 3 and run.fixed is None and run.masses is None
    assert (run.timestep, run.timestep_from, run.precision) == (0.5, "timestep_fs", None)
    first, last = frames[0], frames[-1]
    assert first.energy == -3583.713259682976 and last.energy == -3583.6127402444445
    assert first.cell.tolist() == [[12.3, 0, 0], [-6.15, 10.652112466548596, 0], [0, 0, 14]]
    assert first.positions[0].tolist() == [2.96972261, 2.82744800, 8.28851555]
    assert first.forces[1].tolist() == [0.10480899, 0.70460748, 0.41945632]
    assert first.velocities[0].tolist() == [0.00665097, 0.04212321, -0.00691678]
    assert last.positions[0].tolist() == [0.68642931, 3.26803285, 4.79619843]
    assert last.forces[-1].tolist() == [0.93333098, -0.07738313, -0.28346790]
    assert last.velocities[-1].tolist() == [-0.00022290, -0.00191412, -0.00232724]


def test_a_whole_run_moves_as_its_forces_say(shared_data):
    run, frames = read_run(FORMAT, shared_data / "h2pd6_gfn1" / "traj_007.extxyz.gz")
    assert len(frames) == 801 and frames[-1].step == 800
    assert frames[-1].energy == -3584.136733281078
    assert frames[-1].forces[1].tolist() == [-1.08429378, 0.33935221, -0.44419584]
    r, f, v = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "forces", "velocities"))
    masses = ase.data.atomic_masses[run.numbers][:, None]
    expected = units.ACCELERATION * f[1:-1] / masses * run.timestep**2
    assert np.linalg.norm(r[2:] - 2 * r[1:-1] + r[:-2] - expected) < 1e-4 * np.linalg.norm(expected)
    central = (r[2:] - r[:-2]) / (2 * run.timestep)
    assert np.linalg.norm(v[1:-1] - central) < 1e-5 * np.linalg.norm(central)


def test_labels_of_a_calculator_that_ase_wrote(shared_data):
    """One structure with more columns and keys than are read; the free energy is the one to take."""
    run, (frame,) = read_run(FORMAT, shared_data / "h2pd6_gfn1" / "substrate_relaxed.xyz")
    assert frame.energy == -3557.69282648112 and frame.step is None and run.timestep is None
    assert frame.positions[1].tolist() == [1.22666441, 0.69974800, -0.03878749]
    assert frame.forces[0].tolist() == [0.01812819, 0.01661085, 0.00636620]
    assert frame.velocities is None and run.notes == []


def test_the_same_as_ase_reads(structures, tmp_path):
    ase.io.write(tmp_path / "ase.xyz", structures)
    run, frames = read(tmp_path / "ase.xyz")
    for atoms, frame in zip(structures, frames, strict=True):
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(frame.forces, atoms.get_forces())
        np.testing.assert_array_equal(frame.velocities, atoms.arrays["velocities"])
        np.testing.assert_array_equal(frame.cell, atoms.cell.array)
        assert frame.energy == atoms.get_potential_energy()


def test_momenta_masses_and_fixed_atoms_as_ase_writes_them(structures, tmp_path):
    velocities = np.array([atoms.arrays.pop("velocities") for atoms in structures])
    for atoms, v in zip(structures, velocities, strict=True):
        atoms.set_masses(np.where(atoms.numbers == 1, 2.014, atoms.get_masses()))
        atoms.set_velocities(v / ase.units.fs)
    ase.io.write(tmp_path / "momenta.xyz", structures)
    run, frames = read(tmp_path / "momenta.xyz")
    assert run.masses[0] == 2.014 and abs(run.masses[-1] - 106.42) < 1e-6
    assert np.abs(np.array([frame.velocities for frame in frames]) - velocities).max() < 1e-6
    for atoms in structures:
        atoms.set_constraint([FixAtoms([3]), FixCartesian(5, mask=(False, True, False))])
    ase.io.write(tmp_path / "fixed.xyz", structures, columns=["symbols", "positions", "move_mask"])
    run, frames = read(tmp_path / "fixed.xyz")
    assert np.argwhere(run.fixed).tolist() == [[3, 0], [3, 1], [3, 2], [5, 1]]
    assert frames[0].forces is None and frames[0].velocities is None


def test_columns_in_any_order_with_numbers_instead_of_symbols(tmp_path):
    rows = ["1.5 -2 3 T 46 1 2 3 4", "4 5e-1 6 F 1 5 6 7 8"]
    keys = 'pbc="T F T" md_step=40 dt_fs=2 free_energy=-1 energy=-7'
    columns = "Properties=force:R:3:flag:L:1:Z:I:1:pos:R:3:charge:R:1"
    run, (frame,) = read(write(tmp_path / "x", [["2", f"{keys} {columns}", *rows]]))
    assert run.numbers.tolist() == [46, 1] and run.pbc.tolist() == [True, False, True]
    assert frame.forces.tolist() == [[1.5, -2, 3], [4, 0.5, 6]] and frame.positions[0].tolist() == [1, 2, 3]
    assert (frame.energy, frame.step, run.timestep, run.timestep_from) == (-1.0, 40, 2.0, "dt_fs")
    assert not frame.cell.any() and run.precision == 1.0


def test_labels_by_other_names_are_not_taken_but_named(frames, tmp_path):
    renamed = [comment("forces:", "REF_forces:")(comment("energy=", "REF_energy=")(frame)) for frame in frames]
    run, (first, *_) = read(write(tmp_path / "mace.xyz", renamed))
    assert first.forces is None and first.energy is None
    assert [note.split()[0] for note in run.notes] == ["REF_energy", "REF_forces"]


def test_plain_xyz_has_positions_only(tmp_path):
    frame = ["2", "made by hand", "H 0.00 0.00 0.00", "H 0.00 0.00 0.74"]
    run, frames = read_run(FORMAT, write(tmp_path / "plain", [frame, frame]))
    assert len(frames) == 2 and frames[0].forces is None and not run.pbc.any()
    assert frames[1].positions[1].tolist() == [0, 0, 0.74] and run.precision == pytest.approx(0.01)


@pytest.mark.parametrize("head", [
    "", "2\n", "POSCAR\n1.0\n", "2\nsingle structure\nH 0 0 0\nH 0 0 1\n", "999999999999999999999\nLattice=\n",
    "1\n i =        0, time =        0.000, E =       -14.95\nH 0 0 0\n1\n", "1\n STEP:    1\nH 0 0 0\n1\n",
    "1\n# CELL(abcABC): 1 1 1 Step: 0\nH 0 0 0\n1\n", "1\nvelocities too\nH 0 0 0 1 2 3\n1\n", "\x00\x01binary",
])
def test_other_files_are_left_alone(head):
    assert FORMAT.find([Candidate(Path("run.xyz"), head)]) == []


def test_no_other_code_s_file_is_claimed(shared_data):
    """CP2K, CPMD and single structures all have names ending in .xyz."""
    files = [path for folder in ("formats", "aimd") for path in sorted((shared_data / folder).rglob("*"))
             if path.is_file() and path.suffix != ".gz"]
    assert sum(path.suffix == ".xyz" for path in files) > 20
    assert FORMAT.find([candidate(path) for path in files]) == []


@pytest.mark.parametrize("name", ["OUTCAR", "a.xyz.gz", "a.extxyz.bz2", "noending"])
def test_names_do_not_matter(frames, tmp_path, name):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack("".join(line + "\n" for frame in frames for line in frame).encode()))
    assert len(read_run(FORMAT, tmp_path / name)[1]) == 12


def replaced(frames, k, edit):
    return [edit(frame) if i == k else frame for i, frame in enumerate(frames)]


def without_forces(frame):
    rows = [line.split() for line in frame[2:]]
    return [frame[0], frame[1].replace("forces:R:3:", ""), *(" ".join(row[:4] + row[7:]) for row in rows)]


def comment(old, new):
    return lambda frame: [frame[0], frame[1].replace(old, new)] + frame[2:]


def row(old, new):
    return lambda frame: frame[:2] + [frame[2].replace(old, new)] + frame[3:]


@pytest.mark.parametrize(("edit", "message"), [
    (without_forces, "line 238: frame 4 has no forces"),
    (comment("energy=", "entropy="), "frame 4 has no energy"),
    (comment("step=", "no="), "frame 4 has no step"),
    (comment("step=4", "step=4.5"), "frame 4: step=4.5 is not a whole number"),
    (comment("step=4", "step"), "frame 4: step=True is not a whole number"),
    (comment("energy=-", "energy=*-"), r"frame 4: energy=\*-358"),
    (comment("timestep_fs=0.5", "timestep_fs=1.0"), "frame 4 has another pbc or time step"),
    (comment("T T T", "T T F"), "frame 4 has another pbc"),
    (comment("T T T", "yes"), "frame 4: pbc=yes is not three of T and F"),
    (comment('"12.3 ', '"'), "line 238: frame 4: the comment cannot be read.*Lattice"),
    (comment("pos:R:3", "pos:R:2"), "frame 4: the comment cannot be read.*pos:R:2"),
    (comment("pos:R:3", "place:R:3"), "frame 4: the comment cannot be read.*no pos"),
    (row("H ", "C "), "frame 4 has the atoms CHC49Pd6, frame 0 H2C49Pd6"),
    (row("H ", "Hx "), "line 239: frame 4: 'Hx' is no element"),
    (row("H ", "H 1.0 "), "line 239: frame 4: 11 values where Properties has 10 columns"),
    (row("2.", "x2."), "line 239: frame 4: expected numbers, found 'x2."),
    (lambda frame: [*frame[:-1], frame[-1][:-12] + "*" * 12], r"line 295: frame 4: expected numbers, found '.*\*\*'"),
    (lambda frame: ["56", *frame[1:-1]], "line 237: frame 4 has 56 atoms, frame 0 57"),
    (lambda frame: frame[:-1], "line 295: frame 4: 1 values where"),
    (lambda frame: [*frame, frame[-1]], "line 296: frame 5: expected the number of atoms, found 'Pd"),
    (lambda frame: ["x57", *frame[1:]], "line 237: frame 4: expected the number of atoms, found 'x57'"),
])
def test_damage_is_named_with_its_place(frames, tmp_path, edit, message):
    path = write(tmp_path / "bad.extxyz", replaced(frames, 4, edit))
    with pytest.raises(DtmdError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


def test_the_kind_of_energy_is_that_of_the_first_frame(frames, tmp_path):
    free = [comment("energy=", "energy=-1 free_energy=")(frame) for frame in frames]
    assert read(write(tmp_path / "both.xyz", free))[1][0].energy == -3583.713259682976
    with pytest.raises(DtmdError, match="frame 3 has no free_energy"):
        read(write(tmp_path / "mixed.xyz", free[:3] + frames[3:]))
    with pytest.raises(DtmdError, match="frame 1 has forces, frame 0 has none"):
        read(write(tmp_path / "late.xyz", replaced(frames, 0, without_forces)))


def test_numbers_that_are_not_finite_are_passed_on(frames, tmp_path):
    damaged = replaced(frames, 4, comment("energy=-", "energy=nan no=-"))
    damaged = replaced(damaged, 5, lambda frame: [*frame[:-1], frame[-1][:-12] + " inf"])
    _, got = read(write(tmp_path / "nan.xyz", damaged))
    assert np.isnan(got[4].energy) and np.isposinf(got[5].velocities[-1, 2])


def test_every_cut_gives_the_whole_frames_before_it(frames, tmp_path):
    path, texts = tmp_path / "cut.xyz", ["".join(line + "\n" for line in frame) for frame in frames[:3]]
    before, last = "".join(texts[:2]), texts[2]
    for length in [*range(240), *range(240, len(last), 97), len(last) - 1, len(last)]:
        path.write_text(before + last[:length])
        got, cut = [], ""
        try:
            for frame in FORMAT.read(Source(path)).frames:
                got.append(frame)
        except CutShort as error:
            cut = str(error)
        # A last line that only lacks its end is whole.
        assert len(got) == (3 if length >= len(last) - 1 else 2)
        assert bool(cut) == (0 < length < len(last) - 1)
        assert not cut or (cut.startswith(str(path)) and "frame 2" in cut)


def test_damaged_archives_and_empty_files(tmp_path):
    cut = tmp_path / "cut.extxyz.xz"
    cut.write_bytes(FILE.read_bytes()[:100_000])
    with pytest.raises(DtmdError, match=r"cut.extxyz.xz: cannot be read beyond line \d+"):
        read(cut)
    (tmp_path / "empty.xyz").write_text("\n\n")
    with pytest.raises(DtmdError, match="empty.xyz: no frames"):
        read(tmp_path / "empty.xyz")
    with pytest.raises(DtmdError, match="nowhere.xyz: cannot be opened"):
        read(tmp_path / "nowhere.xyz")


def test_frames_are_read_one_at_a_time(frames, tmp_path):
    seen = []
    run = FORMAT.read(Source(write(tmp_path / "big.xyz", frames * 20), watch=seen.append))
    assert seen == []
    next(run.frames)
    assert 0 < sum(seen) < 0.3 * (tmp_path / "big.xyz").stat().st_size
    run.frames.close()
