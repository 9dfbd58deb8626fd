"""PWmat MOVEMENT and DeePMD npy: numbers read off the real files, their physics, and damaged copies."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_masses
from raw_runs import read_run

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers import deepmd, pwmat
from dtmd.ingest.source import CutShort, candidate
from dtmd.trajectory import unwrap

BOHR = 0.529177210903


@pytest.fixture
def movement(shared_data, tmp_path) -> Path:
    """A copy of the first three frames of CH4."""
    lines = (shared_data / "aimd/ch4_pwmat_nve/MOVEMENT").read_text().splitlines(keepends=True)
    (tmp_path / "MOVEMENT").write_text("".join(lines[:84]))
    return tmp_path / "MOVEMENT"


def read_movement(path: Path):
    return read_run(pwmat.FORMAT, path)


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_pwmat_numbers_read_off_the_file(shared_data):
    run, frames = read_movement(shared_data / "aimd/ch4_pwmat_nve/MOVEMENT")
    first, last = frames[0], frames[-1]
    assert run.code == "PWmat" and run.numbers.tolist() == [1, 1, 1, 1, 6] and run.pbc.all()
    assert run.timestep is None and run.fixed is None and run.settings["MD method"] == "VV"
    assert len(frames) == 992 and [first.time, frames[1].time, last.time] == [1.0, 2.0, 992.0] and first.step is None
    # Ep, not Etot, which is -219.3369388.
    assert [first.energy, last.energy] == [-219.6929065, -219.6925888]
    assert np.array_equal(first.cell, 10.0 * np.eye(3))
    assert np.allclose(first.positions[0], [5.36749759840487, 4.05485827183722, 3.59205635300584], rtol=0, atol=1e-13)
    assert np.allclose(last.positions[4], [2.65070028365290, 2.30857893305472, 2.04837145453927], rtol=0, atol=1e-13)
    # The file says 0.046108800185045 -0.541030624050995 -0.582488361151274.
    assert first.forces[0].tolist() == [-0.046108800185045, 0.541030624050995, 0.582488361151274]
    assert last.forces[4].tolist() == [0.858995603382430, 0.440886476141144, 0.172135332480687]
    velocity = BOHR * np.array([0.046233495196403, 0.043110284650326, 0.049057357629906])
    assert np.allclose(first.velocities[2], velocity, rtol=0, atol=1e-15)


def test_pwmat_frames_follow_from_the_forces(shared_data):
    run, frames = read_movement(shared_data / "aimd/ch4_pwmat_nve/MOVEMENT")
    frames = frames[:200]
    r = unwrap(*(np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "cell")), run.pbc)
    forces = np.array([frame.forces for frame in frames])
    expected = units.ACCELERATION * forces / atomic_masses[run.numbers][:, None]
    second = r[2:] - 2.0 * r[1:-1] + r[:-2]
    assert np.linalg.norm(second - expected[1:-1]) < 0.01 * np.linalg.norm(second)
    central = 0.5 * (r[2:] - r[:-2])
    velocities = np.array([frame.velocities for frame in frames])
    assert np.linalg.norm(velocities[1:-1] - central) < 0.001 * np.linalg.norm(central)


def test_pwmat_with_stress_further_sections_and_no_last_line_end(shared_data):
    run, frames = read_movement(shared_data / "formats/pwmat_dpdata/MOVEMENT_1")
    assert run.numbers.tolist() == [29] * 72 and run.settings["MD method"] == "NH"
    assert [frame.time for frame in frames] == [1.0, 2.0]
    assert [frame.energy for frame in frames] == [-357682.8045, -357682.785]
    assert np.array_equal(frames[1].cell, np.diag([10.86378600, 10.86378600, 7.242524000]))
    assert np.allclose(frames[1].positions[0], [0.999713929187363 * 10.863786, 0.999844037562662 * 10.863786,
                                                0.000807264286251 * 7.242524], rtol=0, atol=1e-12)
    assert frames[1].forces[0].tolist() == [0.032745471844462, 0.021585509728783, -0.087751847490028]
    assert np.allclose(frames[0].velocities[0], BOHR * np.array([-0.002945516815701, -0.001605861071812,
                                                                 0.005541309878130]))


def test_pwmat_fixed_components(movement):
    edit(movement, "0.359205635300584     1  1  1", "0.359205635300584     1  0  0")
    run, _ = read_movement(movement)
    assert run.fixed.tolist() == [[False, True, True]] + [[False] * 3] * 4


@pytest.mark.parametrize("old, new, message", [
    ("0.405485827183722", "0.4054858x7183722", "line 11: frame 0, Position.*'1 0.53"),
    ("0.1000000000E+02    0.0000000000E+00", "**************** 0.0000000000E+00", "line 7: frame 0, Lattice vector"),
    ("Ep,Ek (eV) =   -0.2193369388E+03  -0.2196929065E+03", "Ep,Ek (eV) =   -0.2193369388E+03  ****", "no number"),
    ("   6         0.301171890086218", "   7         0.301171890086218", "'Force' in frame 0.*not those"),
    (" Force (eV/Angstrom)", " Fxrce (eV/Angstrom)", "frame 0 has no section 'Force'"),
    ("     MD_INFO: METHOD", "     METHOD", "relaxation"),
    ("Iteration (fs) =    0.1000000000E+01", "Iteration =   1", "as molecular dynamics of PWmat writes it"),
    (" -------------------------------------------------\n", "", "line 28: the next frame starts inside frame 0"),
])
def test_pwmat_damage_is_named(movement, old, new, message):
    edit(movement, old, new)
    with pytest.raises(DtmdError, match=message):
        read_movement(movement)


def test_pwmat_without_velocities_in_one_frame(movement):
    head, _, tail = movement.read_text().rpartition(" Velocity (bohr/fs)")
    movement.write_text(head + tail[tail.index(" -----"):])
    with pytest.raises(DtmdError, match="frame 2 has no section 'Velocity'"):
        read_movement(movement)


def test_pwmat_cut_at_any_place(movement):
    (source,) = pwmat.FORMAT.find([candidate(movement)])
    text, whole = movement.read_text(), read_movement(movement)[1]
    ruler = " -------------------------------------------------\n"
    second, third = text.index(ruler) + len(ruler), text.rindex(ruler[:-1], 0, -60) + len(ruler)
    for size in range(second + 1, len(text) - len(ruler) - 1, 97):
        movement.write_text(text[:size])
        frames = []
        try:
            for frame in pwmat.FORMAT.read(source).frames:
                frames.append(frame)
        except CutShort:
            pass
        else:
            # Only the ruler is missing.
            assert third - len(ruler) <= size <= third
        assert len(frames) == (2 if size >= third - len(ruler) else 1)
        assert all(np.array_equal(a.velocities, b.velocities) for a, b in zip(frames, whole))


@pytest.fixture
def water(shared_data, tmp_path) -> Path:
    """A writable copy of the folder with the first 20 frames."""
    original = shared_data / "aimd/water64_cp2k_npt"
    (tmp_path / "set.000").mkdir()
    for name in ("type.raw", "type_map.raw"):
        shutil.copyfile(original / name, tmp_path / name)
    for name in ("coord", "box", "force", "energy"):
        np.save(tmp_path / f"set.000/{name}.npy", np.load(original / f"set.000/{name}.npy")[:20])
    return tmp_path


def read_water(folder: Path):
    return read_run(deepmd.FORMAT, folder / "type.raw")


def test_deepmd_numbers_read_off_the_files(shared_data):
    run, frames = read_water(shared_data / "aimd/water64_cp2k_npt")
    first, last = frames[0], frames[-1]
    assert len(frames) == 401 and run.numbers.tolist() == [8] * 64 + [1] * 128
    assert run.timestep is None and run.pbc.all() and first.velocities is None and first.step is first.time is None
    assert np.round([first.energy, last.energy], 8).tolist() == [-29964.66272126, -29975.93376256]
    assert np.round(first.positions[0], 8).tolist() == [10.72467161, 3.52114062, 2.71119896]
    assert np.round(last.positions[191], 8).tolist() == [-0.22992153, 2.30910905, 0.8783413]
    assert np.round(first.forces[0], 8).tolist() == [-1.55253866, -0.47554357, 0.57873789]
    assert np.round(last.cell[2, 2], 4) == 12.1162 and np.round(first.cell[0, 0], 7) == 12.3328753


def test_deepmd_sets_follow_one_another(water):
    whole = read_water(water)[1]
    (water / "set.001").mkdir()
    for path in (water / "set.000").iterdir():
        values = np.load(path)
        np.save(path, values[:13])
        np.save(water / "set.001" / path.name, values[13:].astype(np.float32))
    frames = read_water(water)[1]
    assert len(frames) == len(whole) == 20
    assert all(np.allclose(a.positions, b.positions, atol=1e-5) for a, b in zip(frames, whole))
    assert frames[19].positions.dtype == np.float64


def test_deepmd_molecule_without_labels(water):
    (water / "nopbc").touch()
    for name in ("force", "energy"):
        (water / f"set.000/{name}.npy").unlink()
    run, frames = read_water(water)
    assert not run.pbc.any() and not frames[0].cell.any() and frames[0].forces is frames[0].energy is None


def test_deepmd_folder_without_sets_is_none(water):
    shutil.rmtree(water / "set.000")
    assert deepmd.FORMAT.find([candidate(water / "type.raw")]) == []


def rewrite(array: str, change):
    def apply(folder: Path) -> None:
        path = folder / f"set.000/{array}.npy"
        np.save(path, change(np.load(path)))
    return apply


def cut(array: str, n_bytes: int):
    def apply(folder: Path) -> None:
        path = folder / f"set.000/{array}.npy"
        path.write_bytes(path.read_bytes()[:n_bytes])
    return apply


def add_set(folder: Path) -> None:
    shutil.copytree(folder / "set.000", folder / "set.001")
    (folder / "set.001/force.npy").unlink()


@pytest.mark.parametrize("damage, message", [
    (rewrite("force", lambda values: values[:-1]), "set.000: 20 frames in coord.npy, .*19 frames in force.npy"),
    (rewrite("coord", lambda values: values[:, 3:]), r"coord.npy: shape \(20, 573\).*576 numbers"),
    (rewrite("energy", lambda values: values.astype(str)), "energy.npy: not an array of numbers"),
    (rewrite("energy", lambda values: np.array(values.tolist(), object)), "energy.npy: cannot be read"),
    (cut("coord", 5000), "coord.npy: cannot be read as npy"),
    (cut("force", 40), "force.npy: cannot be read as npy"),
    (cut("force", 0), "force.npy: cannot be read as npy"),
    (add_set, "set.001: no force.npy"),
    (lambda folder: (folder / "set.000/box.npy").unlink(), "no box.npy"),
    (lambda folder: (folder / "type_map.raw").unlink(), "no type_map.raw"),
    (lambda folder: (folder / "type_map.raw").write_text("H\n"), "type '1' is no element of type_map.raw"),
    (lambda folder: (folder / "type_map.raw").write_text("H Ox"), "type '1' is no element"),
    (lambda folder: np.save(folder / "set.000/real_atom_types.npy", np.zeros((20, 192))), "mixed-type"),
])
def test_deepmd_damage_is_named(water, damage, message):
    damage(water)
    with pytest.raises(DtmdError, match=message):
        read_water(water)
