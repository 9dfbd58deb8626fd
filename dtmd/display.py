"""What a person sees while a model trains: a line per epoch, a bar with the time that is left."""

from __future__ import annotations

import logging
import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress as Bars, TextColumn

from dtmd.config import CurriculumConfig
from dtmd.curriculum import Progress

logger = logging.getLogger(__name__)


class TrainingDisplay:
    """Progress on a console; nothing of it influences the training.

    Args:
        console: where to; on anything but a terminal only the line per epoch is shown.
        config: the curriculum, for the time that is left.
    """

    def __init__(self, console: Console, config: CurriculumConfig) -> None:
        self._config = config
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}"), console=console, transient=True,
        )
        self._task = self._bars.add_task("starting", total=1, left="")
        self._begun = time.monotonic()
        self._units = 0.0  # work done since the start: one for each batch and frame

    def __enter__(self) -> TrainingDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def batch_done(self, epoch: int, done: int, n_batches: int, progress: Progress, best: float) -> None:
        """After every update."""
        length = self._config.lengths[progress.stage]
        self._units += length
        mepa = "–" if math.isinf(best) else f"{best:.4f}"
        self._bars.update(
            self._task, completed=done, total=n_batches, left=self._time_left(done, n_batches, progress),
            description=f"S {length}  epoch {epoch}  lr {progress.learning_rate:.1e}  best MEPA {mepa} eV/Å",
        )

    def validating(self) -> None:
        """Before the validation of an epoch."""
        self._bars.update(self._task, description="rollout validation")

    def epoch_done(self, record: dict, n_batches: int, progress: Progress) -> None:
        """After every epoch; `progress` is that of the next one."""
        mepa = record["validation"]["mepa"]
        left = "done" if progress.finished else self._time_left(0, n_batches, progress)
        logger.info(
            "epoch %d  S %d  lr %.1e  loss %.4f  MEPA %s eV/Å  %s%s", record["epoch"], record["S"],
            record["learning_rate"], record["loss"], "diverged" if mepa is None else f"{mepa:.4f}",
            left, "  best of S" if record["best_of_stage"] else "",
        )

    def _time_left(self, done: int, n_batches: int, progress: Progress) -> str:
        """An upper bound, from the mean time per batch and step; validation is in it."""
        seconds_per_unit = (time.monotonic() - self._begun) / self._units
        length = self._config.lengths[progress.stage]
        units = (n_batches - done) * length
        limit = self._config.epoch_limit(progress.stage)
        if limit is None:
            return f"{_clock(units * seconds_per_unit)} to the end of the epoch"
        units += (limit - progress.epochs_in_stage - 1) * n_batches * length
        for stage in range(progress.stage + 1, len(self._config.lengths)):
            units += self._config.epoch_limit(stage) * n_batches * self._config.lengths[stage]
        return f"at most {_clock(units * seconds_per_unit)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
