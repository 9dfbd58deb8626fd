"""A folder of LAMMPS runs: prepared, tried out once, launched."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from dtmd.ensemble.input_check import check_input
from dtmd.ensemble.lammps_run import LOCK, OUT, START, LammpsRun
from dtmd.ensemble.record import Settings, new_record, raise_if_changed, read_record, write_record
from dtmd.ensemble.starts import Start
from dtmd.errors import DtmdError
from dtmd.files import locked, write_text, written_whole
from dtmd.lammps import held_atoms_lines, write_start
from dtmd.launcher import Outcome, RunAll, launch
from dtmd.launcher.display import LaunchDisplay
from dtmd.launcher.mpi import mpi
from dtmd.launcher.processes import n_cores, processes
from dtmd.launcher.slurm import slurm

INPUT, TRIAL, TRIAL_INPUT = "in.lammps", "trial", "in.trial"
_TIME_LIMIT = "timer timeout 00:00:01 every 1\n"  # s of each run; `lmp -skiprun` would not even compute the forces

logger = logging.getLogger(__name__)


def place_to_run(
    launcher: str, folder: Path, n_jobs: int | None, threads: int, sbatch: Mapping[str, str]
) -> AbstractContextManager[RunAll | None]:
    """Where runs run, as in `dtmd.launcher`.

    Args:
        launcher: "processes", "mpi" or "slurm".
        folder: of the runs; the scripts of Slurm go into it.
        n_jobs: at a time, None for as many as the cores or Slurm allow.
        threads: cores of each.
        sbatch: more options of sbatch.

    Raises:
        DtmdError: an unknown launcher, or an option that it does not have.
    """
    if sbatch and launcher != "slurm":
        raise DtmdError(f"--slurm {' '.join(sbatch)}: is for --launcher slurm, this is --launcher {launcher}")
    if launcher == "processes":
        return processes(n_jobs or max(1, n_cores() // threads))
    if launcher == "slurm":
        return slurm(folder.resolve() / "slurm", n_jobs, threads, sbatch)
    if launcher != "mpi":
        raise DtmdError(f"--launcher {launcher}: unknown; the launchers are: processes, mpi, slurm")
    if n_jobs is not None:
        raise DtmdError(f"--jobs {n_jobs}: with --launcher mpi, mpirun -np says how many run at a time")
    return mpi()


def run_all(
    folder: Path, settings: Settings, starts: list[Start], threads: int, place: RunAll,
    display: Callable[[int, int], LaunchDisplay],
) -> list[Outcome]:
    """Do all runs that are not done.

    Args:
        folder, settings, starts, threads: as for `prepare`.
        place: where to run them.
        display: makes it from the number of runs and of those done before.

    Returns:
        The runs that failed.

    Raises:
        DtmdError: as `prepare`, or another `dtmd run` works in the folder.
    """
    with locked(folder / LOCK):
        runs = prepare(folder, settings, starts, threads)
        n_done = sum(run.done() for run in runs)
        logger.info("%d runs in %s, %d of them done before", len(runs), folder, n_done)
        for lines in {held_atoms_lines(start.trajectory) for start in starts} - {""}:
            logger.info("the AIMD held some atoms; the input must hold them too, before its run:\n%s", lines)
        with display(len(runs), n_done) as shown:
            return [outcome for outcome in launch(runs, place, shown.ended) if outcome.problem is not None]


def prepare(folder: Path, settings: Settings, starts: list[Start], threads: int) -> list[LammpsRun]:
    """Make a folder for each run, with its start file; the input is copied, so that all runs have the same.

    The first time, the input is tried out for a second: a mistake in it is told once.

    Args:
        folder: of all runs; one that was interrupted goes on.
        settings: of all runs; those of the folder, if it has some.
        starts: one run each.
        threads: cores of each run.

    Raises:
        DtmdError: the folder has other settings, the input does not use what it is given, or the trial failed.
    """
    folder = folder.resolve()
    if own := sorted({"model", "start", "out"} & set(settings.variables)):
        raise DtmdError(f"--var {own[0]}: `dtmd run` sets model (from --model), start and out itself")
    check_input(settings.input_file, ["start", *(["model"] if settings.model else []), *settings.variables])
    if settings.model and not settings.model.is_file():
        raise DtmdError(f"{settings.model}: no such file; write it with: dtmd export model.pt")
    old, new = read_record(folder), new_record(settings, starts)
    if old:
        raise_if_changed(folder, old, new)
    runs = [LammpsRun(start.name, folder / start.name, folder / INPUT, _variables(settings), threads)
            for start in starts]
    if not old:
        with written_whole(folder / INPUT) as temporary:
            shutil.copyfile(settings.input_file, temporary)
        _try_out(runs[0], starts[0])
    for run, start in zip(runs, starts, strict=True):
        if not run.done():
            write_start(start.trajectory, start.frame, run.folder / START)
    write_record(folder, new)
    return runs


def _variables(settings: Settings) -> dict[str, str]:
    model = {"model": str(settings.model.resolve())} if settings.model else {}
    return {**model, "start": START, "out": OUT, **settings.variables}


def _try_out(first: LammpsRun, start: Start) -> None:
    """The whole input with a limit on the time of its runs: what is wrong anywhere in it shows."""
    trial = replace(first, name=TRIAL, folder=first.folder.parent / TRIAL)
    trial = replace(trial, input_file=trial.folder.parent / TRIAL_INPUT)
    write_text(trial.input_file, _TIME_LIMIT + first.input_file.read_text(encoding="utf-8", errors="replace"))
    write_start(start.trajectory, start.frame, trial.folder / START)
    logger.info("trial run from %s", first.name)
    try:
        trial.work()
    except DtmdError as error:
        raise DtmdError(f"a trial run failed, so none was started. {error}") from error
    shutil.rmtree(trial.folder)
    trial.input_file.unlink()
