"""Radial distribution functions of each two elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.observables.distance_comparison import MAX_DISTANCES, pair_thinning
from dtmd.observables.distances import BIN_WIDTH, PairHistogram, of_each_cell, pair_label
from dtmd.observables.distributions import RULE, density_curves, distance_row, plot_name
from dtmd.observables.histograms import COARSE, coarse
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.section import Plot, Section, sides
from dtmd.trajectory import Trajectory

SHELL = COARSE * BIN_WIDTH
"""Å; thickness of the shells."""


@dataclass(frozen=True)
class RDFSettings:
    """What the user may set: as `DistanceSettings`."""

    max_distances: int = MAX_DISTANCES
    seed: int = 0


@dataclass(frozen=True)
class RDFRun:
    """One run.

    Attributes:
        pairs: labels of the kinds of pairs.
        counts: distances in bins of `BIN_WIDTH`, each with the time and the volume of its frame, (n_pairs, n_bins).
        expected: time times number of pairs, (n_pairs,).
        duration: the time of all frames, fs.
        longest: Å, half the smallest perpendicular width that the cell ever had.
        whole_cell: whether the volume is that of the cell; else it is left out.
    """

    pairs: list[str]
    counts: np.ndarray
    expected: np.ndarray
    duration: float
    longest: float
    whole_cell: bool


def half_width(cell: np.ndarray, pbc: np.ndarray) -> float:
    """Radius of the largest sphere that holds no two images of an atom for sure, Å.

    Half the smallest distance between opposite faces of the cell that the periodic vectors span.
    """
    return float(0.5 / np.linalg.norm(np.linalg.pinv(cell[pbc]), axis=0).max())


class _RDFAccumulator:
    def __init__(self, first: Trajectory, settings: RDFSettings) -> None:
        self._histogram = PairHistogram(first.numbers)
        self._thinning = pair_thinning(len(first.numbers), settings.max_distances)
        self._whole_cell = bool(first.pbc.all())
        self._longest, self._duration = np.inf, 0.0
        counts = {z: int(np.sum(first.numbers == z)) for z in np.unique(first.numbers)}
        self._n_pairs = np.array([counts[a] * counts[b] if a != b else counts[a] * (counts[a] - 1) / 2
                                  for a, b in self._histogram.pairs])

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        weights = self._thinning.weights(weights)
        self._duration += float(weights.sum())
        widths = of_each_cell(frames.cells, lambda cell: half_width(cell, frames.pbc))
        self._longest = min(self._longest, float(widths.min()))
        volumes = np.abs(np.linalg.det(frames.cells)) if self._whole_cell else 1.0
        self._histogram.add(frames, weights * volumes)

    def result(self) -> RDFRun:
        return RDFRun(
            [pair_label(*pair) for pair in self._histogram.pairs], self._histogram.counts,
            self._duration * self._n_pairs, self._duration, self._longest, self._whole_cell,
        )


class RadialDistribution(Observable):
    """g(r) of each two elements, up to the largest sphere that fits into the periodic cell."""

    name = "rdf"
    windowed = True

    def __init__(self, settings: RDFSettings = RDFSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _RDFAccumulator:
        if not first.pbc.any():
            raise NotApplicable("without a periodic direction there is no density to relate to; see the distances")
        if len(first.numbers) < 2:
            raise NotApplicable("a single atom has no distances")
        return _RDFAccumulator(first, self.settings)

    def compare(self, md: Mapping[str, Sequence[RDFRun]], aimd: Sequence[RDFRun]) -> Section:
        runs = sides(md, aimd)
        first = next(iter(runs.values()))[0]
        n_shells = int(min(run.longest for results in runs.values() for run in results) / SHELL * (1.0 + 1e-9))
        edges = SHELL * np.arange(n_shells + 1)
        rows, plots = [], []
        for k, pair in enumerate(first.pairs):
            per_run = {side: np.stack([_with_norm(run, k, n_shells) for run in results])
                       for side, results in runs.items()}
            met = {side: values[:, -1] > 0.0 for side, values in per_run.items()}
            per_run = {side: values[met[side]] for side, values in per_run.items() if met[side].any()}
            durations = {side: np.array([run.duration for run in runs[side]])[met[side]] for side in per_run}
            row = distance_row(f"∫|Δg| dr of {pair}", "Å", per_run, _absolute_error, self.settings.seed, durations)
            rows += [row] if row else []
            if per_run:
                plots.append(Plot(
                    plot_name(self.name, pair), f"Radial distribution function, {pair}", "r / Å", "g(r)",
                    density_curves(per_run, edges, self.settings.seed, _g), horizontal={"": 1.0},
                ))
        return Section(self.name, "Radial distribution functions", _definition(first.whole_cell, edges[-1]), rows,
                       plots, rule=RULE)


def _with_norm(run: RDFRun, pair: int, n_shells: int) -> np.ndarray:
    """Counts over the volumes of the shells, then what they are divided by for g, (n_shells + 1,)."""
    counts = np.zeros(n_shells)
    found = coarse(run.counts[pair])[:n_shells]
    counts[: len(found)] = found
    radii = SHELL * np.arange(n_shells + 1)
    volumes = 4.0 / 3.0 * np.pi * np.diff(radii**3)
    norm = run.expected[pair] if run.whole_cell else counts.sum() / volumes.sum()
    return np.append(counts / volumes, norm)


def _g(pooled: np.ndarray) -> np.ndarray:
    """From sums over runs of counts with their norm as the last value: (…, n_shells)."""
    return pooled[..., :-1] / pooled[..., -1:]


def _absolute_error(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return SHELL * np.abs(_g(p) - _g(q)).sum(axis=-1)


def _definition(whole_cell: bool, longest: float) -> str:
    density = (
        "the mean density N_b/V of the whole cell, vacuum included: where part of the cell is empty, as above a "
        "slab, g does not tend to 1" if whole_cell else
        "the mean density of the partners within the largest sphere, for a cell that is not periodic in all "
        "directions has no volume; it does not tend to 1"
    )
    return (
        f"g_ab(r) = ⟨n_ab(r)⟩ / (4π r² Δr ρ N_ab/N_b): pairs of minimum images in shells of {SHELL:g} Å over what "
        f"independent atoms would have, with each frame's own volume and the time it stands for. ρ is {density}. "
        f"Distances up to {longest:.2f} Å, half the smallest perpendicular width of the periodic cell. The difference "
        "is ∫|g_MD − g_AIMD| dr = mean|Δg| · r_max (Fu et al., Forces are not enough, 2023)."
    )
