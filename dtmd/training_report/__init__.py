"""What a person sees of a training, during and after it: curves, a page, TensorBoard events."""

from __future__ import annotations

import time
from pathlib import Path

from dtmd.config import TrainConfig
from dtmd.training_report.about import write_about
from dtmd.training_report.summary import write_summary
from dtmd.training_report.tensorboard import EventWriter

EVENTS = "tensorboard"
FIRST, SHARE = 60.0, 0.01
"""Seconds before the curves are drawn first; share of the time that drawing may take from then on."""


class TrainingReport:
    """Keeps those files of a run folder up to date that are for people.

    A context: whatever ends the training, its curves and its page show the last epoch then.

    Args:
        run_dir: with the metrics of the epochs so far.
        config: of the run.
        about: what it trains on, see `dtmd.training_report.about`.
        updates: those of the epochs so far.

    Raises:
        DtmdError: here and in all methods, as `written_whole`.
    """

    def __init__(self, run_dir: Path, config: TrainConfig, about: dict, updates: int) -> None:
        self._run_dir = run_dir
        self._updates = updates
        self._next = time.monotonic() + FIRST
        write_about(about, run_dir)
        self._events = EventWriter(run_dir / EVENTS, updates) if config.tensorboard else None

    def __enter__(self) -> TrainingReport:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()
        if self._updates > 0:
            write_summary(self._run_dir)

    def epoch_done(self, record: dict) -> None:
        """After an epoch whose record is in the metrics."""
        self._updates = record["updates"]
        if self._events is not None:
            self._events.write(record)
        begun = time.monotonic()
        if begun > self._next:
            write_summary(self._run_dir)
            now = time.monotonic()
            self._next = now + (now - begun) / SHARE
