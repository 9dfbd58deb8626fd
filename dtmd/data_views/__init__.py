"""What the AIMD says about how to train on it: lifetime of neighbour sets, reference energies, split by runs."""

from __future__ import annotations

from dtmd.data_views.energies import energies_text, energies_view
from dtmd.data_views.neighbors import (
    NeighborSimilarity,
    by_atoms,
    draw_similarity,
    neighbor_similarity,
    similarity_text,
    write_similarity_csv,
)
from dtmd.data_views.split import split_runs, write_split

__all__ = [
    "NeighborSimilarity", "by_atoms", "draw_similarity", "energies_text", "energies_view", "neighbor_similarity",
    "similarity_text", "split_runs", "write_similarity_csv", "write_split",
]
