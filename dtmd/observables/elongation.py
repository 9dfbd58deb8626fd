"""How far named pairs of atoms, or the neighbours in a group, are drawn apart, and how large a small group is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from dtmd.observables.distances import pair_distances
from dtmd.observables.distributions import plot_name
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import means_row
from dtmd.observables.section import AIMD, Curve, Plot, Row, Section, Table, sides
from dtmd.observables.selection import Pair, Selection, atom_ids, check_atoms, selected
from dtmd.observables.thinning import ThinnedSeries
from dtmd.trajectory import Trajectory

SMALL_GROUP = 20
"""Atoms of an element up to which they are followed without being asked for."""


@dataclass(frozen=True)
class ElongationSettings:
    """What the user may set.

    Attributes:
        pairs: atom index pairs (from 0), each followed on its own.
        groups: of each the pair that stretches most, and the largest distance in it if it has no more than
            `SMALL_GROUP` atoms; without pairs and groups, each element of 2 to `SMALL_GROUP` atoms is one.
        neighbours: pairs of a group up to this many times its shortest distance in the first frame are followed.
        tolerance: Å, difference up to which MD agrees with AIMD.
        seed: of the bootstrap.
    """

    pairs: tuple[Pair, ...] = ()
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
class Span:
    """The largest distance within a group of one run.

    Attributes:
        mean: over time, Å.
        times, distances: thinned: fs and Å, (K,).
    """

    mean: float
    times: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class ElongationRun:
    """One run: what was found by the label of the pair or group; spans of groups of three and more atoms."""

    source: str
    stretches: dict[str, Stretch]
    spans: dict[str, Span]


@dataclass(frozen=True)
class _Group:
    """Pairs (P, 2) that are followed, which of them may be the one that stretches most, (P,), and whether they are
    all of the group, so that the largest distance in it is known."""

    pairs: np.ndarray
    near: np.ndarray
    whole: bool


class _ElongationAccumulator:
    def __init__(self, first: Trajectory, groups: dict[str, _Group]) -> None:
        self._source, self._start = first.source, float(first.times[0])
        self._groups = groups
        self._pairs = np.concatenate([group.pairs for group in groups.values()])
        self._near = np.concatenate([group.near for group in groups.values()])
        ends = np.cumsum([len(group.pairs) for group in groups.values()])
        self._parts = {label: slice(end - len(group.pairs), end)
                       for (label, group), end in zip(groups.items(), ends.tolist(), strict=True)}
        self._at_start = pair_distances(first.window(0, 1), self._pairs)[0]
        self._largest, self._when = np.full(len(self._pairs), -np.inf), np.zeros(len(self._pairs))
        self._total, self._duration = np.zeros(len(groups)), 0.0
        self._series = ThinnedSeries()

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        times, distances = frames.times - self._start, pair_distances(frames, self._pairs)
        spans = np.stack([distances[:, part].max(axis=1) for part in self._parts.values()], axis=1)
        self._total += weights @ spans
        self._duration += float(weights.sum())
        self._series.add(times, np.concatenate([distances, spans], axis=1).astype(np.float32))
        stretch = np.where(self._near, distances - self._at_start, -np.inf)
        frame = stretch.argmax(axis=0)
        largest = stretch.max(axis=0)
        further = largest > self._largest
        self._when = np.where(further, times[frame], self._when)
        self._largest = np.where(further, largest, self._largest)

    def result(self) -> ElongationRun:
        times, series = self._series.result()
        distances, spans = series[:, : len(self._pairs)], series[:, len(self._pairs) :]
        stretches, sizes = {}, {}
        for index, (label, group) in enumerate(self._groups.items()):
            part = self._parts[label]
            k = part.start + int(self._largest[part].argmax())
            pair = int(self._pairs[k, 0]), int(self._pairs[k, 1])
            stretches[label] = Stretch(pair, float(self._largest[k]), float(self._when[k]), times,
                                       distances[:, k].copy())
            if group.whole:
                sizes[label] = Span(float(self._total[index] / self._duration), times, spans[:, index].copy())
        return ElongationRun(self._source, stretches, sizes)


class Elongation(Observable):
    """d(t) of named pairs, or of the pair of neighbours that stretches most within a group, and the group's size."""

    name = "elongation"
    windowed = True

    def __init__(self, settings: ElongationSettings = ElongationSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _ElongationAccumulator:
        check_atoms(self.settings.pairs, first)
        followed = {atom_ids(pair): _Group(np.array([pair]), np.array([True]), False) for pair in self.settings.pairs}
        groups = self.settings.groups
        if not followed and not groups:
            symbols = first.symbols
            groups = tuple((element,) for element in first.elements if 2 <= symbols.count(element) <= SMALL_GROUP)
        for group in groups:
            followed["+".join(str(p + 1) if isinstance(p, int) else p for p in group)] = self._group(group, first)
        if not followed:
            raise NotApplicable(f"no element has 2 to {SMALL_GROUP} atoms; name pairs or a group")
        return _ElongationAccumulator(first, followed)

    def _group(self, selection: Selection, first: Trajectory) -> _Group:
        atoms = selected(selection, first)
        if len(atoms) < 2:
            raise NotApplicable(f"a single atom in the group {selection}")
        pairs = atoms[np.stack(np.triu_indices(len(atoms), k=1), axis=1)]
        distances = pair_distances(first.window(0, 1), pairs)[0]
        near = distances <= self.settings.neighbours * distances.min()
        if len(atoms) > SMALL_GROUP:
            return _Group(pairs[near], near[near], False)
        return _Group(pairs, near, len(atoms) > 2)

    def compare(self, md: Mapping[str, Sequence[ElongationRun]], aimd: Sequence[ElongationRun]) -> Section:
        runs = sides(md, aimd)
        labels = dict.fromkeys(label for results in runs.values() for run in results for label in run.stretches)
        rows, plots, lines = [], [], []
        for label in labels:
            found = _with(runs, lambda run, label=label: run.stretches.get(label))
            rows.append(self._row(f"largest elongation, {label}", found, lambda stretch: stretch.largest))
            plots.append(_plot(plot_name(self.name, label), f"Distance of the pair that stretches most, {label}", [
                Curve(f"{PurePath(source).name} {atom_ids(stretch.pair)}", stretch.times, stretch.distances, side=side,
                      run=source)
                for side, pairs in found.items() for source, stretch in pairs]))
            lines += [(side, "/".join(PurePath(source).parts[-2:]), label, atom_ids(stretch.pair),
                       f"{stretch.largest:.3f}", f"{stretch.time:g}")
                      for side, pairs in sorted(found.items(), key=lambda item: item[0] != AIMD)
                      for source, stretch in pairs]
            sizes = _with(runs, lambda run, label=label: run.spans.get(label))
            if sizes:
                rows.append(self._row(f"time average of the largest distance within {label}", sizes,
                                      lambda span: span.mean))
                plots.append(_plot(plot_name(self.name, label, "size"), f"Largest distance within {label}", [
                    Curve(PurePath(source).name, span.times, span.distances, side=side, run=source)
                    for side, spans in sizes.items() for source, span in spans]))
        table = Table("Largest elongation of each run",
                      ("side", "run", "group", "pair", "elongation / Å", "time / fs"), lines)
        return Section(self.name, "Pair elongation", self._definition(), rows, plots, [table], self._rule(), caveats=[
            "The largest value of a run grows with its length: compare in the window of the duration of the AIMD."])

    def _row(self, quantity: str, found: Mapping[str, list[tuple[str, Any]]], value: Callable[[Any], float]) -> Row:
        """Mean over the runs of each side, judged."""
        values = {side: [value(what) for _, what in runs] for side, runs in found.items()}
        return means_row(quantity, "Å", values, self.settings.seed, self.settings.tolerance)

    def _definition(self) -> str:
        return (
            "d(t) of a pair by minimum images; its elongation is max over t of d(t) − d(0). Of a group, by default "
            f"each element of 2 to {SMALL_GROUP} atoms, the pair with the largest elongation among those that are no "
            f"further apart than {self.settings.neighbours:g} times the shortest distance of the group in the first "
            f"frame; and, of 3 to {SMALL_GROUP} atoms, the largest distance between any two of them, which tells of "
            "the shape of a cluster. Means over runs with bootstrap intervals; curves are thinned."
        )

    def _rule(self) -> str:
        return (f"MD agrees where the whole interval of the difference is within ±{self.settings.tolerance:g} Å, and "
                "differs where none of it is.")


def _with(runs: Mapping[str, Sequence[ElongationRun]], pick: Callable[[ElongationRun], Any]) -> dict[str, list]:
    """What the runs of each side have of it, with their sources; without sides that have nothing."""
    found = {side: [(run.source, what) for run in results if (what := pick(run)) is not None]
             for side, results in runs.items()}
    return {side: pairs for side, pairs in found.items() if pairs}


def _plot(name: str, caption: str, curves: list[Curve]) -> Plot:
    return Plot(name, caption, "time / fs", "distance / Å", curves, from_zero=False)
