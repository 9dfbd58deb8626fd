"""Temperature of a run, and of all runs against AIMD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import RULE, estimate_row
from dtmd.observables.section import AIMD, Curve, Plot, Section, sides
from dtmd.observables.series import Series, thinned
from dtmd.observables.statistics import Z95, Estimate, block_average, mean_over_runs
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS


def mean_temperature(trajectory: Trajectory) -> tuple[float, float | None]:
    """Time average and block standard error of the temperature, K; needs velocities."""
    return block_average(trajectory.temperatures(), trajectory.times)


def with_standard_error(mean: float, error: float | None) -> Estimate:
    """A mean with the interval from its standard error, if there is one."""
    return Estimate(mean) if error is None else Estimate(mean, mean - Z95 * error, mean + Z95 * error)


def mean_of_runs(runs: Sequence[Estimate], seed: int) -> Estimate:
    """Mean over runs; a single run keeps the interval of its own blocks."""
    return runs[0] if len(runs) == 1 else mean_over_runs(np.array([run.value for run in runs]), seed)


@dataclass(frozen=True)
class RunTemperature:
    """Temperature of one run.

    Attributes:
        mean: K, with the interval from block averages.
        times, temperatures: the curve, fs from the start and K, at most `LONGEST_CURVE` points.
        ended: time from the start in fs of the first frame without a finite temperature, which the mean leaves out
            with all that follow; None where there is no such frame.
    """

    source: str
    mean: Estimate
    times: np.ndarray
    temperatures: np.ndarray
    ended: float | None


class _Temperatures:
    def __init__(self, first: Trajectory) -> None:
        self._source, self._start = first.source, float(first.times[0])
        self._series = Series()

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        self._series.add(frames.times, frames.temperatures())

    def result(self) -> RunTemperature:
        times, values = self._series.whole()
        if not len(times):
            raise NotApplicable("no frame has a finite temperature")
        ended = self._series.ended
        mean = with_standard_error(*block_average(values, times))
        return RunTemperature(self._source, mean, *thinned(times - self._start, values),
                              ended=None if ended is None else ended - self._start)


class Temperature(Observable):
    """Mean temperature.

    Args:
        tolerance: share of the temperature of the AIMD that a difference may have.
        seed: of the bootstrap.
    """

    name = "temperature"
    needs = ("velocities",)

    def __init__(self, tolerance: float = 0.05, seed: int = 0) -> None:
        self.tolerance, self.seed = tolerance, seed

    def start(self, first: Trajectory) -> _Temperatures:
        if first.velocities is None:
            raise NotApplicable("no velocities")
        return _Temperatures(first)

    def compare(self, md: Mapping[str, Sequence[RunTemperature]], aimd: Sequence[RunTemperature]) -> Section:
        by_side = sides(md, aimd)
        means = {side: mean_of_runs([run.mean for run in runs], self.seed) for side, runs in by_side.items()}
        tolerance = self.tolerance * means[AIMD].value if aimd else None
        curves = [
            Curve(run.source, run.times / FS_PER_PS, run.temperatures, side=side, run=run.source)
            for side, runs in by_side.items() for run in runs
        ]
        ended = [f"{run.source}: no finite temperature from {run.ended:g} fs on; the mean is of the frames before"
                 for runs in by_side.values() for run in runs if run.ended is not None]
        return Section(
            name=self.name, title="Temperature",
            definition="Time average of 2·E_kin/(f·k_B), f = 3N − 3, or the components that are not held. Intervals: "
            "over runs by bootstrap; of a single run from five blocks of equal duration.",
            rows=[estimate_row("temperature", "K", means, tolerance)],
            plots=[Plot("temperature", "Temperature of each run against time.", "time (ps)", "temperature (K)", curves,
                        from_zero=False)],
            rule=f"{RULE} A single run counts with the interval of its blocks. "
            f"Tolerance: {100 * self.tolerance:g} % of the temperature of the AIMD." if aimd else "",
            caveats=["Runs in the microcanonical ensemble keep the energy of their start: their temperature tells "
                     "whether potential and kinetic energy are shared as in the AIMD.", *ended],
        )
