"""Adding trajectories to a store, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

from dtmd.errors import DtmdError
from dtmd.files import written_whole
from dtmd.store.layout import FORMAT, LAYOUT, VERSION, in_slices, is_store
from dtmd.store.reading import read_store
from dtmd.trajectory import Origin, Trajectory

METADATA_BYTES = 1 << 15
"""Room for the headers of a trajectory."""

BEGINNING = 10
"""Frames by which a trajectory is recognised."""


@dataclass(frozen=True)
class StoreChange:
    """What `write_store` did.

    Attributes:
        added: names of the new trajectories in the store.
        present: sources of those that were there already.
    """

    added: tuple[str, ...]
    present: tuple[str, ...]

    def __str__(self) -> str:
        there = f", {len(self.present)} were there already" if self.present else ""
        return f"{len(self.added)} trajectories added{there}"


def write_store(path: Path, trajectories: Iterable[Trajectory], append: bool = True) -> StoreChange:
    """Add trajectories to a store, which is made if it is not there; they are taken one after another.

    One that is in the store with the same frames is not added again, whatever file it comes from. Names
    and runs are made distinct from those that other runs in the store have, but for a trajectory whose run
    is named `PATH:RUN`: it belongs to that run of this store. Until the new file is
    complete, the old one is under its name.

    Args:
        path: of the store.
        trajectories: arrays may be larger than memory, as memory maps.
        append: keep what the store holds; otherwise it is replaced.

    Raises:
        DtmdError: `path` is another kind of file, or damaged; a trajectory that begins like one in the store
            and is another all the same; no trajectories; the disk does not take the file.
    """
    with _one_writer(path.parent):
        if path.exists() and not is_store(path):
            raise DtmdError(f"{path}: is no trajectory store and is left as it is; give another name")
        kept = read_store(path) if append and path.exists() else []
        newcomers = _Newcomers(path, kept)
        fresh = newcomers.of(trajectories)
        first = next(fresh, None)
        if first is None and not newcomers.present:
            raise DtmdError(f"{path}: no trajectories to store")
        if first is not None:
            with written_whole(path) as temporary:
                _write(temporary, path if kept else None, chain([first], fresh))
    return StoreChange(tuple(newcomers.added), tuple(newcomers.present))


class _Newcomers:
    """Which trajectories a store does not hold, and what they are called in it."""

    def __init__(self, path: Path, kept: list[Trajectory]) -> None:
        self.added: list[str] = []
        self.present: list[str] = []
        self._path = path
        self._names = {t.source.removeprefix(f"{path}:") for t in kept}
        self._old_runs = {t.origin.run for t in kept}
        self._runs: dict[str, str] = {}
        self._known: dict[str, list[Trajectory]] = {}
        for trajectory in kept:
            self._known.setdefault(_beginning(trajectory), []).append(trajectory)

    def of(self, trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """The new ones, under their names."""
        for trajectory in trajectories:
            alike = self._known.get(_beginning(trajectory), [])
            same = next((known for known in alike if _extent(known) == _extent(trajectory)), None)
            if same is not None:
                self._runs.setdefault(trajectory.origin.run, same.origin.run)
                self.present.append(trajectory.source)
            elif alike:
                # A run that went on would be there twice, perhaps in training and in validation.
                raise DtmdError(f"{trajectory.source}: begins with the same frames as {alike[0].source} but has "
                                "another length, time step or forces; make a new store that holds it as it is now")
            else:
                yield self._named(trajectory)

    def _named(self, trajectory: Trajectory) -> Trajectory:
        store, _, run = trajectory.origin.run.rpartition(":")
        if store != str(self._path):
            run = trajectory.origin.run
            run = run and self._runs.setdefault(run, _distinct(run, self._old_runs | set(self._runs.values())))
        file, _, name = trajectory.source.partition(":")
        name = _distinct(name if is_store(Path(file)) else trajectory.source, self._names)
        self._names.add(name)
        self.added.append(name)
        return replace(trajectory, source=name, origin=replace(trajectory.origin, run=run))


def _distinct(name: str, taken: Container[str]) -> str:
    """The name, or the first of NAME#2, NAME#3 … that is free."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


def _beginning(trajectory: Trajectory) -> str:
    return _sha256(trajectory.numbers.astype("<i8"), trajectory.positions[:BEGINNING].astype("<f8"))


def _extent(trajectory: Trajectory) -> tuple:
    """What trajectories with the same beginning share if they are one."""
    forces = trajectory.forces
    labels = "" if forces is None else _sha256(forces[:BEGINNING].astype(LAYOUT["forces"][0]))
    return len(trajectory), float(trajectory.times[0]), float(trajectory.times[-1]), labels


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Others that write into this folder wait: two at once would share a temporary file, and one be lost."""
    handle = None
    with suppress(OSError):  # no folder, which is reported later, or a file system without locks
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _write(temporary: Path, old: Path | None, trajectories: Iterable[Trajectory]) -> None:
    if old is not None:
        shutil.copyfile(old, temporary)
    with _hdf5_writing():
        # Headers of HDF5 1.8 have checksums and room for long texts; aligned data are fast to read from a map.
        file = h5py.File(temporary, "w" if old is None else "r+", libver=("v108", "v108"), locking=False,
                         alignment_threshold=1, alignment_interval=64)
    try:
        if old is None:
            file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
        groups = file.require_group("trajectories")
        for trajectory in trajectories:
            with _hdf5_writing():
                _add(file, groups.create_group(f"{len(groups):06d}"), trajectory)
    finally:
        with _hdf5_writing():
            file.close()


@contextmanager
def _hdf5_writing() -> Iterator[None]:
    """HDF5 reports a failed write as RuntimeError too; this makes it an OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from error


def _add(file: h5py.File, group: h5py.Group, trajectory: Trajectory) -> None:
    arrays = {key: getattr(trajectory, key) for key in LAYOUT if getattr(trajectory, key) is not None}
    if all((cells == trajectory.cells[0]).all() for cells in in_slices(trajectory.cells)):
        arrays["cells"] = trajectory.cells[:1]
    offset = 0.0
    if trajectory.energies is not None:
        offset = float(trajectory.energies.mean())
        arrays["energies"] = trajectory.energies - offset
    texts = {"name": json.dumps(trajectory.source), "notes": json.dumps(trajectory.notes),
             "origin": _as_json(trajectory.origin)}
    _reserve(file, sum(array.nbytes for array in arrays.values()) + 2 * len("".join(texts.values())) + METADATA_BYTES)
    group.attrs["energy_offset"] = offset
    for key, text in texts.items():
        _set_text(group, key, text)
    for key, array in arrays.items():
        dtype, unit = LAYOUT[key]
        dataset = group.create_dataset(key, array.shape, dtype)
        _set_text(dataset, "unit", unit)
        first = 0
        for piece in in_slices(array):
            dataset[first : first + len(piece)] = piece.astype(dtype)
            first += len(piece)


def _reserve(file: h5py.File, n_bytes: int) -> None:
    """Take the room on the disk beforehand: HDF5 may end the process when it runs out later."""
    if hasattr(os, "posix_fallocate"):
        with open(file.filename, "r+b") as raw:
            os.posix_fallocate(raw.fileno(), file.id.get_filesize(), n_bytes)


def _set_text(item: h5py.Group | h5py.Dataset, key: str, text: str) -> None:
    encoded = text.encode()
    item.attrs.create(key, encoded, dtype=h5py.string_dtype("utf-8", max(len(encoded), 1)))


def _as_json(origin: Origin) -> str:
    plain = {**vars(origin), "settings": dict(origin.settings), "checks": [vars(check) for check in origin.checks]}
    return json.dumps(plain, default=lambda number: number.item())
