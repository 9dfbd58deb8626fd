"""Directions of bonds in the frame of the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell

from dtmd.observables.bond_graph import BondSearch, molecules
from dtmd.observables.distances import of_each_cell, pair_label, pair_vectors
from dtmd.observables.distributions import RULE, bootstrap, density_curves, distance_row, plot_name
from dtmd.observables.histograms import normalised, wasserstein, wasserstein_on_circle
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import estimate_row
from dtmd.observables.section import Map, Plot, Row, Section, sides
from dtmd.observables.selection import Pair, check_atoms
from dtmd.trajectory import Trajectory

N_COSINES, N_AZIMUTHS = 40, 72

QUADRANTS = ("−180° < φ < −90°", "−90° < φ < 0°", "0° < φ < 90°", "90° < φ < 180°")


@dataclass(frozen=True)
class OrientationSettings:
    """What the user may set.

    Attributes:
        bonds: atom index pairs (from 0), each from its first to its second atom; None for the molecules of two atoms
            in the first frame, from the lighter to the heavier one.
        seed: of the bootstrap.
    """

    bonds: tuple[Pair, ...] | None = None
    seed: int = 0


def directions(frames: Trajectory, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of the polar angle θ and azimuth φ, degrees in [−180, 180), of bonds (B, 2), (T, B) each.

    z is normal to the first two cell vectors and x along the first, so that a rotated cell makes no difference. A bond
    of two atoms of one element has no sense: of its two directions the one with cos θ ≥ 0 is taken.
    """
    vectors = pair_vectors(frames, bonds)
    like = frames.numbers[bonds[:, 0]] == frames.numbers[bonds[:, 1]]
    axes = of_each_cell(frames.cells, _axes)
    own = np.einsum("tbi,tki->tbk", vectors, axes)
    own = np.where((like & (own[..., 2] < 0.0))[..., None], -own, own)
    azimuth = np.degrees(np.arctan2(own[..., 1], own[..., 0]))
    return own[..., 2] / np.linalg.norm(own, axis=-1), np.where(azimuth >= 180.0, -180.0, azimuth)


def _axes(cell: np.ndarray) -> np.ndarray:
    a, b, _ = complete_cell(cell)
    z = np.cross(a, b)
    return np.array([a / np.linalg.norm(a), np.cross(z, a) / np.linalg.norm(np.cross(z, a)), z / np.linalg.norm(z)])


class _OrientationAccumulator:
    def __init__(self, bonds: dict[str, np.ndarray]) -> None:
        self._bonds = bonds
        self._counts = {label: np.zeros(N_AZIMUTHS * N_COSINES) for label in bonds}

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        for label, bonds in self._bonds.items():
            cosine, azimuth = directions(frames, bonds)
            row = np.minimum((azimuth + 180.0) / 360.0 * N_AZIMUTHS, N_AZIMUTHS - 1).astype(np.int64)
            column = np.minimum((cosine + 1.0) / 2.0 * N_COSINES, N_COSINES - 1).astype(np.int64)
            index = (row * N_COSINES + column).ravel()
            self._counts[label] += np.bincount(index, np.repeat(weights, len(bonds)), N_AZIMUTHS * N_COSINES)

    def result(self) -> dict[str, np.ndarray]:
        return {label: counts.reshape(N_AZIMUTHS, N_COSINES) for label, counts in self._counts.items()}


class Orientation(Observable):
    """How bonds point; a run gives the time, fs, in bins of φ and cos θ, (72, 40), by the elements of the bond."""

    name = "orientation"
    windowed = True

    def __init__(self, settings: OrientationSettings = OrientationSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _OrientationAccumulator:
        bonds = self.settings.bonds
        check_atoms(bonds or (), first)
        if bonds is None:
            pairs, _ = BondSearch(first.numbers).bonds(first, 0)
            bonds = [tuple(sorted(piece.tolist(), key=lambda atom: (first.numbers[atom], atom)))
                     for piece in molecules(len(first.numbers), pairs) if len(piece) == 2]
        if not bonds:
            raise NotApplicable("its first frame has no molecule of two atoms; name bonds")
        groups: dict[str, list[tuple[int, int]]] = {}
        for a, b in bonds:
            groups.setdefault(pair_label(first.numbers[a], first.numbers[b]), []).append((a, b))
        return _OrientationAccumulator({label: np.array(found) for label, found in groups.items()})

    def compare(
        self, md: Mapping[str, Sequence[dict[str, np.ndarray]]], aimd: Sequence[dict[str, np.ndarray]]
    ) -> Section:
        runs = sides(md, aimd)
        rows: list[Row] = []
        plots: list[Plot | Map] = []
        for label in dict.fromkeys(label for results in runs.values() for run in results for label in run):
            found = {side: [run[label] for run in results if label in run] for side, results in runs.items()}
            self._bond(label, {side: np.stack(h) for side, h in found.items() if h}, rows, plots)
        return Section(self.name, "Orientation of bonds", _DEFINITION, rows, plots, rule=RULE)

    def _bond(
        self, label: str, found: Mapping[str, np.ndarray], rows: list[Row], plots: list[Plot | Map]
    ) -> None:
        seed = self.settings.seed
        cosines = {side: h.sum(axis=1) for side, h in found.items()}
        azimuths = {side: h.sum(axis=2) for side, h in found.items()}
        compared = (
            (f"W₁ of cos θ of {label}", "", cosines, lambda p, q: wasserstein(p, q, 2.0 / N_COSINES)),
            (f"W₁ of φ of {label}", "°", azimuths, lambda p, q: wasserstein_on_circle(p, q, 360.0 / N_AZIMUTHS)),
        )
        for quantity, unit, histograms, metric in compared:
            row = distance_row(quantity, unit, histograms, metric, seed)
            rows += [row] if row else []
        size = N_AZIMUTHS // 4
        for k, quadrant in enumerate(QUADRANTS):
            here = slice(k * size, (k + 1) * size)
            rows.append(estimate_row(f"share of {label} with {quadrant}", "", {
                side: bootstrap(h, lambda p, here=here: normalised(p)[..., here].sum(axis=-1), seed, (0.0, 1.0))
                for side, h in azimuths.items()}))
        edges = np.linspace(-180.0, 180.0, N_AZIMUTHS + 1), np.linspace(-1.0, 1.0, N_COSINES + 1)
        plots.append(Map(
            plot_name(self.name, label), f"Directions of the {label} bonds", "φ / °", "cos θ", *edges,
            {side: h.sum(axis=0) / h.sum() * N_AZIMUTHS * N_COSINES / 720.0 for side, h in found.items()}))
        plots += [
            Plot(plot_name(self.name, label, "cos-theta"), f"Polar angle of the {label} bonds", "cos θ", "density",
                 density_curves(cosines, edges[1], seed)),
            Plot(plot_name(self.name, label, "phi"), f"Azimuth of the {label} bonds", "φ / °", "density / (1/°)",
                 density_curves(azimuths, edges[0], seed)),
        ]


_DEFINITION = (
    "Direction of a bond from its first to its second atom, by minimum images: the polar angle θ from the normal of "
    "the first two cell vectors, and the azimuth φ from the first cell vector. Shown is cos θ, in which a bond that "
    "points anywhere is spread evenly. A bond of two atoms of one element has no sense; cos θ ≥ 0 is taken. W₁ is the "
    "Wasserstein distance between the distributions, that of φ on the circle."
)
