"""Many frames labelled by one potential, in parallel."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.ipip.label_task import FAILED, FRAMES, LABELLED, LabelTask
from dtmd.ipip.pseudo_labels import count, joined
from dtmd.launcher import RunAll, launch
from dtmd.launcher.display import LaunchDisplay
from dtmd.store import read_store, write_store
from dtmd.trajectory import Trajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launching:
    """Where work that can be done in parallel is done, and how a person follows it.

    Attributes:
        place: as in `dtmd.launcher`.
        display: makes it from the number of tasks and of those done before.
        threads: cores of each task.
    """

    place: RunAll
    display: Callable[[int, int], LaunchDisplay]
    threads: int = 1


@dataclass(frozen=True)
class Potential:
    """A potential as the processes that label find it.

    Attributes:
        named: `module:factory` of an ASE calculator, or a file.
        arguments: of the factory.
    """

    named: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Failure:
    """A frame without labels, and why."""

    source: str
    frame: int
    reason: str

    def __str__(self) -> str:
        return f"frame {self.frame} of {self.source}: {self.reason}"


@dataclass(frozen=True)
class Labelled:
    """What came of labelling.

    Attributes:
        pieces: (k, frames of the k-th trajectory that have labels), in order, energies as the potential gives them;
            memory maps. A long trajectory is in several pieces.
        failed: the others.
    """

    pieces: list[tuple[int, Trajectory]]
    failed: list[Failure]

    def whole(self) -> list[Trajectory]:
        """Each trajectory that has labelled frames in one, in memory."""
        by_number: dict[int, list[Trajectory]] = {}
        for k, piece in self.pieces:
            by_number.setdefault(k, []).append(piece)
        return [joined(pieces) for pieces in by_number.values()]


def label(
    trajectories: Iterable[Trajectory], potential: Potential, folder: Path, frames_per_task: int, launching: Launching
) -> Labelled:
    """Label frames, in tasks that are kept in a folder and not done again.

    Args:
        trajectories: what to label, taken one after another; labels that they have do not matter.
        folder: of the tasks; what is in it is of the same frames.
        frames_per_task: about; a process labels so many.

    Raises:
        DtmdError: the potential cannot be made.
    """
    tasks, sources = [], []
    for k, part in enumerate(_parts(_noted(trajectories, sources), frames_per_task)):
        place = folder.resolve() / f"{k:04d}"
        if not (place / FRAMES).exists():
            write_store(place / FRAMES, part, append=False)
        tasks.append(LabelTask(f"{folder.name}/{k:04d}", place, potential.named, potential.arguments, Path.cwd(),
                               launching.threads))
    with launching.display(len(tasks), sum(task.done() for task in tasks)) as shown:
        outcomes = launch(tasks, launching.place, shown.ended)
    problems = [outcome for outcome in outcomes if outcome.problem is not None]
    if problems:
        raise DtmdError(f"{potential.named}: could not label the frames of {len(problems)} of {len(tasks)} tasks; "
                        f"{problems[0].name}: {problems[0].problem}")
    labelled = [t for task in tasks if (task.folder / LABELLED).exists() for t in read_store(task.folder / LABELLED)]
    failed = [Failure(sources[number], first + frame, reason) for task in tasks
              for name, frame, reason in json.loads((task.folder / FAILED).read_text())
              for number, first in [_place(name)]]
    if failed:
        logger.info("%d of %d frames could not be labelled; the first is %s", len(failed),
                    len(failed) + count(labelled), failed[0])
    pieces = [(_place(t.source.rpartition(":")[2])[0], t) for t in labelled]
    return Labelled([(k, replace(t, source=sources[k])) for k, t in pieces], failed)


def _noted(trajectories: Iterable[Trajectory], sources: list[str]) -> Iterator[Trajectory]:
    """The trajectories, their names added to `sources` as they pass."""
    for trajectory in trajectories:
        sources.append(trajectory.source)
        yield trajectory


def _place(name: str) -> tuple[int, int]:
    """Number of the trajectory and of the first frame, from the name of a window."""
    number, first = name.split("/")
    return int(number), int(first)


def _parts(trajectories: Iterable[Trajectory], size: int) -> Iterator[list[Trajectory]]:
    """Windows of the trajectories, named by number and first frame, in groups of about so many frames."""
    group: list[Trajectory] = []
    for number, trajectory in enumerate(trajectories):
        for first in range(0, len(trajectory), size):
            window = replace(trajectory.window(first, first + size), source=f"{number}/{first}")
            if group and count(group) + len(window) > size:
                yield group
                group = []
            group.append(window)
    if group:
        yield group
