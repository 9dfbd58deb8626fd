"""How the curves of a plot look, the same on the page and in the files: which belong together, colours, dashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dtmd.comparison_report.header import Header
from dtmd.observables.section import AIMD, Curve, Map, Plot, Section

MOST_POINTS = 2000
"""Of one curve as drawn; more than a screen has columns of pixels."""
POINTS_OF_A_PLOT = 40_000
"""Of all its curves; with many runs each is drawn with fewer points, at least `FEWEST_POINTS`."""
FEWEST_POINTS = 200


@dataclass(frozen=True)
class Group:
    """Curves with one line in the legend.

    Attributes:
        colour: its place among the colours; None for the AIMD.
        dash: its place among the dashes; those of one side differ in it.
        thin: the curves are single trajectories.
    """

    label: str
    colour: int | None
    dash: int
    thin: bool
    curves: Sequence[Curve]


def side_names(sections: Sequence[Section], header: Header) -> list[str]:
    """All sides of the MD in the order of their colours: those of the header, then any that only sections have."""
    names = [side.name for side in header.md]
    for section in sections:
        for row in section.rows:
            names += [*row.md, *row.difference, *row.verdict]
        for plot in section.plots:
            names += plot.density if isinstance(plot, Map) else [curve.side for curve in plot.curves]
    return [name for name in dict.fromkeys(names) if name not in (AIMD, "")]


def groups(plot: Plot, sides: Sequence[str]) -> list[Group]:
    """The curves of a plot as lines of its legend, in the order in which they come.

    Curves without a run stand for themselves. Those of runs go together by side and label, or by side alone where
    every run has a label of its own. Curves of no side get the colours that the sides leave.
    """
    gathered: dict[tuple[bool, str, str], list[Curve]] = {}
    for curve in plot.curves:
        gathered.setdefault((bool(curve.run), curve.side, _group_label(curve, plot.curves)), []).append(curve)
    made: list[Group] = []
    free = len(sides)
    dashes: dict[tuple[bool, str], int] = {}
    for (thin, side, label), curves in gathered.items():
        if side == "":
            colour, dash, free = free, 0, free + 1
        else:
            colour = None if side == AIMD else sides.index(side)
            dash = dashes.get((thin, side), 0)
            dashes[thin, side] = dash + 1
        if len(curves) > 1:
            label = f"{label} ({len(curves)} runs)"
        made.append(Group(label, colour, dash, thin, curves))
    return made


def _group_label(curve: Curve, others: Sequence[Curve]) -> str:
    """The side alone where a label adds nothing: all means or runs have the same one, or every run its own."""
    label, side = curve.label, curve.side
    if not side:
        return label or "runs"
    alike = [other for other in others if bool(other.run) == bool(curve.run)]
    own = [other.label for other in alike if other.side == side]
    many = len(own if curve.run else alike) > 1
    one_for_all = many and {other.label for other in alike} == {label}
    one_for_each = bool(curve.run) and many and len(set(own)) == len(own)
    if not label or one_for_all or one_for_each:
        return side
    named = re.search(rf"(?<!\w){re.escape(side)}(?!\w)", label)
    return label if named else f"{side}: {label}"


def points_per_curve(n_curves: int) -> int:
    """How many points each curve of a plot is drawn with at most."""
    return min(MOST_POINTS, max(FEWEST_POINTS, POINTS_OF_A_PLOT // max(1, n_curves)))


def thinned(curve: Curve, limit: int) -> Curve:
    """At most `limit` points of a curve: both ends, and the lowest and highest of equal stretches.

    Every stride-th point would lose the peaks. A stretch without any number keeps one point, so that gaps stay.
    """
    n = len(curve.x)
    if n <= limit:
        return curve
    length = -(-n // ((limit - 2) // 2))
    padded = np.pad(np.asarray(curve.y, dtype=float), (0, -n % length), constant_values=np.nan).reshape(-1, length)
    starts = length * np.arange(len(padded))
    lowest = starts + np.argmin(np.where(np.isnan(padded), np.inf, padded), axis=1)
    highest = starts + np.argmax(np.where(np.isnan(padded), -np.inf, padded), axis=1)
    chosen = np.unique(np.concatenate([[0, n - 1], lowest, highest]))
    low, high = (None if band is None else np.asarray(band)[chosen] for band in (curve.low, curve.high))
    return replace(curve, x=np.asarray(curve.x)[chosen], y=np.asarray(curve.y)[chosen], low=low, high=high)
