"""Runs that are given twice, that share their start, or of which one goes on where the other ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dtmd.ingest.examine import Examined

SAME_FORCE = 2e-3
"""eV/Å; runs whose forces agree within it all along are one run in two files, rounded differently."""

SAME_POSITION = 1e-3
"""Å, likewise for positions."""


@dataclass(frozen=True)
class Fingerprint:
    """What a run is recognised by: its frames 0, 1, 2, 4, 8 …, and where it would go next.

    Attributes:
        main: file that names the run.
        run: name of the run, or of the first of those that belong together.
        digest: of the contents of its files.
        positions, forces: of those frames, (n, N, 3); forces None where there are none.
        next: the last positions, and those one time step later if velocities are known.
    """

    main: Path
    run: str
    digest: str
    numbers: np.ndarray
    pbc: np.ndarray
    cell: np.ndarray
    last_cell: np.ndarray
    positions: np.ndarray
    forces: np.ndarray | None
    next: tuple[np.ndarray, ...]


def fingerprint(examined: Examined, digest: str) -> Fingerprint:
    """The fingerprint of a run that has passed its checks."""
    rec, last = examined.recording, examined.trajectories[-1]
    frames = [0, *(1 << k for k in range((len(rec) - 1).bit_length()))]
    frames = [k for k in frames if k < len(rec)]
    ends = [np.array(rec.positions[-1])]
    if examined.timestep and last.velocities is not None:
        ends.append(ends[0] + last.velocities[-1] * examined.timestep)
    return Fingerprint(
        main=rec.source.main, run=rec.name, digest=digest, numbers=rec.run.numbers, pbc=np.asarray(rec.run.pbc),
        cell=np.array(rec.cells[0]), last_cell=np.array(rec.cells[-1]), positions=np.array(rec.positions[frames]),
        forces=None if rec.forces is None else np.array(rec.forces[frames]), next=tuple(ends),
    )


def same_run(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether both are one run, perhaps by two outputs of the code or one of them cut off."""
    if a.digest == b.digest:
        return True
    if a.forces is None or b.forces is None or not np.array_equal(a.numbers, b.numbers):
        return False
    n = min(len(a.forces), len(b.forces))
    return bool(np.abs(a.forces[:n] - b.forces[:n]).max() < SAME_FORCE)


def same_start(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether both start from one configuration."""
    return _close(a, a.positions[0], b, b.positions[0], b.cell, SAME_POSITION)


def continues(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether a starts with the last frame of b, or one time step after it."""
    if _close(a, a.positions[0], b, b.next[0], b.last_cell, SAME_POSITION):
        return True
    if len(b.next) < 2:
        return False
    step = float(np.abs(b.next[1] - b.next[0]).max())
    return _close(a, a.positions[0], b, b.next[1], b.last_cell, 0.2 * step)


def _close(
    a: Fingerprint, first: np.ndarray, b: Fingerprint, second: np.ndarray, cell: np.ndarray, tolerance: float
) -> bool:
    """Whether positions of both runs agree, up to whole cells."""
    if not np.array_equal(a.numbers, b.numbers) or not np.allclose(a.cell, cell, atol=0.05):
        return False
    moved = first - second
    if a.pbc.any() and abs(np.linalg.det(cell)) > 1e-6:
        moved = moved - np.round(moved @ np.linalg.inv(cell)) * a.pbc @ cell
    return bool(np.abs(moved).max() < tolerance)
