"""The style of figures: on white, in colours that the colour-blind can tell apart (Okabe and Ito)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.files import written_whole

CYCLE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00")
SPECIES_CYCLE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")

LARGE = (6.6, 3.3)
SMALL = (3.7, 2.6)
"""Inches: several small figures stand side by side and stack on a telephone."""

DASHED = (0, (4, 3))

_COMMON = {
    "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "dtmd",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "lines.linewidth": 1.5, "legend.frameon": False,
}
PRINT_STYLE = _COMMON | {"font.size": 8.5, "axes.linewidth": 0.7, "errorbar.capsize": 2.0}
"""For files that go into a publication."""
PAGE_STYLE = _COMMON | {
    "font.size": 9.5, "legend.fontsize": 9,
    "axes.edgecolor": "#555555", "axes.labelcolor": "#222222", "xtick.color": "#444444", "ytick.color": "#444444",
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.7,
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
}
"""For pages that are read on a screen."""


def single_axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure of one diagram; size in inches."""
    figure = Figure(figsize=size, layout="constrained", dpi=200)
    return figure, figure.add_subplot()


def legend_above(axes: Axes, columns: int) -> None:
    """Above the axes, where it covers no data; each label once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns,
                handlelength=1.5, columnspacing=1.1, borderaxespad=0.2)


def data_uri(figure: Figure) -> str:
    """The figure as SVG inside a page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def write_figure(figure: Figure, paths: Sequence[Path]) -> None:
    """The figure as .png, .svg or .pdf, each file whole; raises as `written_whole`."""
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with written_whole(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
