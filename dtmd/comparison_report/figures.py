"""The figures of the report for publication: PNG and SVG on white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from dtmd.comparison_report.curves import Group, groups, points_per_curve, thinned
from dtmd.observables.section import Map, Plot
from dtmd.presentation.figures import CYCLE, DASHED, PRINT_STYLE, legend_above, single_axes, write_figure

AIMD_COLOUR = "#5b6470"

_SIZE = (4.6, 3.1)
_PANEL = (2.7, 2.5)
"""Inches."""
_DASHES = ("-", DASHED, (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_MARK_COLOUR = "#444444"


def draw(plot: Plot | Map, sides: Sequence[str], paths: Sequence[Path]) -> None:
    """Write a figure as .png, .svg or .pdf.

    Args:
        plot: what to draw.
        sides: in the order of their colours.
        paths: each file is written whole; raises as `written_whole`.
    """
    with mpl.rc_context(PRINT_STYLE | {"legend.fontsize": 7.5}):
        figure = _map_figure(plot) if isinstance(plot, Map) else _curves_figure(plot, sides)
        write_figure(figure, paths)


def _curves_figure(plot: Plot, sides: Sequence[str]) -> Figure:
    figure, axes = single_axes(_SIZE)
    limit = points_per_curve(len(plot.curves))
    shown = groups(plot, sides)
    for group in sorted(shown, key=lambda group: not group.thin):
        _draw_group(axes, group, limit)
    horizontal, vertical = ({k: at for k, at in marks.items() if np.isfinite(at)}
                            for marks in (plot.horizontal, plot.vertical))
    for y in horizontal.values():
        axes.axhline(y, color=_MARK_COLOUR, linewidth=0.8, linestyle=DASHED)
    for x in vertical.values():
        axes.axvline(x, color=_MARK_COLOUR, linewidth=0.8, linestyle=DASHED)
    _name_marks(axes, horizontal, vertical)
    if plot.log and any(np.any(np.asarray(curve.y) > 0.0) for curve in plot.curves):
        axes.set_yscale("log", nonpositive="mask")
    elif plot.from_zero:
        # A band alone may go below zero.
        axes.set_ylim(bottom=axes.get_ylim()[0] if _any_below_zero(plot) else 0.0)
    ends = [(np.nanmin(c.x), np.nanmax(c.x)) for c in plot.curves if len(c.x)]
    if ends:
        left, right = min(e[0] for e in ends), max(e[1] for e in ends)
        axes.set_xlim(left, right if right > left else left + 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if shown:
        legend_above(axes, 2 if max(len(group.label) for group in shown) > 14 else 3)
    return figure


def _draw_group(axes: Axes, group: Group, limit: int) -> None:
    colour = AIMD_COLOUR if group.colour is None else CYCLE[group.colour % len(CYCLE)]
    width = 0.6 if group.thin else 2.4 if group.colour is None else 1.4
    alpha = 0.45 if group.thin and len(group.curves) > 8 else 0.8 if group.thin else 1.0
    for k, curve in enumerate(group.curves):
        shown = thinned(curve, limit)
        if shown.low is not None and shown.high is not None:
            axes.fill_between(shown.x, shown.low, shown.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(shown.x, shown.y, color=colour, linewidth=width, alpha=alpha, rasterized=group.thin,
                  linestyle=_DASHES[group.dash % len(_DASHES)], label=group.label if k == 0 else None)


def _name_marks(axes: Axes, horizontal: Mapping[str, float], vertical: Mapping[str, float]) -> None:
    halo = [withStroke(linewidth=2.0, foreground="white")]
    style = {"fontsize": 7, "color": _MARK_COLOUR, "path_effects": halo, "zorder": 4}
    for label, y in horizontal.items():
        axes.text(0.99, y, label, transform=axes.get_yaxis_transform(), ha="right", va="bottom", **style)
    for label, x in vertical.items():
        axes.text(x, 0.99, f" {label}", transform=axes.get_xaxis_transform(), ha="left", va="top", clip_on=True,
                  **style)


def _any_below_zero(plot: Plot) -> bool:
    return any(np.any(np.asarray(curve.y) < 0.0) for curve in plot.curves)


def _map_figure(plot: Map) -> Figure:
    """Panels with common axes; colours follow the square root of the density, empty bins are white."""
    n = len(plot.density)
    columns = min(3, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(_PANEL[0] * columns + 0.5, _PANEL[1] * rows), layout="constrained", dpi=200)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    finite = [d[np.isfinite(d)] for d in plot.density.values()]
    norm = PowerNorm(0.5, vmin=0.0, vmax=max((d.max() for d in finite if d.size), default=1.0) or 1.0)
    for axes, (side, density) in zip(panels.flat, plot.density.items(), strict=False):
        shown = np.ma.masked_where(~(density > 0.0), density)
        image = axes.pcolormesh(plot.x, plot.y, shown.T, norm=norm, cmap="viridis", rasterized=True)
        axes.set_title(side, fontsize=8.5)
    for axes in panels.flat[n:]:
        axes.set_visible(False)
    figure.supxlabel(plot.x_label, fontsize=8.5)
    figure.supylabel(plot.y_label, fontsize=8.5)
    figure.colorbar(image, ax=panels, label="density", shrink=0.9)
    return figure
