"""Which atoms are bonded, by covalent radii."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from ase.geometry import complete_cell
from vesin import NeighborList

from dtmd.observables.graph import connected
from dtmd.trajectory import Trajectory

FACTOR = 1.3
"""Atoms nearer than this times the sum of their covalent radii (Cordero 2008, as in ASE) are bonded."""


class BondSearch:
    """The bonds of single frames, each once, between images of one atom too."""

    def __init__(self, numbers: np.ndarray, factor: float = FACTOR) -> None:
        self.reach = factor * covalent_radii[numbers]
        self._search = NeighborList(cutoff=2.0 * float(self.reach.max()), full_list=False)

    def bonds(self, frames: Trajectory, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Atom pairs (B, 2) and bond lengths, Å, (B,), of frame k."""
        first, second, distances = self._search.compute(
            np.ascontiguousarray(frames.positions[k], dtype=float), box=np.array(complete_cell(frames.cells[k])),
            periodic=frames.pbc, quantities="ijd",
        )
        bonded = distances < self.reach[first] + self.reach[second]
        return np.stack([first, second], axis=1)[bonded].astype(np.int64), distances[bonded]


def molecules(n_atoms: int, pairs: np.ndarray) -> list[np.ndarray]:
    """Atoms that hang together by bonds (B, 2): indices of each piece, the largest first."""
    piece = connected(n_atoms, pairs)
    order = np.argsort(piece, kind="stable")
    return sorted(np.split(order, np.cumsum(np.bincount(piece))[:-1]), key=len, reverse=True)
