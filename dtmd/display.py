"""What a person sees of long work: a line for each part done, a bar with the time that is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dtmd.config import CurriculumConfig
from dtmd.curriculum import Progress
from dtmd.ingest.formats import Found
from dtmd.ingestion import Row

logger = logging.getLogger(__name__)


class TrainingDisplay:
    """Progress on a console; nothing of it influences the training.

    Args:
        console: where to; on anything but a terminal only the line per epoch is shown.
        config: the curriculum, for the time that is left.
    """

    def __init__(self, console: Console, config: CurriculumConfig) -> None:
        self._console = console
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

    @contextmanager
    def reading(self, found: Found) -> Iterator[Callable[[int], None]]:
        """While AIMD is read; gives the function to tell the bytes to."""
        with ReadingDisplay(self._console, found) as bar:
            if found.runs:
                logger.info("reading %d runs of AIMD, %.1f MB (a store, see dtmd ingest, needs no reading)",
                            len(found.runs), bar.n_bytes / 1e6)
            yield bar.read

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
        if self._units == 0.0:  # interrupted in a validation, which came first therefore
            return "–"
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


class ReadingDisplay:
    """A bar over the bytes of all files that are read, with the time that is left.

    Args:
        console: where to; nothing is shown on anything but a terminal.
        found: the runs that will be read.

    Attributes:
        n_bytes: size of their files.
    """

    def __init__(self, console: Console, found: Found) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )
        sizes = {path: path.stat().st_size for _, source in found.runs for path in source.files}
        self.n_bytes = sum(sizes.values())
        self._task = self._bars.add_task("reading", total=self.n_bytes)
        self._n_runs, self._n_done = len(found.runs), 0

    def __enter__(self) -> ReadingDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def read(self, n_bytes: int) -> None:
        """After every piece of a file."""
        self._bars.advance(self._task, n_bytes)

    def run_done(self, row: Row) -> None:
        """After every run."""
        self._n_done += 1
        self._bars.update(self._task, description=f"run {self._n_done} of {self._n_runs}: {row.verdict[:40]}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
