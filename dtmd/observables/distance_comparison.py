"""Distance histograms of MD against AIMD, with what equal would look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.observables.distances import BIN_WIDTH, PairHistogram, pair_label
from dtmd.observables.distributions import (
    RULE, Metric, bootstrap, bootstrap_distance, density_curves, distance_row, plot_name, stacked,
)
from dtmd.observables.histograms import COARSE, coarse, jensen_shannon, overlap, share_outside, wasserstein
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.section import AIMD, Plot, Row, Section, sides
from dtmd.observables.statistics import Estimate
from dtmd.observables.thinning import Thinning
from dtmd.trajectory import Trajectory

TOTAL = "all"
MAX_DISTANCES = 100_000_000
"""Distances evaluated of a run before frames are left out at even spacing."""


@dataclass(frozen=True)
class DistanceSettings:
    """What the user may set.

    Attributes:
        max_distances: distances evaluated of a run before frames are left out, as in `Thinning`; at least
            `MIN_FRAMES` frames are taken all the same.
        seed: of the bootstrap.
    """

    max_distances: int = MAX_DISTANCES
    seed: int = 0


MIN_FRAMES = 16


def pair_thinning(n_atoms: int, max_distances: int) -> Thinning:
    """For observables that look at all pairs."""
    return Thinning(max(MIN_FRAMES, max_distances // (n_atoms * (n_atoms - 1) // 2)))


@dataclass(frozen=True)
class PairCounts:
    """The distances of one run: labels of the kinds of pairs, and their histograms (n_pairs, n_bins)."""

    pairs: list[str]
    counts: np.ndarray


class _DistanceAccumulator:
    def __init__(self, first: Trajectory, settings: DistanceSettings) -> None:
        self._histogram = PairHistogram(first.numbers)
        self._thinning = pair_thinning(len(first.numbers), settings.max_distances)

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        self._histogram.add(frames, self._thinning.weights(weights))

    def result(self) -> PairCounts:
        return PairCounts([pair_label(*pair) for pair in self._histogram.pairs], self._histogram.counts)


class Distances(Observable):
    """Distributions of all interatomic distances, and of those between each two elements."""

    name = "distances"
    windowed = True

    def __init__(self, settings: DistanceSettings = DistanceSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _DistanceAccumulator:
        if len(first.numbers) < 2:
            raise NotApplicable("a single atom has no distances")
        return _DistanceAccumulator(first, self.settings)

    def compare(self, md: Mapping[str, Sequence[PairCounts]], aimd: Sequence[PairCounts]) -> Section:
        runs = sides(md, aimd)
        counts = stacked({side: [run.counts for run in results] for side, results in runs.items()})
        by_pair = {TOTAL: {side: h.sum(axis=1) for side, h in counts.items()}}
        for k, pair in enumerate(next(iter(runs.values()))[0].pairs):
            by_pair[pair] = {side: h[:, k] for side, h in counts.items()}
        rows: list[Row] = []
        plots = []
        for pair, histograms in by_pair.items():
            rows += _pair_rows(pair, histograms, self.settings.seed)
            merged = {side: coarse(h) for side, h in histograms.items()}
            edges = COARSE * BIN_WIDTH * np.arange(next(iter(merged.values())).shape[1] + 1)
            last = max(np.flatnonzero(h.sum(axis=0))[-1] for h in merged.values()) + 1
            plots.append(Plot(
                plot_name(self.name, pair), f"Distances, {pair} pairs", "distance / Å", "density / Å⁻¹",
                density_curves({side: h[:, :last] for side, h in merged.items()}, edges[: last + 1],
                               self.settings.seed),
            ))
        return Section(self.name, "Interatomic distances", _DEFINITION, rows, plots, rule=RULE, caveats=[
            "Distances of a molecule that flies about depend on how long it is followed: see the window of the "
            "duration of the AIMD."])


_DEFINITION = (
    "Minimum-image distances of all pairs of atoms, of all runs of a side, each frame with the time it stands for, "
    f"in bins of {BIN_WIDTH:g} Å. W₁ = ∫|P − Q| dr of the cumulative distributions; overlap = ∫min(p, q) dr and the "
    f"Jensen–Shannon divergence (base 2) of the densities in bins of {COARSE * BIN_WIDTH:g} Å; outside: the share of "
    "the distances of the MD below the shortest or above the longest of the AIMD. Of long runs, frames are left out: "
    "every second after the first n, every fourth after 2n and so on, n as large as the largest number of distances "
    "allows."
)


def _pair_rows(pair: str, histograms: Mapping[str, np.ndarray], seed: int) -> list[Row]:
    """Wasserstein distance with its verdict, overlap, Jensen–Shannon divergence and share outside."""
    distance = distance_row(f"W₁ of {pair} distances", "Å", histograms, wasserstein, seed)
    if distance is None:
        return []
    reference = histograms[AIMD]
    own = {side: h for side, h in histograms.items() if side != AIMD}
    pooled = reference.sum(axis=0)

    def on_all(metric: Metric) -> dict[str, Estimate]:
        return {side: bootstrap_distance(h, reference, metric, seed, (0.0, 1.0)) for side, h in own.items()}

    return [
        distance,
        Row(f"overlap of {pair} distances", "", None, on_all(overlap)),
        Row(f"Jensen–Shannon divergence of {pair} distances", "bit", None,
            on_all(lambda p, q: jensen_shannon(coarse(p), coarse(q)))),
        Row(f"{pair} distances outside the range of the AIMD", "", None,
            {side: bootstrap(h, lambda p: share_outside(p, pooled), seed, (0.0, 1.0)) for side, h in own.items()}),
    ]
