"""Fewer frames of runs whose length is not known before they have passed by."""

from __future__ import annotations

import numpy as np


class Thinning:
    """Which frames are looked at, so that the cost of a run grows with the logarithm of its length only.

    All of the first n frames, every second up to 2n, every fourth up to 4n and so on, so that n/2 frames
    spread evenly stand for the later half of any run that is longer than n. Each stands for the time of
    the frames left out before it as well.

    Args:
        n_all: n, the number of frames before any is left out.
    """

    def __init__(self, n_all: int) -> None:
        self._n_all = n_all
        self._seen = 0
        self._carried = 0.0

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """The weights of the next frames, (T,), zero for those that are left out."""
        index = self._seen + np.arange(len(weights))
        doublings = np.floor(np.log2(np.maximum(index / self._n_all, 0.5))) + 1
        used = index % (1 << doublings.astype(np.int64)) == 0
        total = np.cumsum(weights)
        thinned = np.zeros(len(weights))
        thinned[used] = np.diff(total[used], prepend=-self._carried)
        self._carried += total[-1] - thinned.sum()
        self._seen += len(weights)
        return thinned


class ThinnedSeries:
    """Values against time, of every frame or at even spacing of every second, fourth, … frame.

    Args:
        limit: the number of points that is not exceeded.
    """

    def __init__(self, limit: int = 2000) -> None:
        self._limit = limit
        self._seen = 0
        self._stride = 1
        self._times = np.zeros(0)
        self._values: np.ndarray | None = None

    def add(self, times: np.ndarray, values: np.ndarray) -> None:
        """The next frames: times (T,), values (T, …)."""
        kept = slice(-self._seen % self._stride, None, self._stride)
        self._seen += len(times)
        self._times = np.append(self._times, times[kept])
        self._values = values[kept] if self._values is None else np.concatenate([self._values, values[kept]])
        while len(self._times) > self._limit:
            self._times, self._values = self._times[::2], self._values[::2]
            self._stride *= 2

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (K,) and values (K, …), K ≤ limit."""
        return self._times.copy(), self._values.copy()
