"""What an observable is: gathered from the frames of a run as they pass by once, and told of all runs together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from dtmd.observables.section import Section
from dtmd.trajectory import Trajectory


class NotApplicable(Exception):
    """Why an observable has no meaning for a run, in words for the reader of the report."""


class Accumulator(Protocol):
    """Gathers one observable of one run; its memory does not grow with the run, or by a few numbers per frame only."""

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        """Take in the next frames.

        Args:
            frames: their times go on from those before, and positions are unwrapped over the whole run.
            weights: the time in fs that each frame stands for, (T,), as `statistics.frame_weights` for the whole run.
        """

    def result(self) -> Any:
        """What is kept of the run; it can be pickled.

        Raises:
            NotApplicable: only now it shows that the run has nothing to look at.
        """


class Observable(ABC):
    """One observable with its settings.

    Attributes:
        name: its key in a file of settings, and in links within the report.
        needs: what else than positions it reads of a trajectory: velocities, forces, energies.
        windowed: whether it changes with the length of a run, so that it is also told of the MD within the duration
            of the AIMD alone.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    windowed: ClassVar[bool] = False

    @abstractmethod
    def start(self, first: Trajectory) -> Accumulator:
        """Begin a run.

        Args:
            first: its first frames, which `add` gets too; its atoms, cell and periodicity are those of the run.

        Raises:
            NotApplicable: the run has nothing to look at.
        """

    @abstractmethod
    def compare(self, md: Mapping[str, Sequence[Any]], aimd: Sequence[Any]) -> Section:
        """What is told of the results of all runs.

        Args:
            md: results of the runs of each side, such as of each model; at least one side with at least one run.
            aimd: those of the reference; empty where it has none.
        """
