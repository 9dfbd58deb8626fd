"""Interatomic distances under periodic boundaries, and their histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from ase.data import chemical_symbols
from ase.geometry import complete_cell, minkowski_reduce

from dtmd.trajectory import Trajectory

BIN_WIDTH = 0.01
"""Å; Wasserstein distances are exact to this, coarser histograms are sums of these bins."""

LONGEST = 200.0
"""Å; the last bin holds everything beyond, as when a cluster without a cell has blown up."""

_VALUES_PER_BLOCK = 100_000
_PAIRS_AT_ONCE = 1_000_000


def minimum_image_distances(vectors: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Shortest length of each vector over all its periodic images, exact in skewed cells too.

    Args:
        vectors: Å, shape (…, 3).
        cell: rows are the cell vectors, Å, shape (3, 3); rows of non-periodic directions may be zero.
        pbc: periodic directions, shape (3,).

    Returns:
        Å, shape (…).
    """
    if not np.any(pbc):
        return np.linalg.norm(vectors, axis=-1)
    wrapped, shifts = _wrapped(vectors, cell, pbc)
    squares = np.einsum("...i,...i->...", wrapped, wrapped)
    gains = np.zeros_like(squares)
    for shift in shifts:
        np.minimum(gains, shift @ shift - 2.0 * np.abs(wrapped @ shift), out=gains)
    return np.sqrt(np.maximum(squares + gains, 0.0))


def minimum_images(vectors: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The shortest periodic image of each vector, as `minimum_image_distances`; Å, shape (…, 3)."""
    if not np.any(pbc):
        return vectors
    wrapped, shifts = _wrapped(vectors, cell, pbc)
    if not len(shifts):
        return wrapped
    along = wrapped @ shifts.T
    gains = np.einsum("ni,ni->n", shifts, shifts) - 2.0 * np.abs(along)
    best = np.argmin(gains, axis=-1)[..., None]
    sense = -np.sign(np.take_along_axis(along, best, axis=-1))
    return wrapped + np.where(np.take_along_axis(gains, best, axis=-1) < 0.0, sense * shifts[best[..., 0]], 0.0)


def _wrapped(vectors: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors wrapped into the reduced cell, and the lattice vectors (n, 3) that may shorten them, added or taken off.

    In the Minkowski-reduced cell the wrapped vector f·A, |f_i| ≤ ½, or one of its 26 neighbour images
    f·A ± n·A is the shortest (as in `ase.geometry.find_mic`).
    """
    pbc = np.asarray(pbc, dtype=bool)
    reduced, _ = minkowski_reduce(complete_cell(np.where(pbc[:, None], cell, 0.0)), pbc)
    scaled = vectors @ np.linalg.inv(reduced)
    return (scaled - np.round(scaled) * pbc) @ reduced, _relevant_images(reduced @ reduced.T, pbc) @ reduced


def _relevant_images(metric: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The images n, one of each ±n, that can be shorter than the wrapped vector; (n, 3).

    The gain |f·A + n·A|² − |f·A|² = |n·A|² + 2 f·A Aᵀ·n is never negative where |n·A|² ≥ Σ_i |(A Aᵀ n)_i|. Nor is
    n = m + k with such a k ever better than another image m where m·A Aᵀ·k ≥ 0. This leaves none in an orthogonal
    cell and two in a hexagonal one.
    """
    images = np.array(list(product(*[(-1, 0, 1) if periodic else (0,) for periodic in pbc])))
    lengths = np.einsum("ni,ij,nj->n", images, metric, images)
    useless = lengths >= np.abs(images @ metric).sum(axis=1) * (1.0 - 1e-12)
    candidates, without = images[~useless], images[useless & images.any(axis=1)]
    rest = candidates[:, None] - without
    worse = np.einsum("nki,ij,kj->nk", rest, metric, without) >= -1e-12 * metric.trace()
    worse &= rest.any(axis=2) & (np.abs(rest) <= 1).all(axis=2)
    kept = candidates[~worse.any(axis=1)]
    return kept[len(kept) // 2 :]


def pair_distances(trajectory: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Minimum-image distances of the atom pairs (P, 2) in every frame, Å, shape (T, P)."""
    frames = np.arange(len(trajectory))
    return np.concatenate([d for _, d in _distance_blocks(trajectory, pairs, frames)])


def pair_vectors(trajectory: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Minimum-image vectors from the first to the second atom of each pair (P, 2), Å, shape (T, P, 3)."""
    positions = trajectory.positions
    return frame_images(positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]], trajectory.cells, trajectory.pbc)


def frame_images(vectors: np.ndarray, cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """`minimum_images` of the vectors (T, …, 3) of each frame in its own cell, (T, 3, 3)."""
    parts = np.flatnonzero(_changed(cells))[1:]
    return np.concatenate([
        minimum_images(v, c[0], pbc) for v, c in zip(np.split(vectors, parts), np.split(cells, parts), strict=True)])


def of_each_cell(cells: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of the cell for every frame, (T, …), evaluated once where the cells (T, 3, 3) stay the same."""
    changed = _changed(cells)
    return np.array([function(cell) for cell in cells[changed]])[np.cumsum(changed) - 1]


def _changed(cells: np.ndarray) -> np.ndarray:
    """Which cells are not the same as the one before, the first of all among them, (T,)."""
    return np.append(True, (np.diff(cells, axis=0) != 0.0).any(axis=(1, 2)))


def _same_cell_blocks(trajectory: Trajectory, frames: np.ndarray, n_pairs: int) -> Iterator[np.ndarray]:
    """A few frames of one cell at a time, to stay within the cache."""
    per_block = max(1, _VALUES_PER_BLOCK // max(1, n_pairs))
    for same_cell in np.split(frames, np.flatnonzero(_changed(trajectory.cells[frames]))[1:]):
        for k in range(0, len(same_cell), per_block):
            yield same_cell[k : k + per_block]


def _distance_blocks(
    trajectory: Trajectory, pairs: np.ndarray, frames: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frame indices and distances, block by block."""
    for block in _same_cell_blocks(trajectory, frames, len(pairs)):
        positions = trajectory.positions[block]
        vectors = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
        yield block, minimum_image_distances(vectors, trajectory.cells[block[0]], trajectory.pbc)


def pair_label(first: int, second: int) -> str:
    """Two atomic numbers as "H–Pd"."""
    return f"{chemical_symbols[first]}–{chemical_symbols[second]}"


def element_pairs(numbers: np.ndarray) -> list[tuple[int, int]]:
    """The atomic numbers of all kinds of pairs that there are, in ascending order."""
    species, counts = np.unique(numbers, return_counts=True)
    return [
        (int(za), int(zb)) for a, za in enumerate(species) for b, zb in enumerate(species)
        if a < b or (a == b and counts[a] > 1)
    ]


def _weighted_histogram(
    trajectory: Trajectory, weights: np.ndarray, pairs: np.ndarray, group: np.ndarray, n_groups: int
) -> np.ndarray:
    """Distances of the frames whose weight is not zero, (n_groups, n_bins)."""
    counts = np.zeros(0)
    for frames, distances in _distance_blocks(trajectory, pairs, np.flatnonzero(weights)):
        bins = (np.minimum(distances, LONGEST) / BIN_WIDTH).astype(np.int64)
        index = (bins * n_groups + group).ravel()
        seen = np.bincount(index, np.repeat(weights[frames], len(pairs)), minlength=len(counts))
        seen[: len(counts)] += counts
        counts = seen
    counts = np.append(counts, np.zeros(-len(counts) % n_groups))
    return counts.reshape(-1, n_groups).T


class PairHistogram:
    """The distances of all pairs of a run, gathered frame by frame.

    Attributes:
        pairs: the atomic numbers of each kind of pair.
        counts: sum over frames of their weight times the number of pairs in the bin, shape (n_pairs, n_bins), bins of
            `BIN_WIDTH` from 0; n_bins as large as needed.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.pairs = element_pairs(numbers)
        self.counts = np.zeros((len(self.pairs), 0))
        species, self._kinds = np.unique(numbers, return_inverse=True)
        self._group = np.zeros((len(species), len(species)), dtype=np.int64)
        for k, pair in enumerate(self.pairs):
            a, b = np.searchsorted(species, pair)
            self._group[a, b] = self._group[b, a] = k

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        """Count each distance with the weight of its frame, (T,); frames of weight zero are left out."""
        for pairs in _all_pairs(len(self._kinds)):
            group = self._group[self._kinds[pairs[:, 0]], self._kinds[pairs[:, 1]]]
            seen = _weighted_histogram(frames, weights, pairs, group, len(self.pairs))
            if seen.shape[1] < self.counts.shape[1]:
                seen, self.counts = self.counts, seen
            seen[:, : self.counts.shape[1]] += self.counts
            self.counts = seen


def _all_pairs(n_atoms: int) -> Iterator[np.ndarray]:
    """All pairs i < j, (P, 2), in pieces that memory has room for."""
    rows = max(1, _PAIRS_AT_ONCE // n_atoms)
    for start in range(0, n_atoms - 1, rows):
        first, second = np.triu_indices(min(rows, n_atoms - start), k=start + 1, m=n_atoms)
        yield np.stack([first + start, second], axis=1)
