"""The share of runs that have not yet met an event, from runs of any length (Kaplan and Meier 1958)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd.observables.statistics import Z95, Estimate, wilson_interval


@dataclass(frozen=True)
class SurvivalCurve:
    """A step function: from `times[k]` on, `alive[k]` with its 95 % interval; each (n,), from time 0.

    The last time is that of the last event or end of observation; nothing is known beyond.
    """

    times: np.ndarray
    alive: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def at(self, time: float) -> Estimate:
        """The share alive at a time from 0 to the last."""
        k = int(np.searchsorted(self.times, time, side="right")) - 1
        return Estimate(float(self.alive[k]), float(self.low[k]), float(self.high[k]))


def kaplan_meier(times: np.ndarray, happened: np.ndarray) -> SurvivalCurve:
    """Kaplan–Meier estimate with Greenwood's variance and the log-log interval.

    S(t) = ∏ (1 − d/n) over the times of events up to t, d events among n still observed. Var log S = Σ d/(n(n − d));
    the interval is S^exp(±1.96 √Var log S / log S), which stays between 0 and 1. At S = 1 and S = 0, where it has no
    width, Wilson's interval of n of n, or of none of n, stands in; its bounds never rise.

    Args:
        times: of the event or of the end of observation of each run, (n,), n ≥ 1, not negative.
        happened: whether the time is that of an event, (n,), bool; the others are censored, after events of that time.
    """
    steps = np.unique(np.append(times, 0.0))
    at_risk = (times >= steps[:, None]).sum(axis=1)
    events = ((times == steps[:, None]) & happened).sum(axis=1)
    alive = np.cumprod(1.0 - events / at_risk)
    low, high = np.empty(len(steps)), np.empty(len(steps))
    variance = 0.0
    for k, share in enumerate(alive):
        if 0.0 < share < 1.0:
            variance += events[k] / (at_risk[k] * (at_risk[k] - events[k]))
            factor = np.exp(Z95 * np.sqrt(variance) / np.log(share))
            low[k], high[k] = share ** (1.0 / factor), share**factor
        else:
            exact = wilson_interval(int(at_risk[k] * share), int(at_risk[k]))
            low[k], high[k] = exact.low, exact.high
    return SurvivalCurve(steps, alive, np.minimum.accumulate(low), np.minimum.accumulate(high))
