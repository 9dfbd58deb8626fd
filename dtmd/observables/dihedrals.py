"""Dihedral angles: distributions, Ramachandran maps, clusters on them and transitions between these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.observables.density_clusters import DEFINITION as CLUSTERS
from dtmd.observables.density_clusters import density_clusters, transitions
from dtmd.observables.distributions import RULE, bootstrap, density_curves, distance_row, plot_name
from dtmd.observables.histograms import normalised, total_variation, wasserstein_on_circle
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import estimate_row
from dtmd.observables.section import AIMD, Map, Plot, Row, Section, Table, sides
from dtmd.observables.selection import atom_ids, check_atoms
from dtmd.observables.torsions import Dihedral, dihedral_angles, rotatable_dihedrals
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS

WIDTH = 5.0
"""Degrees; bins of the distributions of single angles."""

MAP_WIDTH = 10.0
"""Degrees; bins of the maps."""

MOST = 24
"""Dihedrals that are followed without being named."""

_N_BINS, _N_MAP = round(360 / WIDTH), round(360 / MAP_WIDTH)
_FS_PER_NS = 1000.0 * FS_PER_PS


@dataclass(frozen=True)
class DihedralSettings:
    """What the user may set.

    Attributes:
        dihedrals: four atom indices (from 0) each; None for those of the rotatable bonds.
        maps: pairs of them, by their place in `dihedrals`; None for all pairs whose central bonds share an atom.
        tolerance: difference of the populations of a cluster up to which MD agrees with AIMD.
        seed: of the bootstrap.
    """

    dihedrals: tuple[Dihedral, ...] | None = None
    maps: tuple[tuple[int, int], ...] | None = None
    tolerance: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class DihedralRun:
    """One run; time in fs.

    Attributes:
        angles: time in each bin of `WIDTH` from −180°, by dihedral.
        maps: time in each bin of `MAP_WIDTH`, (36·36,), by pair.
        visits: the bin of each frame, (T,), by pair.
        duration: fs.
    """

    angles: dict[str, np.ndarray]
    maps: dict[tuple[str, str], np.ndarray]
    visits: dict[tuple[str, str], np.ndarray]
    duration: float


class _DihedralAccumulator:
    def __init__(self, dihedrals: list[Dihedral], maps: list[tuple[int, int]]) -> None:
        self._dihedrals, self._maps = dihedrals, maps
        self._angles = np.zeros((len(dihedrals), _N_BINS))
        self._counts = np.zeros((len(maps), _N_MAP**2))
        self._visits: list[np.ndarray] = []
        self._duration = 0.0

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        angles = dihedral_angles(frames, self._dihedrals)
        self._duration += float(weights.sum())
        for k, values in enumerate(angles.T):
            self._angles[k] += np.bincount(_bins(values, WIDTH), weights, _N_BINS)
        bins = _bins(angles, MAP_WIDTH)
        flat = np.stack([bins[:, k] * _N_MAP + bins[:, m] for k, m in self._maps], axis=1) if self._maps else \
            np.zeros((len(frames), 0), dtype=np.int64)
        for k in range(len(self._maps)):
            self._counts[k] += np.bincount(flat[:, k], weights, _N_MAP**2)
        self._visits.append(flat.astype(np.uint16))

    def result(self) -> DihedralRun:
        labels = [atom_ids(dihedral) for dihedral in self._dihedrals]
        pairs = [(labels[k], labels[m]) for k, m in self._maps]
        visits = np.concatenate(self._visits)
        return DihedralRun(
            dict(zip(labels, self._angles, strict=True)), dict(zip(pairs, self._counts, strict=True)),
            {pair: visits[:, k] for k, pair in enumerate(pairs)}, self._duration,
        )


def _bins(angles: np.ndarray, width: float) -> np.ndarray:
    return np.minimum((angles + 180.0) / width, 360.0 / width - 1).astype(np.int64)


class Dihedrals(Observable):
    """Dihedral angles and how the molecule goes from one conformation to another."""

    name = "dihedrals"
    windowed = True

    def __init__(self, settings: DihedralSettings = DihedralSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _DihedralAccumulator:
        named = self.settings.dihedrals
        check_atoms(named or (), first)
        dihedrals = list(rotatable_dihedrals(first) if named is None else named)
        if not dihedrals:
            raise NotApplicable("its first frame has no molecule with a bond to turn about; name dihedrals")
        if named is None and len(dihedrals) > MOST:
            raise NotApplicable(f"{len(dihedrals)} bonds to turn about; name up to {MOST} dihedrals")
        maps = self.settings.maps
        if maps is None:
            maps = [(k, m) for m, b in enumerate(dihedrals) for k, a in enumerate(dihedrals[:m])
                    if set(a[1:3]) & set(b[1:3])]
        return _DihedralAccumulator(dihedrals, list(maps))

    def compare(self, md: Mapping[str, Sequence[DihedralRun]], aimd: Sequence[DihedralRun]) -> Section:
        runs, seed = sides(md, aimd), self.settings.seed
        rows: list[Row] = []
        plots: list[Plot | Map] = []
        tables: list[Table] = []
        for label in dict.fromkeys(label for results in runs.values() for run in results for label in run.angles):
            found = _with(runs, lambda run, label=label: run.angles.get(label))
            row = distance_row(f"W₁ of the dihedral {label}", "°", found,
                               lambda p, q: wasserstein_on_circle(p, q, WIDTH), seed)
            rows += [row] if row else []
            plots.append(Plot(plot_name("dihedral", label), f"Dihedral {label}", "angle / °", "density / (1/°)",
                              density_curves(found, np.linspace(-180.0, 180.0, _N_BINS + 1), seed)))
        for pair in dict.fromkeys(pair for results in runs.values() for run in results for pair in run.maps):
            self._map(pair, {side: [run for run in results if pair in run.maps] for side, results in runs.items()},
                      rows, plots, tables)
        return Section(self.name, "Dihedral angles", self._definition(), rows, plots, tables, self._rule())

    def _map(
        self, pair: tuple[str, str], runs: Mapping[str, Sequence[DihedralRun]], rows: list[Row],
        plots: list[Plot | Map], tables: list[Table],
    ) -> None:
        """Density, clusters, populations and transitions of a pair of dihedrals."""
        seed, title = self.settings.seed, " and ".join(pair)
        found = _with(runs, lambda run: run.maps[pair])
        density = {side: normalised(h.sum(axis=0)).reshape(_N_MAP, _N_MAP) for side, h in found.items()}
        edges = np.linspace(-180.0, 180.0, _N_MAP + 1)
        plots.append(Map(
            plot_name("ramachandran", *pair), f"Ramachandran map of the dihedrals {title}", f"{pair[0]} / °",
            f"{pair[1]} / °", edges, edges, {side: p / MAP_WIDTH**2 for side, p in density.items()}))
        row = distance_row(f"total variation distance of the maps of {title}", "", found, total_variation, seed)
        rows += [row] if row else []
        clusters = density_clusters(sum(density.values()))
        flat, n_clusters = clusters.ravel(), int(clusters.max())
        for k in range(1, n_clusters + 1):
            centre = _centre(clusters == k, sum(density.values()))
            rows.append(estimate_row(
                f"population of cluster {k} of {title}, at ({centre[0]:.0f}°, {centre[1]:.0f}°)", "",
                {side: bootstrap(h, lambda p, k=k: normalised(p)[..., flat == k].sum(axis=-1), seed, (0.0, 1.0))
                 for side, h in found.items()}, self.settings.tolerance))
        if n_clusters > 1:
            self._transitions(pair, flat, n_clusters, runs, rows, tables)

    def _transitions(
        self, pair: tuple[str, str], clusters: np.ndarray, n_clusters: int, runs: Mapping[str, Sequence[DihedralRun]],
        rows: list[Row], tables: list[Table],
    ) -> None:
        title, counts, rates = " and ".join(pair), {}, {}
        for side, results in runs.items():
            if results:
                moves = np.stack([transitions(clusters[run.visits[pair]], n_clusters) for run in results])
                per_run = np.stack([moves.sum(axis=(1, 2)), [run.duration / _FS_PER_NS for run in results]], axis=1)
                counts[side] = moves.sum(axis=0)
                rates[side] = bootstrap(per_run, lambda p: p[..., 0] / p[..., 1], self.settings.seed, (0.0, np.inf))
        rows.append(estimate_row(f"transitions between the clusters of {title}", "1/ns", rates))
        order = sorted(counts, key=lambda side: side != AIMD)
        tables.append(Table(
            f"Transitions between the clusters of {title}", ("from", "to", *order),
            [(str(a + 1), str(b + 1), *(str(counts[side][a, b]) for side in order))
             for a in range(n_clusters) for b in range(n_clusters) if a != b]))

    def _definition(self) -> str:
        which = ("one about each bond outside rings between atoms of a molecule of non-metals that both have another "
                 "neighbour than H" if self.settings.dihedrals is None else "those named")
        return (
            f"Dihedral angles, {which}, with minimum images; cis is 0°. Their distributions in bins of {WIDTH:g}°, "
            "with the Wasserstein distance on the circle; maps of two angles in bins of "
            f"{MAP_WIDTH:g}°, with the total variation distance, the share of one that lies elsewhere in the other. "
            + CLUSTERS
        )

    def _rule(self) -> str:
        return (RULE + " Of populations, MD agrees where the whole interval of the difference is within ±"
                f"{self.settings.tolerance:g}, and differs where none of it is.")


def _with(runs: Mapping[str, Sequence[DihedralRun]], pick) -> dict[str, np.ndarray]:
    """What the runs of each side have of it, (n_runs, n_bins); without sides that have nothing."""
    found = {side: [h for run in results if (h := pick(run)) is not None] for side, results in runs.items()}
    return {side: np.stack(histograms) for side, histograms in found.items() if histograms}


def _centre(inside: np.ndarray, density: np.ndarray) -> tuple[float, float]:
    """Angles of the densest bin of a cluster, degrees."""
    k, m = np.unravel_index(np.where(inside, density, -1.0).argmax(), density.shape)
    return -180.0 + MAP_WIDTH * (k + 0.5), -180.0 + MAP_WIDTH * (m + 0.5)
