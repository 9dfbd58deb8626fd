"""How far two distributions are apart.

Histograms here are arrays over bins on the last axis, in any normalisation; those of distances have bins of
`BIN_WIDTH` from 0.
"""

from __future__ import annotations

import numpy as np

from dtmd.observables.distances import BIN_WIDTH

COARSE = 5
"""Bins merged for figures and overlap, so 0.05 Å: finer bins mostly show noise."""


def normalised(histogram: np.ndarray) -> np.ndarray:
    """Probability of each bin; sums to one over the last axis."""
    return histogram / histogram.sum(axis=-1, keepdims=True)


def coarse(histogram: np.ndarray) -> np.ndarray:
    """Merge `COARSE` bins into one on the last axis."""
    padding = [(0, 0)] * (histogram.ndim - 1) + [(0, -histogram.shape[-1] % COARSE)]
    padded = np.pad(histogram, padding)
    return padded.reshape(*padded.shape[:-1], -1, COARSE).sum(axis=-1)


def wasserstein(p: np.ndarray, q: np.ndarray, width: float = BIN_WIDTH) -> np.ndarray:
    """Wasserstein-1 distance ∫|P − Q| dx of the cumulative distributions P and Q over bins of `width`.

    Returns:
        In the unit of the width; shape without the bins.
    """
    return width * np.abs(np.cumsum(normalised(p) - normalised(q), axis=-1)).sum(axis=-1)


def wasserstein_on_circle(p: np.ndarray, q: np.ndarray, width: float) -> np.ndarray:
    """The same where the last bin borders on the first: min over c of ∫|P − Q − c| dx (Rabin et al. 2011).

    The median of P − Q is the minimum.
    """
    change = np.cumsum(normalised(p) - normalised(q), axis=-1)
    return width * np.abs(change - np.median(change, axis=-1, keepdims=True)).sum(axis=-1)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """½ ∫|p − q| dx, the share of one that lies elsewhere in the other: 0 for equal ones, 1 for disjoint ones."""
    return 0.5 * np.abs(normalised(p) - normalised(q)).sum(axis=-1)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen–Shannon divergence in bits: 0 for equal ones, 1 for disjoint ones (Lin 1991)."""
    p, q = normalised(p), normalised(q)
    middle = 0.5 * (p + q)
    return 0.5 * (_relative_entropy(p, middle) + _relative_entropy(q, middle))


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Σ p log₂(p/q) over the bins that p has."""
    seen = p > 0.0
    return (p * np.log2(np.where(seen, p, 1.0) / np.where(seen, q, 1.0))).sum(axis=-1)


def overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """∫min(p, q) dr of the densities in bins of 0.05 Å: 1 for equal ones, 0 for disjoint ones."""
    return np.minimum(coarse(normalised(p)), coarse(normalised(q))).sum(axis=-1)


def share_outside(p: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of p below the smallest or above the largest value of the reference, (n_bins,)."""
    seen = np.flatnonzero(reference)
    return 1.0 - normalised(p)[..., seen[0] : seen[-1] + 1].sum(axis=-1)
