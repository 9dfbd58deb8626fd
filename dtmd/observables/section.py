"""What is told of one observable: numbers with intervals, a verdict and its rule, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from dtmd.observables.statistics import Estimate

AIMD = "AIMD"
"""The name of the reference among the sides."""


def sides(md: Mapping[str, Sequence[Any]], aimd: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The sides that have runs, the AIMD last."""
    return {side: runs for side, runs in (*md.items(), (AIMD, aimd)) if len(runs)}


class Verdict(Enum):
    """Whether MD and AIMD are the same in one number."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNDECIDED = "not enough data"


@dataclass(frozen=True)
class Row:
    """One number on all sides.

    Attributes:
        quantity, unit: what it is, in words; the unit may be empty.
        aimd: of the reference, None where it has none.
        md: of each side that has it.
        difference: MD less AIMD, or a distance between distributions, of each side that can be compared.
        equal: where `difference` is a distance, what it is between two halves of the AIMD.
        verdict: of each side that can be judged.
        note: anything else to know.
    """

    quantity: str
    unit: str
    aimd: Estimate | None
    md: Mapping[str, Estimate]
    difference: Mapping[str, Estimate] = field(default_factory=dict)
    equal: float | None = None
    verdict: Mapping[str, Verdict] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a plot: y against x, both (N,), with a band from `low` to `high` where it is known.

    Attributes:
        side: `AIMD`, a side of the MD, or "" where it belongs to none.
        run: the trajectory that it is of; "" for a mean over trajectories.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    side: str = ""
    run: str = ""


@dataclass(frozen=True)
class Plot:
    """Curves with common axes.

    Attributes:
        name: of the files that it is written to, unique among all plots.
        caption: what is to be seen.
        horizontal, vertical: positions of marks, by their labels.
        from_zero: the ordinate begins at zero.
        log: the ordinate is logarithmic.
    """

    name: str
    caption: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    horizontal: Mapping[str, float] = field(default_factory=dict)
    vertical: Mapping[str, float] = field(default_factory=dict)
    from_zero: bool = True
    log: bool = False


@dataclass(frozen=True)
class Map:
    """A density over two quantities, one panel for each side.

    Attributes:
        name, caption: as of `Plot`.
        x, y: edges of the bins, (Nx + 1,) and (Ny + 1,).
        density: of each side, (Nx, Ny).
    """

    name: str
    caption: str
    x_label: str
    y_label: str
    x: np.ndarray
    y: np.ndarray
    density: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Table:
    """Texts under headings, such as events with their times."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """All of one observable.

    Attributes:
        name: that of the observable.
        definition: what is measured, in words and equations.
        rule: how the verdicts come about; empty where there are none.
        caveats: what a reader must not conclude.
    """

    name: str
    title: str
    definition: str
    rows: Sequence[Row]
    plots: Sequence[Plot | Map] = ()
    tables: Sequence[Table] = ()
    rule: str = ""
    caveats: Sequence[str] = ()


def judged(difference: Estimate, tolerance: float) -> Verdict:
    """Agrees if the whole interval of the difference is within ± tolerance, differs if none of it is.

    Without an interval there is not enough data; with few runs an interval is rough, but then it is wide.
    """
    if difference.low is None or difference.high is None:
        return Verdict.UNDECIDED
    if -tolerance <= difference.low and difference.high <= tolerance:
        return Verdict.AGREES
    if difference.low > tolerance or difference.high < -tolerance:
        return Verdict.DIFFERS
    return Verdict.UNDECIDED
