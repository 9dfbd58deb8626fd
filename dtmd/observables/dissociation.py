"""Dissociation of named bonds, counted with hysteresis so that vibration is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd.observables.distances import pair_distances
from dtmd.trajectory import Trajectory

HYDROGEN = 1


@dataclass(frozen=True)
class BondCriterion:
    """When a bond counts as broken.

    Attributes:
        broken_above: Å; a bond longer than this has come apart …
        bonded_below: Å; … unless it is shorter than this again …
        persistence: fs; … within this time.
    """

    broken_above: float = 1.5
    bonded_below: float = 1.0
    persistence: float = 50.0


@dataclass(frozen=True)
class Event:
    """One dissociation: the bond (atom indices), the first frame above the limit, its time from the start."""

    bond: tuple[int, int]
    frame: int
    time: float


@dataclass(frozen=True)
class Dissociation:
    """What happened to the bonds of one trajectory.

    Attributes:
        events: dissociations in order of time.
        undecided: bonds above the limit at the end, but for less than the persistence time.
        recombinations: bonds that had come apart and are short again, in order of time.
        followed: time from the start for which it is known what the bonds did, fs.
        source: of the trajectory.
    """

    events: list[Event]
    undecided: int
    recombinations: list[Event]
    followed: float
    source: str


def hydrogen_molecules(trajectory: Trajectory, limit: float) -> np.ndarray:
    """Pairs of H atoms nearer than `limit` (Å), each the other's nearest atom, in the first frame; (n_bonds, 2).

    The hydrogen atoms of water are as near to each other, but nearer to oxygen.
    """
    atoms, everyone = np.flatnonzero(trajectory.numbers == HYDROGEN), np.arange(len(trajectory.numbers))
    if len(atoms) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    pairs = np.stack(np.meshgrid(atoms, everyone, indexing="ij"), axis=-1).reshape(-1, 2)
    distances = pair_distances(trajectory.window(0, 1), pairs)[0].reshape(len(atoms), -1)
    distances[np.arange(len(atoms)), atoms] = np.inf
    nearest, shortest = distances.argmin(axis=1), distances.min(axis=1)
    other = dict(zip(atoms.tolist(), nearest.tolist(), strict=True))
    bonds = [(a, b) for (a, b), d in zip(other.items(), shortest, strict=True) if a < b and d < limit]
    return np.array([(a, b) for a, b in bonds if other.get(b) == a], dtype=np.int64).reshape(-1, 2)


class _Bond:
    """One bond as its frames pass by: open from above one limit until below the other.

    Attributes:
        broken, mended: (frame, time) of what lasted.
    """

    def __init__(self, criterion: BondCriterion) -> None:
        self._criterion = criterion
        self._open: tuple[int, float] | None = None
        self.broken: list[tuple[int, float]] = []
        self.mended: list[tuple[int, float]] = []

    def add(self, distances: np.ndarray, times: np.ndarray, first_frame: int) -> None:
        k = 0
        while True:
            below = distances[k:] < self._criterion.bonded_below
            found = np.flatnonzero(distances[k:] > self._criterion.broken_above if self._open is None else below)
            if not len(found):
                return
            k += int(found[0])
            here = first_frame + k, float(times[k])
            if self._open is None:
                self._open = here
                continue
            if self._lasted(here[1]):
                self.broken.append(self._open)
                self.mended.append(here)
            self._open = None

    def result(self, end: float) -> tuple[list[tuple[int, float]], float | None]:
        """What lasted until the end, and since when the bond is open for less than that, if it is."""
        if self._open is None:
            return self.broken, None
        return ([*self.broken, self._open], None) if self._lasted(end) else (self.broken, self._open[1])

    def _lasted(self, until: float) -> bool:
        return until - self._open[1] >= self._criterion.persistence


class BondFollower:
    """The bonds (n_bonds, 2) of a run as its frames pass by."""

    def __init__(self, first: Trajectory, bonds: np.ndarray, criterion: BondCriterion) -> None:
        self._source, self._start = first.source, float(first.times[0])
        self._pairs = bonds
        self._bonds = [_Bond(criterion) for _ in bonds]
        self._n_frames, self._end = 0, 0.0

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        """The next frames; what time they stand for does not matter."""
        times = frames.times - self._start
        if len(self._pairs):
            for bond, distances in zip(self._bonds, pair_distances(frames, self._pairs).T, strict=True):
                bond.add(distances, times, self._n_frames)
        self._n_frames += len(frames)
        self._end = float(times[-1])

    def result(self) -> Dissociation:
        atoms = [(int(a), int(b)) for a, b in self._pairs]
        events, mended, open_since = [], [], []
        for pair, bond in zip(atoms, self._bonds, strict=True):
            broken, since = bond.result(self._end)
            events += [Event(pair, *event) for event in broken]
            mended += [Event(pair, *event) for event in bond.mended]
            open_since += [] if since is None else [since]
        events, mended = (sorted(found, key=lambda event: event.frame) for found in (events, mended))
        return Dissociation(events, len(open_since), mended, min([self._end, *open_since]), self._source)


def bonds_at_start(
    trajectory: Trajectory, bonds: list[tuple[int, int]] | None, criterion: BondCriterion
) -> np.ndarray:
    """The named bonds that are not yet broken in the first frame, or its H₂ molecules, (n_bonds, 2)."""
    if bonds is None:
        return hydrogen_molecules(trajectory, criterion.broken_above)
    pairs = np.array(bonds)
    return pairs[pair_distances(trajectory.window(0, 1), pairs)[0] <= criterion.broken_above]
