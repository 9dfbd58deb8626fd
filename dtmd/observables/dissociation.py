"""Dissociation of named bonds, counted with hysteresis so that vibration is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd.observables.distances import pair_distances
from dtmd.observables.statistics import Estimate, wilson_interval
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
        bonds: atom index pairs followed.
        events: dissociations in order of time.
        undecided: bonds above the limit at the end, but for less than the persistence time.
    """

    bonds: list[tuple[int, int]]
    events: list[Event]
    undecided: int


def hydrogen_molecules(trajectory: Trajectory, limit: float) -> np.ndarray:
    """Pairs of H atoms nearer than `limit` (Å) in the first frame, shape (n_bonds, 2)."""
    atoms = np.flatnonzero(trajectory.numbers == HYDROGEN)
    first, second = np.triu_indices(len(atoms), k=1)
    pairs = np.stack([atoms[first], atoms[second]], axis=1)
    return pairs[pair_distances(trajectory.window(0, 1), pairs)[0] < limit]


def dissociation(trajectory: Trajectory, bonds: np.ndarray, criterion: BondCriterion) -> Dissociation:
    """Count the dissociations of `bonds`, shape (n_bonds, 2)."""
    times = trajectory.times - trajectory.times[0]
    events, undecided = [], 0
    for bond, distances in zip(bonds, pair_distances(trajectory, bonds).T, strict=True):
        frames, pending = bond_breaks(distances, times, criterion)
        events += [Event((int(bond[0]), int(bond[1])), k, float(times[k])) for k in frames]
        undecided += pending
    return Dissociation(
        [(int(a), int(b)) for a, b in bonds], sorted(events, key=lambda event: event.frame), undecided
    )


def bond_breaks(distances: np.ndarray, times: np.ndarray, criterion: BondCriterion) -> tuple[list[int], int]:
    """Frames in which a bond comes apart for good, and 1 if the end leaves one open (else 0).

    Args:
        distances: Å, shape (T,).
        times: fs, shape (T,).
    """
    breaks: list[int] = []
    frame = 0
    while True:
        apart = np.flatnonzero(distances[frame:] > criterion.broken_above)
        if not len(apart):
            return breaks, 0
        start = frame + int(apart[0])
        rejoined = np.flatnonzero(distances[start:] < criterion.bonded_below)
        end = start + int(rejoined[0]) if len(rejoined) else len(times) - 1
        lasted = times[end] - times[start] >= criterion.persistence
        if lasted:
            breaks.append(start)
        if not len(rejoined):
            return breaks, int(not lasted)
        frame = end


@dataclass(frozen=True)
class DissociationCount:
    """Dissociations over several trajectories.

    Attributes:
        n_trajectories: those with a bond to follow in their first frame.
        share: of these, the share with at least one dissociation, with Wilson's interval.
        events: (source, event) of each dissociation.
        undecided: sources of trajectories that end with a bond open for less than the persistence time.
    """

    n_trajectories: int
    share: Estimate
    events: list[tuple[str, Event]]
    undecided: list[str]

    @property
    def n_dissociated(self) -> int:
        """Trajectories with at least one dissociation."""
        return len({source for source, _ in self.events})


def count_dissociations(
    trajectories: list[Trajectory], bonds: list[tuple[int, int]] | None, criterion: BondCriterion
) -> DissociationCount | None:
    """Follow the named bonds, by default the H–H bonds of each first frame, in every trajectory.

    Returns:
        None where no trajectory starts with such a bond.
    """
    results = []
    for trajectory in trajectories:
        followed = bonds_at_start(trajectory, bonds, criterion)
        if len(followed):
            results.append((trajectory.source, dissociation(trajectory, followed, criterion)))
    if not results:
        return None
    events = [(source, event) for source, result in results for event in result.events]
    n_dissociated = sum(bool(result.events) for _, result in results)
    return DissociationCount(
        n_trajectories=len(results), share=wilson_interval(n_dissociated, len(results)), events=events,
        undecided=[source for source, result in results if result.undecided],
    )


def bonds_at_start(
    trajectory: Trajectory, bonds: list[tuple[int, int]] | None, criterion: BondCriterion
) -> np.ndarray:
    """The named bonds that are not yet broken in the first frame, or its H₂ molecules, (n_bonds, 2)."""
    if bonds is None:
        return hydrogen_molecules(trajectory, criterion.broken_above)
    pairs = np.array(bonds)
    return pairs[pair_distances(trajectory.window(0, 1), pairs)[0] <= criterion.broken_above]
