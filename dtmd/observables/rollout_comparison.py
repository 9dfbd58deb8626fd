"""Mean error along rollouts (MEPA) of all runs that start on an AIMD frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.observables.observable import NotApplicable
from dtmd.observables.over_runs import mean_curve
from dtmd.observables.rollout import TIME_TOLERANCE, Rollout, Start, find_start, start_at
from dtmd.observables.statistics import Estimate, mean_over_runs
from dtmd.trajectory import Trajectory

VELOCITY_TOLERANCE = 1e-5
"""Å/fs; a run that starts at AIMD positions with other velocities is no rollout of that AIMD."""


@dataclass(frozen=True)
class RolloutRun:
    """One run: where it starts, its error over the T steps of its own, and its curves for figures."""

    source: str
    reference: str
    start: Start
    mepa: float
    rollout: Rollout


@dataclass(frozen=True)
class RolloutComparison:
    """Runs over T steps that each of them has.

    Attributes:
        elements: order of the species terms.
        n_steps: T; step 0, the AIMD frame itself, is not in the means.
        mepa: eV/Å, mean over runs of the mean over steps of the sum over species.
        species: its terms, which sum to the MEPA.
        reference_force: the same norm of the AIMD forces: the error of a model that predicts no force.
        times: fs, shape (T + 1,); mean, low, high: L_force with its bootstrap band, eV/Å, (T + 1,).
        species_mean: its species terms, (T + 1, n_species).
        runs: each run.
    """

    elements: list[str]
    n_steps: int
    mepa: Estimate
    species: list[Estimate]
    reference_force: float
    times: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    species_mean: np.ndarray
    runs: list[RolloutRun]


def start_of(
    first: Trajectory, aimd: Sequence[Trajectory], tolerance: float, given: Mapping[str, tuple[str, int]]
) -> Start:
    """Where a run starts on AIMD; needs its first frame only.

    Args:
        first: first frames of the run.
        aimd: trajectories with forces.
        tolerance: Å, for finding the start frame.
        given: start frames that need not be found: {MD file: (AIMD file, frame)}, files by path or name.

    Raises:
        NotApplicable: it cannot be followed.
        DtmdError: the start given does not exist.
    """
    if not all(np.array_equal(reference.numbers, first.numbers) for reference in aimd):
        raise NotApplicable("its atoms are in another order than in the AIMD")
    known = next((given[name] for name in (first.source, Path(first.source).name) if name in given), None)
    if known is not None:
        start = _given_start(first, aimd, *known)
    else:
        start = find_start(first, aimd, tolerance)
        if start is None:
            raise NotApplicable(f"its first frame is on no AIMD frame within {tolerance:g} Å")
        if start.velocity_difference is not None and start.velocity_difference > VELOCITY_TOLERANCE:
            raise NotApplicable("it starts at AIMD positions, but its velocities differ by "
                                f"{start.velocity_difference:.1e} Å/fs")
    reference = aimd[start.trajectory]
    if first.forces is None or reference.forces is None:
        raise NotApplicable(f"no forces in {first.source if first.forces is None else reference.source}")
    return start


def same_spacing(runs: Sequence[RolloutRun]) -> tuple[list[RolloutRun], list[tuple[str, str]]]:
    """The runs whose frames are as far apart as those of the first, and the others with the reason."""
    kept, left_out = [], []
    for run in runs:
        spacing, first = run.rollout.times[1], runs[0].rollout.times[1]
        if abs(spacing - first) > TIME_TOLERANCE:
            left_out.append((run.source, f"its frames are {spacing:g} fs apart, those of "
                             f"{runs[0].source} {first:g} fs"))
        else:
            kept.append(run)
    return kept, left_out


def _given_start(run: Trajectory, aimd: Sequence[Trajectory], reference: str, frame: int) -> Start:
    for k, trajectory in enumerate(aimd):
        if reference in (trajectory.source, Path(trajectory.source).name):
            if not 0 <= frame < len(trajectory):
                raise DtmdError(
                    f"{run.source}: start frame {frame} given, {reference} has {len(trajectory)} frames"
                )
            return start_at(run, aimd, k, frame)
    raise DtmdError(f"{run.source}: start given in {reference}, which is not among the AIMD files")


def summarise(runs: Sequence[RolloutRun], elements: list[str], seed: int, n_steps: int) -> RolloutComparison:
    """Means over runs and over so many steps, which each run has."""
    rollouts = [run.rollout for run in runs]
    errors = np.stack([rollout.force_errors[: n_steps + 1] for rollout in rollouts])
    total, means = errors.sum(axis=-1), np.stack([rollout.mean_errors(n_steps) for rollout in rollouts])
    times = rollouts[0].times[: n_steps + 1]
    curve = mean_curve("", times, total, seed, (0.0, np.inf))
    scale = np.mean([rollout.reference_forces[1 : n_steps + 1].sum(axis=-1).mean() for rollout in rollouts])
    return RolloutComparison(
        elements=elements, n_steps=n_steps, mepa=mean_over_runs(means.sum(axis=-1), seed),
        species=[mean_over_runs(term, seed) for term in means.T],
        reference_force=float(scale), times=times, mean=curve.y, low=curve.low, high=curve.high,
        species_mean=errors.mean(axis=0), runs=list(runs),
    )
