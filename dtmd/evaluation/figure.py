"""The figure of an evaluation: errors of the models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.evaluation.comparison import Evaluation, ModelResult
from dtmd.observables.statistics import Estimate
from dtmd.presentation.figures import CYCLE, PRINT_STYLE, write_figure

LOGARITHMIC = 100.0
"""Largest over smallest error from which the ordinate is logarithmic."""

_SIZE = (7.0, 3.1)
"""Inches: the width of two columns of a journal."""


def draw_evaluation(evaluation: Evaluation, paths: Sequence[Path]) -> None:
    """Error against step with bands, and its mean over the steps for each species; raises as `written_whole`.

    Args:
        evaluation: what to draw; models that always diverged are left out.
        paths: .png, .svg or .pdf.
    """
    with mpl.rc_context(PRINT_STYLE):
        write_figure(_figure(evaluation), paths)


def edges(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    """Value, low and high; None for what there is not."""
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _figure(evaluation: Evaluation) -> Figure:
    """Left: error against step with bands. Right: mean over the steps, the sum and each species."""
    figure = Figure(figsize=_SIZE, layout="constrained", dpi=300)
    curves, bars = figure.subplots(1, 2, width_ratios=(1.45, 1.0))
    shown = [(result, colour) for result, colour in _coloured(evaluation.models) if result.mepa is not None]
    for result, colour in shown:
        _draw_curve(curves, result, colour)
    _draw_bars(bars, shown, evaluation.elements)
    values = [step.value for result, _ in shown for step in result.by_step]
    if values and max(values) > LOGARITHMIC * min(values):
        curves.set_yscale("log")
        bars.set_yscale("log")
    else:
        curves.set_ylim(bottom=0.0)
    steps = evaluation.timesteps
    curves.set_xlabel("step" + (f" (of {steps[0]:g} fs)" if len(steps) == 1 else ""))
    curves.set_ylabel("force error, sum over species (eV/Å)")
    curves.set_xlim(0, evaluation.settings.steps)
    bars.set_ylabel(f"mean over {evaluation.settings.steps} steps (eV/Å)")
    handles, labels = curves.get_legend_handles_labels()
    if handles:
        columns = max(1, 100 // (max(map(len, labels)) + 6))
        figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)), handlelength=1.6)
    return figure


def _coloured(results: list[ModelResult]) -> list[tuple[ModelResult, str]]:
    return [(result, CYCLE[k % len(CYCLE)]) for k, result in enumerate(results)]


def _draw_curve(axes: Axes, result: ModelResult, colour: str) -> None:
    steps = np.arange(len(result.by_step))
    value, low, high = zip(*map(edges, result.by_step), strict=True)
    if None not in low:
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    failed = f" ({len(result.diverged)} of {len(result.rollouts)} diverged)" if result.diverged else ""
    axes.plot(steps, value, color=colour, label=result.label + failed)


def _draw_bars(axes: Axes, shown: list[tuple[ModelResult, str]], elements: list[str]) -> None:
    width = 0.8 / max(len(shown), 1)
    for k, (result, colour) in enumerate(shown):
        means = [(place, estimate) for place, estimate in enumerate([result.mepa, *result.species]) if estimate]
        for place, estimate in means:
            value, low, high = edges(estimate)
            error = None if low is None else [[value - low], [high - value]]
            axes.bar(place + (k + 0.5) * width - 0.4, value, 0.92 * width, color=colour, yerr=error,
                     error_kw={"elinewidth": 0.9, "ecolor": "#333333"})
    axes.set_xticks(range(len(elements) + 1), ["MEPA", *elements])
    axes.tick_params(axis="x", length=0)
