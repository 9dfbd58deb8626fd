"""The HDF5 store: what is read is what was written, nothing half-written, bad files named."""

import dataclasses
import multiprocessing
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import example

from dtmd.errors import DtmdError
from dtmd.files import sha256
from dtmd.store import describe_store, in_slices, is_store, layout, read_store, write_store
from dtmd.trajectory import Check, Origin, Trajectory

ARRAYS = ("numbers", "masses", "pbc", "cells", "times", "positions", "velocities", "forces", "energies", "fixed")
HELIUM = {"numbers": np.array([2, 2]), "masses": np.array([4.0, 4.0]), "pbc": np.array([True, False, True])}


def helium(n_frames: int = 4, seed: int = 0, **changes) -> Trajectory:
    """Two atoms that move at random."""
    rng = np.random.default_rng(seed)
    fields = HELIUM | {
        "cells": np.tile(np.eye(3), (n_frames, 1, 1)), "times": 0.5 * np.arange(n_frames),
        "positions": rng.normal(size=(n_frames, 2, 3)), "velocities": rng.normal(size=(n_frames, 2, 3)),
        "forces": rng.normal(size=(n_frames, 2, 3)), "energies": rng.normal(size=n_frames), "source": "memory",
    }
    return Trajectory(**(fields | changes))


def same(read: Trajectory, written: Trajectory) -> None:
    """Everything but the source, labels to single precision."""
    for name in ARRAYS:
        got, expected = getattr(read, name), getattr(written, name)
        assert (got is None) == (expected is None), name
        if expected is None:
            continue
        if name in ("velocities", "forces"):
            assert got.dtype == np.float32 and np.array_equal(got, expected.astype(np.float32)), name
        elif name == "energies":
            spread = np.abs(expected - expected.mean()).max()
            assert got.dtype == np.float64
            assert np.abs(got - expected).max() <= 6e-8 * spread + 3e-16 * np.abs(expected).max()
        else:
            assert got.dtype == expected.dtype and np.array_equal(got, expected), name
    assert read.notes == written.notes


@st.composite
def trajectories(draw):
    n_frames, n_atoms = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = [rng.normal(size=(n_frames, n_atoms, 3)) * 10.0 ** draw(st.integers(-12, 12)) for _ in range(3)]
    cells = np.tile(rng.normal(size=(1, 3, 3)), (n_frames, 1, 1))
    if draw(st.booleans()):
        cells = cells + rng.normal(size=(n_frames, 3, 3))
    energies = draw(st.floats(-1e7, 1e7)) + rng.normal(size=n_frames) * 10.0 ** draw(st.integers(-6, 4))
    text = st.text(max_size=20)
    origin = Origin(
        run=draw(text), code=draw(text), version=draw(text), files=tuple(draw(st.lists(text, max_size=3))),
        digest=draw(text), timestep_from=draw(text), settings=draw(st.dictionaries(text, text | st.floats(-9, 9))),
        checks=tuple(draw(st.lists(st.builds(Check, text, text, st.none() | st.floats(-9, 9), text), max_size=2))),
    )
    return Trajectory(
        numbers=rng.integers(1, 100, n_atoms), masses=rng.uniform(1, 200, n_atoms), pbc=rng.random(3) < 0.5,
        cells=cells, times=np.cumsum(rng.uniform(0.1, 2.0, n_frames)), positions=vectors[0],
        velocities=draw(st.sampled_from([None, vectors[1]])), forces=draw(st.sampled_from([None, vectors[2]])),
        energies=draw(st.sampled_from([None, energies])), source=draw(text),
        notes=tuple(draw(st.lists(text, max_size=3))), origin=origin,
        fixed=draw(st.sampled_from([None, rng.random((n_atoms, 3)) < 0.5])),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=st.lists(trajectories(), min_size=1, max_size=4, unique_by=lambda t: t.positions[0, 0, 0]),
    n_first=st.integers(1, 4),
)
def test_what_is_read_is_what_was_written(tmp_path, written, n_first):
    path = tmp_path / "data.h5"
    path.unlink(missing_ok=True)
    write_store(path, written[:n_first])
    if written[n_first:]:
        write_store(path, written[n_first:])
    read = read_store(path)
    assert len(read) == len(written)
    for got, expected in zip(read, written, strict=True):
        same(got, expected)
        assert dataclasses.replace(got.origin, run="") == dataclasses.replace(expected.origin, run="")
        assert got.origin.run.startswith(expected.origin.run)
    assert len({t.source for t in read}) == len(read) and all(t.source.startswith(f"{path}:") for t in read)
    again = write_store(path, written)
    assert again.added == () and again.present == tuple(t.source for t in written)


def test_real_trajectories_are_maps_of_the_file(tmp_path):
    written = example()
    change = write_store(tmp_path / "data.h5", written)
    assert len(change.added) == 2 and change.present == ()
    for got, expected in zip(read_store(tmp_path / "data.h5"), written, strict=True):
        same(got, expected)
        for name in ("positions", "velocities", "forces"):
            array = getattr(got, name)
            assert isinstance(array, np.memmap) and not array.flags.writeable
            assert array.__array_interface__["data"][0] % 8 == 0
    with h5py.File(tmp_path / "data.h5") as file:
        assert file["trajectories/000001/cells"].shape == (1, 3, 3)
        assert file["trajectories/000001/forces"].attrs["unit"] == "eV/Å".encode()


def test_a_store_in_slices_and_from_memory_maps(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SLICE_BYTES", 500)
    written = helium(100)
    np.save(tmp_path / "positions.npy", written.positions)
    mapped = dataclasses.replace(written, positions=np.load(tmp_path / "positions.npy", mmap_mode="r"))
    assert max(len(piece) for piece in in_slices(mapped.positions)) == 10
    write_store(tmp_path / "data.h5", [mapped])
    (read,) = read_store(tmp_path / "data.h5")
    same(read, written)
    found = describe_store(tmp_path / "data.h5")["contents"]["memory"]
    assert np.isclose(found["mean_temperature_K"], written.temperatures().mean(), atol=0.06)
    assert np.isclose(found["largest_force_eV_per_A"], np.linalg.norm(written.forces, axis=2).max(), atol=6e-4)


def test_names_and_runs_are_kept_apart_and_segments_together(tmp_path):
    first, second = Origin(run="OUTCAR", digest="a"), Origin(run="OUTCAR", digest="b")
    path = tmp_path / "data.h5"
    write_store(path, [helium(seed=1, source="OUTCAR[0:4]", origin=first)])
    # another folder's OUTCAR in two segments, then another run beside the segment that is there
    write_store(path, [helium(seed=k, source=f"OUTCAR[{k}:9]", origin=second) for k in (2, 0)])
    write_store(path, [helium(seed=1, source="x/OUTCAR", origin=first), helium(seed=5, source="last", origin=first)])
    read = read_store(path)
    assert [t.origin.run for t in read] == ["OUTCAR", "OUTCAR#2", "OUTCAR#2", "OUTCAR"]
    names = ["OUTCAR[0:4]", "OUTCAR[2:9]", "OUTCAR[0:9]", "last"]
    assert [t.source for t in read] == [f"{path}:{name}" for name in names]
    write_store(tmp_path / "copy.h5", read)
    assert [t.source for t in read_store(tmp_path / "copy.h5")] == [f"{tmp_path}/copy.h5:{name}" for name in names]


def test_a_run_that_went_on_is_refused(tmp_path):
    path, run = tmp_path / "data.h5", helium(30)
    write_store(path, [run.window(0, 20)])
    before = sha256([path])
    with pytest.raises(DtmdError, match="memory: begins with the same frames as .*data.h5:memory but"):
        write_store(path, [helium(seed=1), run])
    with pytest.raises(DtmdError, match="time step or forces"):
        write_store(path, [dataclasses.replace(run.window(0, 20), forces=run.forces[:20] + 1)])
    assert sha256([path]) == before
    assert write_store(path, [run], append=False).added == ("memory",)
    assert len(read_store(path)[0]) == 30


def test_other_files_and_empty_lists_are_left_alone(tmp_path):
    path = tmp_path / "notes.h5"
    path.write_text("my notes")
    for append in (True, False):
        with pytest.raises(DtmdError, match="notes.h5: is no trajectory store"):
            write_store(path, [helium()], append)
    assert path.read_text() == "my notes"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DtmdError, match="other.h5: is no trajectory store"):
        read_store(tmp_path / "other.h5")
    with pytest.raises(DtmdError, match="nowhere.h5: no such file"):
        read_store(tmp_path / "nowhere.h5")
    with pytest.raises(DtmdError, match="no trajectories to store"):
        write_store(tmp_path / "empty.h5", [])
    with pytest.raises(DtmdError, match="cannot be written"):
        write_store(path / "data.h5", [helium()])
    assert not is_store(tmp_path) and not is_store(path) and not (tmp_path / "empty.h5").exists()


def test_an_error_while_reading_leaves_the_store_as_it_was(tmp_path):
    path = tmp_path / "data.h5"

    def one_then_error():
        yield helium(seed=1)
        raise DtmdError("vasprun.xml: damaged")

    with pytest.raises(DtmdError, match="vasprun.xml"):
        write_store(path, one_then_error())
    assert list(tmp_path.iterdir()) == []
    write_store(path, [helium()])
    before = sha256([path])
    with pytest.raises(DtmdError, match="vasprun.xml"):
        write_store(path, one_then_error())
    assert sha256([path]) == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("room", [400, 20_000, 60_000, 150_000])
def test_a_full_disk_is_one_error(tmp_path, room):
    path = tmp_path / "data.h5"
    write_store(path, [helium()])
    before = sha256([path])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # the kernel refuses to write more, as on a full disk
    try:
        with pytest.raises(DtmdError, match="data.h5: cannot be written .* nothing was changed"):
            write_store(path, [helium(seed=1), helium(2000, seed=2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sha256([path]) == before and list(tmp_path.iterdir()) == [path]


def test_kill_9_while_adding_leaves_the_store(tmp_path):
    script = (
        "import dataclasses, pathlib, sys, time\nsys.path.insert(0, sys.argv[2])\n"
        "from test_store import helium\nfrom dtmd.store import write_store\n"
        "def slow():\n"
        "    for seed in range(1, 999):\n"
        "        print(seed, flush=True); time.sleep(0.01); yield helium(500, seed=seed)\n"
        "write_store(pathlib.Path(sys.argv[1]), slow())\n"
    )
    path = tmp_path / "data.h5"
    write_store(path, [helium()])
    before = sha256([path])
    process = subprocess.Popen([sys.executable, "-c", script, str(path), str(Path(__file__).parent)],
                               stdout=subprocess.PIPE, text=True)
    while process.stdout.readline() != "20\n":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sha256([path]) == before and len(read_store(path)) == 1
    write_store(path, [helium(seed=1)])  # the lock is gone and the leftover is taken over
    assert len(read_store(path)) == 2 and list(tmp_path.iterdir()) == [path]


def read_sum(path: Path) -> float:
    return sum(float(t.positions.sum()) for _ in range(20) for t in read_store(path))


def add_one(path: Path, seed: int) -> None:
    write_store(path, [helium(seed=seed)])


def test_many_processes_read_while_others_add(tmp_path):
    path = tmp_path / "data.h5"
    write_store(path, [helium(seed=100)])
    before = read_store(path)
    expected = before[0].positions.copy()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        adding = [pool.apply_async(add_one, (path, seed)) for seed in range(12)]
        reading = [pool.apply_async(read_sum, (path,)) for _ in range(6)]
        assert all(np.isfinite(result.get(60)) for result in reading)
        for result in adding:
            result.get(60)
    assert len(read_store(path)) == 13  # none was lost
    assert np.array_equal(before[0].positions, expected)  # of the file as it was


def test_damaged_stores_are_named(tmp_path):
    whole = tmp_path / "whole.h5"
    write_store(whole, [helium(), helium(50, seed=1)])
    content = whole.read_bytes()
    bad = tmp_path / "bad.h5"
    for n_bytes in (100, 600, 2000, len(content) // 2):
        bad.write_bytes(content[:n_bytes])
        with pytest.raises(DtmdError, match="bad.h5: "):
            read_store(bad)
    bad.write_bytes(content[: len(content) // 2])
    assert is_store(bad)  # so that it is called damaged, not unknown
    with pytest.raises(DtmdError, match="cannot be read .* copy it again"):
        write_store(bad, [helium(seed=2)])
    assert bad.read_bytes() == content[: len(content) // 2]


def edited(whole: Path, edit) -> Path:
    path = whole.with_name("edited.h5")
    shutil.copy(whole, path)
    with h5py.File(path, "r+") as file:
        edit(file, file["trajectories/000000"])
    return path


def replaced(name, **options):
    def edit(file, group):
        data = options.pop("data", group[name][()])
        del group[name]
        group.create_dataset(name, data=data, **options)
    return edit


@pytest.mark.parametrize(("edit", "problem"), [
    (lambda file, group: file.attrs.modify("version", 2), "newer dtmd"),
    (lambda file, group: group.pop("positions"), "positions"),
    (lambda file, group: group.attrs.pop("origin"), "origin"),
    (lambda file, group: group.attrs.modify("origin", b"{}"), "checks"),
    (lambda file, group: group.attrs.modify("notes", b"[1"), "cannot be read"),
    (lambda file, group: file.pop("trajectories"), "trajectories"),
    (replaced("positions", chunks=(1, 2, 3)), "no contiguous array"),
    (replaced("positions", compression="gzip"), "no contiguous array"),
    (replaced("positions", dtype="f4"), "no contiguous array"),
    (replaced("positions", data=np.zeros((3, 2, 3))), "shape"),
    (replaced("cells", data=np.zeros((2, 3, 3))), "shape"),
    (replaced("times", data=np.zeros(4)), "put the frames in order"),
    (replaced("numbers", data=np.array([2, 1000])), "no atomic numbers"),
])
def test_edited_stores_are_named(tmp_path, edit, problem):
    write_store(tmp_path / "whole.h5", [helium()])
    with pytest.raises(DtmdError, match=problem) as error:
        read_store(edited(tmp_path / "whole.h5", edit))
    assert "edited.h5" in str(error.value)


FLIP = """
import pathlib, random, sys
from dtmd.errors import DtmdError
from dtmd.store import read_store
whole = pathlib.Path(sys.argv[1]).read_bytes()
random.seed(1)
path = pathlib.Path(sys.argv[1] + ".flipped")
for _ in range(1500):
    content = bytearray(whole)
    for _ in range(random.choice((1, 1, 8))):
        content[random.randrange(len(content))] = random.randrange(256)
    path.write_bytes(content)
    try:
        for t in read_store(path):
            t.positions.sum()
    except DtmdError as error:
        assert str(path) in str(error)
"""


def test_flipped_bytes_give_one_error_or_none(tmp_path):
    write_store(tmp_path / "data.h5", [helium(), helium(seed=1)])
    result = subprocess.run([sys.executable, "-c", FLIP, tmp_path / "data.h5"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_store_is_described(tmp_path):
    origin = Origin(run="run1", code="VASP", version="6.4", digest="0123456789abcdef", timestep_from="POTIM",
                    checks=(Check("motion", "ok", 0.01), Check("work", "allowed", 0.3, "energy is off")))
    trajectory = dataclasses.replace(example()[0], origin=origin)
    write_store(tmp_path / "data.h5", [trajectory, helium(2, source="no labels", velocities=None, forces=None,
                                                          energies=None)])
    found = describe_store(tmp_path / "data.h5")
    assert (found["runs"], found["trajectories"], found["frames"]) == (2, 2, len(trajectory) + 2)
    assert found["elements"] == ["H", "He", "C", "Pd"]
    run, bare = found["contents"].values()
    assert run["code"] == "VASP 6.4" and run["run"] == "run1" and run["atoms"] == {"H": 2, "C": 49, "Pd": 6}
    assert run["timestep_fs"] == pytest.approx(trajectory.timestep) and run["timestep_from"] == "POTIM"
    assert run["mean_temperature_K"] == pytest.approx(trajectory.temperatures().mean(), abs=0.06)
    assert run["mean_energy_eV_per_atom"] == pytest.approx(trajectory.energies.mean() / 57, abs=1e-6)
    assert run["checks"] == {"work": "allowed: energy is off"} and run["sha256"] == "0123456789ab"
    assert bare["checks"] == "ok" and "mean_temperature_K" not in bare


BIG = """
import pathlib, resource, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from test_store import HELIUM
from dtmd.store import describe_store, write_store
from dtmd.trajectory import Trajectory
folder, n = pathlib.Path(sys.argv[1]), 20_000
mapped = np.memmap(folder / "raw", float, "w+", shape=(n, 2000, 3))
big = Trajectory(
    numbers=np.full(2000, 2), masses=np.full(2000, 4.0), pbc=HELIUM["pbc"], times=np.arange(float(n)),
    cells=np.broadcast_to(np.eye(3), (n, 3, 3)), positions=mapped, velocities=mapped, forces=mapped)
resource.setrlimit(resource.RLIMIT_DATA, (800 << 20, 800 << 20))  # without the pages of files
write_store(folder / "data.h5", [big])
describe_store(folder / "data.h5")
"""


@pytest.mark.slow
def test_data_larger_than_memory(tmp_path):
    subprocess.run([sys.executable, "-c", BIG, tmp_path, Path(__file__).parent], check=True, timeout=300)
    assert (tmp_path / "data.h5").stat().st_size > 1.9e9
