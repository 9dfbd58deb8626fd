"""All observables of one run, gathered in one pass over its frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from dtmd.observables.observable import Accumulator, NotApplicable, Observable
from dtmd.observables.statistics import frame_weights
from dtmd.trajectory import Trajectory

_SAME_TIME = 1.0 + 1e-9


class Stream(Protocol):
    """A run whose frames pass by; `dtmd.md.MDRun` is one.

    Attributes:
        source: its files, for messages.
        first: its first frame.
        notes: for the user; complete after the blocks.
    """

    source: str
    first: Trajectory
    notes: Sequence[str]

    def blocks(self) -> Iterator[Trajectory]:
        """All frames in order, unwrapped over the whole run."""


@dataclass(frozen=True)
class Held:
    """A trajectory in memory as a stream."""

    trajectory: Trajectory

    @property
    def source(self) -> str:
        return self.trajectory.source

    @property
    def first(self) -> Trajectory:
        return self.trajectory.window(0, 1)

    @property
    def notes(self) -> Sequence[str]:
        return self.trajectory.notes

    def blocks(self) -> Iterator[Trajectory]:
        """Of a thousand frames, so that what an observable needs for a moment stays small."""
        return (self.trajectory.window(k, k + 1000) for k in range(0, len(self.trajectory), 1000))


@dataclass(frozen=True)
class Gathered:
    """What is kept of one run.

    Attributes:
        source, name: its files, and how figures and tables call it.
        duration: fs.
        mean_cell: Å, (3, 3), mean over frames.
        results: by observable.
        early: those of the frames within the window, by windowed observable.
        skipped: why there is no result, by observable.
    """

    source: str
    name: str
    n_frames: int
    duration: float
    mean_cell: np.ndarray
    notes: tuple[str, ...]
    results: Mapping[str, Any]
    early: Mapping[str, Any]
    skipped: Mapping[str, str]


def gather(stream: Stream, observables: Sequence[Observable], window: float, name: str) -> Gathered:
    """Read a run once.

    Args:
        stream: the run.
        name: of the run in figures and tables.
        observables: with distinct names.
        window: fs; the windowed observables are gathered for the frames up to this time after the start as well.

    Raises:
        DtmdError: a damaged file, or settings that name atoms which the run does not have.
    """
    skipped: dict[str, str] = {}
    first = replace(stream.first, source=name)
    whole = _started(observables, first, skipped)
    early = _started([o for o in observables if o.windowed and o.name in whole], first, skipped)
    feeds = [_Feed(list(whole.values()), np.inf), _Feed(list(early.values()), window * _SAME_TIME)]
    n_frames, cell, last = 0, np.zeros((3, 3)), float(first.times[0])
    for block in stream.blocks():
        for feed in feeds:
            feed.add(block)
        n_frames, cell, last = n_frames + len(block), cell + block.cells.sum(axis=0), float(block.times[-1])
    for feed in feeds:
        feed.end()
    results = _results(whole, skipped)
    return Gathered(
        source=stream.source, name=name, n_frames=n_frames, duration=last - float(first.times[0]),
        mean_cell=cell / n_frames, notes=tuple(stream.notes), results=results,
        early=_results({name: a for name, a in early.items() if name in results}, {}), skipped=skipped,
    )


def _started(
    observables: Sequence[Observable], first: Trajectory, skipped: dict[str, str]
) -> dict[str, Accumulator]:
    started = {}
    for observable in observables:
        try:
            started[observable.name] = observable.start(first)
        except NotApplicable as reason:
            skipped[observable.name] = str(reason)
    return started


def _results(accumulators: Mapping[str, Accumulator], skipped: dict[str, str]) -> dict[str, Any]:
    results = {}
    for name, accumulator in accumulators.items():
        try:
            results[name] = accumulator.result()
        except NotApplicable as reason:
            skipped[name] = str(reason)
    return results


class _Feed:
    """Hands frames on with the time that each stands for, which for the last of a block only the next one tells.

    Args:
        accumulators: to hand them to.
        until: fs after the first frame; later frames are left out.
    """

    def __init__(self, accumulators: Sequence[Accumulator], until: float) -> None:
        self._accumulators, self._until = accumulators, until
        self._start: float | None = None
        self._before: list[float] = []
        self._waiting: Trajectory | None = None

    def add(self, block: Trajectory) -> None:
        if self._start is None:
            self._start = float(block.times[0])
        n_frames = int(np.searchsorted(block.times, self._start + self._until, side="right"))
        if n_frames:
            self._hand_on([float(block.times[0])])
            self._waiting = block.window(0, n_frames)

    def end(self) -> None:
        self._hand_on([])

    def _hand_on(self, after: list[float]) -> None:
        block, self._waiting = self._waiting, None
        if block is None:
            return
        weights = frame_weights(np.concatenate([self._before, block.times, after]))
        for accumulator in self._accumulators:
            accumulator.add(block, weights[len(self._before):len(self._before) + len(block)])
        self._before = [float(block.times[-1])]
