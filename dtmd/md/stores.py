"""One trajectory of a store of dtmd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.md.run import Part, Piece
from dtmd.store import is_store, read_store
from dtmd.trajectory import Trajectory


def open_part(path: Path) -> Part:
    """The only trajectory of the store `path`, or the one that `STORE:NAME` names.

    Raises:
        DtmdError: as `read_store`, no such trajectory, or several where none is named.
    """
    store, name = path, ""
    if not is_store(path):
        before, _, name = str(path).rpartition(":")
        store = Path(before)
    trajectories = {t.source.removeprefix(f"{store}:"): t for t in read_store(store)}
    chosen = [trajectories[name]] if name in trajectories else [] if name else list(trajectories.values())
    if len(chosen) != 1:
        raise DtmdError(f"{path}: {len(chosen)} trajectories, where one run is needed; choose one as {store}:NAME of "
                        f"{', '.join(list(trajectories)[:8])}" + (" …" if len(trajectories) > 8 else ""))
    run = chosen[0]
    return Part(
        source=run.source, numbers=run.numbers, masses=run.masses, pbc=run.pbc, first=_copied(run, 0, 1),
        pieces=lambda max_bytes: _pieces(run, max_bytes), wrapped=False, fixed=run.fixed, notes=run.notes,
        origin=run.origin,
    )


def _pieces(run: Trajectory, max_bytes: int) -> Iterator[Piece]:
    n_frames = _copied(run, 0, 1).n_within(max_bytes)
    return (_copied(run, start, start + n_frames) for start in range(0, len(run), n_frames))


def _copied(run: Trajectory, start: int, stop: int) -> Piece:
    """In memory: the store is a map of the file."""
    window = run.window(start, stop)
    names = ("times", "cells", "positions", "velocities", "forces", "energies")
    return Piece(**{name: np.array(getattr(window, name)) for name in names if getattr(window, name) is not None})
