"""Bars that show how far long work is, on a terminal only."""

from __future__ import annotations

from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

Self = TypeVar("Self", bound="BarDisplay")


class BarDisplay:
    """A bar between a description and what the columns say; use it as a context.

    Args:
        console: where to; nothing is shown on anything but a terminal.
        columns: after the bar.
        description: before the bar.
        total: of the work; None where it is not known yet.
        fields: more that the columns read, as `Progress.add_task` takes it.
    """

    def __init__(
        self, console: Console, *columns: ProgressColumn, description: str, total: float | None, **fields: object
    ) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), *columns, console=console, transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bars.add_task(description, total=total, **fields)

    def __enter__(self: Self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()


class BytesDisplay(BarDisplay):
    """A bar over the bytes of files that are read, with the time that is left."""

    def __init__(self, console: Console, n_bytes: int) -> None:
        super().__init__(console, DownloadColumn(), TimeRemainingColumn(), description="reading", total=n_bytes)

    def read(self, n_bytes: int) -> None:
        """After every piece of a file."""
        self.bars.advance(self.task, n_bytes)
