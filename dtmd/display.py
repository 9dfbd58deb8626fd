"""What a person sees of long work: a line for each part done, a bar with the time that is left."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from dtmd.config import CurriculumConfig
from dtmd.curriculum import Progress
from dtmd.ingest.formats import Found
from dtmd.ingestion import Row
from dtmd.presentation.numbers import NOTHING, clock
from dtmd.presentation.progress import BarDisplay, BytesDisplay

logger = logging.getLogger(__name__)

N_SHOWN, N_ELEMENTS = 8, 6
"""Epochs in the table of a training; elements that have columns of their own."""


class TrainingDisplay:
    """Progress on a console; nothing of it influences the training.

    On a terminal the last epochs stand in a table above a bar; elsewhere each epoch is a line.

    Args:
        console: where to.
        config: the curriculum, for the time that is left.
    """

    def __init__(self, console: Console, config: CurriculumConfig) -> None:
        self._console = console
        self._config = config
        self._epochs: deque[dict] = deque(maxlen=N_SHOWN)
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}"), console=console,
        )
        self._task = self._bars.add_task("starting", total=1, left="")
        self._live = Live(console=console, get_renderable=self._view)
        self._training, self._units = 0.0, 0.0  # seconds of updates, and their work: one for each batch and frame
        self._validating, self._n_validations = 0.0, 0  # seconds

    def __enter__(self) -> TrainingDisplay:
        self._mark = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.update(self._task, visible=False)
        self._live.stop()

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
        self._training += self._lap()
        self._units += length
        mepa = "–" if math.isinf(best) else f"{best:.4f}"
        self._bars.update(
            self._task, completed=done, total=n_batches, left=self._time_left(done, n_batches, progress),
            description=f"S {length}  epoch {epoch}  lr {progress.learning_rate:.1e}  best MEPA {mepa} eV/Å",
        )

    def validating(self) -> None:
        """Before the validation of an epoch."""
        self._mark = time.monotonic()
        self._bars.update(self._task, description="rollout validation")

    def epoch_done(self, record: dict, n_batches: int, progress: Progress) -> None:
        """After every epoch; `progress` is that of the next one."""
        self._validating += self._lap()
        self._n_validations += 1
        self._epochs.append(record)
        left = "done" if progress.finished else self._time_left(0, n_batches, progress)
        logger.info(
            "epoch %d  S %d  lr %.1e  loss %.4f  MEPA %s eV/Å  %s%s", record["epoch"], record["S"],
            record["learning_rate"], record["loss"], _error(record["validation"]["mepa"]),
            left, "  best of S" if record["best_of_stage"] else "", extra={"shown": self._console.is_terminal},
        )

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self._mark = self._mark, time.monotonic()
        return self._mark - before

    def _time_left(self, done: int, n_batches: int, progress: Progress) -> str:
        """An upper bound, from the mean times per batch and frame and per validation."""
        if not self._units:  # a run that goes on with a validation
            return ""
        config = self._config
        length, limit = config.lengths[progress.stage], config.epoch_limit(progress.stage)
        units = (n_batches - done) * length
        if limit is None or not self._n_validations:
            return f"{clock(units * self._training / self._units)} to the validation"
        n_epochs = limit - progress.epochs_in_stage
        units += (n_epochs - 1) * n_batches * length
        for stage in range(progress.stage + 1, len(config.lengths)):
            n_epochs += config.epoch_limit(stage)
            units += config.epoch_limit(stage) * n_batches * config.lengths[stage]
        seconds = units * self._training / self._units + n_epochs * self._validating / self._n_validations
        return f"at most {clock(seconds)} left"

    def _view(self) -> Group:
        return Group(*([epoch_table(self._epochs)] if self._epochs else []), self._bars)


def epoch_table(records: Sequence[dict]) -> Table:
    """One row per epoch; errors in eV/Å, by element if these are few."""
    elements = list(next((r["validation"]["by_species"] for r in records if "by_species" in r["validation"]), {}))
    elements = elements if len(elements) <= N_ELEMENTS else []
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("epoch", "S", "lr", "loss", "MEPA", *elements, "time"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for record in records:
        validation = record["validation"]
        terms = [f"{validation['by_species'][e]:.4f}" if "by_species" in validation else NOTHING for e in elements]
        table.add_row(
            str(record["epoch"]), str(record["S"]), f"{record['learning_rate']:.1e}", f"{record['loss']:.4f}",
            _error(validation["mepa"]), *terms, clock(record["seconds"]), "best" if record["best_of_stage"] else "",
        )
    return table


def _error(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"


class ReadingDisplay(BytesDisplay):
    """A bar over the bytes of all runs that are read.

    Args:
        console: where to; nothing is shown on anything but a terminal.
        found: the runs that will be read.

    Attributes:
        n_bytes: size of their files.
    """

    def __init__(self, console: Console, found: Found) -> None:
        sizes = {path: path.stat().st_size for _, source in found.runs for path in source.files}
        self.n_bytes = sum(sizes.values())
        super().__init__(console, self.n_bytes)
        self._n_runs, self._n_done = len(found.runs), 0

    def run_done(self, row: Row) -> None:
        """After every run."""
        self._n_done += 1
        self.bars.update(self.task, description=f"run {self._n_done} of {self._n_runs}: {row.verdict[:40]}")


class CompilingDisplay(BarDisplay):
    """A bar over the parts of a potential that are compiled; on a terminal only."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, MofNCompleteColumn(), TimeRemainingColumn(), description="compiling", total=None)

    def compiling(self, name: str, done: int, total: int) -> None:
        """The part that is begun, how many are done, and how many there are."""
        self.bars.update(self.task, description=f"compiling {name}", completed=done, total=total)
