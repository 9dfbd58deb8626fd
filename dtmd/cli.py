"""The command line: arguments, messages and exit codes. What a verb needs is imported when it runs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from dtmd.errors import DtmdError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Machine-learned potentials trained on AIMD by rollouts, run in LAMMPS, compared with AIMD.",
)
console = Console(highlight=False)


def main() -> None:
    """Entry point: a DtmdError becomes its message on stderr and exit code 2."""
    try:
        app()
    except DtmdError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"dtmd: {error}", markup=False)
        sys.exit(2)


@app.command()
def train(
    config: Annotated[Optional[Path], typer.Argument(help="YAML config; without it the embedded example.")] = None,
    output: Annotated[Optional[Path], typer.Option("-o", help="Run folder; runs/NAME by default.")] = None,
) -> None:
    """Train a potential by dynamic training; a run that was interrupted goes on."""
    from dtmd.config import load_config
    from dtmd.display import TrainingDisplay
    from dtmd.train import train as run_training

    settings = load_config(config)
    run_dir = output or Path("runs") / settings.name
    _log_to(run_dir / "train.log")
    try:
        model = run_training(settings, run_dir, TrainingDisplay(console, settings.curriculum))
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from the last checkpoint")
        sys.exit(130)
    console.print(f"best model: {model}\nnext: dtmd export {model}", soft_wrap=True)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model file, or the folder of a run.")],
    output: Annotated[Optional[Path], typer.Option("-o", help="By default model.lammps.pt beside the model.")] = None,
    format: Annotated[str, typer.Option("--format", help="torchscript")] = "torchscript",
) -> None:
    """Write a potential for LAMMPS, checked against the model on real frames."""
    from dtmd.export import export_torchscript
    from dtmd.lammps import pair_coeff_lines

    if format != "torchscript":
        raise DtmdError(f"--format {format}: unknown; the formats are: torchscript")
    exported = export_torchscript(model, output)
    seen = ", ".join(f"{name} {value:.1e}" for name, value in exported.deviations.items())
    console.print(f"wrote {exported.path}\nlargest relative deviation from the model on real frames: {seen}\n\n"
                  "in the LAMMPS input (units metal; atom_modify map yes; atom types in this order):\n\n"
                  f"{pair_coeff_lines(exported.path, exported.metadata['elements'])}", soft_wrap=True)


@app.command()
def start(
    trajectory: Annotated[Path, typer.Argument(help="An AIMD trajectory.")],
    frame: Annotated[int, typer.Option(help="The frame to start from; negative ones count from the end.")] = 0,
    output: Annotated[Optional[Path], typer.Option("-o", help="LAMMPS data file.")] = None,
    timestep: Annotated[Optional[float], typer.Option(help="fs between frames, if the file does not say it.")] = None,
) -> None:
    """Write a frame of AIMD, with its velocities, as a start for LAMMPS."""
    from dtmd.ingest import read_aimd
    from dtmd.lammps import write_start

    trajectories = read_aimd([trajectory], timestep)
    if len(trajectories) != 1:
        raise DtmdError(f"{trajectory}: {len(trajectories)} trajectories; give one file")
    output = output or Path(f"{trajectory.name.split('.')[0]}_frame{frame}.data")
    write_start(trajectories[0], frame, output)
    console.print(f"wrote {output}; atom types: {' '.join(trajectories[0].elements)}", soft_wrap=True)


@app.command()
def compare(
    trajectories: Annotated[list[Path], typer.Argument(help="MD trajectories (LAMMPS dumps), then the AIMD folder.")],
    output: Annotated[Path, typer.Option("-o", help="Folder of the report.")] = Path("comparison"),
    model: Annotated[Optional[Path], typer.Option(help="The exported potential, for the report's provenance.")] = None,
    timestep: Annotated[Optional[float], typer.Option(help="MD time step in fs, for dumps without times.")] = None,
    aimd_timestep: Annotated[Optional[float], typer.Option(help="Likewise for AIMD files without it.")] = None,
    start: Annotated[Optional[list[str]], typer.Option(
        help="RUN=AIMD_FILE@FRAME: where a run began, if its positions do not tell; may be repeated.")] = None,
    bond: Annotated[Optional[list[str]], typer.Option(
        help="I-J: atom ids (from 1) of a bond to follow, in place of the H2 molecules; may be repeated.")] = None,
    broken_above: Annotated[float, typer.Option(help="Å; a bond longer than this is broken …")] = 1.5,
    bonded_below: Annotated[float, typer.Option(help="Å; … unless it is shorter than this again …")] = 1.0,
    persistence: Annotated[float, typer.Option(help="fs; … within this time.")] = 50.0,
) -> None:
    """Do MD trajectories agree with AIMD? Writes report.html and metrics.json."""
    from dtmd.artefact import read_metadata
    from dtmd.compare import CompareSettings
    from dtmd.compare import compare as run_comparison
    from dtmd.ingest import read_aimd
    from dtmd.ingest.lammps_dump import read_dump
    from dtmd.observables.dissociation import BondCriterion
    from dtmd.report import write_report
    from dtmd.report_summary import SUMMARY_COLUMNS, summary_rows

    if len(trajectories) < 2:
        raise DtmdError("give at least one MD trajectory and, last, the AIMD: dtmd compare run.lammpstrj aimd/")
    *dumps, aimd = trajectories
    settings = CompareSettings(
        criterion=BondCriterion(broken_above, bonded_below, persistence),
        bonds=[_bond(text) for text in bond] if bond else None,
        starts=dict(_start(text) for text in start or []),
    )
    metadata = read_metadata(model) if model else None
    reference = read_aimd([aimd], aimd_timestep)
    comparison = run_comparison([read_dump(path, timestep) for path in dumps], reference, settings)
    report = write_report(comparison, output, metadata)
    table = Table(*SUMMARY_COLUMNS)
    for row in summary_rows(comparison):
        table.add_row(*vars(row).values())
    console.print(table)
    for run in comparison.md.runs + comparison.aimd.runs:
        for note in run.notes:
            console.print(f"{run.source}: {note}", markup=False, soft_wrap=True)
    for observable, reason in comparison.skipped:
        console.print(f"skipped: {observable}: {reason}", markup=False, soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)


@app.command("build-plugin")
def build_plugin() -> None:
    """Compile the LAMMPS pair style against the installed torch and LAMMPS."""
    from dtmd.plugin import build_plugin as run_build

    with console.status("compiling the pair style (under a minute)"):
        library = run_build()
    console.print(f"built {library}; `pair_style dtmd` is known to lmp from now on", soft_wrap=True)


@app.command()
def doctor() -> None:
    """Say what is installed, what is wrong with it, and the line that mends it."""
    from dtmd.doctor import diagnose

    findings = diagnose()
    for finding in findings:
        mark = "ok " if finding.ok else "BAD"
        console.print(f"{mark}  {finding.name:<18} {finding.value}", markup=False, soft_wrap=True)
        if not finding.ok:
            console.print(f"       → {finding.remedy}", markup=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@app.command()
def info(file: Annotated[Path, typer.Argument(help="A model file or an exported potential.")]) -> None:
    """Say what is inside a model or an exported potential."""
    from dtmd.info import describe

    console.print(describe(file), markup=False, soft_wrap=True)


def _bond(text: str) -> tuple[int, int]:
    """Atom indices from 0 of a bond given by ids from 1."""
    first, _, second = text.partition("-")
    if not (first.isdigit() and second.isdigit() and int(first) > 0 and int(second) > 0):
        raise DtmdError(f"--bond {text}: write two atom ids, counted from 1, as in --bond 1-2")
    return int(first) - 1, int(second) - 1


def _start(text: str) -> tuple[str, tuple[str, int]]:
    run, _, place = text.partition("=")
    file, _, frame = place.rpartition("@")
    if not (run and file and frame.isdigit()):
        raise DtmdError(f"--start {text}: write RUN=AIMD_FILE@FRAME, frames counted from 0")
    return run, (file, int(frame))


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar, one message a line."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), markup=False, soft_wrap=True)


def _log_to(path: Path) -> None:
    """Messages of the package go to the console and to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise DtmdError(f"{path}: cannot be written ({error.strerror}); give another folder with -o") from error
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("dtmd")
    logger.setLevel(logging.INFO)
    logger.handlers = [to_file, _ConsoleHandler()]
