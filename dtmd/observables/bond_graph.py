"""Which atoms are bonded, by covalent radii."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from ase.geometry import complete_cell
from vesin import NeighborList

from dtmd.observables.graph import connected
from dtmd.trajectory import Trajectory

NONMETALS = frozenset("H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn".split())

FACTOR = 1.3
SLACK = 0.4
"""Å; atoms nearer than 1.3 times the sum of their covalent radii (Cordero 2008, as in ASE), or than this beyond the
sum, are bonded. The factor alone would have an H₂ molecule bonded up to 0.81 Å only, which it vibrates beyond."""


class BondSearch:
    """The bonds of single frames, each once, between images of one atom too.

    Attributes:
        longest: Å; no bond is as long.
    """

    def __init__(self, numbers: np.ndarray, factor: float = FACTOR, slack: float = SLACK) -> None:
        self._radii, self._factor, self._slack = covalent_radii[numbers], factor, slack
        largest = int(self._radii.argmax())
        self.longest = float(self._limits(largest, largest))
        self._search = NeighborList(cutoff=self.longest, full_list=False)

    def _limits(self, first: np.ndarray | int, second: np.ndarray | int) -> np.ndarray:
        sums = self._radii[first] + self._radii[second]
        return np.maximum(self._factor * sums, sums + self._slack)

    def bonds(self, frames: Trajectory, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Atom pairs (B, 2) and bond lengths, Å, (B,), of frame k."""
        first, second, distances = pairs_nearby(self._search, frames, k)
        bonded = distances < self._limits(first, second)
        return np.stack([first, second], axis=1)[bonded].astype(np.int64), distances[bonded]


def pairs_nearby(search: NeighborList, frames: Trajectory, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms i and j and their distance in Å, each (P,), of the pairs within the cutoff of the search in frame k."""
    cell = np.array(complete_cell(np.where(frames.pbc[:, None], frames.cells[k], 0.0)))
    positions = without_gaps(np.asarray(frames.positions[k], dtype=float), cell[frames.pbc], search.cutoff)
    i, j, distances = search.compute(positions, box=cell, periodic=frames.pbc, quantities="ijd")
    return i.astype(np.int64), j.astype(np.int64), distances


def without_gaps(positions: np.ndarray, periodic: np.ndarray, cutoff: float) -> np.ndarray:
    """Positions (N, 3) with the empty stretches across the periodic vectors (n, 3) narrowed to just over the cutoff.

    Pairs within the cutoff stay as they are and others stay beyond it, but a search that cuts space into cells does
    not take minutes, or break, where an atom has flown off.
    """
    free = np.linalg.svd(periodic)[2][len(periodic):] if len(periodic) else np.eye(3)
    for axis in free:
        along = positions @ axis
        order = np.argsort(along)
        excess = np.maximum(np.diff(along[order]) - 1.01 * cutoff, 0.0)
        shifts = np.zeros(len(positions))
        shifts[order[1:]] = np.cumsum(excess)
        positions = positions - shifts[:, None] * axis
    return positions


def molecules(n_atoms: int, pairs: np.ndarray) -> list[np.ndarray]:
    """Atoms that hang together by bonds (B, 2): indices of each piece, the largest first."""
    piece = connected(n_atoms, pairs)
    order = np.argsort(piece, kind="stable")
    return sorted(np.split(order, np.cumsum(np.bincount(piece))[:-1]), key=len, reverse=True)
