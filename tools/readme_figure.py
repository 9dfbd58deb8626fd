"""The figure of the README from a comparison: python tools/readme_figure.py COMPARISON_DIR OUT.png"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.presentation.figures import SPECIES_CYCLE
from dtmd.report_figures import AIMD_COLOUR, MD_COLOUR


def main(comparison: Path, out: Path) -> None:
    metrics = json.loads((comparison / "metrics.json").read_text())
    figure = Figure(figsize=(10, 3.4), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    draw_force_error(left, metrics["rollout"])
    draw_distances(right, metrics["windows"])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(out)


def draw_force_error(axes: Axes, rollout: dict) -> None:
    """L_force against time, its band over runs, its species terms."""
    axes.fill_between(rollout["times"], rollout["low"], rollout["high"], color="black", alpha=0.13, linewidth=0)
    axes.plot(rollout["times"], rollout["mean"], color="black", linewidth=2, label="sum over species")
    for element, values, colour in zip(rollout["elements"], np.transpose(rollout["species_mean"]), SPECIES_CYCLE):
        axes.plot(rollout["times"], values, color=colour, linewidth=1.2, label=element)
    axes.set(xlabel="time since the unseen AIMD frame (fs)", ylabel="force error (eV/Å)",
             xlim=(0, rollout["times"][-1]), ylim=(0, None))


def draw_distances(axes: Axes, windows: list[dict]) -> None:
    """Densities of all interatomic distances, AIMD and the whole MD."""
    total = windows[0]["distances"][0]
    axes.fill_between(total["distances"], total["aimd"], color=AIMD_COLOUR, alpha=0.3, linewidth=0, label="AIMD")
    axes.plot(total["distances"], total["md"], color=MD_COLOUR, linewidth=1.2,
              label=f"LAMMPS, {windows[0]['duration'] / 1000:g} ps")
    axes.set(xlabel="interatomic distance (Å)", ylabel="density (1/Å)", xlim=(0.4, 10.5), ylim=(0, None))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
