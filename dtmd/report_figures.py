"""Figures of the comparison's report, as SVG inside the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np

from dtmd.compare import Series
from dtmd.observables.distance_comparison import DistanceComparison
from dtmd.observables.rollout_comparison import RolloutComparison
from dtmd.presentation.figures import (
    CYCLE, DASHED, LARGE, PAGE_STYLE, SMALL, SPECIES_CYCLE, data_uri, legend_above, single_axes,
)
from dtmd.units import FS_PER_PS

AIMD_COLOUR = "#5b6470"
MD_COLOUR = "#d55e00"
MD_SHORT_COLOUR = "#0072b2"


def distance_figure(windows: Sequence[tuple[str, DistanceComparison]], large: bool) -> str:
    """Densities of AIMD and of the MD in each window."""
    with mpl.rc_context(PAGE_STYLE):
        figure, axes = single_axes(LARGE if large else SMALL)
        first = windows[0][1]
        axes.fill_between(first.distances, first.aimd, color=AIMD_COLOUR, alpha=0.22, linewidth=0)
        axes.plot(first.distances, first.aimd, color=AIMD_COLOUR, linewidth=1.1, label="AIMD")
        styles = ((MD_COLOUR, "-"), (MD_SHORT_COLOUR, (0, (3, 1.5))))
        for (label, distance), (colour, dashes) in zip(windows, styles, strict=False):
            axes.plot(distance.distances, distance.md, color=colour, linestyle=dashes, label=f"MD, {label}")
        occupied = np.concatenate([d.distances[(d.md > 0) | (d.aimd > 0)] for _, d in windows])
        margin = 0.03 * np.ptp(occupied) + 0.05
        axes.set_xlim(max(0.0, occupied.min() - margin), occupied.max() + margin)
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("distance (Å)")
        axes.set_ylabel("density (1/Å)")
        if large:
            legend_above(axes, 3)
        return data_uri(figure)


def rollout_figure(rollout: RolloutComparison) -> str:
    """L_force against time since the start, with its species terms and the band over runs."""
    with mpl.rc_context(PAGE_STYLE):
        figure, axes = single_axes(LARGE)
        if rollout.low is not None:
            axes.fill_between(
                rollout.times, rollout.low, rollout.high, color="#000000", alpha=0.13, linewidth=0
            )
        axes.plot(rollout.times, rollout.mean, color="#000000", linewidth=2.0, label="sum over species")
        for k, (element, values) in enumerate(zip(rollout.elements, rollout.species_mean.T, strict=True)):
            colour = SPECIES_CYCLE[k % len(SPECIES_CYCLE)]
            axes.plot(rollout.times, values, color=colour, linewidth=1.2, label=element)
        axes.axhline(rollout.mepa.value, color="#000000", linewidth=0.9, linestyle=DASHED, label="MEPA")
        axes.set_xlim(0.0, rollout.times[-1])
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("time since the AIMD frame (fs)")
        axes.set_ylabel("force error (eV/Å)")
        legend_above(axes, 6)
        return data_uri(figure)


def rollout_runs_figure(rollout: RolloutComparison, names: dict[str, str]) -> str:
    """L_force of each run, over all times that it shares with its AIMD."""
    curves = [
        Series(run.source, run.rollout.times, run.rollout.force_errors.sum(axis=-1)) for run in rollout.runs
    ]
    return series_figure(curves, names, "force error (eV/Å)", MD_COLOUR, bottom=0.0)


def rmsd_figure(rollout: RolloutComparison, names: dict[str, str]) -> str:
    """Position difference of each run, over all times that it shares with its AIMD."""
    curves = [Series(run.source, run.rollout.times, run.rollout.rmsd) for run in rollout.runs]
    return series_figure(curves, names, "RMSD (Å)", MD_COLOUR, bottom=0.0)


def series_figure(
    curves: Sequence[Series], names: dict[str, str], ylabel: str, colour: str,
    limits: tuple[float, float] | None = None, bottom: float | None = None, line: float | None = None,
) -> str:
    """One curve per trajectory against time.

    Up to eight trajectories have colours of their own and a legend, more all have `colour`. The
    curves are drawn as pixels within the SVG, so that long runs do not make the report heavy.

    Args:
        curves: times in fs.
        names: what to call each source.
        ylabel: quantity and unit.
        colour: of the side.
        limits: range of the ordinate.
        bottom: its lower end alone.
        line: a horizontal mark.
    """
    with mpl.rc_context(PAGE_STYLE):
        figure, axes = single_axes(SMALL)
        longest = max(curve.times[-1] for curve in curves)
        unit, scale = ("fs", 1.0) if longest < FS_PER_PS else ("ps", FS_PER_PS)
        sources = list(dict.fromkeys(curve.source for curve in curves))
        few = len(sources) <= len(CYCLE)
        colours = dict(zip(sources, CYCLE, strict=False)) if few else dict.fromkeys(sources, colour)
        for curve in curves:
            axes.plot(curve.times / scale, curve.values, color=colours[curve.source], linewidth=0.9,
                      alpha=0.9 if few else 0.45, label=names[curve.source], rasterized=True)
        if line is not None:
            axes.axhline(line, color="#000000", linewidth=0.9, linestyle=DASHED)
        axes.set_xlim(0.0, longest / scale or 1.0)
        if limits is not None:
            axes.set_ylim(*limits)
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        axes.set_xlabel(f"time ({unit})")
        axes.set_ylabel(ylabel)
        if few:
            legend_above(axes, 4)
        return data_uri(figure)


def common_limits(sides: Iterable[Sequence[Series]]) -> tuple[float, float]:
    """One range of the ordinate for figures that stand side by side."""
    values = np.concatenate([curve.values for curves in sides for curve in curves])
    margin = 0.04 * np.ptp(values) or 1.0
    return float(values.min() - margin), float(values.max() + margin)
