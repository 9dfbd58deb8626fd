"""A few numbers of each frame of a run, kept until its end."""

from __future__ import annotations

import numpy as np

LONGEST_CURVE = 2000
"""Points of a curve in a figure; more are not seen."""


class Series:
    """Numbers of each frame, up to the first frame in which one is not finite.

    Attributes:
        ended: time of that frame, fs; None while all are finite.
    """

    def __init__(self) -> None:
        self.ended: float | None = None
        self._parts: list[np.ndarray] = []

    def add(self, times: np.ndarray, *numbers: np.ndarray) -> None:
        """Take in the next frames: fs, then any numbers, each (T,)."""
        if self.ended is not None:
            return
        n = n_finite(*numbers)
        if n < len(times):
            self.ended = float(times[n])
        self._parts.append(np.stack([times[:n], *(values[:n] for values in numbers)]))

    def whole(self) -> np.ndarray:
        """Times and numbers of the run so far, (1 + n_numbers, T)."""
        return np.concatenate(self._parts, axis=1)


def n_finite(*arrays: np.ndarray) -> int:
    """How many frames come before the first with anything that is not finite; arrays (T, …)."""
    finite = np.ones(len(arrays[0]), dtype=bool)
    for values in arrays:
        finite &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return len(finite) if finite.all() else int(np.argmin(finite))


def thinned(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every so manieth of the numbers (T,), so that no more than `LONGEST_CURVE` are left."""
    stride = -(-len(arrays[0]) // LONGEST_CURVE)
    return tuple(values[::stride] for values in arrays)
