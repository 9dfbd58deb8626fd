"""Runs that are given twice, that share their start, or of which one goes on where another ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dtmd.ingest.examination import Examined
from dtmd.trajectory import Trajectory

SAME_FORCE = 2e-3
"""eV/Å; runs whose forces agree within it all along are one run in two files, rounded differently."""

SAME_POSITION = 1e-3
"""Å, likewise for positions."""


@dataclass(frozen=True)
class Fingerprint:
    """What a run is recognised by: its frames 0, 1, 2, 4, 8 …, and where it would go next.

    Attributes:
        main: file that names the run, or its name in a store.
        run: name of the run, or of the first of those that belong together.
        digest: of the contents of its files.
        stored: it is in a store.
        positions, forces: of those frames, (n, N, 3); forces None where there are none.
        next: the last positions, and those one time step later if velocities are known.
    """

    main: str
    run: str
    digest: str
    n_frames: int
    stored: bool
    numbers: np.ndarray
    pbc: np.ndarray
    cell: np.ndarray
    last_cell: np.ndarray
    positions: np.ndarray
    forces: np.ndarray | None
    next: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Relation:
    """What a run has to do with those before it.

    Attributes:
        run: the name to go by: its own, or that of the run that it belongs to.
        twin: the run that it repeats, empty if it does not.
        problem: why it cannot be taken, empty if it can.
        notes: for the user.
    """

    run: str
    twin: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()


class KnownRuns:
    """The runs before, those in a store first."""

    def __init__(self, stored: Sequence[Trajectory]) -> None:
        self._runs = [_stored_fingerprint(t) for t in stored]

    def stored_as(self, digest: str) -> str:
        """Name in the store of a run from files with this content; empty if there is none."""
        return next((known.main for known in self._runs if known.stored and known.digest == digest), "")

    def add(self, examined: Examined, digest: str, take_twins: bool) -> Relation:
        """What a run that passed its checks has to do with those before; it is one of them from now on.

        Args:
            take_twins: a run that repeats another counts as one of its own.
        """
        new = _fingerprint(examined, digest)
        for known in self._runs if not take_twins else ():
            if same_run(new, known) and known.stored and new.n_frames != known.n_frames:
                return Relation(new.run, problem=(
                    f"{new.main}: {known.main} holds this run with {known.n_frames} frames, now it has "
                    f"{new.n_frames}; make a new store with the run as it is now"))
            if same_run(new, known):
                return Relation(new.run, twin=known.main)
        relation = Relation(new.run)
        for known in self._runs:
            if how := ("starts from the same frame as" if same_start(new, known) else
                       "goes on from the end of" if continues(new, known) else ""):
                relation = Relation(known.run, notes=(f"{how} {known.main}; both stay on the same side of a split",))
                break
        self._runs.append(replace(new, run=relation.run))
        return relation


def _fingerprint(examined: Examined, digest: str) -> Fingerprint:
    rec, last = examined.recording, examined.trajectories[-1]
    ends = [np.array(rec.positions[-1])]
    if examined.timestep and last.velocities is not None:
        ends.append(ends[0] + last.velocities[-1] * examined.timestep)
    return Fingerprint(
        main=rec.name, run=rec.name, digest=digest, n_frames=len(rec), stored=False, next=tuple(ends),
        **_sample(rec.run.numbers, rec.run.pbc, rec.cells, rec.positions, rec.forces),
    )


def _stored_fingerprint(t: Trajectory) -> Fingerprint:
    """Of a trajectory in a store; its run is named STORE:RUN, as `write_store` knows runs of its own."""
    ends = [np.array(t.positions[-1])]
    if len(t) > 1 and t.velocities is not None:
        ends.append(ends[0] + t.velocities[-1] * t.timestep)
    store = t.source.partition(":")[0]
    return Fingerprint(
        main=t.source, run=f"{store}:{t.origin.run}", digest=t.origin.digest, n_frames=len(t), stored=True,
        next=tuple(ends), **_sample(t.numbers, t.pbc, t.cells, t.positions, t.forces),
    )


def _sample(
    numbers: np.ndarray, pbc: np.ndarray, cells: np.ndarray, positions: np.ndarray, forces: np.ndarray | None
) -> dict:
    frames = [k for k in (0, *(1 << k for k in range(len(positions).bit_length()))) if k < len(positions)]
    return {
        "numbers": numbers, "pbc": np.asarray(pbc), "cell": np.array(cells[0]), "last_cell": np.array(cells[-1]),
        "positions": np.array(positions[frames]), "forces": None if forces is None else np.array(forces[frames]),
    }


def same_run(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether both are one run, perhaps by two outputs of the code or one of them cut off."""
    if a.digest and a.digest == b.digest:
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
