"""MD and AIMD compared by the distributions of a quantity, one from each trajectory.

A distribution is an array (n_runs, n_bins) of what each run adds to the pooled one; a run counts for its duration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.observables.histograms import normalised
from dtmd.observables.over_runs import estimate_row
from dtmd.observables.section import AIMD, Curve, Row, Verdict
from dtmd.observables.statistics import Z95, Estimate, interval, random_halves, resamples

MIN_REFERENCE = 4
"""Trajectories of AIMD below which its own spread is not known; four can be halved in three ways."""

N_SPLITS = 200

RULE = (
    "A distance between distributions is never zero, so it is held against those between random halves of the AIMD "
    f"trajectories ({N_SPLITS} splits). A distance between m and n equal trajectories grows as √(1/m + 1/n), where "
    "trajectories of unequal durations w count for (Σw)²/Σw²; each distance between halves is brought to the numbers "
    "of both sides with this. MD agrees where its distance is not above the 95th percentile of these, and differs "
    "where the whole bootstrap interval of its distance, over the trajectories of both sides, lies above. Otherwise, "
    f"and with fewer than {MIN_REFERENCE} AIMD trajectories, there is not enough data."
)

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Distance between pooled distributions, (…, n_bins) each, shape (…)."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""A number from a pooled distribution, (…, n_bins), shape (…)."""


@dataclass(frozen=True)
class Distance:
    """How far MD is from AIMD.

    Attributes:
        estimate: with the bootstrap interval over the trajectories of both sides.
        equal: mean distance between halves of the AIMD; None for a single trajectory.
        limit: what equal sides of these sizes stay below in 95 % of cases; None likewise.
    """

    estimate: Estimate
    equal: float | None
    limit: float | None
    verdict: Verdict


def compare_distributions(
    own: np.ndarray, reference: np.ndarray, metric: Metric, seed: int,
    durations: tuple[np.ndarray, np.ndarray] | None = None,
) -> Distance:
    """Compare MD (n_md, n_bins) with AIMD (n_aimd, n_bins).

    Args:
        durations: the weight of each run on both sides, by default the sum of its distribution.
    """
    own_weights, weights = durations or (own.sum(axis=-1), reference.sum(axis=-1))
    estimate = bootstrap_distance(own, reference, metric, seed)
    if len(reference) < 2:
        return Distance(estimate, None, None, Verdict.UNDECIDED)
    in_first = random_halves(len(reference), seed, N_SPLITS)
    halves = metric(in_first @ reference, (1.0 - in_first) @ reference)
    spread = 1.0 / effective_number(in_first * weights) + 1.0 / effective_number((1.0 - in_first) * weights)
    wanted = 1.0 / effective_number(own_weights) + 1.0 / effective_number(weights)
    limit = float(np.percentile(halves * np.sqrt(wanted / spread), 95.0))
    verdict = Verdict.UNDECIDED
    if len(reference) >= MIN_REFERENCE and estimate.value <= limit:
        verdict = Verdict.AGREES
    elif len(reference) >= MIN_REFERENCE and estimate.low > limit:
        verdict = Verdict.DIFFERS
    return Distance(estimate, float(halves.mean()), limit, verdict)


def bootstrap_distance(
    own: np.ndarray, reference: np.ndarray, metric: Metric, seed: int, bounds: tuple[float, float] = (0.0, np.inf)
) -> Estimate:
    """The metric of the pooled distributions; its interval needs more than one trajectory on some side."""
    value = float(metric(own.sum(axis=0), reference.sum(axis=0)))
    if len(own) < 2 and len(reference) < 2:
        return Estimate(value)
    pairs = zip(_resampled(own, seed), _resampled(reference, seed + 1), strict=True)
    return interval(value, np.concatenate([metric(p, q) for p, q in pairs]), bounds)


def bootstrap(
    runs: np.ndarray, statistic: Statistic, seed: int, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """A number of the pooled distribution of one side, (n_runs, n_bins), with the interval over runs."""
    value = float(statistic(runs.sum(axis=0)))
    if len(runs) < 2:
        return Estimate(value)
    return interval(value, np.concatenate([statistic(p) for p in _resampled(runs, seed)]), bounds)


def effective_number(weights: np.ndarray) -> np.ndarray:
    """Kish's number of equal trajectories that a weighted mean is worth: (Σw)²/Σw² over the last axis."""
    return weights.sum(axis=-1) ** 2 / (weights**2).sum(axis=-1)


def _resampled(runs: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Pooled distributions of the bootstrap samples, some at a time so that memory does not matter."""
    for draws in np.array_split(resamples(len(runs), seed), 20):
        yield draws @ runs


def stacked(histograms: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Histograms (…, any) of the runs of each side as arrays (n_runs, …, n_bins) with equally many bins."""
    n_bins = max(h.shape[-1] for runs in histograms.values() for h in runs)
    return {
        side: np.stack([np.pad(h, [(0, 0)] * (h.ndim - 1) + [(0, n_bins - h.shape[-1])]) for h in runs])
        for side, runs in histograms.items()
    }


def not_empty(histograms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the runs in which nothing was counted, and without sides that have no other."""
    kept = {side: h[h.reshape(len(h), -1).sum(axis=1) > 0.0] for side, h in histograms.items()}
    return {side: h for side, h in kept.items() if len(h)}


def distance_row(
    quantity: str, unit: str, histograms: Mapping[str, np.ndarray], metric: Metric, seed: int,
    durations: Mapping[str, np.ndarray] | None = None,
) -> Row | None:
    """The distance of each side from the AIMD; None without AIMD or MD."""
    own = {side: h for side, h in histograms.items() if side != AIMD}
    if AIMD not in histograms or not own:
        return None
    reference = histograms[AIMD]
    found = {
        side: compare_distributions(h, reference, metric, seed, durations and (durations[side], durations[AIMD]))
        for side, h in own.items()
    }
    limits = {side: distance.limit for side, distance in found.items() if distance.limit is not None}
    return Row(
        quantity, unit, None, {}, {side: distance.estimate for side, distance in found.items()},
        equal=next(iter(found.values())).equal,
        verdict={side: distance.verdict for side, distance in found.items()},
        note="; ".join(f"{side}: equal sides stay below {limit:.3g}" for side, limit in limits.items()),
    )


def mean_and_spread_rows(
    quantity: str, unit: str, histograms: Mapping[str, np.ndarray], centres: np.ndarray, seed: int
) -> list[Row]:
    """Mean and standard deviation of the pooled distributions over bins with these centres, (n_bins,)."""

    def mean(p: np.ndarray) -> np.ndarray:
        return normalised(p) @ centres

    def spread(p: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(normalised(p) @ centres**2 - mean(p) ** 2, 0.0))

    return [
        estimate_row(f"{name} {quantity}", unit, {side: bootstrap(h, of, seed) for side, h in histograms.items()})
        for name, of in (("mean", mean), ("spread of the", spread))
    ]


def density_curves(
    histograms: Mapping[str, np.ndarray], edges: np.ndarray, seed: int,
    density: Statistic | None = None,
) -> list[Curve]:
    """The pooled density of each side at the centres of the bins, with its bootstrap band.

    Args:
        edges: of the bins, (n_bins + 1,).
        density: from a pooled distribution, if not its share in each bin over the width of the bin.
    """
    widths, centres = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    density = density or (lambda p: normalised(p) / widths)
    curves = []
    for side, runs in histograms.items():
        value, low, high = density(runs.sum(axis=0)), None, None
        if len(runs) > 1:
            half_width = Z95 * np.std(np.concatenate([density(p) for p in _resampled(runs, seed)]), axis=0)
            low, high = np.maximum(value - half_width, 0.0), value + half_width
        curves.append(Curve(side, centres, value, low, high, side))
    return curves


def plot_name(*parts: str) -> str:
    """A name for files from the words of a caption: "rdf", "H–Pd" → "rdf-h-pd"."""
    text = "-".join(parts).lower()
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text).split())
