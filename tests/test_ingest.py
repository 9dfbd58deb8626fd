"""Reading AIMD: numbers read off the real file, and everything that can be wrong with it."""

import lzma
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from small import AIMD

from dtmd.errors import DtmdError
from dtmd.ingest import find_aimd, read_aimd
from dtmd.ingest.checks import compare_with_forces

FILE = AIMD / "train" / "h2pd6_007_from_000.extxyz.xz"
N_ATOMS = 57
LINES_PER_FRAME = N_ATOMS + 2


@pytest.fixture(scope="module")
def frames() -> list[list[str]]:
    """The first frames of a real file, as lines."""
    lines = lzma.decompress(FILE.read_bytes()).decode().splitlines()[: 12 * LINES_PER_FRAME]
    return [lines[k : k + LINES_PER_FRAME] for k in range(0, len(lines), LINES_PER_FRAME)]


def write(path: Path, frames: list[list[str]]) -> Path:
    path.write_text("".join(line + "\n" for frame in frames for line in frame))
    return path


def read(path: Path):
    (trajectory,) = read_aimd([path])
    return trajectory


def test_numbers_read_off_the_file():
    trajectory = read(FILE)
    assert len(trajectory) == 320 and trajectory.timestep == 0.5
    assert trajectory.symbols == ["H"] * 2 + ["C"] * 49 + ["Pd"] * 6
    assert trajectory.energies[0] == -3583.713259682976
    assert trajectory.positions[0, 0].tolist() == [2.96972261, 2.82744800, 8.28851555]
    assert trajectory.forces[0, 1].tolist() == [0.10480899, 0.70460748, 0.41945632]
    assert trajectory.velocities[0, 0].tolist() == [0.00665097, 0.04212321, -0.00691678]
    motion = compare_with_forces(trajectory)
    assert abs(motion.scale - 1.0) < 1e-5
    assert motion.residuals.max() < 1e-4 and np.abs(motion.frictions).max() < 1e-5


def test_all_embedded_trajectories_are_sound():
    assert len(read_aimd([AIMD])) == 10


def test_velocities_are_reconstructed_where_the_file_has_none(frames, tmp_path):
    full = read(write(tmp_path / "full.extxyz", frames))
    bare = [[frame[0], frame[1].replace(":velocities:R:3", "")] + [" ".join(line.split()[:7]) for line in frame[2:]]
            for frame in frames]
    trajectory = read(write(tmp_path / "bare.extxyz", bare))
    assert "reconstructed" in trajectory.notes[0]
    assert np.abs(trajectory.velocities - full.velocities).max() < 1e-6


def test_velocities_as_ase_writes_them(frames, tmp_path):
    original = write(tmp_path / "original.extxyz", frames)
    structures = ase.io.read(original, ":")
    for atoms in structures:
        atoms.set_velocities(atoms.arrays.pop("velocities") / ase.units.fs)
    ase.io.write(tmp_path / "momenta.extxyz", structures)
    difference = read(tmp_path / "momenta.extxyz").velocities - read(original).velocities
    assert np.abs(difference).max() < 1e-6
    for atoms in structures:
        atoms.arrays["velocities"] = atoms.get_velocities()
        del atoms.arrays["momenta"]
    ase.io.write(tmp_path / "velocities.extxyz", structures)
    trajectory = read(tmp_path / "velocities.extxyz")
    assert "ASE" in trajectory.notes[0]
    assert np.abs(trajectory.velocities - read(original).velocities).max() < 1e-6


def test_wrapped_positions_are_unwrapped(frames, tmp_path):
    original = write(tmp_path / "original.extxyz", frames)
    structures = ase.io.read(original, ":")
    for atoms in structures:
        atoms.wrap()
    ase.io.write(tmp_path / "wrapped.extxyz", structures)
    moved = read(tmp_path / "wrapped.extxyz").positions - read(original).positions
    assert np.allclose(moved, moved[0], atol=1e-7)


def replaced(frames, k, edit):
    return [edit(frame) if i == k else frame for i, frame in enumerate(frames)]


def without_forces(frame):
    header = frame[1].replace("forces:R:3:", "")
    return [frame[0], header] + [" ".join(line.split()[:4] + line.split()[7:]) for line in frame[2:]]


def with_nan(frame):
    fields = frame[5].split()
    fields[5] = "nan"
    return frame[:5] + [" ".join(fields)] + frame[6:]


def other_atom(frame):
    return frame[:2] + ["C" + frame[2][1:]] + frame[3:]


@pytest.mark.parametrize(("damage", "message"), [
    (lambda f: replaced(f, 4, without_forces), "frame 4 has no forces"),
    (lambda f: replaced(f, 4, with_nan), "frame 4 has forces that are not finite"),
    (lambda f: replaced(f, 3, lambda frame: [line.replace("energy=", "entropy=") for line in frame]),
     "frame 3 has no energy"),
    (lambda f: replaced(f, 6, other_atom), "frame 6 has the atoms"),
    (lambda f: f[:5] + f[6:], "frames 4 and 5 are 1 fs apart"),
    (lambda f: f[:5] + [f[6], f[5]] + f[7:], "put the frames in order"),
    (lambda f: [[frame[0], frame[1].replace("timestep_fs=0.5", "")] + frame[2:] for frame in f],
     "the time step is not in the file"),
    (lambda f: [[frame[0], frame[1].replace("timestep_fs=0.5", "timestep_fs=1.0")] + frame[2:] for frame in f],
     "said to be 1 fs, the motion shows 0.5 fs"),
    (lambda f: f[:-1] + [f[-1][:20]], "frame 11 cannot be read"),
    (lambda f: [], "no frames"),
])
def test_bad_files_are_refused_with_the_place(frames, tmp_path, damage, message):
    path = write(tmp_path / "bad.extxyz", damage(frames))
    with pytest.raises(DtmdError, match=message) as caught:
        read(path)
    assert "bad.extxyz" in str(caught.value)


def without_steps(frames):
    return [[frame[0], " ".join(w for w in frame[1].split(" ") if not w.startswith("step="))] + frame[2:]
            for frame in frames]


@pytest.mark.parametrize("order", [
    [0, 1, 2, 3, 5, 6, 7, 8, 9], [0, 1, 2, 4, 3, 5, 6, 7, 8, 9], [0, 1, 2, 3, 3, 4, 5, 6, 7],
], ids=["gap", "swapped", "doubled"])
def test_the_motion_shows_a_wrong_order_without_step_numbers(frames, tmp_path, order):
    path = write(tmp_path / "shuffled.extxyz", without_steps([frames[k] for k in order]))
    with pytest.raises(DtmdError, match="around frame [23].*missing, doubled or out of order"):
        read(path)


def test_flipped_forces_and_foreign_velocities_are_found(frames, tmp_path):
    structures = ase.io.read(write(tmp_path / "original.extxyz", frames), ":")
    for atoms in structures:
        atoms.calc.results["forces"] *= -1
    ase.io.write(tmp_path / "flipped.extxyz", structures)
    with pytest.raises(DtmdError, match="accelerate against the forces"):
        read(tmp_path / "flipped.extxyz")
    for atoms in structures:
        atoms.calc.results["forces"] *= -1
        atoms.arrays["velocities"] *= 1000.0
    ase.io.write(tmp_path / "units.extxyz", structures)
    with pytest.raises(DtmdError, match="velocities of frame 1 differ"):
        read(tmp_path / "units.extxyz")


def test_kinds_of_energy_are_never_mixed(frames, tmp_path):
    mixed = [[frame[0], frame[1].replace("energy=", "free_energy=") if k < 3 else frame[1]] + frame[2:]
             for k, frame in enumerate(frames)]
    with pytest.raises(DtmdError, match="frame 3 has no free_energy"):
        read(write(tmp_path / "mixed.extxyz", mixed))


def test_a_file_that_is_named_twice_is_read_once():
    files = find_aimd([AIMD / "test", AIMD / "test" / ".." / "test", AIMD / "train"])
    assert files == find_aimd([AIMD / "test"]) + find_aimd([AIMD / "train"])


def test_damaged_archive_and_missing_files(tmp_path):
    cut = tmp_path / "cut.extxyz.xz"
    cut.write_bytes(FILE.read_bytes()[:100_000])
    with pytest.raises(DtmdError, match=r"cut.extxyz.xz: frame 0 cannot be read"):
        read(cut)
    with pytest.raises(DtmdError, match="no such file or folder"):
        find_aimd([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DtmdError, match="no AIMD files in this folder"):
        find_aimd([tmp_path / "empty"])
    (tmp_path / "OUTCAR").write_text("")
    with pytest.raises(DtmdError, match="unknown AIMD format"):
        find_aimd([tmp_path / "OUTCAR"])


def test_a_thermostatted_vasp_run_by_the_recipe_of_the_readme(shared_data, tmp_path):
    """Si64, POTIM 3 fs, Nosé thermostat: its friction is up to a third of a frame's acceleration."""
    structures = ase.io.read(shared_data / "formats" / "vasp_pymatgen" / "vasprun.md.xml.gz", index=":")
    for step, atoms in enumerate(structures):
        atoms.calc.results = {key: atoms.calc.results[key] for key in ("energy", "free_energy", "forces")}
        atoms.info.update(timestep_fs=3.0, step=step)
    ase.io.write(tmp_path / "run1.extxyz", structures)
    trajectory = read(tmp_path / "run1.extxyz")
    assert trajectory.energies[0] == -338.31623099  # the free energy, which the forces belong to
    motion = compare_with_forces(trajectory)
    assert abs(motion.scale - 1.0) < 2e-3
    assert motion.residuals.max() < 2e-3 and 0.01 < np.abs(motion.frictions).max() < 0.1


def test_whole_trajectory_and_contradicting_step(shared_data):
    trajectory = read(shared_data / "h2pd6_gfn1" / "traj_001.extxyz.gz")
    assert len(trajectory) == 801
    with pytest.raises(DtmdError, match="says 0.5 fs between steps, you say 1 fs"):
        read_aimd([shared_data / "h2pd6_gfn1" / "traj_001.extxyz.gz"], timestep=1.0)
