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
        best: lowest validation of the stage.
        plateau: the validation that the next has to undercut clearly, or patience is lost.
        epochs_in_stage: epochs done.
        bad_epochs: epochs since the plateau was left or the learning rate fell.
        improved: the last epoch was the stage's best.
        finished: no stage is left.
    """

    stage: int
    learning_rate: float
    best: float = math.inf
    plateau: float = math.inf
    epochs_in_stage: int = 0
    bad_epochs: int = 0
    improved: bool = False
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
    """The beginning of the next stage, with the learning rate reset; finished after the last."""
    if progress.stage + 1 == len(config.lengths):
        return replace(progress, finished=True, improved=False)
    return Progress(stage=progress.stage + 1, learning_rate=config.reset_learning_rate)


def _at_minimum(progress: Progress, config: CurriculumConfig) -> bool:
    return progress.learning_rate <= config.minimum_learning_rate * (1.0 + 1e-9)
