"""Which frames of the student's runs the teacher is to label: where runs end first, then what is unlike the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from vesin import NeighborList

from dtmd.ipip.pseudo_labels import picked
from dtmd.observables.bond_graph import pairs_nearby
from dtmd.trajectory import Trajectory

CUTOFF = 5.0
"""Å, of the pairs that the descriptor counts."""

SPACING = 0.25
"""Å, from one Gaussian of the descriptor to the next, and their standard deviation."""

KNOWN_MOST = 2000
"""Frames of the old set, evenly over it, that new ones are held against."""


class Descriptor:
    """A frame as a vector: how many pairs of each two elements are how far apart, in Gaussians, per atom.

    Near pairs weigh more, by the distance in units of the cutoff. It does not change with the order of equal atoms,
    nor by motion of the whole.

    Args:
        numbers: atomic numbers of all elements that occur.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._species = np.unique(list(numbers))
        pairs = combinations_with_replacement(range(len(self._species)), 2)
        self._block = {pair: k for k, pair in enumerate(pairs)}
        self._centres = np.arange(SPACING, CUTOFF, SPACING)
        self._search = NeighborList(cutoff=CUTOFF, full_list=False)

    def of(self, trajectory: Trajectory) -> np.ndarray:
        """Of all frames, (T, D)."""
        species = np.searchsorted(self._species, trajectory.numbers)
        return np.array([self._frame(trajectory, k, species) for k in range(len(trajectory))])

    def _frame(self, trajectory: Trajectory, k: int, species: np.ndarray) -> np.ndarray:
        i, j, distances = pairs_nearby(self._search, trajectory, k)
        low, high = np.minimum(species[i], species[j]), np.maximum(species[i], species[j])
        weights = 0.5 * (1.0 + np.cos(np.pi * distances / CUTOFF)) / np.maximum(distances / CUTOFF, 0.05)
        gaussians = np.exp(-0.5 * ((distances[:, None] - self._centres) / SPACING) ** 2) * weights[:, None]
        blocks = np.array([self._block[pair] for pair in zip(low.tolist(), high.tolist(), strict=True)], dtype=int)
        found = np.zeros((len(self._block), len(self._centres)))
        np.add.at(found, blocks, gaussians)
        return (found / len(trajectory.numbers)).ravel()


@dataclass(frozen=True)
class Candidates:
    """Frames of one run that may be chosen.

    Attributes:
        read: gives the sound frames of the run, up to its end; called when they are needed, as all runs together may
            be larger than memory.
        ended_early: it has passed a limit or its program failed.
    """

    read: Callable[[], Trajectory]
    ended_early: bool


@dataclass(frozen=True)
class Choice:
    """The chosen frames.

    Attributes:
        trajectories: those of each run.
        n_last: from the ends of runs that ended early.
        n_diverse: by farthest points.
        n_near: frames at the ends of runs that are near-duplicates and were left out.
    """

    trajectories: list[Trajectory]
    n_last: int
    n_diverse: int
    n_near: int


def usual_distance(trajectories: Iterable[Trajectory], descriptor: Descriptor) -> float:
    """Median distance of the descriptors of consecutive frames."""
    distances = [np.linalg.norm(np.diff(descriptor.of(t), axis=0), axis=1) for t in trajectories if len(t) > 1]
    return float(np.median(np.concatenate(distances))) if distances else 0.0


def known_descriptors(trajectories: Sequence[Trajectory], descriptor: Descriptor) -> np.ndarray:
    """Of frames evenly over a set, (K, D)."""
    step = max(1, -(-sum(map(len, trajectories)) // KNOWN_MOST))
    return np.concatenate([descriptor.of(picked(t, range(0, len(t), step))) for t in trajectories])


def choose(
    candidates: Sequence[Candidates], known: np.ndarray, descriptor: Descriptor, *, n: int, n_last: int, near: float
) -> Choice:
    """Choose frames for the teacher.

    Args:
        candidates: the runs.
        known: descriptors of what is there, (K, D).
        n: frames, at most.
        n_last: frames before the end of each run that ended early, which come first.
        near: distance of descriptors up to which two frames are near-duplicates.
    """
    by_candidate = [descriptor.of(candidate.read()) for candidate in candidates]
    lengths = [len(vectors) for vectors in by_candidate]
    places = [(run, frame) for run, length in enumerate(lengths) for frame in range(length)]
    pool = _FarthestPoints(np.concatenate(by_candidate) if places else np.zeros((0, known.shape[1])), known, near)
    index = {place: k for k, place in enumerate(places)}
    for place in _ends(candidates, lengths, n_last):
        if len(pool.chosen) < n:
            pool.take(index[place])
    n_at_the_end = len(pool.chosen)
    pool.fill(n)
    by_run: dict[int, list[int]] = {}
    for k in pool.chosen:
        by_run.setdefault(places[k][0], []).append(places[k][1])
    trajectories = [picked(candidates[run].read(), by_run[run]) for run in sorted(by_run)]
    return Choice(trajectories, n_at_the_end, len(pool.chosen) - n_at_the_end, pool.n_near)


def _ends(candidates: Sequence[Candidates], lengths: Sequence[int], n_last: int) -> Iterator[tuple[int, int]]:
    """(run, frame) of the last frames, the very last of each run first."""
    for back in range(1, n_last + 1):
        for run, (candidate, length) in enumerate(zip(candidates, lengths, strict=True)):
            if candidate.ended_early and back <= length:
                yield run, length - back


class _FarthestPoints:
    """Points chosen one by one, each the farthest from all that are there (Gonzalez 1985)."""

    def __init__(self, vectors: np.ndarray, known: np.ndarray, near: float) -> None:
        self._vectors, self._near = vectors, near
        self._distances = np.full(len(vectors), np.inf)
        for first in range(0, len(known), 100):
            block = known[first : first + 100]
            squared = (np.square(vectors).sum(axis=1)[:, None] + np.square(block).sum(axis=1) - 2.0 * vectors @ block.T)
            self._distances = np.minimum(self._distances, np.sqrt(np.maximum(squared, 0.0)).min(axis=1))
        self.chosen: list[int] = []
        self.n_near = 0

    def take(self, k: int) -> None:
        """Choose this one, unless it is a near-duplicate."""
        if self._distances[k] <= self._near:
            self.n_near += 1
            return
        self.chosen.append(k)
        own = np.linalg.norm(self._vectors - self._vectors[k], axis=1)
        self._distances = np.minimum(self._distances, own)

    def fill(self, n: int) -> None:
        """Choose the farthest until there are n, or the rest are near-duplicates."""
        while len(self.chosen) < n and len(self._distances):
            k = int(np.argmax(self._distances))
            if self._distances[k] <= self._near:
                return
            self.take(k)
