"""Tasks over MPI ranks: rank 0 hands them out, the others work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from functools import partial

from dtmd.errors import DtmdError
from dtmd.launcher import RunAll, Work, attempt


@contextmanager
def mpi() -> Iterator[RunAll | None]:
    """All ranks of mpirun; on every rank but 0 the value is None, and comes when all tasks have been done.

    Raises:
        DtmdError: a single rank.
    """
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor

    if MPI.COMM_WORLD.size < 2:
        raise DtmdError("a single MPI rank, and rank 0 only hands out the tasks; for N at a time start it as "
                        "mpirun -np N+1 dtmd …")
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        yield executor and partial(_run_all, executor)


def _run_all(executor: Executor, works: Sequence[Work]) -> Iterator[tuple[int, str | None]]:
    futures = {executor.submit(attempt, work): k for k, work in enumerate(works)}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:  # the place stays open for other tasks
            future.cancel()
