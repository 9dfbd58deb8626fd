"""How alike the neighbours of each atom are a short time later, MD against AIMD (article eq. 15, Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from ase.data import atomic_numbers
from pydantic import Field

from dtmd.neighbor_sets import NeighborSets, jaccard
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import RULE, mean_curve, means_row
from dtmd.observables.rollout import TIME_TOLERANCE
from dtmd.observables.section import AIMD, Curve, Plot, Row, Section, Table, sides
from dtmd.observables.thinning import Thinning
from dtmd.presentation.numbers import NOTHING, duration, fixed
from dtmd.trajectory import Trajectory

FARTHEST = 3e3
"""Å from the first atom across directions without periodicity; a run ends where an atom is beyond, for it has broken,
and the search of neighbours would take minutes or break as well."""

Positive = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True)
class NeighborhoodSettings:
    """What the user may set.

    Attributes:
        cutoff: Å, within which atoms are neighbours.
        offsets: fs between the frames that are compared; those that a run has no such frames for are left out.
        every: fs between start frames, at least.
        n_starts: start frames of a run before they are thinned out, so that its cost grows with the logarithm of its
            length only.
        tolerance: difference of the mean index up to which MD agrees with AIMD.
        seed: of the bootstrap.
    """

    cutoff: Positive = 5.0
    offsets: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0, 5.0, 10.0)
    every: Annotated[float, Field(ge=0.0)] = 10.0
    n_starts: Annotated[int, Field(ge=1)] = 200
    tolerance: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class NeighborhoodRun:
    """One run.

    Attributes:
        symbols: of the atoms.
        index: Jaccard index of each atom, mean over start frames, (N,), by the offset in fs, where it is known.
        n_starts: start frames that it is known for, by the offset.
    """

    source: str
    symbols: list[str]
    index: dict[float, np.ndarray]
    n_starts: dict[float, int]


@dataclass(frozen=True)
class _Start:
    """A start frame: fs, the number of start frames that it stands for, and its neighbour sets."""

    time: float
    weight: float
    found: np.ndarray


class _Neighborhoods:
    """Compares frames with the start frames before them; holds those within the longest offset only."""

    def __init__(self, first: Trajectory, settings: NeighborhoodSettings) -> None:
        self._source, self._symbols = first.source, first.symbols
        self._sets, self._every = NeighborSets(settings.cutoff), settings.every
        self._offsets = sorted(set(settings.offsets))
        self._thinning = Thinning(settings.n_starts)
        self._starts: list[_Start] = []
        self._next, self._broken = -np.inf, False
        self._totals = {offset: np.zeros(len(first.numbers)) for offset in self._offsets}
        self._weights, self._counts = dict.fromkeys(self._offsets, 0.0), dict.fromkeys(self._offsets, 0)

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        if self._broken:
            return
        periodic = frames.cells[0][frames.pbc]
        across = np.eye(3) - np.linalg.pinv(periodic) @ periodic
        whole = (np.abs((frames.positions - frames.positions[:, :1]) @ across) < FARTHEST).all(axis=(1, 2))
        self._broken = not whole.all()
        n = int(np.argmin(whole)) if self._broken else len(whole)
        for k, time in enumerate(frames.times[:n].tolist()):
            self._look(frames, k, time)

    def result(self) -> NeighborhoodRun:
        known = [offset for offset in self._offsets if self._counts[offset]]
        if not known:
            raise NotApplicable(f"no start frame has one that is {_listed(self._offsets)} later; set the offsets of "
                                f"{Neighborhoods.name} to multiples of the time between frames")
        return NeighborhoodRun(
            self._source, self._symbols, {offset: self._totals[offset] / self._weights[offset] for offset in known},
            {offset: self._counts[offset] for offset in known},
        )

    def _look(self, frames: Trajectory, k: int, time: float) -> None:
        """Compare frame k with the start frames that it is one of the offsets after; it may be a start frame too."""
        self._starts = [s for s in self._starts if time - s.time <= self._offsets[-1] + TIME_TOLERANCE]
        due = [(start, offset) for start in self._starts for offset in self._offsets
               if abs(time - start.time - offset) <= TIME_TOLERANCE]
        weight = self._weight(time)
        if not due and not weight:
            return
        found = self._sets.of(frames, k)
        for start, offset in due:
            self._totals[offset] += start.weight * jaccard(start.found, found, len(self._symbols))[0]
            self._weights[offset] += start.weight
            self._counts[offset] += 1
        if weight:
            self._starts.append(_Start(time, weight, found))

    def _weight(self, time: float) -> float:
        """What the frame at this time counts as a start frame; zero where it is none."""
        if time < self._next - TIME_TOLERANCE:
            return 0.0
        self._next = time + self._every
        return float(self._thinning.weights(np.ones(1))[0])


class Neighborhoods(Observable):
    """Jaccard index of the neighbour set of each atom with that a short time later."""

    name = "neighborhoods"

    def __init__(self, settings: NeighborhoodSettings = NeighborhoodSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _Neighborhoods:
        return _Neighborhoods(first, self.settings)

    def compare(self, md: Mapping[str, Sequence[NeighborhoodRun]], aimd: Sequence[NeighborhoodRun]) -> Section:
        runs = sides(md, aimd)
        offset = _common_offset(runs)
        symbols = (aimd or next(iter(runs.values())))[0].symbols
        missing = [f"{run.source}: no frames {duration(offset)} apart; left out of the numbers and of the figure that "
                   "compare the sides" for of_side in runs.values() for run in of_side if offset not in run.index]
        others = [f"{run.source}: its atoms are in another order; left out of the figures"
                  for of_side in runs.values() for run in of_side if run.symbols != symbols]
        return Section(
            self.name, "Neighbourhoods", self._definition(), self._rows(runs, offset),
            self._plots(runs, offset, symbols), [_table(runs)], caveats=[*missing, *others],
            rule=f"{RULE} Tolerance: {self.settings.tolerance:g} in the index." if aimd else "",
        )

    def _rows(self, runs: Mapping[str, Sequence[NeighborhoodRun]], offset: float) -> list[Row]:
        """The mean index of each element, judged."""
        known = {side: [run for run in of_side if offset in run.index] for side, of_side in runs.items()}
        known = {side: of_side for side, of_side in known.items() if of_side}
        note = "; ".join(f"{side}: {sum(run.n_starts[offset] for run in of_side)} start frames"
                         for side, of_side in known.items())
        rows = []
        for element in _elements(runs):
            means = {side: [_of_element(run, offset, element) for run in of_side] for side, of_side in known.items()}
            rows.append(means_row(f"Jaccard index of the neighbours of {element} after {duration(offset)}", "", means,
                                  self.settings.seed, self.settings.tolerance, note))
        return rows

    def _plots(
        self, runs: Mapping[str, Sequence[NeighborhoodRun]], offset: float, symbols: list[str]
    ) -> list[Plot]:
        """All sides at the common offset, then each side at all its offsets."""
        ordered = {side: [run for run in of_side if run.symbols == symbols] for side, of_side in runs.items()}
        curves = [self._curve(side, of_side, offset, side) for side, of_side in ordered.items()]
        plots = [_plot(self.name, f"Neighbours after {duration(offset)}, mean over runs.", curves, symbols)]
        for number, (side, of_side) in enumerate(ordered.items(), start=1):
            curves = [self._curve(duration(known), of_side, known) for known in _offsets(of_side)]
            plots.append(_plot(f"{self.name}-{AIMD if side == AIMD else number}",
                               f"Neighbours after several times in {side}, mean over runs.", curves, symbols))
        return [plot for plot in plots if plot.curves]

    def _curve(self, label: str, runs: Sequence[NeighborhoodRun], offset: float, side: str = "") -> Curve | None:
        """Mean over the runs that know the offset; with a band where the curve stands for a side."""
        values = [run.index[offset] for run in runs if offset in run.index]
        if not values:
            return None
        atoms = np.arange(1.0, len(values[0]) + 1)
        if not side:
            return Curve(label, atoms, np.mean(values, axis=0))
        return mean_curve(side, atoms, np.stack(values), self.settings.seed, (0.0, 1.0))

    def _definition(self) -> str:
        s = self.settings
        return (
            f"J(t, Δt) = |N(t) ∩ N(t + Δt)| / |N(t) ∪ N(t + Δt)|, N(t) the atoms within {s.cutoff:g} Å of an atom at "
            "time t, periodic images counted apart: 1 where none has come or gone. Mean over start frames t at least "
            f"{s.every:g} fs apart, thinned out in long runs, then over runs. Δt: {_listed(sorted(set(s.offsets)))}, "
            "where a run has such frames; the sides are compared at the first that most of them have."
        )


def _common_offset(runs: Mapping[str, Sequence[NeighborhoodRun]]) -> float:
    """The shortest offset among those that most sides know."""
    offsets = _offsets([run for of_side in runs.values() for run in of_side])
    return max(offsets, key=lambda offset: sum(any(offset in run.index for run in of_side)
                                               for of_side in runs.values()))


def _offsets(runs: Sequence[NeighborhoodRun]) -> list[float]:
    return sorted({offset for run in runs for offset in run.index})


def _elements(runs: Mapping[str, Sequence[NeighborhoodRun]]) -> list[str]:
    """By atomic number."""
    return sorted(set(next(iter(runs.values()))[0].symbols), key=atomic_numbers.__getitem__)


def _of_element(run: NeighborhoodRun, offset: float, element: str) -> float:
    return float(run.index[offset][[symbol == element for symbol in run.symbols]].mean())


def _plot(name: str, caption: str, curves: Sequence[Curve | None], symbols: list[str]) -> Plot:
    """Indices against atoms; a mark where each element begins, if its atoms stand together."""
    begins = [k for k in range(len(symbols)) if k == 0 or symbols[k] != symbols[k - 1]]
    together = len(begins) == len(set(symbols))
    return Plot(name, caption, "atom (counted from 1)", "Jaccard index", [curve for curve in curves if curve],
                vertical={symbols[k]: k + 1.0 for k in begins} if together else {}, from_zero=False)


def _table(runs: Mapping[str, Sequence[NeighborhoodRun]]) -> Table:
    """The mean index of each side and element at each offset."""
    offsets = _offsets([run for of_side in runs.values() for run in of_side])
    rows = []
    for side, of_side in runs.items():
        for element in _elements(runs):
            means = [[_of_element(run, offset, element) for run in of_side if offset in run.index]
                     for offset in offsets]
            rows.append((side, element, *(fixed(float(np.mean(m)), 4) if m else NOTHING for m in means)))
    return Table("Mean Jaccard index after each time; – where no run has such frames.",
                 ("side", "element", *map(duration, offsets)), rows)


def _listed(offsets: Sequence[float]) -> str:
    """1, 2 or 5 fs."""
    *before, last = [f"{offset:g}" for offset in offsets]
    return f"{', '.join(before)} or {last} fs" if before else f"{last} fs"
