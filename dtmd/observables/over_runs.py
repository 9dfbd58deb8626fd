"""One number or curve of every run of every side, put together as a row or as their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dtmd.observables.section import AIMD, Curve, Row, judged
from dtmd.observables.statistics import Estimate, difference, interval, mean_over_runs, resamples

RULE = ("Over several runs the number is their mean, with the 95 % bootstrap interval over runs. A side agrees where "
        "the whole interval of its difference lies within the tolerance, differs where none of it does, and there is "
        "not enough data otherwise, or where a side is a single run.")


def estimate_row(
    quantity: str, unit: str, estimates: Mapping[str, Estimate], tolerance: float | None = None, note: str = ""
) -> Row:
    """A number of all sides, AIMD among them, with the differences from it; judged where there is a tolerance."""
    own = {side: estimate for side, estimate in estimates.items() if side != AIMD}
    reference = estimates.get(AIMD)
    differences = {} if reference is None else {side: difference(e, reference) for side, e in own.items()}
    verdicts = {} if tolerance is None else {side: judged(d, tolerance) for side, d in differences.items()}
    return Row(quantity, unit, reference, own, differences, verdict=verdicts, note=note)


def means_row(
    quantity: str, unit: str, values: Mapping[str, Sequence[float]], seed: int, tolerance: float | None = None,
    note: str = "",
) -> Row:
    """The same of the means over the runs of each side, where it has any."""
    means = {side: mean_over_runs(np.array(of_runs), seed) for side, of_runs in values.items() if len(of_runs)}
    return estimate_row(quantity, unit, means, tolerance, note)


def mean_curve(side: str, x: np.ndarray, values: np.ndarray, seed: int, bounds: tuple[float, float]) -> Curve:
    """Mean over the runs of a side with the bootstrap band within `bounds`, without one for a single run.

    Args:
        x: (N,).
        values: (n_runs, N).
    """
    mean, n_runs = values.mean(axis=0), len(values)
    if n_runs < 2:
        return Curve(side, x, mean, side=side)
    replicas = (resamples(n_runs, seed) @ values / n_runs).T
    band = [interval(value, spread, bounds) for value, spread in zip(mean, replicas, strict=True)]
    low, high = (np.array([getattr(point, edge) for point in band]) for edge in ("low", "high"))
    return Curve(side, x, mean, low, high, side=side)
