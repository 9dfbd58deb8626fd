"""Bond lengths and coordination numbers of each two elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from dtmd.observables.bond_graph import FACTOR, SLACK, BondSearch
from dtmd.observables.distances import BIN_WIDTH, pair_label
from dtmd.observables.distributions import (
    RULE, density_curves, distance_row, mean_and_spread_rows, not_empty, plot_name, stacked,
)
from dtmd.observables.histograms import COARSE, coarse, wasserstein
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.section import Plot, Row, Section, sides
from dtmd.observables.thinning import Thinning
from dtmd.trajectory import Trajectory

Kind = tuple[int, int]
"""Two atomic numbers; of bonds in ascending order, of coordination the centre first."""


@dataclass(frozen=True)
class BondSettings:
    """What the user may set.

    Attributes:
        factor, slack: atoms nearer than `factor` times the sum of their covalent radii, or than `slack`, Å, beyond
            the sum, are bonded.
        n_frames: frames of a run before any is left out, as in `Thinning`.
        seed: of the bootstrap.
    """

    factor: float = FACTOR
    slack: float = SLACK
    n_frames: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class BondRun:
    """One run, each frame with the time it stands for.

    Attributes:
        lengths: histograms of the bond lengths in bins of `BIN_WIDTH`.
        coordination: histograms of the number of neighbours of each atom, of all pairs of elements: element k counts
            atoms with k neighbours.
    """

    lengths: dict[Kind, np.ndarray]
    coordination: dict[Kind, np.ndarray]


class _BondAccumulator:
    def __init__(self, first: Trajectory, settings: BondSettings) -> None:
        self._numbers = first.numbers
        self._species, self._kinds = np.unique(first.numbers, return_inverse=True)
        self._search = BondSearch(first.numbers, settings.factor, settings.slack)
        self._thinning = Thinning(settings.n_frames)
        n = len(self._species)
        self._lengths = np.zeros((n, n, int(self._search.longest / BIN_WIDTH) + 1))
        self._coordination = np.zeros((n, n, 1))

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        weights = self._thinning.weights(weights)
        for k in np.flatnonzero(weights):
            self._add_frame(*self._search.bonds(frames, k), weights[k])

    def _add_frame(self, pairs: np.ndarray, distances: np.ndarray, weight: float) -> None:
        n = len(self._species)
        kinds = np.sort(self._kinds[pairs], axis=1)
        np.add.at(self._lengths, (kinds[:, 0], kinds[:, 1], (distances / BIN_WIDTH).astype(np.int64)), weight)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        neighbours = np.bincount(both[:, 0] * n + self._kinds[both[:, 1]], minlength=len(self._kinds) * n)
        missing = neighbours.max() + 1 - self._coordination.shape[2]
        if missing > 0:
            self._coordination = np.pad(self._coordination, ((0, 0), (0, 0), (0, missing)))
        centre, partner = np.repeat(self._kinds, n), np.tile(np.arange(n), len(self._kinds))
        np.add.at(self._coordination, (centre, partner, neighbours), weight)

    def result(self) -> BondRun:
        z = [int(number) for number in self._species]
        seen = {(a, b): h for i, a in enumerate(z) for j, b in enumerate(z) if (h := self._lengths[i, j]).any()}
        return BondRun(seen, {(a, b): self._coordination[i, j] for i, a in enumerate(z) for j, b in enumerate(z)})


class Bonds(Observable):
    """Lengths of the bonds between each two elements, and how many neighbours their atoms have."""

    name = "bonds"
    windowed = True

    def __init__(self, settings: BondSettings = BondSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _BondAccumulator:
        if len(first.numbers) < 2:
            raise NotApplicable("a single atom has no bonds")
        return _BondAccumulator(first, self.settings)

    def compare(self, md: Mapping[str, Sequence[BondRun]], aimd: Sequence[BondRun]) -> Section:
        runs = sides(md, aimd)
        rows: list[Row] = []
        plots: list[Plot] = []
        kinds = sorted({kind for results in runs.values() for run in results for kind in run.lengths})
        for kind in kinds:
            self._lengths(kind, runs, rows, plots)
        for kind in sorted({order for a, b in kinds for order in ((a, b), (b, a))}):
            self._coordination(kind, runs, rows, plots)
        return Section(self.name, "Bonds and coordination", self._definition(), rows, plots, rule=RULE, caveats=[
            "A bond longer than the limit is no bond here: the distributions of bonds that break are cut off there."])

    def _lengths(self, kind: Kind, runs: Mapping[str, Sequence[BondRun]], rows: list[Row], plots: list[Plot]) -> None:
        seed, label = self.settings.seed, pair_label(*kind)
        found = not_empty(stacked({
            side: [run.lengths.get(kind, np.zeros(1)) for run in results] for side, results in runs.items()}))
        centres = BIN_WIDTH * (np.arange(next(iter(found.values())).shape[1]) + 0.5)
        rows += mean_and_spread_rows(f"{label} bond length", "Å", found, centres, seed)
        row = distance_row(f"W₁ of {label} bond lengths", "Å", found, wasserstein, seed)
        rows += [row] if row else []
        merged = {side: coarse(h) for side, h in found.items()}
        edges = COARSE * BIN_WIDTH * np.arange(next(iter(merged.values())).shape[1] + 1)
        seen = np.flatnonzero(sum(h.sum(axis=0) for h in merged.values()))
        first, last = seen[0], seen[-1] + 1
        plots.append(Plot(
            plot_name(self.name, label), f"Lengths of {label} bonds", "length / Å", "density / Å⁻¹",
            density_curves({side: h[:, first:last] for side, h in merged.items()}, edges[first : last + 1], seed)))

    def _coordination(
        self, kind: Kind, runs: Mapping[str, Sequence[BondRun]], rows: list[Row], plots: list[Plot]
    ) -> None:
        seed, (centre, partner) = self.settings.seed, (chemical_symbols[z] for z in kind)
        found = stacked({side: [run.coordination[kind] for run in results] for side, results in runs.items()})
        numbers = np.arange(next(iter(found.values())).shape[1], dtype=float)
        quantity = f"number of {partner} neighbours of {centre}"
        rows += mean_and_spread_rows(quantity, "", found, numbers, seed)
        row = distance_row(f"W₁ of the {quantity}", "", found, lambda p, q: wasserstein(p, q, 1.0), seed)
        rows += [row] if row else []
        plots.append(Plot(
            plot_name("coordination", centre, partner), f"Number of {partner} neighbours of {centre} atoms",
            "neighbours", "share", density_curves(found, np.append(numbers, len(numbers)) - 0.5, seed)))

    def _definition(self) -> str:
        return (
            f"Atoms nearer than {self.settings.factor:g} times the sum of their covalent radii (Cordero et al. 2008), "
            f"or than {self.settings.slack:g} Å beyond the sum, are bonded. Lengths in bins of {BIN_WIDTH:g} Å; mean "
            "and spread (standard deviation) over all bonds and frames, each frame with the time it stands for; "
            "numbers of neighbours over all atoms of the element. W₁ is the Wasserstein distance between the "
            "distributions."
        )
