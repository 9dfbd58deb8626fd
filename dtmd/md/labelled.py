"""ASE trajectories and extended XYZ, by the readers that `dtmd ingest` has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from dtmd.errors import DtmdError
from dtmd.ingest.clock import SAME_TIMESTEP
from dtmd.ingest.source import Format, Frame, RawRun, Source
from dtmd.md.run import Part, Piece, grouped

_OPTIONAL = ("velocities", "forces", "energy")


def open_part(form: Format, path: Path, timestep: float | None, watch: Callable[[int], None]) -> Part:
    """A file that one of the readers of AIMD output knows.

    Args:
        form: its format.
        path: the file, which may be packed.
        timestep: fs per MD step, or per frame where steps are not numbered; for files that do not say it.
        watch: told the bytes read for the pieces.

    Raises:
        DtmdError: as the reader, and where the time step is missing or not the one in the file.
    """
    run = form.read(Source(path))
    spacing = _timestep(run, path, timestep)
    frame = next(run.frames, None)
    if frame is None:
        raise DtmdError(f"{path}: no frames in this file")
    first = _piece([frame], 0, frame, spacing, path)

    def pieces(max_bytes: int) -> Iterator[Piece]:
        n_frames = first.n_within(max_bytes)
        groups = grouped(form.read(Source(path, watch=watch)).frames, n_frames)
        return map(lambda frames, index: _piece(frames, index, frame, spacing, path), groups, count(step=n_frames))

    return Part(
        source=str(path), numbers=run.numbers, masses=atomic_masses[run.numbers] if run.masses is None else run.masses,
        pbc=np.array(run.pbc), first=first, pieces=pieces, fixed=run.fixed, notes=tuple(run.notes),
    )


def _timestep(run: RawRun, path: Path, given: float | None) -> float | None:
    said = run.timestep
    if given is not None and said is not None and abs(given / said - 1.0) > SAME_TIMESTEP:
        raise DtmdError(f"{path}: the file says {said:g} fs ({run.timestep_from}), you say {given:g} fs; leave "
                        "--timestep out")
    return said if given is None else given


def _piece(frames: list[Frame], index: int, first: Frame, timestep: float | None, path: Path) -> Piece:
    for k, frame in enumerate(frames, index):
        for name in (*_OPTIONAL, "step", "time"):
            if (getattr(frame, name) is None) != (getattr(first, name) is None):
                raise DtmdError(f"{path}: frame {k} differs from frame 0 in having {name}; give frames of one kind")
    if first.time is not None:
        times = np.array([frame.time for frame in frames])
    elif timestep is not None:
        times = timestep * np.array([k if frame.step is None else frame.step for k, frame in enumerate(frames, index)])
    else:
        raise DtmdError(f"{path}: the file does not hold the time of its frames; give the time step with --timestep "
                        "(in fs)")
    given = {name: np.array([getattr(frame, name) for frame in frames], dtype=float)
             for name in _OPTIONAL if getattr(first, name) is not None}
    if "energy" in given:
        given["energies"] = given.pop("energy")
    piece = Piece(
        times=times.astype(float), cells=np.array([frame.cell for frame in frames]),
        positions=np.array([frame.positions for frame in frames]), **given,
    )
    for name, values in piece.arrays().items():
        finite = np.isfinite(values).reshape(len(piece), -1).all(axis=1)
        if not finite.all():
            raise DtmdError(f"{path}: frame {index + int(np.argmin(finite))} has {name} that are not finite; the run "
                            "has failed here, cut the file before this frame")
    return piece
