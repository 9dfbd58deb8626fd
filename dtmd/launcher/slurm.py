"""Tasks as an array of Slurm jobs, through submitit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.launcher import RunAll, Work, attempt

_POLL_SECONDS = 1.0


@contextmanager
def slurm(
    folder: Path, n_jobs: int | None, threads: int, parameters: Mapping[str, str], cluster: str = "slurm"
) -> Iterator[RunAll]:
    """One job of an array for each task.

    Args:
        folder: for the scripts and logs of the jobs; all nodes must see it.
        n_jobs: of the array at a time, None for as many as Slurm gives.
        threads: cores of each job.
        parameters: more options of sbatch, such as {"partition": "cpu", "time": "60"} (minutes).
        cluster: as submitit calls it; "local" runs the jobs on this machine.

    Raises:
        DtmdError: submitit is not installed, there is no Slurm here, or it does not take the jobs.
    """
    try:
        import submitit
    except ImportError:
        raise DtmdError("Slurm is spoken to through submitit; run: pip install submitit") from None
    options = {f"slurm_{name}": value for name, value in parameters.items()}
    if n_jobs is not None:
        options["slurm_array_parallelism"] = n_jobs
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(name="dtmd", cpus_per_task=threads, **options)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise DtmdError(f"Slurm: {error}") from error
    yield partial(_run_all, executor)


def _run_all(executor, works: Sequence[Work]) -> Iterator[tuple[int, str | None]]:
    from submitit.core.utils import FailedJobError

    try:
        with executor.batch():
            jobs = [executor.submit(attempt, work) for work in works]
    except FailedJobError as error:
        raise DtmdError(f"Slurm does not take the jobs: {error}") from error
    left = dict(enumerate(jobs))
    try:
        while left:
            for k, job in [(k, job) for k, job in left.items() if job.done()]:
                del left[k]
                yield k, _problem(job)
            time.sleep(_POLL_SECONDS)
    finally:
        for job in left.values():
            job.cancel()


def _problem(job) -> str | None:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return job.result()
    except (UncompletedJobError, FailedJobError) as error:  # out of time or memory, a node that failed
        return f"job {job.job_id} ended with state {job.state}: {str(error).splitlines()[0]}; see {job.paths.stderr}"
