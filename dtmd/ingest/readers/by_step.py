"""Several files of one run, joined by the numbers of the MD steps, never by the position in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from dtmd.errors import DtmdError
from dtmd.ingest.source import CutShort

T = TypeVar("T")

_HEAD_ROWS = 50


class Companion(Generic[T]):
    """The records of a file, looked up by step in the order of the run's main file.

    Files may be written at different intervals. A restarted run repeats steps, so that the numbers go back
    in all files that have them; every pass of the main file gets the records of the same pass.
    """

    def __init__(self, path: Path, records: Iterator[tuple[int, T]], needed: bool = True) -> None:
        """`needed`: the main file must not go on where this one ends."""
        self.path, self._records, self._needed = path, records, needed
        self._error: DtmdError | None = None
        self._asked: int | None = None
        self._last: int | None = None
        self._interval = 1
        self._held: tuple[int, T] | None = None
        self._read()

    def at(self, step: int) -> T | None:
        """What the file holds for `step`; None where it has nothing.

        Raises:
            CutShort: it ends before, although it is needed.
            DtmdError: it cannot be read up to there.
        """
        before, self._asked = self._asked, step
        goes_back = before is not None and step <= before
        if goes_back and self._last is not None and self._last >= step:
            while self._held is not None and not self._held_goes_back():
                self._read()
        while self._held is not None:
            next_pass = self._held_goes_back() and before is not None and self._held[0] <= before
            if self._held[0] >= step or (next_pass and not goes_back):
                break
            self._read()
        if self._held is None:
            return self._at_end(step)
        if self._held[0] != step or (next_pass and not goes_back):
            return None
        record = self._held[1]
        self._read()
        return record

    def _held_goes_back(self) -> bool:
        return self._last is not None and self._held is not None and self._held[0] <= self._last

    def _read(self) -> None:
        """Hold the next record; an error on the way there waits until that record is asked for."""
        if self._held is not None:
            if self._last is not None and self._held[0] > self._last:
                self._interval = self._held[0] - self._last
            self._last = self._held[0]
        self._held = None
        try:
            self._held = next(self._records, None)
        except DtmdError as error:
            self._error = error

    def _at_end(self, step: int) -> None:
        if self._error is not None and (self._needed or not isinstance(self._error, CutShort)):
            raise self._error
        if self._needed and self._last is None:
            raise CutShort(f"{self.path}: holds no whole frame")
        if self._needed and step >= self._last + self._interval:
            raise CutShort(f"{self.path}: ends with MD step {self._last}, the run goes on to step {step}; "
                           "copy the file again, or use the steps up to there")


def shown_timestep(rows: Iterable[tuple[int, float | None]]) -> float | None:
    """fs per step that the times of the first rows show; None where they are missing or stand still.

    Args:
        rows: step and time in fs.
    """
    first = last = None
    try:
        for step, time in islice(rows, _HEAD_ROWS):
            if time is None or (last is not None and (step <= last[0] or time <= last[1])):
                break
            first, last = first or (step, time), (step, time)
    except CutShort:
        # The whole rows count; who needs the cut one learns of it when reading the frames.
        pass
    return (last[1] - first[1]) / (last[0] - first[0]) if first != last else None


class Clock:
    """Sees that the times which are written fit the step numbers."""

    def __init__(self, path: Path, timestep: float | None, rounding: float, notes: list[str]) -> None:
        """`timestep` and `rounding` of the times in fs."""
        self._path, self._timestep, self._rounding, self._notes = path, timestep, rounding, notes
        self._last: tuple[int, float] | None = None
        self._stood_still = False

    def check(self, step: int, time: float | None) -> None:
        """Notes where the time stands still.

        Raises:
            DtmdError: the time step changes.
        """
        last, self._last = self._last, None if time is None else (step, time)
        if last is None or time is None or step <= last[0]:
            return
        passed, n_steps = time - last[1], step - last[0]
        if passed == 0.0:
            if not self._stood_still:
                self._notes.append(f"the time stands still from step {last[0]} on; the step numbers are used")
            self._stood_still = True
        elif self._timestep is not None and (
            abs(passed - n_steps * self._timestep) > self._rounding + 0.01 * n_steps * self._timestep
        ):
            raise DtmdError(f"{self._path}: {passed:.5g} fs from step {last[0]} to {step}, expected "
                            f"{n_steps * self._timestep:.5g} fs; the time step changes, split the files there")
