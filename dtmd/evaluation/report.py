"""An evaluation for people and programs: progress, table, CSV of the curves, JSON of everything."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import TaskProgressColumn, TimeRemainingColumn

from dtmd.checkpoint import provenance
from dtmd.evaluation.comparison import Evaluation, Model, ModelResult
from dtmd.evaluation.figure import draw_evaluation, edges
from dtmd.files import sha256, write_text
from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import NOTHING, fixed, now, number
from dtmd.presentation.progress import BarDisplay

NAME = "evaluation"
N_NAMED = 5
"""Rollouts or files that a note names; the JSON has all."""
FEW_RUNS = 10
ASTRAY = 3.0
"""MEPA over median from which a few rollouts rule the mean."""


class EvaluationDisplay(BarDisplay):
    """A bar over the steps of all rollouts with the time that is left; shown on a terminal only."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, TaskProgressColumn(), TimeRemainingColumn(), description="reading", total=None)

    def steps_done(self, label: str, n_steps: int, total: int) -> None:
        """As `watch` of `dtmd.evaluation.comparison.evaluate` wants it."""
        self.bars.update(self.task, advance=n_steps, total=total, description=f"rollouts of {label}")


def write_evaluation(evaluation: Evaluation, models: Sequence[Model], folder: Path) -> list[Path]:
    """Write evaluation.json, .csv, .png and .svg into `folder`, each whole; raises as `written_whole`."""
    paths = [folder / f"{NAME}.{suffix}" for suffix in ("json", "csv", "png", "svg")]
    write_text(paths[0], evaluation_json(evaluation, models))
    write_text(paths[1], evaluation_csv(evaluation))
    draw_evaluation(evaluation, paths[2:])
    return paths


def evaluation_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: one row per model, errors in eV/Å with their 95 % intervals."""
    titles = ["model", "MEPA", *evaluation.elements, "start", "ratio", "diverged"]
    rows = [[result.label, *map(_text, [result.mepa, *result.species, result.start_error, result.ratio]),
             f"{len(result.diverged)}/{len(evaluation.starts)}"] for result in evaluation.models]
    return titles, rows


def evaluation_notes(evaluation: Evaluation) -> list[str]:
    """What the table means, paired differences, and everything that a reader must know to trust it."""
    settings, starts = evaluation.settings, evaluation.starts
    steps = " or ".join(f"{timestep:g}" for timestep in evaluation.timesteps)
    lines = [
        f"MEPA in eV/Å: mean over {settings.steps} steps of {steps} fs after the start frame, sum over species; "
        f"{len(starts)} starts in {evaluation.n_runs} runs. The AIMD forces themselves: "
        f"{number(evaluation.reference_force)} eV/Å. start: the error on the start frames; ratio: MEPA over it",
        _interval_note(evaluation.n_runs),
    ]
    for d in evaluation.differences:
        lines.append(f"MEPA of {d.second} less that of {d.first}: {_text(d.value)} eV/Å, "
                     f"paired over {d.n_starts} starts")
    if len(starts) < settings.starts:
        lines.append(f"only {len(starts)} of {settings.starts} starts: the AIMD has no more windows of "
                     f"{settings.steps + 1} frames")
    if evaluation.left_out:
        lines.append(f"left out, shorter than {settings.steps + 1} frames: "
                     + _some([f"{t.source} ({len(t)})" for t in evaluation.left_out]))
    for result in evaluation.models:
        lines += _model_notes(result)
    return lines


def evaluation_csv(evaluation: Evaluation) -> str:
    """One line per model and step: the sum over species and each species with their intervals, eV/Å.

    The time is empty where trajectories have different time steps, values where every rollout diverged.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [f"{name}{end}" for name in ("sum", *evaluation.elements) for end in ("", "_low", "_high")]
    writer.writerow(["model", "step", "time_fs", *columns])
    timestep = evaluation.timesteps[0] if len(evaluation.timesteps) == 1 else None
    for result in evaluation.models:
        for step, (total, terms) in enumerate(zip(result.by_step, result.species_by_step, strict=True)):
            time = "" if timestep is None else f"{step * timestep:g}"
            values = [value for estimate in (total, *terms) for value in edges(estimate)]
            writer.writerow([result.label, step, time, *("" if v is None else f"{v:.7g}" for v in values)])
    return stream.getvalue()


def evaluation_json(evaluation: Evaluation, models: Sequence[Model]) -> str:
    """All numbers, the versions of the software, and what models and data are, with their hashes."""
    described = [{
        "path": str(model.path), "sha256": sha256([model.path]), "elements": model.file.potential.elements,
        "model": model.file.potential.config.model_dump(), "metadata": model.file.metadata,
        "precision": str(model.file.potential.precision).removeprefix("torch."),
    } for model in models]
    content = {
        "created": now(), "versions": provenance(),
        "units": "eV/Å, fs; intervals (low, high) are 95 %, by bootstrap over runs",
        "settings": asdict(evaluation.settings), "elements": evaluation.elements,
        "aimd": [{
            "source": t.source, "run": t.origin.run, "sha256": t.origin.digest, "frames": len(t),
            "timestep_fs": t.timestep, "n_starts": sum(start.source == t.source for start in evaluation.starts),
        } for t in evaluation.trajectories],
        "left_out": [{"source": t.source, "frames": len(t)} for t in evaluation.left_out],
        "starts": [asdict(start) for start in evaluation.starts], "reference_force": evaluation.reference_force,
        "models": [what | asdict(result) for what, result in zip(described, evaluation.models, strict=True)],
        "differences": [asdict(difference) for difference in evaluation.differences],
        "notes": evaluation_notes(evaluation),
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _interval_note(n_runs: int) -> str:
    if n_runs < 2:
        return "a single run: no interval can be given; give AIMD of several runs"
    text = f"±: 95 % interval by bootstrap over {n_runs} runs"
    return text + ("" if n_runs >= FEW_RUNS else ", so few that it is rather too narrow")


def _model_notes(result: ModelResult) -> list[str]:
    """Warnings on one model."""
    lines, label = [], result.label
    if result.diverged:
        named = [f"{d.start.source} frame {d.start.frame} at step {d.step}" for d in result.diverged]
        lines.append(f"{label} diverged (forces not finite) in {len(named)} of {len(result.rollouts)} rollouts; its "
                     f"errors are over the others: {_some(named)}")
    if result.mepa and result.mepa.value > ASTRAY * result.median:
        lines.append(f"{label}: a few rollouts went astray; the median over the starts is {number(result.median)}")
    seen = result.seen
    for what, sources in (("was trained on", seen.training), ("was chosen by rollouts on", seen.validation)):
        if sources:
            lines.append(f"warning: {label} {what} {len(sources)} of these trajectories, which flatters it: "
                         + _some(sources))
    if seen.doubt:
        lines.append(f"warning: whether {label} was trained on this AIMD is not certain: {seen.doubt}")
    return lines


def _some(names: list[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more


def _text(estimate: Estimate | None) -> str:
    """Value ± half of the interval, with the decimals in which that has two digits."""
    if estimate is None:
        return NOTHING
    if estimate.low is None or estimate.high <= estimate.value:
        return number(estimate.value)
    half_width = estimate.high - estimate.value
    decimals = len(number(half_width, 2).partition(".")[2])
    return f"{fixed(estimate.value, decimals)} ± {fixed(half_width, decimals)}"


def _plain(value: object) -> object:
    """Arrays as lists, numbers that JSON does not have as null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
