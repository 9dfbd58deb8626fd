"""The page of an iterative pretraining: numbers and curves over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dtmd.comparison_report.header import Header
from dtmd.comparison_report.report import write_report
from dtmd.ipip.config import IPIPConfig
from dtmd.ipip.exploration import read_ends
from dtmd.ipip.progress import Progress, Round, alive_estimates, estimate, table
from dtmd.observables.section import Curve, Plot, Row, Section, Table
from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import NOTHING, clock, duration

TEACHER = "teacher"

_MILLI = 1000.0


def write_ipip_report(
    progress: Progress, config: IPIPConfig, composition: dict[str, int], folder: Path, command: str
) -> Path:
    """Write the page with figures and data beside it; returns its path.

    Args:
        composition: number of atoms of each element in the first reference run.

    Raises:
        DtmdError: as `write_report`.
    """
    header = Header(composition, [], None, command=command, title="Iterative pretraining")
    return write_report([_errors(progress, config), _survival(progress, config), _sets(progress)], header, folder)


def _errors(progress: Progress, config: IPIPConfig) -> Section:
    elements = list(progress.teacher.errors["species"])
    rows = [_row("mean absolute error of the force components", "meV/Å", progress, lambda errors: errors["force"]),
            *(_row(f"mean absolute error of the force components on {element}", "meV/Å", progress,
                   lambda errors, element=element: errors["species"][element]) for element in elements),
            _row("mean absolute error of the energy", "meV/atom", progress, lambda errors: errors["energy"])]
    mepa = {_side(done): estimate(done.assessed["mepa"]) for done in progress.rounds if done.assessed["mepa"]}
    if mepa:
        rows.append(Row("force error along rollouts (MEPA)", "eV/Å", None, mepa))
    plots = [
        _plot("force_error", "Error of the forces on the test set; the mark is the teacher's, over all atoms.",
              "MAE (meV/Å)", progress,
              {element: lambda done, element=element: _milli(done.assessed["errors"]["species"][element])
               for element in elements}, _milli(progress.teacher.errors["force"]).value),
        _plot("energy_error", "Error of the energy on the test set; the mark is the teacher's.", "MAE (meV/atom)",
              progress, {"energy": lambda done: _milli(done.assessed["errors"]["energy"])},
              _milli(progress.teacher.errors["energy"]).value),
    ]
    if len(mepa) == len(progress.rounds):
        plots.append(_plot("mepa", "Force error along rollouts from test frames.", "MEPA (eV/Å)", progress,
                           {"MEPA": lambda done: estimate(done.assessed["mepa"])}))
    heads, lines = table(progress)
    return Section(
        name="errors", title="Errors on unseen reference frames", rows=rows, plots=plots,
        tables=[Table("All rounds; * is the student that is kept: the most of its runs survive, and among equals its "
                      "error in validation is the smallest. Errors with half of their 95 % interval.", heads, lines)],
        definition=(
            f"The reference is of the level {config.reference.level}, the teacher ({config.teacher.calculator}) of the "
            f"level {config.teacher.level}. In each round the student is pretrained on frames with labels of teacher "
            "and student and fine-tuned on the reference's training frames. Errors are mean absolute ones on test "
            "frames that nothing was trained on or chosen by, intervals by resampling their runs."
            + (" The teacher's energies are shifted by element to the reference: "
               + ", ".join(f"{element} {value:+.4f}" for element, value in progress.teacher.shift.items()) + " eV."
               if progress.teacher.shift else "")),
    )


def _survival(progress: Progress, config: IPIPConfig) -> Section:
    temperatures = list(progress.rounds[0].probing["alive"])
    explored = progress.teacher.explored
    shares = {TEACHER: alive_estimates(explored),
              **{_side(done): alive_estimates(done.probing) for done in progress.rounds}}
    rows = [Row(f"share of the runs that survive at {kelvin} K", "", None,
                {side: of_side[kelvin] for side, of_side in shares.items()}) for kelvin in temperatures]
    speeds = {TEACHER: explored["speed"], **{_side(done): done.probing["speed"] for done in progress.rounds}}
    rows.append(Row("speed, median over runs", "MD steps/s", None,
                    {side: Estimate(speed) for side, speed in speeds.items() if speed is not None}))
    md = config.md
    plot = _plot("alive", "Share of the student's runs that survive, with Wilson's intervals.", "share alive", progress,
                 {f"{kelvin} K": lambda done, kelvin=kelvin: alive_estimates(done.probing)[kelvin]
                  for kelvin in temperatures})
    ended = [(_side(done), end.name, duration(end.time), end.cause) for done in progress.rounds
             for end in read_ends(done.ends) if not end.alive]
    broken = [(TEACHER, name, NOTHING, cause) for name, cause in explored["broken"].items()]
    return Section(
        name="alive", title="Runs that survive", rows=rows, plots=[plot],
        tables=[Table(f"Runs that ended early: {len(ended)} of the student, {len(broken)} of the teacher.",
                      ("side", "run", "alive for", "first limit passed"), [*broken, *ended])],
        definition=(
            f"Teacher and student run from the same starts with the same velocities and settings: {md.time} at "
            f"{', '.join(f'{t:g}' for t in md.temperatures)} K, {md.timestep:g} fs, thermostat {md.thermostat}, a "
            f"frame every {md.stride} steps. A run survives if its program came to its end and no frame was beyond the "
            "limits of survival. Speeds are of the machine that ran them, with as many runs at a time as there were."),
    )


def _sets(progress: Progress) -> Section:
    heads = ("round", "in the set", "forgotten", "kept", "new: from ends of runs, unlike the rest", "dropped",
             "explore or renew", "pretrain", "finetune", "probe", "assess")
    lines = []
    for done in progress.rounds:
        old, new = done.set_size
        made = done.renewed
        parts = (done.renewed, done.pretraining, done.finetuning, done.probing, done.assessed)
        lines.append((_side(done), str(old + new), str(made.get("forgotten", NOTHING)),
                      f"{old}, {'relabelled' if made['relabelled'] else 'labels as they were'}" if old else NOTHING,
                      f"{new}: {made['last']}, {made['diverse']}" if old else f"{new}, explored",
                      str(made.get("dropped", NOTHING)), *(clock(facts["seconds"]) for facts in parts)))
    plot = _plot("frames", "Frames in the pretraining set.", "frames", progress,
                 {"all": lambda done: Estimate(float(sum(done.set_size))),
                  "new, by the teacher": lambda done: Estimate(float(done.set_size[1]))})
    return Section(
        name="sets", title="Pretraining sets and time", rows=[], plots=[plot],
        tables=[Table("What each round was pretrained on, and how long its stages took.", heads, lines)],
        definition="Of the set of a round a share is forgotten at random, the rest is relabelled by the student, and "
        "frames of the student's runs are added with labels of the teacher: the last frames of runs that ended early "
        "first, then those that are farthest from all others by their pair distances. Near-duplicates are left out.",
    )


def _side(done: Round) -> str:
    return f"round {done.number}"


def _milli(plain: dict) -> Estimate:
    found = estimate(plain)
    return Estimate(*(None if x is None else _MILLI * x for x in (found.value, found.low, found.high)))


def _row(quantity: str, unit: str, progress: Progress, value: Callable[[Mapping], Mapping]) -> Row:
    values = {TEACHER: _milli(value(progress.teacher.errors)),
              **{_side(done): _milli(value(done.assessed["errors"])) for done in progress.rounds}}
    return Row(quantity, unit, None, values)


def _plot(
    name: str, caption: str, y_label: str, progress: Progress, values: Mapping[str, Callable[[Round], Estimate]],
    teacher: float | None = None,
) -> Plot:
    x = np.array([float(done.number) for done in progress.rounds])
    curves = [_curve(label, x, [value(done) for done in progress.rounds]) for label, value in values.items()]
    return Plot(name, caption, "round", y_label, curves, horizontal={} if teacher is None else {TEACHER: teacher})


def _curve(label: str, x: np.ndarray, estimates: Sequence[Estimate]) -> Curve:
    values = np.array([found.value for found in estimates])
    if any(found.low is None for found in estimates):
        return Curve(label, x, values)
    return Curve(label, x, values, np.array([found.low for found in estimates]),
                 np.array([found.high for found in estimates]))
