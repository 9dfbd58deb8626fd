"""Tasks over the cores of one machine."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from dtmd.children import die_with_parent, ending
from dtmd.launcher import RunAll, Work, attempt


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def processes(n_jobs: int) -> Iterator[RunAll]:
    """Each task in a process of its own, `n_jobs` at a time; they do not outlive this process."""
    yield partial(_run_all, n_jobs)


def _run_all(n_jobs: int, works: Sequence[Work]) -> Iterator[tuple[int, str | None]]:
    # concurrent.futures would give up all tasks when one of its processes is killed.
    context, waiting, running = get_context("spawn"), deque(enumerate(works)), {}
    try:
        while waiting or running:
            while waiting and len(running) < n_jobs:
                k, work = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, sender, os.getpid()))
                process.start()
                sender.close()
                running[receiver] = k, process
            for receiver in wait(list(running)):
                k, process = running.pop(receiver)
                yield k, _problem(receiver, process)
    finally:
        for _, process in running.values():
            process.kill()


def _problem(receiver: Connection, process) -> str | None:
    try:
        problem = receiver.recv()
    except EOFError:
        process.join()
        return f"its process ended early: {ending(process.exitcode)}"
    process.join()
    return problem


def _child(work: Work, sender: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    die_with_parent(parent)
    sender.send(attempt(work))
