"""Survival of runs of unequal durations (Kaplan and Meier 1958)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dtmd.observables.statistics import Estimate, wilson_interval


@dataclass(frozen=True)
class SurvivalCurve:
    """The share to which nothing has happened, a step function: each value holds from its time to the next.

    Attributes:
        times: fs, (K,), from 0.
        share, low, high: with the 95 % interval, (K,).
    """

    times: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def at(self, time: float) -> Estimate:
        """The share at a time, fs, at which it is known."""
        k = int(np.searchsorted(self.times, time, side="right")) - 1
        return Estimate(float(self.share[k]), float(self.low[k]), float(self.high[k]))

    def steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """times, share, low and high as a line with corners, (2 K − 1,) each."""
        lines = [np.repeat(values, 2)[:-1] for values in (self.share, self.low, self.high)]
        return np.repeat(self.times, 2)[1:], *lines


def longest_common_time(curves: Iterable[SurvivalCurve]) -> float:
    """The longest time, fs, at which all shares are known: up to the last run, or for ever once a share is zero."""
    curves = list(curves)
    ends = [curve.times[-1] for curve in curves if curve.share[-1] > 0.0]
    return float(min(ends) if ends else max(curve.times[-1] for curve in curves))


def kaplan_meier(times: np.ndarray, happened: np.ndarray) -> SurvivalCurve:
    """Survival S(t) = Π (1 − d/n) over the times up to t with d events among the n still followed.

    The interval is Wilson's for the number of runs without censoring that would have Greenwood's variance (Rothman,
    J. Chronic Dis. 31, 557, 1978). Where nothing or everything has happened there is no such variance: before the
    first event that is the number followed further, and after the last one it stays what it was.

    Args:
        times: until the event, or until the run was last followed, fs, (n_runs,), n_runs ≥ 1, not negative; a run
            last followed at the time of an event counts as followed through it.
        happened: whether it ended with the event, (n_runs,).
    """
    points = np.unique(np.append(0.0, times))
    share, greenwood, estimates = 1.0, 0.0, []
    for point in points:
        followed, further = int(np.sum(times >= point)), int(np.sum(times > point))
        events = int(np.sum(happened & (times == point)))
        untouched = share == 1.0
        share *= 1.0 - events / followed
        if share == 1.0:
            effective = float(further or followed)
        elif share > 0.0:
            greenwood += events / (followed * (followed - events))
            effective = (1.0 - share) / (share * greenwood)
        elif untouched:
            effective = float(followed)
        estimates.append(wilson_interval(share * effective, effective))
    parts = ("value", "low", "high")
    return SurvivalCurve(points, *(np.array([getattr(estimate, part) for estimate in estimates]) for part in parts))
