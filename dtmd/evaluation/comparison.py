"""Potentials side by side on AIMD: force error along rollouts from the same start frames, with intervals."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from dtmd.checkpoint import ModelFile, file_of, load_model
from dtmd.errors import DtmdError
from dtmd.evaluation.rollouts import RolloutErrors, StartFrame, reference_force, rollout_errors, start_frames
from dtmd.named_calculators import short_label
from dtmd.observables.statistics import Estimate, interval, resamples
from dtmd.evaluation.seen_data import Seen, seen_by
from dtmd.subsequences import Subsequences
from dtmd.trajectory import Trajectory


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate.

    Attributes:
        steps: T of each rollout.
        starts: start frames, at most.
        seed: of the bootstrap; the starts are not random.
        batch_size: rollouts side by side; changes memory and speed only.
    """

    steps: int = 300
    starts: int = 100
    seed: int = 0
    batch_size: int = 32


@dataclass(frozen=True)
class Model:
    """A model file under the name that it has in tables and figures."""

    label: str
    path: Path
    file: ModelFile


@dataclass(frozen=True)
class Divergence:
    """A rollout that came to forces which are not finite, and the step at which it did."""

    start: StartFrame
    step: int


@dataclass(frozen=True)
class ModelResult:
    """Errors of one model in eV/Å over the rollouts that stay finite; None where there is no such rollout.

    T steps, E elements; the 95 % interval of an `Estimate` is from a bootstrap over runs.

    Attributes:
        mepa: mean over the starts and the steps 1 … T of L_force, the sum over species (article eq. 13).
        species: its terms, each over the starts that hold the element, (E).
        start_error: L_force at step 0, the AIMD frame itself, which is not in the MEPA.
        ratio: MEPA over `start_error`.
        median: of `rollouts`; far below the MEPA where a few rollouts went astray. NaN where all diverged.
        by_step: L_force at the steps 0 … T, (T + 1).
        species_by_step: (T + 1, E).
        rollouts: MEPA of each start, NaN where it diverged.
        diverged: the rollouts that are left out of all this.
        seen: which of the trajectories the model was trained on.
        seconds: wall time.
    """

    label: str
    mepa: Estimate | None
    species: list[Estimate | None]
    start_error: Estimate | None
    ratio: Estimate | None
    median: float
    by_step: list[Estimate | None]
    species_by_step: list[list[Estimate | None]]
    rollouts: np.ndarray
    diverged: list[Divergence]
    seen: Seen
    seconds: float


@dataclass(frozen=True)
class Difference:
    """MEPA of `second` less that of `first`, eV/Å, over the `n_starts` starts from which both stay finite."""

    first: str
    second: str
    value: Estimate | None
    n_starts: int


@dataclass(frozen=True)
class Evaluation:
    """All models from the same start frames.

    Attributes:
        elements: in the AIMD, by atomic number.
        trajectories: those with room for a rollout; `left_out` are shorter.
        reference_force: the norm of L_force of the AIMD forces themselves along the rollouts, eV/Å.
        models: in the order given.
        differences: of each pair of models.
    """

    settings: EvaluationSettings
    elements: list[str]
    trajectories: list[Trajectory]
    left_out: list[Trajectory]
    starts: list[StartFrame]
    reference_force: float
    models: list[ModelResult]
    differences: list[Difference]

    @property
    def n_runs(self) -> int:
        """Runs that rollouts start in."""
        return len({start.run for start in self.starts})

    @property
    def timesteps(self) -> list[float]:
        """fs, each that occurs."""
        return sorted({round(t.timestep, 6) for t in self.trajectories})


def load_models(paths: Sequence[Path]) -> list[Model]:
    """Model files, or the best models of run folders, each under a short name of its own.

    Raises:
        DtmdError: not a model, or one that is given twice.
    """
    files = [file_of(path) for path in paths]
    places = [file.resolve() for file in files]
    twice = next((file for k, file in enumerate(files) if places[k] in places[:k]), None)
    if twice:
        raise DtmdError(f"{twice}: is given twice; give each model once")
    labels = [short_label(place) for place in places]
    unique = len(set(labels)) == len(labels)
    return [Model(label if unique else str(file), file, load_model(file))
            for label, file in zip(labels, files, strict=True)]


def evaluate(
    models: Sequence[Model], aimd: Sequence[Trajectory], settings: EvaluationSettings,
    watch: Callable[[str, int, int], None] = lambda label, n_steps, total: None,
) -> Evaluation:
    """Roll out every model from the same AIMD frames, spread evenly over all that have room for a rollout.

    Args:
        models: their potentials are moved to the GPU if there is one.
        aimd: with velocities and labels; no rollout crosses from one trajectory into the next.
        settings: lengths and numbers.
        watch: told the label, the steps of structures done, negative for those that are done again, and the total.

    Raises:
        DtmdError: no trajectory of steps + 1 frames, an element that a model does not know, too large a batch.
    """
    used = [t for t in aimd if len(t) > settings.steps]
    if not used:
        longest = max(aimd, key=len)
        raise DtmdError(f"{longest.source}: the longest AIMD without a gap has {len(longest)} frames, rollouts of "
                        f"{settings.steps} steps need {settings.steps + 1}; give --steps {len(longest) - 1} at most")
    potentials = [model.file.potential for model in models]
    points = [Subsequences(used, potential, settings.steps + 1, stride=1) for potential in potentials]
    indices = points[0].spread(settings.starts)
    starts = start_frames(used, indices, settings.steps)
    elements = sorted({element for t in used for element in t.elements}, key=atomic_numbers.__getitem__)
    bootstrap, results = RunBootstrap([start.run for start in starts], settings.seed), []
    seen = seen_by([model.file.metadata for model in models], used)
    total = len(models) * len(indices) * (settings.steps + 1)
    for model, potential, subsequences, known in zip(models, potentials, points, seen, strict=True):
        begun = time.monotonic()
        raw = rollout_errors(potential, subsequences, indices, settings.steps, settings.batch_size,
                             lambda n_steps, label=model.label: watch(label, n_steps, total))
        columns = [potential.elements.index(element) for element in elements]
        raw = RolloutErrors(raw.errors[..., columns], raw.failed_at)
        results.append(_summarise(model.label, raw, starts, bootstrap, known, time.monotonic() - begun))
    force = reference_force(points[0], indices, len(potentials[0].elements), settings.batch_size)
    left_out = [t for t in aimd if len(t) <= settings.steps]
    return Evaluation(settings, elements, used, left_out, starts, force, results, _differences(results, bootstrap))


class RunBootstrap:
    """Means over starts with intervals by resampling the runs they are in, the same resamples for every mean.

    Args:
        runs: of each start.
        seed: of the resampling.
    """

    def __init__(self, runs: Sequence[str], seed: int) -> None:
        names, self._run = np.unique(runs, return_inverse=True)
        self._n_runs = len(names)
        self._counts = resamples(self._n_runs, seed)

    def mean(self, values: np.ndarray, lowest: float = 0.0) -> Estimate | None:
        """Mean of the values (n_starts,) that are not NaN; its interval does not go below `lowest`."""
        return self.ratio(values, np.ones(len(values)), lowest)

    def ratio(self, values: np.ndarray, base: np.ndarray, lowest: float = 0.0) -> Estimate | None:
        """Mean of `values` over that of `base` where neither is NaN; no interval from a single run."""
        used = ~(np.isnan(values) | np.isnan(base))
        if not used.any():
            return None
        above, below = (np.bincount(self._run[used], x[used], self._n_runs) for x in (values, base))
        value = float(above.sum() / below.sum())
        if len(np.unique(self._run[used])) < 2:
            return Estimate(value)
        drawn = self._counts @ below > 0.0  # a resample may hold none of the runs that have values
        replicas = (self._counts[drawn] @ above) / (self._counts[drawn] @ below)
        return interval(value, replicas, (lowest, np.inf))


def _summarise(
    label: str, raw: RolloutErrors, starts: list[StartFrame], bootstrap: RunBootstrap, seen: Seen, seconds: float
) -> ModelResult:
    failed = raw.failed_at >= 0
    total = np.where(failed[:, None], np.nan, np.nansum(raw.errors, axis=2))
    rollouts = total[:, 1:].mean(axis=1)
    terms = raw.errors[:, 1:].mean(axis=1)
    return ModelResult(
        label=label, mepa=bootstrap.mean(rollouts), species=[bootstrap.mean(term) for term in terms.T],
        start_error=bootstrap.mean(total[:, 0]), ratio=bootstrap.ratio(rollouts, total[:, 0]),
        median=float("nan") if failed.all() else float(np.nanmedian(rollouts)),
        by_step=[bootstrap.mean(step) for step in total.T],
        species_by_step=[[bootstrap.mean(term) for term in step.T] for step in raw.errors.swapaxes(0, 1)],
        rollouts=rollouts, diverged=[Divergence(starts[k], int(raw.failed_at[k])) for k in np.flatnonzero(failed)],
        seen=seen, seconds=seconds,
    )


def _differences(results: list[ModelResult], bootstrap: RunBootstrap) -> list[Difference]:
    found = []
    for first, second in itertools.combinations(results, 2):
        values = second.rollouts - first.rollouts
        estimate = bootstrap.mean(values, lowest=-np.inf)
        found.append(Difference(first.label, second.label, estimate, int((~np.isnan(values)).sum())))
    return found
