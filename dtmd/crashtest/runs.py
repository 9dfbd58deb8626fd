"""The runs of a crash test: prepared alike for every model, tried out, launched. A run that crashes is a result."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dtmd.crashtest import calculator_md
from dtmd.crashtest.models import CrashModel
from dtmd.crashtest.protocol import Protocol
from dtmd.crashtest.starts import at_temperature, seeds, write_for_lammps, write_for_others
from dtmd.crashtest.tasks import DUMP, START_INPUT, CalculatorRun, PotentialRun
from dtmd.ensemble.lammps_run import LOCK, OUT
from dtmd.ensemble.record import Settings, new_record, raise_if_changed, read_record, write_record
from dtmd.ensemble.runs import INPUT
from dtmd.ensemble.starts import Start
from dtmd.errors import DtmdError
from dtmd.files import locked, written_whole
from dtmd.launcher import Outcome, RunAll, launch
from dtmd.launcher.display import LaunchDisplay
from dtmd.resources import embedded

TRIAL = "trial"

_LARGEST_SEED = 900_000_000  # of LAMMPS's generators

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """The runs of a model at a temperature, in the order of the starts."""

    model: CrashModel
    temperature: float
    starts: Sequence[Start]
    runs: Sequence[PotentialRun | CalculatorRun]

    @property
    def side(self) -> str:
        """In the report."""
        return self.model.side(self.temperature)

    @property
    def n_bytes(self) -> int:
        """Of their frames on disk."""
        dumps = [run.folder / DUMP for run in self.runs]
        return sum(dump.stat().st_size for dump in dumps if dump.exists())


def run_crash_test(
    folder: Path, models: Sequence[CrashModel], starts: Sequence[Start], protocol: Protocol, place: RunAll,
    display: Callable[[int, int], LaunchDisplay],
) -> tuple[list[Batch], list[Outcome]]:
    """Do all runs that are not done.

    Args:
        folder: of the crash test; one that was interrupted goes on.
        models, starts, protocol: what to run; more models, temperatures or starts than before are fine.
        place: where to run them.
        display: makes it from the number of runs and of those done before.

    Returns:
        All runs by model and temperature, and those that failed, which is not to crash.

    Raises:
        DtmdError: the folder holds runs with other settings, a model cannot run at all, or another process works here.
    """
    folder = folder.resolve()
    with locked(folder / LOCK):
        batches = [batch_of(model, temperature, starts, protocol)
                   for model in models for temperature in protocol.temperatures]
        records = [_checked_record(batch, protocol) for batch in batches]
        for model in models:
            _try_out(next(batch for batch in batches if batch.model is model), protocol)
        for batch, record in zip(batches, records, strict=True):
            _prepare(batch, record, protocol)
        # By starts first: a test that is interrupted has the same of every model.
        in_order = [run for runs in zip(*(batch.runs for batch in batches), strict=True) for run in runs]
        n_done = sum(run.done() for run in in_order)
        logger.info("%d runs in %s, %d of them done before", len(in_order), folder, n_done)
        with display(len(in_order), n_done) as shown:
            outcomes = launch(in_order, place, shown.ended)
    return batches, [outcome for outcome in outcomes if outcome.problem is not None]


def batch_of(model: CrashModel, temperature: float, starts: Sequence[Start], protocol: Protocol) -> Batch:
    """The runs; nothing is written."""
    folder, runs = model.runs_folder(temperature), []
    for start in starts:
        name, place = f"{model.folder.name}/{folder.name}/{start.name}", folder / start.name
        thermostat_seed = 1 + sum(seeds(protocol.seed, start)) % _LARGEST_SEED
        variables = {**protocol.variables(temperature), "seed": str(thermostat_seed)}
        if model.artefact:
            own = {"model": str(model.artefact), "start": START_INPUT, "out": OUT}
            runs.append(PotentialRun(name, place, folder / INPUT, {**own, **variables}))
        else:
            runs.append(CalculatorRun(name, place, model.factory, Path.cwd(), variables, arguments=model.arguments))
    return Batch(model, temperature, starts, runs)


def _program(model: CrashModel) -> Path:
    """What the runs of a model do, as a file."""
    return embedded("inputs") / "crashtest.in" if model.artefact else Path(calculator_md.__file__)


def _checked_record(batch: Batch, protocol: Protocol) -> dict:
    model = batch.model
    variables = {**protocol.variables(batch.temperature), "seed": str(protocol.seed)}
    if model.factory:
        variables["calculator"] = model.calculator
    folder = model.runs_folder(batch.temperature)
    old, new = read_record(folder), new_record(Settings(_program(model), model.artefact, variables), list(batch.starts))
    if old:
        raise_if_changed(folder, old, new)
    return new


def _prepare(batch: Batch, record: dict, protocol: Protocol) -> None:
    folder = batch.model.runs_folder(batch.temperature)
    _copy_program(batch.model, folder)
    for run, start in zip(batch.runs, batch.starts, strict=True):
        if not run.done():
            _write_start(run, start, batch.temperature, protocol)
    write_record(folder, record)


def _write_start(
    run: PotentialRun | CalculatorRun, start: Start, temperature: float, protocol: Protocol
) -> None:
    frame = at_temperature(start, temperature, protocol.seed)
    if isinstance(run, PotentialRun):
        write_for_lammps(frame, run.folder)
    else:
        write_for_others(frame, ~start.trajectory.cells[start.frame].any(axis=1), run.folder)


def _copy_program(model: CrashModel, folder: Path) -> None:
    if model.artefact:
        with written_whole(folder / INPUT) as temporary:
            shutil.copyfile(_program(model), temporary)


def _try_out(batch: Batch, protocol: Protocol) -> None:
    """No step of a model that has not run yet: what keeps it from running at all is told once."""
    if any(read_record(folder) for folder in batch.model.folder.glob("*K")):
        return
    first, start = batch.runs[0], batch.starts[0]
    trial = replace(first, name=TRIAL, folder=batch.model.folder / TRIAL, variables={**first.variables, "steps": "0"})
    if isinstance(trial, PotentialRun):
        trial = replace(trial, input_file=trial.folder.parent / INPUT)
    logger.info("%s: trial", batch.model.label)
    _copy_program(batch.model, batch.model.folder)
    _write_start(trial, start, batch.temperature, protocol)
    try:
        trial.work()
    except DtmdError as error:
        raise DtmdError(f"{batch.model.label}: cannot run, so no run was started. {error}") from error
    shutil.rmtree(trial.folder)
    (batch.model.folder / INPUT).unlink(missing_ok=True)
