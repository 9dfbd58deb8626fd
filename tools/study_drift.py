"""Is the total energy conserved? NVE in LAMMPS with a model in float32 and float64, and with a hard cutoff.

    python tools/study_drift.py [runs/h2pd6] [--hard MODEL] [-n 2] [--ps 50] [--jobs 2] [-o runs/study_drift]

The model is a run folder of `dtmd train`, by default that of `make demo`. The one with a hard cutoff has the
article's messages, which jump where a pair crosses the cutoff; without --hard it is trained first, with the config of
the model but for `model.envelope: none`. All are exported with AOTInductor, for its speed, and run inputs/h2pd6.in
from the same unseen AIMD frames at each time step. Drift is the slope of the total energy; fluctuation its standard
deviation about such a line in the first picoseconds: velocity Verlet with smooth forces leaves one ∝ Δt². After an
interruption the same command goes on. report.json, report.md, figure.png and figure.svg are what comes out.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from rich.console import Console

from dtmd.checkpoint import MODEL, file_of
from dtmd.ensemble.record import Settings
from dtmd.ensemble.results import folder_runs
from dtmd.ensemble.runs import run_all
from dtmd.ensemble.starts import Start, choose_starts
from dtmd.errors import DtmdError
from dtmd.export import export_aotinductor
from dtmd.files import sha256, write_text
from dtmd.ingest import read_aimd
from dtmd.launcher.display import LaunchDisplay
from dtmd.launcher.processes import processes
from dtmd.md import read_dump
from dtmd.observables.conservation import Conservation, conservation, total_energy_change
from dtmd.observables.temperature import mean_temperature
from dtmd.presentation.figures import CYCLE, DASHED, PRINT_STYLE, write_figure
from dtmd.units import FS_PER_PS

INPUTS = Path(__file__).parents[1] / "inputs"
HARD = "hard cutoff"
FRAME_EVERY = 50.0
"""fs between the frames that the energy is taken from."""
EARLY = 2.0
"""ps in which the fluctuation is looked at: later a molecule has come apart in one run and not in another."""


@dataclass(frozen=True)
class Variant:
    """What runs in LAMMPS: an artefact and where its runs are."""

    name: str
    artefact: Path
    folder: Path

    def runs(self, timestep: float) -> Path:
        return self.folder / f"{timestep:g}fs"


@dataclass(frozen=True)
class Run:
    """One run that finished: change of the total energy (meV/atom) against time (ps), drift, temperature (K).

    Attributes:
        fluctuation: of the first `EARLY` ps, meV/atom.
    """

    name: str
    times: np.ndarray
    change: np.ndarray
    energy: Conservation
    fluctuation: float
    temperature: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=Path("runs/h2pd6"), help="run folder or model file")
    parser.add_argument("--hard", type=Path, help="model with envelope: none, in place of training one")
    parser.add_argument("--starts", type=Path, default=INPUTS / "aimd" / "test", help="AIMD to start from")
    parser.add_argument("-n", type=int, default=2, help="runs of each variant and time step")
    parser.add_argument("--ps", type=float, default=50.0, help="length of each run")
    parser.add_argument("--timesteps", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="fs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/study_drift"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    out, timesteps = arguments.output.resolve(), sorted(arguments.timesteps)
    starts = choose_starts(read_aimd([arguments.starts]), "spread", arguments.n, seed=0, follow=0)
    variants = prepared(arguments.model, arguments.hard, out)
    found: dict[str, dict[float, list[Run]]] = {variant.name: {} for variant in variants}
    problems = []
    for dt in timesteps:
        for variant in variants:
            failed = run_in_lammps(variant, dt, arguments.ps, starts, arguments.jobs)
            problems += [f"{variant.name}, {dt:g} fs, {problem}" for problem in failed]
            if len(failed) < len(starts):
                found[variant.name][dt] = results(variant, dt)
    report = {"sha256": {variant.name: sha256([variant.artefact]) for variant in variants}, "ps": arguments.ps,
              "starts": [start.name for start in starts], "failed": problems,
              "variants": {name: summary(by_step) for name, by_step in found.items()}}
    write_text(out / "report.json", json.dumps(report, indent=1))
    write_text(out / "report.md", markdown(report))
    with mpl.rc_context(PRINT_STYLE):
        write_figure(figure_of(found, timesteps), [out / "figure.png", out / "figure.svg"])
    print(markdown(report))


# --- what runs ---------------------------------------------------------------------------------------------------


def prepared(model: Path, hard: Path | None, out: Path) -> list[Variant]:
    """The artefacts, exported where they are not there yet."""
    file = file_of(model)
    hard = hard or trained_with_hard_cutoff(model, out / "training")
    cases = {"float32": (file, torch.float32), "float64": (file, torch.float64), HARD: (hard, torch.float32)}
    variants = []
    for name, (source, precision) in cases.items():
        folder = out / name.replace(" ", "_")
        artefact, record, digest = folder / "model.lammps.pt2", folder / "model.sha256", sha256([source])
        if record.exists() and record.read_text() != digest:
            sys.exit(f"{folder}: holds runs of another model than {source}; give another folder with -o")
        if not record.exists():
            export_aotinductor(source, artefact, precision)
            write_text(record, digest)
        variants.append(Variant(name, artefact, folder))
    return variants


def trained_with_hard_cutoff(model: Path, run_dir: Path) -> Path:
    """A model like the given one, but for its envelope."""
    config = model / "config.yaml"
    if not config.exists():
        sys.exit(f"{config}: not there, so the model with a hard cutoff cannot be trained alike; give one with --hard")
    content = yaml.safe_load(config.read_text())
    if content["model"].get("envelope") != "smooth":
        sys.exit(f"{config}: the model has no smooth envelope to compare with; give an EGNN with one")
    content["model"]["envelope"] = "none"
    hard = run_dir.with_suffix(".yaml")
    write_text(hard, yaml.safe_dump(content | {"name": "hard_cutoff"}, sort_keys=False))
    if subprocess.run([sys.executable, "-m", "dtmd", "train", str(hard), "-o", str(run_dir)]).returncode != 0:
        sys.exit(f"the training with a hard cutoff failed or was stopped; its folder: {run_dir}")
    return run_dir / MODEL


def run_in_lammps(variant: Variant, timestep: float, ps: float, starts: list[Start], jobs: int) -> list[str]:
    """All runs of a variant at one time step that are not done yet; why some failed."""
    stride = round(FRAME_EVERY / timestep)
    steps = max(round(ps * FS_PER_PS / FRAME_EVERY), 2) * stride
    settings = Settings(INPUTS / "h2pd6.in", variant.artefact, {
        "timestep": repr(timestep / FS_PER_PS), "steps": str(steps), "stride": str(stride), "dense": "0"})
    logging.info("%s, %g fs: %d runs of %d steps", variant.name, timestep, len(starts), steps)
    with processes(jobs) as place:
        failed = run_all(variant.runs(timestep), settings, starts, 1, place,
                         lambda *count: LaunchDisplay(Console(stderr=True), *count))
    return [f"{outcome.name}: {outcome.problem}" for outcome in failed]


# --- what comes out ----------------------------------------------------------------------------------------------


def results(variant: Variant, timestep: float) -> list[Run]:
    """Of the runs that finished."""
    runs = []
    for dump, _ in folder_runs(variant.runs(timestep)).runs:
        trajectory = read_dump(dump)
        times = (trajectory.times - trajectory.times[0]) / FS_PER_PS
        early = trajectory.window(0, int((times <= EARLY * (1 + 1e-9)).sum()))
        runs.append(Run(Path(trajectory.source).parent.name, times, total_energy_change(trajectory),
                        conservation(trajectory), conservation(early).fluctuation, mean_temperature(trajectory)[0]))
    return runs


def summary(by_step: dict[float, list[Run]]) -> dict:
    """Every run; drift and fluctuation over the runs; the power of Δt that the fluctuation goes with."""
    rows = {f"{dt:g}": {
        "runs": {run.name: asdict(run.energy) | {"early_fluctuation": run.fluctuation, "temperature": run.temperature}
                 for run in runs},
        "mean_drift": float(np.mean([run.energy.drift for run in runs])),
        "largest_drift": float(max(abs(run.energy.drift) for run in runs)),
        "largest": max(run.energy.largest for run in runs),
        "fluctuation": fluctuation(runs),
    } for dt, runs in by_step.items()}
    values = [row["fluctuation"] for row in rows.values()]
    power = np.polyfit(np.log(list(by_step)), np.log(values), 1)[0] if len(by_step) > 1 else None
    return {"timesteps": rows, "power": None if power is None else float(power)}


def fluctuation(runs: list[Run]) -> float:
    """Root mean square over the runs, meV/atom."""
    return float(np.sqrt(np.mean([run.fluctuation**2 for run in runs])))


def markdown(report: dict) -> str:
    lines = [f"NVE of {report['ps']:g} ps in LAMMPS from {len(report['starts'])} unseen AIMD frames; energies in "
             f"meV/atom, drifts in meV/atom/ps, fluctuation in the first {EARLY:g} ps", "",
             "| model | Δt, fs | runs | mean drift | largest drift | largest deviation | fluctuation | ∝ Δt^ |",
             "|---|---|---|---|---|---|---|---|"]
    for name, variant in report["variants"].items():
        for dt, row in variant["timesteps"].items():
            power = "–" if variant["power"] is None else f"{variant['power']:.2f}"
            numbers = f"{row['mean_drift']:+.4f} | {row['largest_drift']:.4f} | {row['largest']:.3f}"
            lines.append(f"| {name} | {dt} | {len(row['runs'])} | {numbers} | {row['fluctuation']:.4f} | {power} |")
    return "\n".join([*lines, "", *(f"failed: {problem}" for problem in report["failed"])]) + "\n"


def figure_of(found: dict[str, dict[float, list[Run]]], timesteps: list[float]) -> Figure:
    """Left: energy against time at the middle time step. Right: fluctuation against Δt²."""
    timestep = timesteps[(len(timesteps) - 1) // 2]
    figure = Figure(figsize=(7.0, 3.0), layout="constrained", dpi=300)
    left, right = figure.subplots(1, 2, width_ratios=(1.45, 1.0))
    for (name, by_step), colour in zip(found.items(), CYCLE, strict=False):
        for k, run in enumerate(by_step.get(timestep, [])):
            left.plot(run.times, run.change, color=colour, linewidth=0.8, label=name if k == 0 else None)
        steps, values = np.array(list(by_step)), [fluctuation(runs) for runs in by_step.values()]
        right.plot(steps**2, values, "o-", color=colour, markersize=3.5)
        if name == "float64" and by_step:
            right.plot(steps**2, values[-1] * steps**2 / steps[-1] ** 2, color="#555555", linestyle=DASHED,
                       linewidth=0.8, zorder=0, label="∝ Δt²")
    left.set(xlabel=f"time (ps), Δt = {timestep:g} fs", ylabel="change of the total energy (meV/atom)")
    left.margins(x=0)
    left.set_yscale("symlog", linthresh=1.0)  # meV/atom; a model that heats up leaves the others on a line
    right.set(xlabel="Δt (fs), scaled as Δt²", ylabel=f"fluctuation, first {EARLY:g} ps (meV/atom)", xscale="log",
              yscale="log")
    right.set_xticks([dt**2 for dt in timesteps], [f"{dt:g}" for dt in timesteps])
    right.minorticks_off()
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), handlelength=1.6)
    right.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    try:
        main()
    except DtmdError as error:
        sys.exit(f"study_drift: {error}")
