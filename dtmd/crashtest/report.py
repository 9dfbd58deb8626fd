"""The report of a crash test: what became of the runs, then all observables side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from dtmd.comparison.comparing import check_same_system, compare
from dtmd.comparison.gathering import Held
from dtmd.comparison.settings import ComparisonSettings, load_settings
from dtmd.comparison.sides import MDSide, RunFiles
from dtmd.comparison_report.header import Header
from dtmd.comparison_report.report import write_report
from dtmd.crashtest.guidelines import checklist
from dtmd.crashtest.models import CrashModel
from dtmd.crashtest.protocol import MAX_FORCE, MAX_TEMPERATURE, Protocol
from dtmd.crashtest.results import RunResult, SideResults, life_of, results_of
from dtmd.crashtest.runs import Batch
from dtmd.observables.conservation import EnergyConservation
from dtmd.observables.rollout_error import RolloutError
from dtmd.observables.section import Row, Section, Table
from dtmd.observables.statistics import Estimate, wilson_interval
from dtmd.observables.survival import Survival
from dtmd.presentation.numbers import NOTHING, duration, number
from dtmd.trajectory import Trajectory

NAME = "crashtest"


@dataclass(frozen=True)
class Views:
    """What the report looks at.

    Attributes:
        survival: decides with the program's own end how long a run lived.
        settings: of all other observables.
        aimd: the reference, of one system.
    """

    survival: Survival
    settings: ComparisonSettings
    aimd: Sequence[Trajectory]


def views(observables: Path | None, aimd: Sequence[Trajectory], protocol: Protocol) -> Views:
    """Made before the runs, so that a mistake is told before they have taken their time.

    Runs with velocities of their own follow no AIMD, and with a thermostat they conserve no energy: the rollout error
    and the conservation of energy are left out then.

    Args:
        observables: file of settings, as for the comparison of MD with AIMD; None for those that fit any system.

    Raises:
        DtmdError: a mistake in the file, or AIMD of several systems.
    """
    for trajectory in aimd:
        check_same_system(trajectory, aimd[0])
    settings = load_settings(observables)
    left_out = {Survival.name, RolloutError.name, *([] if protocol.conserves_energy else [EnergyConservation.name])}
    chosen = {name: of_it for name, of_it in settings.chosen.items() if name not in left_out}
    return Views(settings.survival(aimd), replace(settings, chosen=chosen), aimd)


def report(
    batches: Sequence[Batch], protocol: Protocol, what: Views, folder: Path, n_jobs: int,
    watch: Callable[[int], None] = lambda n_bytes: None, command: str = "",
) -> tuple[Path, Section]:
    """Write the report of runs that have ended.

    Args:
        batches: all runs.
        what: to look at.
        folder: for the report.
        n_jobs: processes that read frames.
        watch: told the bytes read.
        command: what was typed.

    Returns:
        The path of the report, and its first section.

    Raises:
        DtmdError: a damaged dump, or the folder cannot be written.
    """
    results = [results_of(batch, what.survival) for batch in batches]
    sections, header = _compared(results, what, n_jobs, watch, command)
    models = list(dict.fromkeys(batch.model.label for batch in batches))
    of_label = {batch.model.label: batch.model for batch in batches}
    first = crash_section(results, protocol, what, [of_label[label] for label in models], sections)
    return write_report([first, *sections], header, folder), first


def _compared(
    results: Sequence[SideResults], what: Views, n_jobs: int, watch: Callable[[int], None], command: str
) -> tuple[list[Section], Header]:
    """All other observables, of the runs that have frames."""
    sides = [_side(side) for side in results if any(run.dump for run in side.runs)]
    if sides:
        comparison = compare(sides, what.aimd, what.settings, n_jobs=n_jobs, watch=watch, command=command)
        return list(comparison.sections), comparison.header
    symbols = what.aimd[0].symbols
    return [], Header({element: symbols.count(element) for element in what.aimd[0].elements}, [], None, command=command)


def _side(side: SideResults) -> MDSide:
    """Their starts are not named: the velocities are others than in the AIMD."""
    model = side.batch.model
    known = {"file": str(model.artefact), **model.metadata} if model.artefact else {"calculator": model.calculator}
    return MDSide(side.batch.side, [RunFiles((run.dump,)) for run in side.runs if run.dump], known)


def crash_section(
    results: Sequence[SideResults], protocol: Protocol, what: Views, models: Sequence[CrashModel],
    others: Sequence[Section],
) -> Section:
    """What became of the runs of all sides.

    Args:
        results: of all sides.
        models: in the order of the report.
        others: the sections of the other observables.
    """
    with_runs = [side for side in results if side.runs]
    lives = {side.batch.side: [run.life for run in side.runs] for side in with_runs}
    aimd = [life_of(Held(trajectory), what.survival)[0] for trajectory in what.aimd]
    survival = what.survival.compare(lives, aimd) if lives else None
    alive = {side.batch.side: wilson_interval(len(side.runs) - len(side.failed), len(side.runs)) for side in with_runs}
    speeds = {side.batch.side: [run.speed for run in side.runs if run.speed is not None] for side in with_runs}
    medians = {side: Estimate(median(values)) for side, values in speeds.items() if values}
    note = "; ".join(f"{side.batch.side}: {len(side.failed)} of {len(side.runs)} failed" for side in with_runs)
    left_out = [f"No result: {run}: {reason}" for side in results for run, reason in side.left_out]
    return Section(
        name=NAME, title="Crash test", definition=_definition(protocol, survival),
        rows=[Row(f"runs alive at the end, {duration(protocol.time)}", "", None, alive, note=note),
              Row("speed, median over runs", "MD steps/s", None, medians)],
        plots=survival.plots if survival else (),
        tables=[_failed_table(results), checklist(models, protocol, results, what.aimd, others)],
        caveats=[*left_out, *(survival.caveats if survival else ()),
                 "Speeds are of this machine with as many runs at a time as there were; LAMMPS and Python differ in "
                 "what they spend beside the potential.",
                 "The observables below are of all frames, also those after a run has failed, and their verdicts hold "
                 "each temperature against the same AIMD."],
    )


def _definition(protocol: Protocol, survival: Section | None) -> str:
    return (
        f"Every model runs from the same {protocol.n} AIMD frames with the same velocities, drawn from the "
        f"Maxwell–Boltzmann distribution of the temperature; atoms that the AIMD held are held. Velocity Verlet with "
        f"{protocol.timestep:g} fs, at {protocol.conditions}; a frame every {protocol.stride} steps. A run is alive "
        "at the end if its program got there and no frame was beyond the limits of survival. A program stops where a "
        f"force is not finite or above {MAX_FORCE:g} eV/Å, the temperature above {MAX_TEMPERATURE:g} K, or the "
        "potential fails. Shares have Wilson's 95 % interval."
        + (f"\n\nLimits of survival. {survival.definition}" if survival else "")
    )


def _failed_table(results: Sequence[SideResults]) -> Table:
    rows = [(side.batch.side, run.name.rpartition("/")[2], duration(run.life.observed), _cause(run), _bond(side, run),
             run.crash or "ran to its end")
            for side in results for run in side.failed]
    heads = ("side", "start", "alive for", "first cause", "first broken bond", "the program")
    return Table(f"Runs that failed: {len(rows)} of {sum(len(side.runs) for side in results)}.", heads, rows)


def _cause(run: RunResult) -> str:
    return "; ".join(run.life.end.causes)


def _bond(side: SideResults, run: RunResult) -> str:
    bond = run.life.end.bond
    if bond is None:
        return NOTHING
    start = next(start for start, task in zip(side.batch.starts, side.batch.runs, strict=True) if task.name == run.name)
    return "–".join(f"{start.trajectory.symbols[atom]}{atom + 1}" for atom in bond)


def summary_table(section: Section) -> tuple[list[str], list[list[str]]]:
    """The heads and lines of what a terminal shows: each side with its share alive, speed and failures."""
    alive, speed = section.rows[0].md, section.rows[1].md
    failed = section.tables[0].rows
    rows = []
    for side, share in alive.items():
        causes = [row[3] for row in failed if row[0] == side]
        first = f"{len(causes)}, the first: {causes[0]}" if causes else "none"
        rows.append([side, f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})",
                     number(speed[side].value) if side in speed else NOTHING, first])
    return ["model", "alive at the end", "MD steps/s", "failed"], rows
