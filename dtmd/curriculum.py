"""When the learning rate falls, when the subsequences grow, when training ends: pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dtmd.config import CurriculumConfig


@dataclass(frozen=True)
class Progress:
    """Where the curriculum stands after some epochs.

    Attributes:
        stage: index into the lengths.
        learning_rate: of the next epoch.
        best: lowest validation of the stages with this S.
        plateau: the validation that the next has to undercut clearly, or patience is lost.
        epochs_in_stage: epochs done.
        bad_epochs: epochs since the plateau was left or the learning rate fell.
        improved: the last epoch was the stage's best.
        benchmark: best validation of the last stage that had clearly improved on those before.
        idle_stages: stages since then.
        finished: no stage is left, or too many were idle.
    """

    stage: int
    learning_rate: float
    best: float = math.inf
    plateau: float = math.inf
    epochs_in_stage: int = 0
    bad_epochs: int = 0
    improved: bool = False
    benchmark: float = math.inf
    idle_stages: int = 0
    finished: bool = False


def begin(config: CurriculumConfig) -> Progress:
    """Before the first epoch."""
    return Progress(stage=0, learning_rate=config.learning_rate)


def after_epoch(progress: Progress, metric: float, config: CurriculumConfig) -> Progress:
    """The same stage after an epoch with this rollout validation (lower is better; NaN counts as worst)."""
    improved = metric < progress.best
    left_plateau = metric < progress.plateau * (1.0 - config.improvement)
    bad_epochs = 0 if left_plateau else progress.bad_epochs + 1
    learning_rate = progress.learning_rate
    if bad_epochs > config.patience and not _at_minimum(progress, config):
        learning_rate = max(learning_rate * config.decay, config.minimum_learning_rate)
        bad_epochs = 0
    return replace(
        progress,
        learning_rate=learning_rate,
        best=metric if improved else progress.best,
        plateau=metric if left_plateau else progress.plateau,
        epochs_in_stage=progress.epochs_in_stage + 1,
        bad_epochs=bad_epochs,
        improved=improved,
    )


def stage_converged(progress: Progress, config: CurriculumConfig) -> bool:
    """The patience has run out at the minimum learning rate, or the stage's epochs have."""
    limit = config.epoch_limit(progress.stage)
    out_of_epochs = limit is not None and progress.epochs_in_stage >= limit
    return out_of_epochs or (progress.bad_epochs > config.patience and _at_minimum(progress, config))


def next_stage(progress: Progress, config: CurriculumConfig) -> Progress:
    """The beginning of the next stage, with the learning rate reset.

    Finished after the last, or when `stop_after` stages in a row have not clearly improved the best validation.
    """
    gained = progress.best < progress.benchmark * (1.0 - config.improvement)
    idle_stages = 0 if gained else progress.idle_stages + 1
    following = progress.stage + 1
    if following == len(config.lengths) or idle_stages == config.stop_after:
        return replace(progress, idle_stages=idle_stages, finished=True, improved=False)
    repeated = config.lengths[following] == config.lengths[progress.stage]
    return Progress(
        stage=following,
        learning_rate=config.reset_learning_rate,
        best=progress.best if repeated else math.inf,
        benchmark=progress.best if gained else progress.benchmark,
        idle_stages=idle_stages,
    )


def ending(progress: Progress, updates: int, hours: float, config: CurriculumConfig) -> str | None:
    """Why the training ends here, None if it goes on; after so many updates and hours in all."""
    if progress.finished and progress.idle_stages == config.stop_after:
        return (f"{progress.idle_stages} stages in a row gained less than {config.improvement:g} of the best "
                "validation (curriculum.stop_after)")
    if progress.finished:
        return "the last stage is over"
    if config.max_updates is not None and updates >= config.max_updates:
        return f"curriculum.max_updates {config.max_updates} is reached"
    if config.max_hours is not None and hours >= config.max_hours:
        return f"curriculum.max_hours {config.max_hours:g} is reached"
    return None


def _at_minimum(progress: Progress, config: CurriculumConfig) -> bool:
    return progress.learning_rate <= config.minimum_learning_rate * (1.0 + 1e-9)
