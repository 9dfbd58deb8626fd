"""What a person sees of many tasks: a line for each that ended, a bar with the time that is left."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn

from dtmd.launcher import Outcome
from dtmd.presentation.progress import BarDisplay

logger = logging.getLogger(__name__)


class LaunchDisplay(BarDisplay):
    """Progress on a console and in the log.

    Args:
        console: where to; the bar is shown on a terminal only.
        n_tasks: all of them.
        n_done: those that were done before.
    """

    def __init__(self, console: Console, n_tasks: int, n_done: int) -> None:
        super().__init__(console, MofNCompleteColumn(), TextColumn("{task.fields[left]}"), description="running",
                         total=n_tasks, left="")
        self.bars.update(self.task, completed=n_done)
        self._n_tasks, self._n_before, self._n_done, self._n_failed = n_tasks, n_done, n_done, 0
        self._begun = time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """After every task."""
        self._n_done += 1
        self._n_failed += outcome.problem is not None
        n_left = self._n_tasks - self._n_done
        seconds = (time.monotonic() - self._begun) / (self._n_done - self._n_before) * n_left
        left = f"about {timedelta(seconds=round(seconds))} left" if n_left else "all ended"
        failed = f", {self._n_failed} failed" if self._n_failed else ""
        logger.info("%d of %d%s, %s: %s", self._n_done, self._n_tasks, failed, left,
                    f"{outcome.name} finished" if outcome.problem is None else f"{outcome.name}: {outcome.problem}")
        self.bars.update(self.task, completed=self._n_done, left=left, description=f"running{failed}")
