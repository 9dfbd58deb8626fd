"""The AIMD that comes with the repository is what its README says, and is real dynamics."""

import gzip
import io
import lzma
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

INPUTS = Path(__file__).parents[1] / "inputs"
AIMD = INPUTS / "aimd"
FILES = sorted(AIMD.rglob("*.extxyz.xz"))
ACCELERATION = 1.602176634e-19 / 1.66053906660e-27 * 1e-10  # 1 eV/(Å u) in Å/fs²
ROW = re.compile(
    r"^\| (\w+) \| `(h2pd6_(\d{3})_from_(\d{3})\.extxyz\.xz)` \| (\d+)–(\d+) \| ([^|]+) \|", re.MULTILINE
)

rows = {row[1]: row for row in ROW.findall((AIMD / "README.md").read_text(encoding="utf-8"))}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[6:18])


@cache
def frames_of(path: Path) -> list[Atoms]:
    with lzma.open(path, "rt") as file:
        return read(io.StringIO(file.read()), ":", format="extxyz")


def hh_distances(path: Path) -> np.ndarray:
    return np.array([np.linalg.norm(frame.positions[0] - frame.positions[1]) for frame in frames_of(path)])


def test_size_and_split():
    assert sum(path.stat().st_size for path in FILES) <= 6_000_000
    assert {name: len(list((AIMD / name).iterdir())) for name in ("train", "validation", "test")} == {
        "train": 7, "validation": 1, "test": 2}
    trajectories = [path.name[6:9] for path in FILES]
    assert len(set(trajectories)) == len(trajectories) == 10


def test_readme_lists_exactly_these_files():
    assert {(row[0], name) for name, row in rows.items()} == {(path.parent.name, path.name) for path in FILES}


@each_file
def test_frames_are_consecutive_and_as_stated(path):
    frames = frames_of(path)
    _, _, _, first, start, stop, _ = rows[path.name]
    assert int(first) == int(start)
    assert [frame.info["step"] for frame in frames] == list(range(int(start), int(stop) + 1))
    assert len(frames) >= 200
    assert {frame.info["timestep_fs"] for frame in frames} == {0.5}
    assert {str(frame.symbols) for frame in frames} == {"H2C49Pd6"}


@each_file
def test_motion_follows_from_forces_and_conserves_energy(path):
    frames = frames_of(path)
    r, v = (np.array([frame.arrays[name] for frame in frames]) for name in ("positions", "velocities"))
    forces = np.array([frame.get_forces() for frame in frames])
    masses = frames[0].get_masses()
    expected = ACCELERATION * forces[1:-1] / masses[:, None] * 0.5**2
    np.testing.assert_allclose(r[2:] - 2 * r[1:-1] + r[:-2], expected, rtol=0, atol=3e-8)
    np.testing.assert_allclose(v[1:-1], (r[2:] - r[:-2]) / (2 * 0.5), rtol=0, atol=3e-8)
    kinetic = 0.5 * (masses * (v**2).sum(axis=2)).sum(axis=1) / ACCELERATION
    total = kinetic + [frame.get_potential_energy() for frame in frames]
    assert np.ptp(total) < 0.04


@each_file
def test_h2_comes_apart_where_stated_and_nowhere_else(path):
    apart = hh_distances(path) > 1.5
    stated = rows[path.name][6].strip()
    if stated == "–":
        assert not apart.any()
    else:
        assert int(rows[path.name][4]) + int(np.argmax(apart)) == int(stated)
        assert apart[-1] and hh_distances(path).max() > 2.4


def test_both_outcomes_are_in_the_training_and_in_the_test_part():
    for part in ("train", "test"):
        outcomes = {bool((hh_distances(path) > 1.5).any()) for path in FILES if path.parent.name == part}
        assert outcomes == {True, False}


@each_file
def test_lines_are_those_of_the_original(path, shared_data):
    number, start = path.name[6:9], int(path.name[15:18])
    original_path = shared_data / "h2pd6_gfn1" / f"traj_{number}.extxyz.gz"
    with lzma.open(path, "rb") as file, gzip.open(original_path, "rb") as original:
        lines, all_lines = file.readlines(), original.readlines()
    begin = start * 59  # 57 atoms and two lines of header
    assert lines == all_lines[begin:begin + len(lines)]


def test_substrate_is_the_one_of_the_trajectories():
    substrate = read(INPUTS / "substrate_relaxed.xyz")
    first = frames_of(FILES[0])[0]
    assert str(substrate.symbols) == str(first.symbols[2:])
    np.testing.assert_allclose(substrate.cell[:], first.cell[:])
    np.testing.assert_allclose(substrate.get_forces(), 0.0, atol=0.05)


def test_default_calculator_gives_the_energies_and_forces_of_the_data():
    tblite = pytest.importorskip("tblite.ase")
    frame = frames_of(AIMD / "train" / "h2pd6_007_from_000.extxyz.xz")[0]
    assert frame.get_potential_energy() == pytest.approx(-3583.713259682976, abs=1e-9)
    again = frame.copy()
    again.calc = tblite.TBLite(method="GFN1-xTB", electronic_temperature=1000.0, verbosity=0)
    assert again.get_potential_energy() == pytest.approx(-3583.713259682976, abs=1e-5)
    np.testing.assert_allclose(again.get_forces(), frame.get_forces(), atol=1e-5)
