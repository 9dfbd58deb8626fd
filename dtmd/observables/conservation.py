"""Energy conservation of a run, and of all runs against AIMD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import means_row
from dtmd.observables.section import AIMD, Curve, Plot, Row, Section, Table, Verdict, judged, sides
from dtmd.observables.series import Series, thinned
from dtmd.observables.statistics import Estimate, frame_weights
from dtmd.presentation.numbers import NOTHING, number
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS

MEV = 1000.0
"""meV in one eV."""

RATIO_LIMIT = 1.0
"""Largest `Conservation.ratio` of a run that conserves its energy, as in mlipaudit."""


@dataclass(frozen=True)
class Conservation:
    """Total energy of one run.

    Attributes:
        drift: slope of the least-squares line, meV/atom/ps.
        largest: max |E(t) − E(0)|, meV/atom.
        deviation: standard deviation over time, meV/atom.
        fluctuation: the same about the least-squares line, meV/atom; velocity Verlet leaves one ∝ Δt².
        ratio: |drift| · duration / standard deviation of the kinetic energy; None where that does not vary.
    """

    drift: float
    largest: float
    deviation: float
    fluctuation: float
    ratio: float | None


def total_energy_change(trajectory: Trajectory) -> np.ndarray:
    """E(t) − E(0) with E the potential plus kinetic energy, meV/atom, shape (T,)."""
    total = trajectory.energies + trajectory.kinetic_energies()
    return MEV * (total - total[0]) / len(trajectory.numbers)


def conservation(trajectory: Trajectory) -> Conservation:
    """Drift and fluctuation of the total energy; needs energies, velocities and two frames or more."""
    kinetic = MEV * trajectory.kinetic_energies() / len(trajectory.numbers)
    return conservation_of(trajectory.times, total_energy_change(trajectory), kinetic)


def conservation_of(times: np.ndarray, change: np.ndarray, kinetic: np.ndarray) -> Conservation:
    """The same from the times in fs, E(t) − E(0) and the kinetic energy in meV/atom, each (T,), T ≥ 2."""
    time, weights = (times - times[0]) / FS_PER_PS, frame_weights(times)
    slope, start = np.polyfit(time, change, 1, w=np.sqrt(weights))
    about_line = np.average((change - slope * time - start) ** 2, weights=weights)
    scale = _deviation(kinetic, weights)
    return Conservation(
        drift=float(slope), largest=float(np.abs(change).max()), deviation=_deviation(change, weights),
        fluctuation=float(np.sqrt(about_line)), ratio=float(abs(slope) * time[-1] / scale) if scale > 0.0 else None,
    )


def _deviation(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)))


@dataclass(frozen=True)
class RunConservation:
    """Total energy of one run.

    Attributes:
        conservation: of the frames with a finite energy.
        times, change: the curve of E(t) − E(0), fs from the start and meV/atom, at most `LONGEST_CURVE` points.
        ended: time from the start in fs of the first frame without a finite energy; None where there is none.
    """

    source: str
    conservation: Conservation
    times: np.ndarray
    change: np.ndarray
    ended: float | None


class _Energies:
    def __init__(self, first: Trajectory) -> None:
        self._source, self._start, self._n_atoms = first.source, float(first.times[0]), len(first.numbers)
        self._series = Series()

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        kinetic = frames.kinetic_energies()
        self._series.add(frames.times, frames.energies + kinetic, kinetic)

    def result(self) -> RunConservation:
        times, total, kinetic = self._series.whole()
        if len(times) < 2:
            raise NotApplicable("fewer than two frames with a finite energy")
        change, ended = MEV * (total - total[0]) / self._n_atoms, self._series.ended
        found = conservation_of(times, change, MEV * kinetic / self._n_atoms)
        return RunConservation(self._source, found, *thinned(times - self._start, change),
                               ended=None if ended is None else ended - self._start)


class EnergyConservation(Observable):
    """Drift and fluctuation of the total energy.

    Args:
        seed: of the bootstrap.
    """

    name = "conservation"
    needs = ("velocities", "energies")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def start(self, first: Trajectory) -> _Energies:
        missing = [name for name in self.needs if getattr(first, name) is None]
        if missing:
            raise NotApplicable(f"no {' and no '.join(missing)}")
        return _Energies(first)

    def compare(self, md: Mapping[str, Sequence[RunConservation]], aimd: Sequence[RunConservation]) -> Section:
        by_side = sides(md, aimd)
        rows = [self._ratio_row(by_side)]
        for quantity, unit, key in (("drift of the total energy", "meV/atom/ps", "drift"),
                                    ("largest |E(t) − E(0)|", "meV/atom", "largest"),
                                    ("fluctuation about the line", "meV/atom", "fluctuation")):
            values = {side: [getattr(run.conservation, key) for run in runs] for side, runs in by_side.items()}
            largest = max((run.conservation.largest for runs in md.values() for run in runs), default=0.0)
            note = f"at most {number(largest)} meV/atom in any run of the MD" if key == "largest" else ""
            rows.append(means_row(quantity, unit, values, self.seed, note=note))
        curves = [Curve(run.source, run.times / FS_PER_PS, run.change, side=side, run=run.source)
                  for side, runs in by_side.items() for run in runs]
        ended = [f"{run.source}: no finite energy from {run.ended:g} fs on; the numbers are of the frames before"
                 for runs in by_side.values() for run in runs if run.ended is not None]
        return Section(
            name=self.name, title="Conservation of energy",
            definition="E is the potential plus the kinetic energy. Drift: slope of the least-squares line through "
            "E(t). Drift ratio: |drift| · duration over the standard deviation of the kinetic energy (mlipaudit), "
            "which tells whether the drift matters beside what the run exchanges anyway. Fluctuation: standard "
            "deviation about the line.",
            rows=rows, tables=[self._table(by_side)],
            plots=[Plot("energy", "Total energy of each run against time.", "time (ps)", "E(t) − E(0) (meV/atom)",
                        curves, from_zero=False)],
            rule=f"The drift ratio decides: a side agrees (it conserves energy) where its whole 95 % interval over "
            f"runs is at most {RATIO_LIMIT:g}, differs where none of it is or where a run ends with an energy that is "
            "not finite, and there is not enough data otherwise.",
            caveats=["Only runs without a thermostat or barostat conserve this energy.", *ended],
        )

    def _ratio_row(self, by_side: Mapping[str, Sequence[RunConservation]]) -> Row:
        row = means_row("drift ratio", "", {side: _ratios(runs) for side, runs in by_side.items()}, self.seed)
        verdicts = {side: judged(_above_zero(estimate), RATIO_LIMIT) for side, estimate in row.md.items()}
        blown_up = [side for side, runs in by_side.items()
                    if side != AIMD and any(run.ended is not None for run in runs)]
        return replace(row, verdict=verdicts | dict.fromkeys(blown_up, Verdict.DIFFERS))

    def _table(self, by_side: Mapping[str, Sequence[RunConservation]]) -> Table:
        rows = []
        for side, runs in by_side.items():
            for run in runs:
                found = run.conservation
                ratio = NOTHING if found.ratio is None else number(found.ratio)
                rows.append((side, run.source, number(found.drift), ratio, number(found.largest),
                             number(found.fluctuation)))
        heads = ("side", "run", "drift (meV/atom/ps)", "drift ratio", "largest |ΔE| (meV/atom)",
                 "fluctuation (meV/atom)")
        return Table("Total energy of each run.", heads, rows)


def _ratios(runs: Sequence[RunConservation]) -> list[float]:
    return [run.conservation.ratio for run in runs if run.conservation.ratio is not None]


def _above_zero(ratio: Estimate) -> Estimate:
    """A ratio is not negative, even if its normal interval is."""
    return replace(ratio, low=None if ratio.low is None else max(ratio.low, 0.0))
