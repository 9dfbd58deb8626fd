"""Distance histograms of MD against AIMD, with what equal would look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd.observables.distances import BIN_WIDTH, distance_histogram, species_pairs
from dtmd.observables.histograms import COARSE, coarse, normalised, overlap, share_outside, stack, wasserstein
from dtmd.observables.statistics import Estimate, interval, resamples
from dtmd.trajectory import Trajectory

TOTAL = "all"
MAX_DISTANCES = 100_000_000
"""Distances evaluated per side before frames are left out at even spacing."""

_N_SPLITS = 50


@dataclass(frozen=True)
class DistanceComparison:
    """One distribution of distances on both sides.

    Attributes:
        pair: the two elements, or `TOTAL` for all pairs.
        wasserstein: Å.
        split_half: mean Wasserstein distance between random halves of the AIMD trajectories, Å: what
            equal looks like; None for a single trajectory.
        overlap: ∫min(p, q) dr.
        outside: share of the MD distances beyond the shortest and longest of AIMD.
        distances: centres of the bins of the densities, Å, shape (B,).
        md, aimd: densities, 1/Å, shape (B,).
    """

    pair: str
    wasserstein: Estimate
    split_half: float | None
    overlap: Estimate
    outside: float
    distances: np.ndarray
    md: np.ndarray
    aimd: np.ndarray


@dataclass(frozen=True)
class DistanceHistograms:
    """Histograms of each trajectory, (n_pairs, n_bins), for the pairs of elements in `pairs`."""

    pairs: list[str]
    by_trajectory: list[np.ndarray]


def distance_histograms(trajectories: list[Trajectory]) -> DistanceHistograms:
    """Of trajectories of the same composition."""
    stride = frame_stride(trajectories)
    return DistanceHistograms(
        list(species_pairs(trajectories[0].numbers)),
        [distance_histogram(t, species_pairs(t.numbers), stride) for t in trajectories],
    )


def compare_distances(md: DistanceHistograms, aimd: DistanceHistograms, seed: int) -> list[DistanceComparison]:
    """Compare all pairs, then each pair of elements; both sides of the same composition."""
    n_bins = max(h.shape[1] for h in [*md.by_trajectory, *aimd.by_trajectory])
    own, reference = stack(md.by_trajectory, n_bins), stack(aimd.by_trajectory, n_bins)
    total = _compare_one(TOTAL, own.sum(axis=1), reference.sum(axis=1), seed)
    return [total, *(_compare_one(pair, own[:, k], reference[:, k], seed) for k, pair in enumerate(md.pairs))]


def frame_stride(trajectories: list[Trajectory]) -> int:
    """Every how many frames are used, so that no more than about `MAX_DISTANCES` are evaluated."""
    n_atoms = len(trajectories[0].numbers)
    n_distances = sum(len(t) for t in trajectories) * n_atoms * (n_atoms - 1) // 2
    return -(-n_distances // MAX_DISTANCES)


def _compare_one(pair: str, own: np.ndarray, reference: np.ndarray, seed: int) -> DistanceComparison:
    """Compare histograms (n_md, n_bins) and (n_aimd, n_bins) of one kind of pair."""
    p, q = own.sum(axis=0), reference.sum(axis=0)
    distance, shared = Estimate(float(wasserstein(p, q))), Estimate(float(overlap(p, q)))
    if len(own) > 1 or len(reference) > 1:
        replicas = resamples(len(own), seed) @ own, resamples(len(reference), seed + 1) @ reference
        distance = interval(distance.value, wasserstein(*replicas), bounds=(0.0, np.inf))
        shared = interval(shared.value, overlap(*replicas), bounds=(0.0, 1.0))
    n_bins = np.flatnonzero(p + q)[-1] + 1
    densities = [coarse(normalised(h[:n_bins])) / (COARSE * BIN_WIDTH) for h in (p, q)]
    return DistanceComparison(
        pair=pair, wasserstein=distance, split_half=_split_half(reference, seed), overlap=shared,
        outside=share_outside(p, q), distances=(np.arange(len(densities[0])) + 0.5) * COARSE * BIN_WIDTH,
        md=densities[0], aimd=densities[1],
    )


def _split_half(reference: np.ndarray, seed: int) -> float | None:
    n = len(reference)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    in_first = np.array([rng.permutation(n) < n // 2 for _ in range(_N_SPLITS)], dtype=float)
    return float(wasserstein(in_first @ reference, (1.0 - in_first) @ reference).mean())
