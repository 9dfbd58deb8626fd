"""Many independent tasks: over the cores of a machine, MPI ranks or a Slurm array.

A place to run is a context manager that gives a `RunAll`, or None on MPI ranks that only serve rank 0:
`processes`, `mpi` and `slurm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from dtmd.errors import DtmdError

Work = Callable[[], object]
"""Something to do, picklable; what it returns is not kept."""

RunAll = Callable[[Sequence[Work]], Iterator[tuple[int, str | None]]]
"""Does all works, yields the index of each as it ends, and why it failed or None. Closing it ends what runs."""


class Task(Protocol):
    """One of many. It is done in one place only, and leaves there what tells that it was done."""

    name: str

    def work(self) -> None:
        """Do it from the start, whatever an interrupted attempt left. Raises if it fails."""

    def done(self) -> bool:
        """Whether its result is there, whole."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended; `problem` is None if it was done."""

    name: str
    problem: str | None


def launch(
    tasks: Sequence[Task], run_all: RunAll, watch: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Do the tasks that are not done; one that fails does not stop the others.

    Args:
        tasks: with distinct names.
        run_all: where to run them.
        watch: told of each task as it ends.
    """
    left, outcomes = [task for task in tasks if not task.done()], []
    if not left:
        return []
    with closing(run_all([task.work for task in left])) as endings:
        for k, problem in endings:
            if problem is None and not left[k].done():
                problem = "it ended without its result"
            outcomes.append(Outcome(left[k].name, problem))
            watch(outcomes[-1])
    return outcomes


def attempt(work: Work) -> str | None:
    """Do a work where it is to be done: None, or why it failed."""
    try:
        work()
    except DtmdError as error:
        return str(error)
    except Exception as error:  # one task's mistake must not end the others
        return f"{type(error).__name__}: {error}"
    return None
