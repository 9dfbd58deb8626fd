"""Evenly spaced stretches of runs whose frames were written at changing intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

FEWEST_FRAMES = 32
"""Of a stretch that counts; fewer tell nothing of frequencies or of how a displacement grows."""

SPACING_TOLERANCE = 1e-3
"""Relative; gaps between frames that differ by less are the same, as times in files are rounded."""


class Correlation(Protocol):
    """Takes in what belongs to evenly spaced frames, (T, N, 3), in order."""

    def add(self, values: np.ndarray) -> None: ...


@dataclass
class Stretch:
    """Evenly spaced frames and what was gathered of them.

    Attributes:
        spacing: fs.
        n_frames: from the first to the last, both included.
    """

    spacing: float
    n_frames: int
    correlation: Correlation

    @property
    def duration(self) -> float:
        """fs."""
        return self.spacing * (self.n_frames - 1)


class EvenStretches:
    """Cuts a run into evenly spaced stretches, gathers each on its own, and keeps the longest in time.

    A frame at which the spacing changes ends one stretch and begins the next.

    Args:
        begin: a new correlation for frames of the spacing that it is given, fs.
        fewest: frames of a stretch that counts.
        widest: fs; frames further apart are passed over.
    """

    def __init__(self, begin: Callable[[float], Correlation], fewest: int, widest: float = np.inf) -> None:
        self._begin, self._fewest, self._widest = begin, fewest, widest
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._spacing: float | None = None
        self._current: Stretch | None = None
        self._longest: Stretch | None = None

    def add(self, times: np.ndarray, values: np.ndarray) -> None:
        """Take in the next frames: fs, (T,), and what is to be gathered, (T, N, 3)."""
        if not len(times):
            return
        known = 0 if self._last is None else 1
        gaps = np.diff(np.append(self._last[0], times) if known else times)
        k = 0
        while k < len(gaps):
            new = k + 1 - known
            if self._spacing is None or not _same(gaps[k], self._spacing):
                self._turn(float(gaps[k]), values[new - 1 : new] if new else self._last[1])
            even = _same(gaps[k:], self._spacing)
            n = len(even) if even.all() else int(np.argmin(even))
            if self._current is not None:
                self._current.correlation.add(values[new : new + n])
                self._current.n_frames += n
            k += n
        self._last = times[-1:], values[-1:].copy()

    def longest(self) -> Stretch | None:
        """The longest stretch so far that counts, or None."""
        candidates = [stretch for stretch in (self._longest, self._current)
                      if stretch is not None and stretch.n_frames >= self._fewest]
        return max(candidates, key=lambda stretch: stretch.duration, default=None)

    def _turn(self, spacing: float, first: np.ndarray) -> None:
        """Begin a stretch of another spacing at the frame `first`, (1, N, 3)."""
        self._longest, self._current, self._spacing = self.longest(), None, spacing
        if spacing <= self._widest:
            self._current = Stretch(spacing, 1, self._begin(spacing))
            self._current.correlation.add(first)


def _same(gaps: np.ndarray | float, spacing: float) -> np.ndarray:
    return np.abs(gaps - spacing) <= SPACING_TOLERANCE * spacing
