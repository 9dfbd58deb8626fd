"""The error along rollouts from AIMD frames as an observable, for one model or several side by side."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import means_row
from dtmd.observables.rollout import Follower, Start
from dtmd.observables.rollout_comparison import RolloutComparison, RolloutRun, same_spacing, start_of, summarise
from dtmd.observables.section import Curve, Plot, Row, Section, Table
from dtmd.observables.statistics import Estimate, mean_over_runs
from dtmd.presentation.numbers import NOTHING, duration, number
from dtmd.trajectory import Trajectory

_NUMBERED = re.compile(r"(.+) = ([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")
"""Sides such as "S = 4" differ in one number, which the error is drawn against."""


class RolloutError(Observable):
    """Force error (MEPA) and displacement of runs against the AIMD that they start on.

    Args:
        aimd: trajectories with forces, which runs may start on.
        start_tolerance: Å, for finding the AIMD frame that a run starts from.
        starts: start frames given instead: {MD file: (AIMD file, frame)}, files by path or name.
        leaves: Å; a run has left the reference when its root mean square displacement from it passes this.
        seed: of the bootstrap.
    """

    name = "rollout"
    needs = ("velocities", "forces")

    def __init__(
        self, aimd: Sequence[Trajectory], start_tolerance: float = 1e-3,
        starts: Mapping[str, tuple[str, int]] | None = None, leaves: float = 0.1, seed: int = 0,
    ) -> None:
        self.aimd, self.start_tolerance, self.starts = aimd, start_tolerance, starts or {}
        self.leaves, self.seed = leaves, seed

    def start(self, first: Trajectory) -> _Rollout:
        found = start_of(first, self.aimd, self.start_tolerance, self.starts)
        return _Rollout(first, self.aimd[found.trajectory], found)

    def compare(self, md: Mapping[str, Sequence[RolloutRun]], aimd: Sequence[RolloutRun]) -> Section:
        """As of any observable; results of the AIMD are not looked at, as it is the reference already."""
        kept, others = same_spacing([run for runs in md.values() for run in runs])
        sides = {side: [run for run in runs if any(run is other for other in kept)] for side, runs in md.items()}
        sides = {side: runs for side, runs in sides.items() if runs}
        n_steps = min(run.rollout.n_even for run in kept)
        summaries = {side: summarise(runs, self.aimd[0].elements, self.seed, n_steps) for side, runs in sides.items()}
        rows = [*self._error_rows(summaries), *self._displacement_rows(summaries), *self._paired_rows(summaries)]
        ended = [f"{run.source}: not finite from {run.rollout.ended:g} fs on; all runs are compared over the steps "
                 "that each has" for run in kept if run.rollout.ended is not None]
        return Section(
            name=self.name, title="Force error along the rollout", rows=rows,
            definition=f"Runs that start on an AIMD frame (within {self.start_tolerance:g} Å, same velocities), "
            "compared with the AIMD that follows it at equal times. L_force is the mean absolute force component of "
            "each species, summed over species; MEPA is its mean over the steps 1 … T, T the steps that every run "
            "has. RMSD: root mean square over atoms of the difference in displacement since the start.",
            plots=[*_error_plots(summaries), *_ladder_plots(summaries), *_displacement_plots(summaries, self.leaves)],
            tables=[self._table(sides)],
            caveats=["Trajectories part exponentially from the smallest difference: a large error late says less than "
                     "an early one.", *(f"{source}: left out, as {reason}" for source, reason in others), *ended],
        )

    def _error_rows(self, summaries: Mapping[str, RolloutComparison]) -> list[Row]:
        first = next(iter(summaries.values()))
        span = f"{first.n_steps} steps, {duration(float(first.times[-1]))}"
        scales = ", ".join(f"{number(summary.reference_force)} in {side}" for side, summary in summaries.items())
        rows = [Row(f"force error along the rollout (MEPA, {span})", "eV/Å", None,
                    {side: summary.mepa for side, summary in summaries.items()},
                    note=f"the same norm of the AIMD forces, the error of a model without forces: {scales}")]
        for k, element in enumerate(first.elements):
            terms = {side: summary.species[k] for side, summary in summaries.items()}
            rows.append(Row(f"MEPA, term of {element}", "eV/Å", None, terms))
        starts = {side: [float(run.rollout.force_errors[0].sum()) for run in summary.runs]
                  for side, summary in summaries.items()}
        return [*rows, means_row("force error on the start frames", "eV/Å", starts, self.seed)]

    def _displacement_rows(self, summaries: Mapping[str, RolloutComparison]) -> list[Row]:
        end = float(next(iter(summaries.values())).times[-1])
        last = {side: [float(run.rollout.rmsd[summary.n_steps]) for run in summary.runs]
                for side, summary in summaries.items()}
        stayed = {side: [min(_left(run, self.leaves) or end, end) for run in summary.runs]
                  for side, summary in summaries.items()}
        return [
            means_row(f"RMSD after {duration(end)}", "Å", last, self.seed),
            means_row(f"time until the RMSD passes {self.leaves:g} Å, at most {duration(end)}", "fs", stayed,
                      self.seed, note="a run that stays within counts with the whole time"),
        ]

    def _paired_rows(self, summaries: Mapping[str, RolloutComparison]) -> list[Row]:
        """MEPA of each further side less that of the first, over the starts that both have."""
        base, *others = summaries
        first, differences, counts = _by_start(summaries[base]), {}, []
        for side in others:
            own = _by_start(summaries[side])
            shared = [start for start in own if start in first]
            counts.append(f"{side}: {len(shared)} starts in common")
            if shared:
                differences[side] = mean_over_runs(np.array([own[s] - first[s] for s in shared]), self.seed)
        if not others:
            return []
        return [Row(f"MEPA less that of {base}, same starts", "eV/Å", None, differences, note="; ".join(counts))]

    def _table(self, sides: Mapping[str, Sequence[RolloutRun]]) -> Table:
        rows = []
        for side, runs in sides.items():
            for run in runs:
                left = _left(run, self.leaves)
                rows.append((side, run.source, run.reference, str(run.start.frame), str(run.rollout.n_even),
                             number(run.mepa), NOTHING if left is None else duration(left)))
        heads = ("side", "run", "AIMD", "frame", "steps", "MEPA (eV/Å)", f"RMSD passes {self.leaves:g} Å after")
        return Table("Where each run starts, its error over all its own steps, and when it leaves the AIMD.", heads,
                     rows)


class _Rollout:
    """Follows one run as far as its reference goes."""

    def __init__(self, first: Trajectory, reference: Trajectory, start: Start) -> None:
        self._source, self._reference, self._start = first.source, reference, start
        self._follower = Follower(first, reference, start.frame)

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        self._follower.add(frames)

    def result(self) -> RolloutRun:
        rollout = self._follower.result()
        if rollout is None:
            raise NotApplicable(f"no frame after its start is at a time that {self._reference.source} has")
        mepa = float(rollout.mean_errors(rollout.n_even).sum())
        return RolloutRun(self._source, self._reference.source, self._start, mepa, rollout)


def _left(run: RolloutRun, limit: float) -> float | None:
    """The first time at which a run is further from its reference than the limit in Å, fs; None if it never is."""
    beyond = np.flatnonzero(run.rollout.rmsd > limit)
    return float(run.rollout.times[beyond[0]]) if len(beyond) else None


def _by_start(summary: RolloutComparison) -> dict[tuple[str, int], float]:
    """MEPA over the common steps of each start, the mean where several runs have it."""
    errors = defaultdict(list)
    for run in summary.runs:
        errors[run.reference, run.start.frame].append(float(run.rollout.mean_errors(summary.n_steps).sum()))
    return {start: float(np.mean(of_runs)) for start, of_runs in errors.items()}


def _error_plots(summaries: Mapping[str, RolloutComparison]) -> list[Plot]:
    """L_force of all sides, then its terms, each species on its own."""
    axes = ("time since the AIMD frame (fs)", "force error (eV/Å)")
    total = [Curve(side, s.times, s.mean, s.low, s.high, side=side) for side, s in summaries.items()]
    plots = [Plot("rollout", "Force error against time, mean over runs.", *axes, total)]
    for k, element in enumerate(next(iter(summaries.values())).elements):
        terms = [Curve(side, s.times, s.species_mean[:, k], side=side) for side, s in summaries.items()]
        plots.append(Plot(f"rollout_{element}", f"Term of {element} in the force error.", *axes, terms))
    return plots


def _ladder_plots(summaries: Mapping[str, RolloutComparison]) -> list[Plot]:
    """MEPA and its terms against the number that the names of all sides end in (article Fig. 4), if they do."""
    names = [_NUMBERED.fullmatch(side) for side in summaries]
    if len(names) < 2 or not all(names) or len({name[1] for name in names}) > 1:
        return []
    steps = sorted(((float(name[2]), s) for name, s in zip(names, summaries.values(), strict=True)),
                   key=lambda step: step[0])
    x, ordered = np.array([number for number, _ in steps]), [s for _, s in steps]
    curves = [_against("MEPA", x, [s.mepa for s in ordered])]
    for k, element in enumerate(ordered[0].elements):
        curves.append(_against(f"term of {element}", x, [s.species[k] for s in ordered]))
    what = names[0][1]
    return [Plot("rollout_mepa", f"MEPA and its terms against {what}, mean over runs.", what, "MEPA (eV/Å)", curves)]


def _against(label: str, x: np.ndarray, means: Sequence[Estimate]) -> Curve:
    """Estimates as a curve with their intervals as its band, which has gaps where there is none."""
    low, high = (np.array([np.nan if edge is None else edge for edge in edges])
                 for edges in ([m.low for m in means], [m.high for m in means]))
    return Curve(label, x, np.array([m.value for m in means]), low, high)


def _displacement_plots(summaries: Mapping[str, RolloutComparison], limit: float) -> list[Plot]:
    runs = [Curve(run.source, run.rollout.times, run.rollout.rmsd, side=side, run=run.source)
            for side, summary in summaries.items() for run in summary.runs]
    return [Plot("rollout_rmsd", "Distance from the AIMD of each run.", "time since the AIMD frame (fs)", "RMSD (Å)",
                 runs, horizontal={f"{limit:g} Å": limit})]
