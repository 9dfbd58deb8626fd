"""A batch of structures: what does not change while the atoms move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Structures:
    """B structures, their atoms one after another; n_atoms in all.

    Attributes:
        species: index into the potential's elements, int64 (n_atoms,).
        masses: u, float64 (n_atoms,).
        graph_index: the structure of each atom, int64 ascending (n_atoms,).
        cells: rows are the cell vectors, Å, float64 (B, 3, 3).
        pbc: bool (B, 3).
    """

    species: Tensor
    masses: Tensor
    graph_index: Tensor
    cells: Tensor
    pbc: Tensor

    @property
    def n_graphs(self) -> int:
        return len(self.cells)

    @property
    def atom_ranges(self) -> list[tuple[int, int]]:
        """First and one-past-last atom of each structure."""
        ends = torch.bincount(self.graph_index, minlength=self.n_graphs).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))
