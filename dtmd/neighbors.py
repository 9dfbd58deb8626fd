"""Neighbour lists of batches of periodic structures: of the positions, kept by a skin, or of AIMD frames."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from vesin import NeighborList

from dtmd.structures import Structures


class RolloutEdges(Protocol):
    """Where a rollout takes its pairs from."""

    def at_step(self, step: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Edges as `Edges.at` gives them, for a step (0 is the start) and the positions there."""


class Edges:
    """All pairs inside the cutoff, exact at every step, rebuilt when an atom has moved half the skin.

    Args:
        structures: the batch; its cells stay as they are.
        cutoff: Å.
        skin: Å; a larger one is rebuilt less often and filtered longer.
    """

    def __init__(self, structures: Structures, cutoff: float, skin: float) -> None:
        self._structures = structures
        self._cutoff = cutoff
        self._skin = skin
        self._built_at: Tensor | None = None

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Edges for these positions (Å, (n_atoms, 3), finite).

        Returns:
            edge_index int64 (2, n_edges): neighbour j, centre i; shift float64 (n_edges, 3) in Å with
            r_j − r_i + shift the edge vector. No gradient runs through either.
        """
        positions = positions.detach()
        if self._built_at is None or self._moved_too_far(positions):
            self._candidates, self._shifts = _search(self._structures, positions, self._cutoff + self._skin)
            self._built_at = positions.clone()
        j, i = self._candidates
        distance_sq = (positions[j] - positions[i] + self._shifts).square().sum(1)
        inside = (distance_sq < self._cutoff**2).nonzero().squeeze(1)
        return self._candidates.index_select(1, inside), self._shifts.index_select(0, inside)

    def at_step(self, step: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """As `at`: the pairs follow the positions, at any step."""
        return self.at(positions)

    def _moved_too_far(self, positions: Tensor) -> bool:
        moved_sq = (positions - self._built_at).square().sum(1).max().item()
        return moved_sq > (0.5 * self._skin) ** 2


class FrameEdges:
    """The pairs inside the cutoff in given frames, wherever a rollout has taken the atoms meanwhile.

    Args:
        edges: of the batch, for the search.
        frames: Å, float64 (n_atoms, ≥ steps, 3), not wrapped into the cell from one frame to the next.
        every: steps between the frames that pairs are taken from.
    """

    def __init__(self, edges: Edges, frames: Tensor, every: int) -> None:
        self._edges = edges
        self._frames = frames
        self._every = every
        self._taken: int | None = None

    def at_step(self, step: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of the last frame to take them from, `step` or up to `every` − 1 before it."""
        frame = step - step % self._every
        if frame != self._taken:
            self._pairs = self._edges.at(self._frames[:, frame])
            self._taken = frame
        return self._pairs


def _search(structures: Structures, positions: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    points = positions.cpu().numpy()
    search = NeighborList(cutoff=cutoff, full_list=True)
    indices, shifts = [], []
    for graph, (first, last) in enumerate(structures.atom_ranges):
        cell = structures.cells[graph].cpu().numpy()
        pbc = structures.pbc[graph].cpu().numpy()
        i, j, images = search.compute(points[first:last], box=cell, periodic=pbc, quantities="ijS")
        indices.append(np.stack([j, i]).astype(np.int64) + first)
        shifts.append(images @ cell)
    device = positions.device
    return (
        torch.from_numpy(np.concatenate(indices, axis=1)).to(device),
        torch.from_numpy(np.concatenate(shifts)).to(device, positions.dtype),
    )
