"""Regions of high density on a map that is periodic in both directions, and the way between them."""

from __future__ import annotations

import numpy as np

from dtmd.observables.graph import connected

CORE_SHARE = 0.9
SMALLEST = 0.01

DEFINITION = (
    "A cluster is a connected region of high density, as in DBSCAN but on the bins of the map: the mean of the maps of "
    f"all sides is smoothed by a Gaussian of one bin, the densest bins that hold {CORE_SHARE:.0%} of it are kept, "
    "neighbours among them, corners included, belong together, and regions with less than "
    f"{SMALLEST:.0%} are left out. A transition is counted when a run comes to another cluster than the one it was in "
    "last; what it does between them is not."
)


def density_clusters(density: np.ndarray) -> np.ndarray:
    """The cluster of each bin of a map (n, m): 0 for none, else from 1 by falling population; same shape."""
    n, m = density.shape
    p = _smoothed(density / density.sum())
    order = np.argsort(-p, axis=None, kind="stable")
    n_kept = int(np.searchsorted(np.cumsum(p.ravel()[order]), CORE_SHARE * p.sum())) + 1
    kept = np.zeros(n * m, dtype=bool)
    kept[order[:n_kept]] = True
    index = np.arange(n * m).reshape(n, m)
    links = np.concatenate([
        np.stack([index.ravel(), np.roll(index, shift, axis=(0, 1)).ravel()], axis=1)
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1))
    ])
    region = connected(n * m, links[kept[links].all(axis=1)])
    population = np.bincount(region[kept], p.ravel()[kept], minlength=region.max() + 1)
    labels = np.zeros(n * m, dtype=np.int64)
    large = [k for k in np.argsort(-population, kind="stable") if population[k] >= SMALLEST]
    for label, k in enumerate(large, start=1):
        labels[kept & (region == k)] = label
    return labels.reshape(n, m)


def transitions(clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """How often a run goes from one cluster to another, (n_clusters, n_clusters).

    Args:
        clusters: of each frame, 0 for none, (T,).
    """
    visited = clusters[clusters > 0] - 1
    counts = np.zeros((n_clusters, n_clusters), dtype=np.int64)
    changes = np.flatnonzero(np.diff(visited))
    np.add.at(counts, (visited[changes], visited[changes + 1]), 1)
    return counts


def _smoothed(p: np.ndarray) -> np.ndarray:
    """Convolved with a periodic Gaussian with a standard deviation of one bin."""
    kernels = [np.exp(-2.0 * np.pi**2 * np.fft.fftfreq(n) ** 2) for n in p.shape]
    return np.maximum(np.fft.ifft2(np.fft.fft2(p) * np.outer(*kernels)).real, 0.0)
