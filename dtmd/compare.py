"""Molecular dynamics against AIMD: all observables of both sides, and what could not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dtmd.errors import DtmdError
from dtmd.observables.conservation import Conservation, conservation, total_energy_change
from dtmd.observables.dissociation import (
    BondCriterion, DissociationCount, bonds_at_start, count_dissociations,
)
from dtmd.observables.distance_comparison import (
    DistanceComparison, DistanceHistograms, compare_distances, distance_histograms, frame_stride,
)
from dtmd.observables.distances import pair_distances
from dtmd.observables.rollout_comparison import RolloutComparison, compare_rollouts
from dtmd.observables.series import thinned
from dtmd.observables.statistics import Estimate, mean_over_runs
from dtmd.observables.temperature import mean_of_runs, mean_temperature, with_standard_error
from dtmd.trajectory import Trajectory

CELL_TOLERANCE = 0.01
"""Largest relative difference of cell lengths, and of the cosines of the angles."""


@dataclass(frozen=True)
class CompareSettings:
    """What the user may set.

    Attributes:
        criterion: when a bond counts as broken.
        bonds: atom index pairs (from 0) to follow; None for the H₂ molecules of each first frame.
        start_tolerance: Å, for finding the AIMD frame that a run starts from.
        starts: start frames given instead: {MD file: (AIMD file, frame)}, files by path or name.
        seed: of the bootstrap.
    """

    criterion: BondCriterion = BondCriterion()
    bonds: list[tuple[int, int]] | None = None
    start_tolerance: float = 1e-3
    starts: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """One trajectory: where it comes from, how long it is (fs), and its energy and temperature.

    Attributes:
        temperature: K, with the interval from block averages.
        conservation: of the total energy; None, like the temperature, where the data are missing.
    """

    source: str
    n_frames: int
    duration: float
    notes: tuple[str, ...]
    temperature: Estimate | None
    conservation: Conservation | None


@dataclass(frozen=True)
class Series:
    """A curve of one trajectory for the figures, thinned to some 2000 points; times in fs."""

    source: str
    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Side:
    """MD or AIMD on its own.

    Attributes:
        drift: mean over runs of the energy drift, meV/atom/ps.
        temperature: mean over runs, K.
        distance_stride: every how many frames went into the distance histograms.
        bonds, energies, temperatures: curves: Å, meV/atom, K.
    """

    runs: list[Run]
    drift: Estimate | None
    temperature: Estimate | None
    distance_stride: int
    bonds: list[Series]
    energies: list[Series]
    temperatures: list[Series]


@dataclass(frozen=True)
class Window:
    """The distributions over part of the MD: the whole runs, or only as long as the AIMD lasts.

    Attributes:
        duration, aimd_duration: of the longest MD run within the window and of the longest AIMD, fs.
        distances: all pairs first, then each pair of elements.
    """

    label: str
    duration: float
    aimd_duration: float
    distances: list[DistanceComparison]
    md_dissociation: DissociationCount | None
    aimd_dissociation: DissociationCount | None


@dataclass(frozen=True)
class Comparison:
    """Everything that the report shows.

    Attributes:
        composition: number of atoms of each element.
        windows: the whole MD, then, where the MD is longer, the MD within the duration of the AIMD.
        rollout: None where no run starts on an AIMD frame.
        skipped: (observable, reason).
    """

    composition: dict[str, int]
    md: Side
    aimd: Side
    windows: list[Window]
    rollout: RolloutComparison | None
    skipped: list[tuple[str, str]]
    settings: CompareSettings


def compare(
    md: list[Trajectory], aimd: list[Trajectory], settings: CompareSettings = CompareSettings()
) -> Comparison:
    """Compare MD runs with AIMD trajectories of the same system.

    Raises:
        DtmdError: nothing on one side, or another composition, periodicity or cell.
    """
    check_comparable(md, aimd)
    _check_bonds(settings.bonds or [], len(md[0].numbers))
    skipped: list[tuple[str, str]] = []
    rollout, left_out = compare_rollouts(
        md, aimd, settings.start_tolerance, settings.starts, settings.seed
    )
    skipped += [("rollout error", f"{source}: {reason}") for source, reason in left_out]
    reference = _Reference(
        _longest(aimd), distance_histograms(aimd), count_dissociations(aimd, settings.bonds, settings.criterion)
    )
    windows = [_compare_window("whole runs", md, reference, settings)]
    cut = [_first(t, reference.duration) for t in md]
    if any(len(short) < len(t) for short, t in zip(cut, md, strict=True)):
        windows.append(_compare_window(f"first {reference.duration:g} fs", cut, reference, settings))
    for name, count in (("MD", windows[0].md_dissociation), ("AIMD", windows[0].aimd_dissociation)):
        if count is None:
            skipped.append((f"dissociation ({name})", "no trajectory starts with a bond to follow"))
    sides = [_side(name, runs, settings, skipped) for name, runs in (("MD", md), ("AIMD", aimd))]
    symbols = md[0].symbols
    composition = {element: symbols.count(element) for element in md[0].elements}
    return Comparison(composition, *sides, windows, rollout, skipped, settings)


def check_comparable(md: list[Trajectory], aimd: list[Trajectory]) -> None:
    """Refuse trajectories that are not of one system; the first AIMD trajectory is the measure."""
    if not md or not aimd:
        raise DtmdError(f"{len(md)} MD and {len(aimd)} AIMD trajectories; at least one of each is needed")
    first = aimd[0]
    if len(first.numbers) < 2:
        raise DtmdError(f"{first.source}: a single atom; there is nothing to compare")
    for other in [*aimd[1:], *md]:
        if sorted(other.numbers) != sorted(first.numbers):
            raise DtmdError(f"{other.source} holds {_formula(other)}, {first.source} {_formula(first)}; "
                            "compare runs of the same system")
        if not np.array_equal(other.pbc, first.pbc):
            raise DtmdError(f"{other.source} is periodic in {_directions(other)}, {first.source} in "
                            f"{_directions(first)}; use the same boundaries on both sides")
        own, reference = _cell_shape(other), _cell_shape(first)
        if not np.allclose(own, reference, rtol=CELL_TOLERANCE, atol=CELL_TOLERANCE):
            raise DtmdError(f"{other.source} has cell lengths (Å) and cosines of angles {np.round(own, 3)}, "
                            f"{first.source} {np.round(reference, 3)}; compare runs in the same cell")


def _check_bonds(bonds: list[tuple[int, int]], n_atoms: int) -> None:
    for first, second in bonds:
        if first == second or not (0 <= first < n_atoms and 0 <= second < n_atoms):
            raise DtmdError(f"bond {first + 1}-{second + 1}: give two different atom ids between 1 and {n_atoms}")


def _formula(trajectory: Trajectory) -> str:
    symbols = trajectory.symbols
    return " ".join(f"{element}{symbols.count(element)}" for element in trajectory.elements)


def _directions(trajectory: Trajectory) -> str:
    axes = "".join(axis for axis, periodic in zip("xyz", trajectory.pbc, strict=True) if periodic)
    return axes or "no direction"


def _cell_shape(trajectory: Trajectory) -> np.ndarray:
    """Lengths (Å) of the periodic vectors of the mean cell, then the cosines between them."""
    vectors = trajectory.cells.mean(axis=0)[trajectory.pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T) / np.outer(lengths, lengths)
    return np.concatenate([lengths, cosines[np.triu_indices(len(vectors), k=1)]])


def _longest(trajectories: list[Trajectory]) -> float:
    return float(max(t.times[-1] - t.times[0] for t in trajectories))


def _first(trajectory: Trajectory, duration: float) -> Trajectory:
    """The frames within `duration` fs of the start."""
    return trajectory.window(0, int(np.sum(trajectory.times - trajectory.times[0] <= duration * (1 + 1e-9))))


@dataclass(frozen=True)
class _Reference:
    """What every window of the MD is held against: the AIMD's longest duration (fs) and distributions."""

    duration: float
    histograms: DistanceHistograms
    dissociation: DissociationCount | None


def _compare_window(
    label: str, md: list[Trajectory], reference: _Reference, settings: CompareSettings
) -> Window:
    return Window(
        label=label, duration=_longest(md), aimd_duration=reference.duration,
        distances=compare_distances(distance_histograms(md), reference.histograms, settings.seed),
        md_dissociation=count_dissociations(md, settings.bonds, settings.criterion),
        aimd_dissociation=reference.dissociation,
    )


def _side(
    name: str, runs: list[Trajectory], settings: CompareSettings, skipped: list[tuple[str, str]]
) -> Side:
    """Summarise one side; what a run lacks is added to `skipped`."""
    described, bonds, energies, temperatures = [], [], [], []
    for run in runs:
        temperature = energy = None
        if run.velocities is None:
            skipped.append((f"temperature, energy ({name})", f"{run.source}: no velocities"))
        else:
            temperature = with_standard_error(*mean_temperature(run))
            temperatures.append(_series(run, run.temperatures()))
            if run.energies is None:
                skipped.append((f"energy conservation ({name})", f"{run.source}: no potential energy"))
            elif len(run) < 2:
                skipped.append((f"energy conservation ({name})", f"{run.source}: a single frame"))
            else:
                energy = conservation(run)
                energies.append(_series(run, total_energy_change(run)))
        duration = float(run.times[-1] - run.times[0])
        described.append(Run(run.source, len(run), duration, run.notes, temperature, energy))
        followed = bonds_at_start(run, settings.bonds, settings.criterion)
        bonds += [_series(run, distances) for distances in pair_distances(run, followed).T]
    drifts = np.array([run.conservation.drift for run in described if run.conservation])
    means = [run.temperature for run in described if run.temperature]
    return Side(
        runs=described, drift=mean_over_runs(drifts, settings.seed) if len(drifts) else None,
        temperature=mean_of_runs(means, settings.seed) if means else None,
        distance_stride=frame_stride(runs), bonds=bonds, energies=energies, temperatures=temperatures,
    )


def _series(run: Trajectory, values: np.ndarray) -> Series:
    return Series(run.source, *thinned(run.times - run.times[0], values))
