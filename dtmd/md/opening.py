"""Which reader a file of MD needs, told by its content."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.readers import ase_traj, extxyz
from dtmd.ingest.source import candidate
from dtmd.md import binary, dumps, labelled, stores
from dtmd.md.run import MDRun, Part
from dtmd.store import is_store
from dtmd.trajectory import Trajectory

_KNOWN = ("LAMMPS text dumps (also packed), DCD, XTC, AMBER and LAMMPS NetCDF, ASE trajectories, extended XYZ and "
          "stores of dtmd")
_LABELLED = (ase_traj.FORMAT, extxyz.FORMAT)


def open_run(
    paths: Path | str | Sequence[Path | str], timestep: float | None = None, like: Trajectory | None = None,
    watch: Callable[[int], None] = lambda n_bytes: None,
) -> MDRun:
    """A run of molecular dynamics, in one file or several that follow or overlap each other in time.

    Args:
        paths: LAMMPS text dumps, plain or packed (.gz, .zst, .xz, .bz2), DCD, XTC, NetCDF, ASE trajectories,
            extended XYZ, or a store, with `STORE:NAME` for one of several trajectories in it.
        timestep: fs per MD step, or per frame where a file does not number its steps; for files without times.
        like: AIMD of the system. Where it has the same atoms in the same order, files without elements (DCD, XTC,
            NetCDF) have its elements, and components that it held are held in runs where they are at rest at first.
        watch: told the number of bytes read from text files while their blocks are read, for progress.

    Raises:
        DtmdError: names the file, the frame, what was found and what to do.
    """
    paths = [paths] if isinstance(paths, (Path, str)) else list(paths)
    if not paths:
        raise DtmdError("no file of MD; give at least one")
    if timestep is not None and not 0.0 < timestep < math.inf:
        raise DtmdError(f"{paths[0]}: a time step of {timestep:g} fs; give --timestep above 0")
    parts = [_opened(Path(path), timestep, like, watch) for path in paths]
    return MDRun(parts if like is None else [_held(part, like) for part in parts])


def _held(part: Part, like: Trajectory) -> Part:
    """No file of MD says which atoms were held, and they do not count for the temperature."""
    velocities = part.first.velocities
    if like.fixed is None or part.fixed is not None or velocities is None:
        return part
    if not np.array_equal(part.numbers, like.numbers) or velocities[0][like.fixed].any():
        return part
    return replace(part, fixed=like.fixed)


def read_dump(path: Path | str, timestep: float | None = None) -> Trajectory:
    """The whole of a run in memory; see `open_run`."""
    return open_run(path, timestep).whole()


def _opened(
    path: Path, timestep: float | None, like: Trajectory | None, watch: Callable[[int], None]
) -> Part:
    if is_store(path) or (not path.exists() and is_store(Path(str(path).rpartition(":")[0]))):
        return stores.open_part(path)
    if not path.is_file():
        raise DtmdError(f"{path}: no such file; give files of MD: {_KNOWN}")
    found = candidate(path)
    if found.head.startswith("ITEM: "):
        return dumps.open_part(path, timestep, watch)
    open_binary: Callable[..., Part] | None = next(
        (function for function, begins in binary.READERS if begins(found.head)), None)
    if open_binary is not None:
        if like is None:
            raise DtmdError(f"{path}: files of this kind do not say which elements the atoms are; give a LAMMPS data "
                            "file or AIMD with the same atoms beside it")
        return open_binary(path, timestep, like)
    for form in _LABELLED:
        if form.find([found]):
            return labelled.open_part(form, path, timestep, watch)
    raise DtmdError(f"{path}: not recognised as MD (empty, damaged or of another kind); dtmd reads {_KNOWN}")
