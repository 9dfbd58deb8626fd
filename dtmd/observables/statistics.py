"""Uncertainties: bootstrap over trajectories, block averages, binomial intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
"""Half-width of the 95 % interval in standard errors of a normal distribution."""

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; the interval is None where a single trajectory allows none."""

    value: float
    low: float | None = None
    high: float | None = None


def frame_weights(times: np.ndarray) -> np.ndarray:
    """The time in fs that each frame stands for: half of the gaps on both sides, shape (T,).

    Dumps that start dense and go on sparse would otherwise overweight their first frames.
    """
    if len(times) == 1:
        return np.ones(1)
    gaps = np.diff(times)
    return 0.5 * (np.append(gaps, 0.0) + np.append(0.0, gaps))


def resamples(n: int, seed: int, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """How often each of n trajectories is drawn in each bootstrap sample, shape (n_resamples, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=n_resamples)


def random_halves(n: int, seed: int, n_splits: int) -> np.ndarray:
    """1 for the trajectories in the first half of each split, 0 for the others, shape (n_splits, n)."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(n) < n // 2 for _ in range(n_splits)], dtype=float)


def interval(value: float, replicas: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Normal bootstrap interval, value ± 1.96 standard deviations of its replicas, within `bounds`.

    Percentiles would not do here: distances between histograms are biased upwards by resampling.
    """
    half_width = Z95 * float(np.std(replicas))
    return Estimate(value, max(value - half_width, bounds[0]), min(value + half_width, bounds[1]))


def mean_over_runs(values: np.ndarray, seed: int) -> Estimate:
    """Mean over runs with the bootstrap interval over runs; values (n_runs,)."""
    value = float(np.mean(values))
    if len(values) < 2:
        return Estimate(value)
    return interval(value, resamples(len(values), seed) @ values / len(values))


def wilson_interval(successes: float, trials: float) -> Estimate:
    """A share with its 95 % score interval (Wilson 1927), sound also for 0 or all of few trials."""
    share = successes / trials
    denominator = 1.0 + Z95**2 / trials
    centre = (share + Z95**2 / (2 * trials)) / denominator
    half_width = Z95 / denominator * np.sqrt(share * (1.0 - share) / trials + Z95**2 / (4 * trials**2))
    return Estimate(share, max(0.0, float(centre - half_width)), min(1.0, float(centre + half_width)))


def difference(own: Estimate, reference: Estimate) -> Estimate:
    """own − reference of independent estimates, their half-widths on the sides that matter added in squares.

    Of shares with Wilson's intervals this is Newcombe's method 10 (Statist. Med. 17, 873, 1998), of normal intervals
    the usual one; without both intervals there is none.
    """
    value = own.value - reference.value
    if own.low is None or reference.low is None:
        return Estimate(value)
    below = np.hypot(own.value - own.low, reference.high - reference.value)
    above = np.hypot(own.high - own.value, reference.value - reference.low)
    return Estimate(value, float(value - below), float(value + above))


def block_average(values: np.ndarray, times: np.ndarray, n_blocks: int = 5) -> tuple[float, float | None]:
    """Time average and its standard error from `n_blocks` blocks of equal duration.

    Args:
        values: one per frame, shape (T,).
        times: fs, shape (T,).

    Returns:
        Mean and standard error; the error is None where a block would be empty.
    """
    weights = frame_weights(times)
    mean = float(np.average(values, weights=weights))
    if len(values) < 2 * n_blocks:
        return mean, None
    edges = np.linspace(times[0], times[-1], n_blocks + 1)[1:-1]
    block = np.searchsorted(edges, times, side="right")
    total = np.bincount(block, weights, minlength=n_blocks)
    if not total.all():
        return mean, None
    means = np.bincount(block, weights * values, minlength=n_blocks) / total
    return mean, float(np.std(means, ddof=1) / np.sqrt(n_blocks))
