"""Tables, figure and numbers of a study: means over seeds and unseen trajectories, with intervals over both."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.files import write_text, written_whole
from dtmd.observables.statistics import Estimate, interval

N_RESAMPLES = 4000
COLOURS = ("#8a8a8a", "#1f6fb2", "#c8501e", "#5a9a3c", "#7a4fa0", "#b08a20", "#333333")


class Bootstrap:
    """Means over seeds and starts; resampled are the seeds and the trajectories, each as a whole."""

    def __init__(self, runs: list[str], n_seeds: int) -> None:
        rng = np.random.default_rng(0)
        names, self._run = np.unique(runs, return_inverse=True)
        n_runs = len(names)
        self._runs = rng.multinomial(n_runs, np.full(n_runs, 1 / n_runs), N_RESAMPLES).astype(float)
        self._seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), N_RESAMPLES).astype(float)

    def mean(self, values: np.ndarray) -> Estimate:
        """Of (seeds, starts); rollouts that diverged are NaN and left out."""
        used = ~np.isnan(values)
        n_runs = self._runs.shape[1]
        total = np.stack([np.bincount(self._run, row, n_runs) for row in np.where(used, values, 0.0)])
        count = np.stack([np.bincount(self._run, row, n_runs) for row in used.astype(float)])
        weighted = [np.einsum("bs,sr,br->b", self._seeds, x, self._runs) for x in (total, count)]
        return interval(float(total.sum() / count.sum()), weighted[0] / weighted[1], (-np.inf, np.inf))


def write_report(data: dict, out: Path) -> None:
    """report.json, report.md and figure.png in the output folder."""
    summary = summarised(data)
    write_files(summary, markdown(summary), figure_of(summary), out)


def write_files(summary: dict, text: str, figure: Figure, out: Path) -> None:
    """What every study leaves; the text is printed too."""
    write_text(out / "report.json", json.dumps(summary, indent=1))
    write_text(out / "report.md", text)
    with written_whole(out / "figure.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    print(text)


def summarised(data: dict) -> dict:
    """Plain numbers: for each family and arm its cost and errors, and what the recipes change."""
    study = data["study"]
    bootstrap = Bootstrap(data["runs"], len(study["seeds"]))
    families = {}
    for family, arms in data["families"].items():
        rows = {arm: arm_summary(content, study["report"], bootstrap) for arm, content in arms.items()}
        families[family] = {"arms": rows, "differences": differences(arms, study, bootstrap)}
    return {
        "study": study, "trajectories": {k: [Path(p).name for p in v] for k, v in data["trajectories"].items()},
        "n_starts": len(data["runs"]), "timestep_fs": data["timestep"], "seconds_per_update": data["costs"],
        "machine": {"processor": processor(), "torch": version("torch"), "dtmd": version("dtmd")},
        "families": families,
    }


def processor() -> str:
    """The model of the processor, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def arm_summary(content: dict, horizons: list[int], bootstrap: Bootstrap) -> dict:
    errors = content["errors"]
    mepa = {steps: errors[..., 1 : steps + 1].mean(axis=2) for steps in horizons}
    return {
        "epochs": content["epochs"], "updates": content["updates"], "core_seconds": content["seconds"],
        "diverged": int(np.isnan(errors[..., -1]).sum()),
        "start_error": listed(bootstrap.mean(errors[..., 0])),
        "mepa": {steps: listed(bootstrap.mean(values)) for steps, values in mepa.items()},
        "mepa_by_seed": {steps: np.nanmean(values, axis=1).tolist() for steps, values in mepa.items()},
        "by_step": [listed(bootstrap.mean(errors[..., k])) for k in range(errors.shape[2])],
    }


def differences(arms: dict, study: dict, bootstrap: Bootstrap) -> list[dict]:
    """MEPA of each recipe less that of each control and of the base, from the same starts and seeds."""
    controls = [arm for arm in arms if arm not in study["recipes"]]
    found = []
    for recipe in (arm for arm in arms if arm in study["recipes"]):
        for control in controls:
            for steps in study["report"]:
                first, second = (arms[arm]["errors"][..., 1 : steps + 1].mean(axis=2) for arm in (control, recipe))
                found.append({
                    "recipe": recipe, "control": control, "steps": steps,
                    "difference": listed(bootstrap.mean(second - first)),
                    "by_seed": np.nanmean(second - first, axis=1).tolist(),
                    "relative": float(np.nanmean(second - first) / np.nanmean(first)),
                })
    return found


def listed(estimate: Estimate) -> list[float]:
    """Value, low, high."""
    return [estimate.value, estimate.low, estimate.high]


def markdown(summary: dict) -> str:
    """Two tables."""
    horizons = summary["study"]["report"]
    titles = ["model", "training", "updates", "core min", "start frame", *(f"MEPA, {n} steps" for n in horizons)]
    lines = [f"eV/Å; 95 % intervals over {len(summary['trajectories']['test'])} unseen trajectories "
             f"({summary['n_starts']} starts) and {len(summary['study']['seeds'])} seeds", "", row(titles),
             row(["---"] * len(titles))]
    for family, content in summary["families"].items():
        for arm, numbers in content["arms"].items():
            lines.append(row([
                family, arm, f"{np.mean(numbers['updates']):.0f}", f"{np.mean(numbers['core_seconds']) / 60:.1f}",
                span(numbers["start_error"]), *(span(numbers["mepa"][n]) for n in horizons)]))
    lines += ["", row(["model", "difference in MEPA", *(f"{n} steps" for n in horizons), "verdict"]),
              row(["---"] * (3 + len(horizons)))]
    for family, content in summary["families"].items():
        found = content["differences"]
        for recipe, control in dict.fromkeys((d["recipe"], d["control"]) for d in found):
            mine = [d for d in found if (d["recipe"], d["control"]) == (recipe, control)]
            lines.append(row([family, f"{recipe} − {control}", *(
                f"{span(d['difference'], sign=True)}, {100 * d['relative']:+.1f} %" for d in mine), verdict(mine)]))
    return "\n".join(lines) + "\n"


def verdict(found: list[dict]) -> str:
    """Better or worse where every interval excludes zero on that side."""
    if all(d["difference"][2] < 0 for d in found):
        return "better"
    if all(d["difference"][1] > 0 for d in found):
        return "worse"
    return "not told apart"


def span(values: list[float], sign: bool = False) -> str:
    """Value and interval."""
    value, low, high = values
    form = "+.3f" if sign else ".3f"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def figure_of(summary: dict) -> Figure:
    """Error against time of the first family, and the differences of all."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    draw_errors(left, summary)
    draw_differences(right, summary)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_errors(axes: Axes, summary: dict) -> None:
    family, content = next(iter(summary["families"].items()))
    control = summary["study"]["control"]
    shown = [arm for arm in content["arms"] if arm == control or arm not in summary["study"]["recipes"]]
    for arm, colour in zip(shown, COLOURS):
        steps = np.array(content["arms"][arm]["by_step"])
        times = summary["timestep_fs"] * np.arange(len(steps))
        axes.plot(times, steps[:, 0], color=colour, linewidth=1.6, label=arm)
        if arm == control:
            axes.fill_between(times, steps[:, 1], steps[:, 2], color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="time since the unseen AIMD frame (fs)", ylabel="force error (eV/Å)", title=family,
             xlim=(0, times[-1]), ylim=(0, None))
    axes.legend(frameon=False, fontsize=9)


def draw_differences(axes: Axes, summary: dict) -> None:
    """Recipe less S = 1 at equal compute, and by seed, each as share of the latter."""
    labels, place = [], 0
    horizons = summary["study"]["report"]
    for family, content in summary["families"].items():
        equal = [d for d in content["differences"] if d["control"].endswith("equal compute")]
        for recipe in dict.fromkeys(d["recipe"] for d in equal):
            for d, colour in zip([d for d in equal if d["recipe"] == recipe], COLOURS[1:]):
                share = 100 * d["relative"] / d["difference"][0]
                value, low, high = (share * x for x in d["difference"])
                y = place + 0.15 * (1 if d["steps"] == horizons[-1] else -1)
                axes.plot([low, high], [y, y], color=colour, linewidth=2)
                axes.plot(value, y, "o", color=colour, label=f"{d['steps']} steps" if place == 0 else None)
                axes.plot([share * x for x in d["by_seed"]], [y] * len(d["by_seed"]), "|", color=colour, markersize=9)
            labels.append(f"{family}\n{recipe}")
            place += 1
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=range(place), yticklabels=labels, ylim=(place - 0.5, -0.5),
             xlabel="MEPA with rollouts less that of S = 1 at equal compute (%)")
    axes.legend(frameon=False, fontsize=9)
