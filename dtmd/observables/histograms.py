"""How far two distributions of distances are apart.

Histograms here are arrays over bins of `BIN_WIDTH` from 0 on the last axis, in any normalisation.
"""

from __future__ import annotations

import numpy as np

from dtmd.observables.distances import BIN_WIDTH

COARSE = 5
"""Bins merged for figures and overlap, so 0.05 Å: finer bins mostly show noise."""


def stack(histograms: list[np.ndarray], n_bins: int) -> np.ndarray:
    """Histograms of several trajectories, (n_groups, any) each, as one array (n, n_groups, n_bins)."""
    return np.stack([np.pad(h, ((0, 0), (0, n_bins - h.shape[1]))) for h in histograms])


def normalised(histogram: np.ndarray) -> np.ndarray:
    """Probability of each bin; sums to one over the last axis."""
    return histogram / histogram.sum(axis=-1, keepdims=True)


def coarse(histogram: np.ndarray) -> np.ndarray:
    """Merge `COARSE` bins into one on the last axis."""
    padding = [(0, 0)] * (histogram.ndim - 1) + [(0, -histogram.shape[-1] % COARSE)]
    padded = np.pad(histogram, padding)
    return padded.reshape(*padded.shape[:-1], -1, COARSE).sum(axis=-1)


def wasserstein(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance ∫|P − Q| dr of the cumulative distributions, Å; shape without the bins."""
    return BIN_WIDTH * np.abs(np.cumsum(normalised(p) - normalised(q), axis=-1)).sum(axis=-1)


def overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """∫min(p, q) dr of the densities in bins of 0.05 Å: 1 for equal ones, 0 for disjoint ones."""
    return np.minimum(coarse(normalised(p)), coarse(normalised(q))).sum(axis=-1)


def share_outside(p: np.ndarray, reference: np.ndarray) -> float:
    """Share of p, (n_bins,), below the shortest or above the longest distance of the reference."""
    seen = np.flatnonzero(reference)
    return float(1.0 - normalised(p)[seen[0] : seen[-1] + 1].sum())
