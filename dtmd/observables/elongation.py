"""How far apart named pairs of atoms, or the neighbours in a small group, are drawn along a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from dtmd.observables.distances import pair_distances
from dtmd.observables.distributions import AIMD, estimate_row, plot_name, sides
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.section import Curve, Plot, Section, Table, judged
from dtmd.observables.selection import Selection, atom_ids, check_atoms, selected
from dtmd.observables.statistics import mean_over_runs
from dtmd.observables.thinning import ThinnedSeries
from dtmd.trajectory import Trajectory

SMALL_GROUP = 20
"""Atoms of an element up to which they are followed without being asked for."""


@dataclass(frozen=True)
class ElongationSettings:
    """What the user may set.

    Attributes:
        pairs: atom index pairs (from 0), each followed on its own.
        groups: of each the pair that stretches most; without pairs and groups, each element of 2 to `SMALL_GROUP`
            atoms is one.
        neighbours: pairs of a group up to this many times its shortest distance in the first frame are followed.
        tolerance: Å, difference up to which MD agrees with AIMD.
        seed: of the bootstrap.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    groups: tuple[Selection, ...] = ()
    neighbours: float = 1.3
    tolerance: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Stretch:
    """The pair of one run that stretches most.

    Attributes:
        largest: max_t d(t) − d(0), Å, and when: `time`, fs from the start.
        times, distances: d(t), thinned: fs and Å, (K,).
    """

    pair: tuple[int, int]
    largest: float
    time: float
    times: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class ElongationRun:
    """One run: what was found by the label of the pair or group."""

    source: str
    stretches: dict[str, Stretch]


class _ElongationAccumulator:
    def __init__(self, first: Trajectory, groups: dict[str, np.ndarray]) -> None:
        self._source, self._start = first.source, float(first.times[0])
        self._groups = groups
        self._pairs = np.concatenate(list(groups.values()))
        self._at_start = pair_distances(first.window(0, 1), self._pairs)[0]
        self._largest, self._when = np.full(len(self._pairs), -np.inf), np.zeros(len(self._pairs))
        self._series = ThinnedSeries()

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        times, distances = frames.times - self._start, pair_distances(frames, self._pairs)
        self._series.add(times, distances.astype(np.float32))
        stretch = distances - self._at_start
        frame = stretch.argmax(axis=0)
        largest = stretch.max(axis=0)
        further = largest > self._largest
        self._when = np.where(further, times[frame], self._when)
        self._largest = np.where(further, largest, self._largest)

    def result(self) -> ElongationRun:
        times, distances = self._series.result()
        stretches, first = {}, 0
        for label, pairs in self._groups.items():
            k = first + int(self._largest[first : first + len(pairs)].argmax())
            pair = int(self._pairs[k, 0]), int(self._pairs[k, 1])
            stretches[label] = Stretch(pair, float(self._largest[k]), float(self._when[k]), times,
                                       distances[:, k].copy())
            first += len(pairs)
        return ElongationRun(self._source, stretches)


class Elongation(Observable):
    """d(t) of named pairs, or of the pair of neighbours that stretches most within a group."""

    name = "elongation"
    windowed = True

    def __init__(self, settings: ElongationSettings = ElongationSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _ElongationAccumulator:
        check_atoms(self.settings.pairs, first)
        followed = {atom_ids(pair): np.array([pair]) for pair in self.settings.pairs}
        groups = self.settings.groups
        if not followed and not groups:
            symbols = first.symbols
            groups = tuple((element,) for element in first.elements if 2 <= symbols.count(element) <= SMALL_GROUP)
        for group in groups:
            followed["+".join(str(p + 1) if isinstance(p, int) else p for p in group)] = self._neighbours(group, first)
        if not followed:
            raise NotApplicable(f"no element has 2 to {SMALL_GROUP} atoms; name pairs or a group")
        return _ElongationAccumulator(first, followed)

    def _neighbours(self, group: Selection, first: Trajectory) -> np.ndarray:
        atoms = selected(group, first)
        if len(atoms) < 2:
            raise NotApplicable(f"a single atom in the group {group}")
        i, j = np.triu_indices(len(atoms), k=1)
        pairs = np.stack([atoms[i], atoms[j]], axis=1)
        distances = pair_distances(first.window(0, 1), pairs)[0]
        return pairs[distances <= self.settings.neighbours * distances.min()]

    def compare(self, md: Mapping[str, Sequence[ElongationRun]], aimd: Sequence[ElongationRun]) -> Section:
        runs = sides(md, aimd)
        labels = dict.fromkeys(label for results in runs.values() for run in results for label in run.stretches)
        rows, plots, lines = [], [], []
        for label in labels:
            found = {side: [(run.source, run.stretches[label]) for run in results if label in run.stretches]
                     for side, results in runs.items()}
            found = {side: pairs for side, pairs in found.items() if pairs}
            row = estimate_row(f"largest elongation, {label}", "Å", {
                side: mean_over_runs(np.array([stretch.largest for _, stretch in pairs]), self.settings.seed)
                for side, pairs in found.items()})
            rows.append(replace(row, verdict={
                side: judged(estimate, self.settings.tolerance) for side, estimate in row.difference.items()}))
            curves = [
                Curve(_label(source, stretch), stretch.times, stretch.distances, side=side, run=source)
                for side, pairs in found.items() for source, stretch in pairs
            ]
            plots.append(Plot(plot_name(self.name, label), f"Distance of the pair that stretches most, {label}",
                              "time / fs", "distance / Å", curves))
            lines += [(side, "/".join(PurePath(source).parts[-2:]), label, atom_ids(stretch.pair),
                       f"{stretch.largest:.3f}", f"{stretch.time:g}")
                      for side, pairs in sorted(found.items(), key=lambda item: item[0] != AIMD)
                      for source, stretch in pairs]
        table = Table("Largest elongation of each run",
                      ("side", "run", "group", "pair", "elongation / Å", "time / fs"), lines)
        return Section(self.name, "Pair elongation", self._definition(), rows, plots, [table], self._rule(), caveats=[
            "The largest value of a run grows with its length: compare in the window of the duration of the AIMD."])

    def _definition(self) -> str:
        return (
            "d(t) of a pair by minimum images; its elongation is max over t of d(t) − d(0). Of a group, by default "
            f"each element of 2 to {SMALL_GROUP} atoms, the pair with the largest elongation among those that are no "
            f"further apart than {self.settings.neighbours:g} times the shortest distance of the group in the first "
            "frame. Means over runs with bootstrap intervals; curves are thinned."
        )

    def _rule(self) -> str:
        return (f"MD agrees where the whole interval of the difference is within ±{self.settings.tolerance:g} Å, and "
                "differs where none of it is.")


def _label(source: str, stretch: Stretch) -> str:
    return f"{PurePath(source).name} {atom_ids(stretch.pair)}"
