"""Learning curves of a run, from the records of its epochs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from dtmd.presentation.figures import (
    LARGE, PAGE_STYLE, PRINT_STYLE, SPECIES_CYCLE, data_uri, legend_above, single_axes, write_figure,
)
from dtmd.training_report.records import SUM, best_by_length, best_of, mepa_curves, stages

_SIZE = (7.2, 6.6)
"""Inches: the width of two columns of a journal."""
_LOGARITHMIC = 4.0
"""Largest over smallest value from which the ordinate is logarithmic."""
_SHADE, _SUM_COLOUR, _LOSS_COLOUR, _RATE_COLOUR = "#eef1f4", "#000000", "#5b6470", "#8a6d00"


def draw_learning_curves(records: list[dict], paths: Sequence[Path]) -> None:
    """All diagrams in one figure, against epochs on the left, along the rollout on the right.

    Args:
        records: of at least one epoch.
        paths: .png, .svg or .pdf; raises as `written_whole`.
    """
    with mpl.rc_context(PRINT_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained", dpi=200)
        places = [["mepa", "lengths"], ["mepa", "lengths"], ["loss", "species"], ["rate", "species"]]
        for name, axes in figure.subplot_mosaic(places).items():
            DIAGRAMS[name](axes, records)
        write_figure(figure, paths)


def learning_curves_for_page(records: list[dict]) -> dict[str, str]:
    """Each diagram for itself as a data URI."""
    drawn = {}
    with mpl.rc_context(PAGE_STYLE):
        for name, draw in DIAGRAMS.items():
            figure, axes = single_axes(LARGE if name == "mepa" else (4.6, 3.0))
            draw(axes, records)
            drawn[name] = data_uri(figure)
    return drawn


def _draw_mepa(axes: Axes, records: list[dict]) -> None:
    """MEPA against epoch with its species terms; dots: the best of each S."""
    epochs = [record["epoch"] for record in records]
    curves = mepa_curves(records)
    for name, colour in _species_colours(list(curves)).items():
        total = name == SUM
        axes.plot(epochs, curves[name], color=colour, linewidth=1.8 if total else 1.1, marker="." if len(epochs) < 3
                  else None, label="MEPA" if total else name)
    best = best_by_length(records).values()
    axes.plot([record["epoch"] for record in best], [record["validation"]["mepa"] for record in best], "o",
              color=_SUM_COLOUR, markersize=4.5, markerfacecolor="white", label="best of S")
    _against_epochs(axes, records)
    _scale(axes, [value for values in curves.values() for value in values])
    axes.set_ylabel("rollout error (eV/Å)")
    legend_above(axes, 6)


def _draw_loss(axes: Axes, records: list[dict]) -> None:
    """Training loss of each stage; with S its terms change, so the stages are not joined."""
    for stage in stages(records):
        axes.plot([record["epoch"] for record in stage.records], [record["loss"] for record in stage.records],
                  color=_LOSS_COLOUR, marker="." if len(stage.records) < 3 else None)
    _against_epochs(axes, records)
    _scale(axes, [record["loss"] for record in records])
    axes.set_ylabel("training loss")


def _draw_rate(axes: Axes, records: list[dict]) -> None:
    rates = [record["learning_rate"] for record in records]
    axes.step([record["epoch"] for record in records], rates, where="mid", color=_RATE_COLOUR, marker="."
              if len(rates) < 3 else None)
    _against_epochs(axes, records)
    axes.set_yscale("log")
    axes.set_ylim(min(rates) / 2, max(rates) * 4)
    axes.set_ylabel("learning rate")


def _draw_lengths(axes: Axes, records: list[dict]) -> None:
    """Error against step of the best model of each S."""
    best = best_by_length(records)
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.88, len(best)))
    for (length, record), colour in zip(best.items(), colours, strict=True):
        axes.plot(record["validation"]["by_step"][SUM], color=colour, label=f"S = {length}")
    _along_rollout(axes, "error of the best of each S (eV/Å)", columns=4)


def _draw_species(axes: Axes, records: list[dict]) -> None:
    """Error against step of the best model of all, by element."""
    best = best_of(records)
    curves = {} if best is None else best["validation"]["by_step"]
    for name, colour in _species_colours(list(curves)).items():
        axes.plot(curves[name], color=colour, linewidth=1.8 if name == SUM else 1.1, label=name)
    _along_rollout(axes, "error of the best model (eV/Å)", columns=5)


DIAGRAMS: dict[str, Callable[[Axes, list[dict]], None]] = {
    "mepa": _draw_mepa, "loss": _draw_loss, "rate": _draw_rate, "lengths": _draw_lengths, "species": _draw_species,
}


def _species_colours(names: list[str]) -> dict[str, str]:
    """Of the sum, which is first, and of the elements."""
    return {name: SPECIES_CYCLE[(k - 1) % len(SPECIES_CYCLE)] if k else _SUM_COLOUR for k, name in enumerate(names)}


def _along_rollout(axes: Axes, ylabel: str, columns: int) -> None:
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("step of the validation rollout")
    axes.set_ylabel(ylabel)
    if axes.lines:
        legend_above(axes, columns)
    else:
        axes.text(0.5, 0.5, "every validation diverged", transform=axes.transAxes, ha="center")


def _against_epochs(axes: Axes, records: list[dict]) -> None:
    """The abscissa, every second stage on grey and named if there is room."""
    n_epochs = len(records)
    for number, stage in enumerate(stages(records)):
        first, last = stage.epochs
        if number % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color=_SHADE, zorder=0, linewidth=0)
        share = (last - first + 1) / n_epochs
        text = f"S = {stage.length}" if share > 0.16 else f"{stage.length}" if share > 0.03 else ""
        axes.text((first + last) / 2, 0.99, text, transform=axes.get_xaxis_transform(), ha="center", va="top",
                  color="#555555", fontsize="small")
    axes.set_xlim(records[0]["epoch"] - 0.5, records[-1]["epoch"] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(f"epoch (of {records[0]['updates']} updates)")


def _scale(axes: Axes, values: list[float]) -> None:
    """Logarithmic if the values differ much, with room for the names of the stages."""
    finite = np.array([value for value in values if np.isfinite(value) and value > 0.0])
    if len(finite) and finite.max() > _LOGARITHMIC * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(finite.min() / 1.15, finite.max() * (finite.max() / finite.min()) ** 0.12)
    else:
        axes.margins(y=0.15)
