"""The figure of the README from a comparison: python tools/readme_figure.py COMPARISON_DIR OUT.png"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.comparison_report.figures import AIMD_COLOUR
from dtmd.observables.section import AIMD
from dtmd.presentation.figures import CYCLE

SHOWN = ("S = 1", "S = 4")


def main(comparison: Path, out: Path) -> None:
    sections = json.loads((comparison / "metrics.json").read_text())["sections"]
    plots = {plot["name"]: plot for section in sections for plot in section["plots"]}
    figure = Figure(figsize=(10, 3.4), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    draw(left, plots["rollout"], xlabel="time since the unseen AIMD frame (fs)", shown=SHOWN)
    draw(right, plots["distances-pd-pd"], xlabel="Pd–Pd distance (Å)", shown=(*SHOWN, AIMD))
    right.set_xlim(2.0, 6.0)
    for axes in (left, right):
        axes.set_ylim(0, None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(out)


def draw(axes: Axes, plot: dict, xlabel: str, shown: Sequence[str]) -> None:
    """The curves of these sides with their bands, the AIMD in grey."""
    for curve in sorted((c for c in plot["curves"] if c["side"] in shown), key=lambda c: shown.index(c["side"])):
        colour = AIMD_COLOUR if curve["side"] == AIMD else CYCLE[shown.index(curve["side"])]
        if curve["low"] is not None:
            axes.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(curve["x"], curve["y"], color=colour, linewidth=1.4, label=curve["side"])
    axes.set(xlabel=xlabel, ylabel=plot["y_label"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
