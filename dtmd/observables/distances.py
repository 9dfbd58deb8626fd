"""Interatomic distances under periodic boundaries, and their histograms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from ase.data import chemical_symbols
from ase.geometry import complete_cell, minkowski_reduce

from dtmd.observables.statistics import frame_weights
from dtmd.trajectory import Trajectory

BIN_WIDTH = 0.01
"""Å; Wasserstein distances are exact to this, coarser histograms are sums of these bins."""

LONGEST = 200.0
"""Å; the last bin holds everything beyond, as when a cluster without a cell has blown up."""

_VALUES_PER_BLOCK = 100_000


def minimum_image_distances(vectors: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Shortest length of each vector over all its periodic images, exact in skewed cells too.

    In the Minkowski-reduced cell A the wrapped vector f·A, |f_i| ≤ ½, or one of its 26 neighbour
    images f·A + n·A is the shortest (as in `ase.geometry.find_mic`). An image n can only win where
    |n·A|² < Σ_i |(A Aᵀ n)_i|, the largest value of −2 f·A Aᵀ·n; the others, all in an orthogonal cell
    and 14 of 26 in a hexagonal one, are left out.

    Args:
        vectors: Å, shape (…, 3).
        cell: rows are the cell vectors, Å, shape (3, 3); rows of non-periodic directions may be zero.
        pbc: periodic directions, shape (3,).

    Returns:
        Å, shape (…).
    """
    pbc = np.asarray(pbc, dtype=bool)
    if not pbc.any():
        return np.linalg.norm(vectors, axis=-1)
    reduced, _ = minkowski_reduce(complete_cell(np.where(pbc[:, None], cell, 0.0)), pbc)
    scaled = vectors @ np.linalg.inv(reduced)
    wrapped = (scaled - np.round(scaled) * pbc) @ reduced
    squares = np.einsum("...i,...i->...", wrapped, wrapped)
    metric = reduced @ reduced.T
    images = np.array(list(product(*[(-1, 0, 1) if periodic else (0,) for periodic in pbc])))
    lengths = np.einsum("ni,ij,nj->n", images, metric, images)
    relevant = lengths < np.abs(images @ metric).sum(axis=1) * (1.0 - 1e-12)
    if relevant.any():
        shifts = images[relevant] @ reduced
        gain = np.min(2.0 * wrapped @ shifts.T + lengths[relevant], axis=-1)
        squares = squares + np.minimum(gain, 0.0)
    return np.sqrt(np.maximum(squares, 0.0))


def pair_distances(trajectory: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Minimum-image distances of the atom pairs (P, 2) in every frame, Å, shape (T, P)."""
    return np.concatenate([d for _, d in _distance_blocks(trajectory, pairs, stride=1)])


def _distance_blocks(
    trajectory: Trajectory, pairs: np.ndarray, stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frame indices and distances, a few frames of one cell at a time to stay within the cache."""
    frames = np.arange(0, len(trajectory), stride)
    cells = trajectory.cells[frames]
    changes = np.flatnonzero((np.diff(cells, axis=0) != 0.0).any(axis=(1, 2))) + 1
    per_block = max(1, _VALUES_PER_BLOCK // max(1, len(pairs)))
    for same_cell in np.split(frames, changes):
        for k in range(0, len(same_cell), per_block):
            block = same_cell[k : k + per_block]
            positions = trajectory.positions[block]
            vectors = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
            yield block, minimum_image_distances(vectors, trajectory.cells[block[0]], trajectory.pbc)


def species_pairs(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """All atom pairs i < j, grouped by their two elements: {"H–Pd": (P, 2), …}.

    Elements in the order of their atomic numbers.
    """
    first, second = np.triu_indices(len(numbers), k=1)
    low, high = np.minimum(numbers[first], numbers[second]), np.maximum(numbers[first], numbers[second])
    groups: dict[str, np.ndarray] = {}
    species = np.unique(numbers)
    for a, za in enumerate(species):
        for zb in species[a:]:
            chosen = (low == za) & (high == zb)
            if chosen.any():
                label = f"{chemical_symbols[za]}–{chemical_symbols[zb]}"
                groups[label] = np.stack([first[chosen], second[chosen]], axis=1)
    return groups


def distance_histogram(trajectory: Trajectory, groups: dict[str, np.ndarray], stride: int = 1) -> np.ndarray:
    """How long each distance was seen, by group of pairs.

    Args:
        groups: atom pairs (P, 2) by label, as from `species_pairs`.
        stride: use every stride-th frame.

    Returns:
        Sum over frames of the time they stand for (fs) times the number of pairs in the bin, shape
        (n_groups, n_bins), bins of `BIN_WIDTH` from 0; n_bins as large as needed.
    """
    pairs = np.concatenate(list(groups.values()))
    group = np.repeat(np.arange(len(groups)), [len(p) for p in groups.values()])
    weights = np.zeros(len(trajectory))
    weights[::stride] = frame_weights(trajectory.times[::stride])
    counts = np.zeros(0)
    for frames, distances in _distance_blocks(trajectory, pairs, stride):
        bins = (np.minimum(distances, LONGEST) / BIN_WIDTH).astype(np.int64)
        index = (bins * len(groups) + group).ravel()
        seen = np.bincount(index, np.repeat(weights[frames], len(pairs)), minlength=len(counts))
        seen[: len(counts)] += counts
        counts = seen
    counts = np.append(counts, np.zeros(-len(counts) % len(groups)))
    return counts.reshape(-1, len(groups)).T
