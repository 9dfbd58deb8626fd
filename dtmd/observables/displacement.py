"""Mean square displacement and diffusion, MD against AIMD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.observables.even import FEWEST_FRAMES, EvenStretches
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import RULE, mean_curve, means_row
from dtmd.observables.section import AIMD, Curve, Plot, Row, Section, sides
from dtmd.observables.series import n_finite
from dtmd.presentation.numbers import duration, number
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS

LAGS_PER_LEVEL = 16
"""Level k has the lags 1 … 16 times 2ᵏ frames, those of the levels below left out: eight for each doubling."""

_VALUES_AT_ONCE = 200_000
_FIT_FROM = 0.2
"""The fit goes from this share of the longest lag to that lag."""


@dataclass(frozen=True)
class Displacement:
    """⟨|r_i(t + τ) − r_i(t)|²⟩ over the atoms of each species and time origins t of an even stretch of a run.

    Attributes:
        elements: order of the species.
        lags: fs, (n_lags,), up to half of the stretch.
        squares: Å², (n_species, n_lags).
    """

    source: str
    elements: list[str]
    lags: np.ndarray
    squares: np.ndarray


class SquareDisplacements:
    """Sums over time origins of the square displacement of each group of atoms, at lags that thin out.

    Level k keeps the last `LAGS_PER_LEVEL` of every 2ᵏ-th frame (Frenkel and Smit, Understanding Molecular
    Simulation, 2002, algorithm 8; positions are not averaged there). Memory grows with the logarithm of the run.

    Args:
        group: of each atom, (N,), from 0.
    """

    def __init__(self, group: np.ndarray) -> None:
        self._group = group
        self._first: np.ndarray | None = None
        self._levels: list[_Level] = []

    def add(self, positions: np.ndarray) -> None:
        """Take in the next frames, (T, N, 3), T ≥ 1."""
        if self._first is None:
            self._first, positions = positions[:1].copy(), positions[1:]
        per_turn = max(1, _VALUES_AT_ONCE // self._first.size)
        for k in range(0, len(positions), per_turn):
            part, level = positions[k : k + per_turn], 0
            while len(part):
                if level == len(self._levels):
                    lags = range(1 if level == 0 else LAGS_PER_LEVEL // 2 + 1, LAGS_PER_LEVEL + 1)
                    self._levels.append(_Level(lags, self._group, self._first))
                part = self._levels[level].take(part)
                level += 1

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Lags in frames, (n_lags,), and mean square displacements, (n_groups, n_lags), of lags that were seen."""
        lags = np.concatenate([[lag << k for lag in level.lags] for k, level in enumerate(self._levels)])
        counts = np.concatenate([level.counts for level in self._levels])
        sums = np.concatenate([level.sums for level in self._levels])
        seen = counts > 0
        return lags[seen], (sums[seen] / counts[seen, None] / np.bincount(self._group)).T


class _Level:
    """Every 2ᵏ-th frame: its last ones, and the sums over origins at each of its lags.

    The first frame of the run, (1, N, 3), is the first of each level.
    """

    def __init__(self, lags: Sequence[int], group: np.ndarray, first: np.ndarray) -> None:
        self.lags = lags
        self.counts = np.zeros(len(lags), dtype=np.int64)
        self.sums = np.zeros((len(lags), int(group.max()) + 1))
        self._group = group
        self._last = first
        self._n_frames = 1

    def take(self, frames: np.ndarray) -> np.ndarray:
        """Take in frames of this level, and hand on those of the next."""
        joined = np.concatenate([self._last, frames])
        n_old = len(self._last)
        for k, lag in enumerate(self.lags):
            moved = joined[max(n_old, lag):] - joined[max(n_old - lag, 0) : max(len(joined) - lag, 0)]
            self.sums[k] += np.bincount(self._group, np.einsum("tni,tni->n", moved, moved), self.sums.shape[1])
            self.counts[k] += len(moved)
        handed_on = frames[self._n_frames % 2 :: 2]
        self._n_frames += len(frames)
        self._last = joined[-LAGS_PER_LEVEL:].copy()
        return handed_on


class _Displacements:
    """Gathers the mean square displacement of the longest even stretch of a run."""

    def __init__(self, first: Trajectory) -> None:
        self._source, self._elements, self._masses = first.source, first.elements, first.masses
        self._held = first.fixed is not None and bool(first.fixed.any())
        _, group = np.unique(first.numbers, return_inverse=True)
        self._stretches = EvenStretches(lambda spacing: SquareDisplacements(group), FEWEST_FRAMES)
        self._blown_up = False

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        if self._blown_up:
            return
        n = n_finite(frames.positions)
        self._blown_up = n < len(frames)
        positions = frames.positions[:n]
        if not self._held:
            centre = np.einsum("n,tni->ti", self._masses, positions) / self._masses.sum()
            positions = positions - centre[:, None]
        self._stretches.add(frames.times[:n], positions)

    def result(self) -> Displacement:
        stretch = self._stretches.longest()
        if stretch is None:
            raise NotApplicable(f"no {FEWEST_FRAMES} frames in a row are evenly spaced")
        lags, squares = stretch.correlation.means()
        kept = 2 * lags < stretch.n_frames
        return Displacement(self._source, self._elements, stretch.spacing * lags[kept], squares[:, kept])


class MeanSquareDisplacement(Observable):
    """Mean square displacement against lag, and the diffusion coefficient where it grows linearly.

    Args:
        tolerance: share of the AIMD's value that a difference may have.
        linear: how far the exponent of the growth may be from 1 where a diffusion coefficient is given.
        seed: of the bootstrap.
    """

    name = "displacement"

    def __init__(self, tolerance: float = 0.2, linear: float = 0.1, seed: int = 0) -> None:
        self.tolerance, self.linear, self.seed = tolerance, linear, seed

    def start(self, first: Trajectory) -> _Displacements:
        if len(first.numbers) < 2:
            raise NotApplicable("a single atom does not move against the centre of mass")
        return _Displacements(first)

    def compare(self, md: Mapping[str, Sequence[Displacement]], aimd: Sequence[Displacement]) -> Section:
        by_side = sides(md, aimd)
        common = min(_usual_lag(runs) for runs in by_side.values())
        rows, plots = [], []
        for k, element in enumerate(next(iter(by_side.values()))[0].elements):
            if all(run.squares[k].any() for runs in by_side.values() for run in runs):
                rows.append(self._row(f"mean square displacement of {element} within {duration(common)}", "Å²", {
                    side: [float(np.interp(common, run.lags, run.squares[k])) for run in _reaching(runs, common)]
                    for side, runs in by_side.items()}))
                rows += self._diffusion_rows(element, k, by_side)
                curves = [self._curve(side, k, _reaching(runs, _usual_lag(runs))) for side, runs in by_side.items()]
                plots.append(Plot(f"displacement_{element}", f"Mean square displacement of {element}.", "lag (ps)",
                                  "mean square displacement (Å²)", curves))
        return Section(
            name=self.name, title="Mean square displacement", rows=rows, plots=plots,
            definition="⟨|r(t+τ) − r(t)|²⟩ over the atoms of a species and the times t of the longest evenly spaced "
            "stretch of a run, for lags τ up to half of it; the motion of the centre of mass is taken out, unless "
            "atoms are held. Diffusion coefficient: a sixth of the slope of a straight line from "
            f"{_FIT_FROM:g} of the longest lag to that lag, given only where the displacement grows as τ^α with α "
            f"within {self.linear:g} of 1 there. Mean over runs.",
            rule=f"{RULE} Tolerance: {100 * self.tolerance:g} % of the value of the AIMD." if aimd else "",
            caveats=["Surfaces and molecules diffuse in fewer than three dimensions: there the coefficient compares "
                     "MD with AIMD, but is no material constant."],
        )

    def _row(self, quantity: str, unit: str, by_side: Mapping[str, list[float]]) -> Row:
        """Means over runs; judged where there is an AIMD."""
        reference = by_side.get(AIMD)
        tolerance = self.tolerance * float(np.mean(reference)) if reference else None
        return means_row(quantity, unit, by_side, self.seed, tolerance)

    def _diffusion_rows(self, element: str, species: int, by_side: Mapping[str, Sequence[Displacement]]) -> list[Row]:
        """The exponent of the growth, and the diffusion coefficient of the sides where it is near 1."""
        fits = {side: np.array([_fit(run.lags, run.squares[species]) for run in runs])
                for side, runs in by_side.items()}
        exponents = {side: fit[:, 0].tolist() for side, fit in fits.items()}
        linear = {side: fit[:, 1].tolist() for side, fit in fits.items()
                  if abs(fit[:, 0].mean() - 1.0) <= self.linear}
        others = [f"{side} (α = {number(float(np.mean(exponents[side])), 2)})" for side in fits if side not in linear]
        rows = [means_row(f"exponent of the displacement of {element}", "", exponents, self.seed,
                          note=f"no linear growth, so no diffusion coefficient: {', '.join(others)}" if others else "")]
        if linear.keys() - {AIMD}:
            rows.append(self._row(f"diffusion coefficient of {element}", "Å²/ps", linear))
        return rows

    def _curve(self, side: str, species: int, runs: Sequence[Displacement]) -> Curve:
        """Mean over runs, with a band where there are several."""
        lags = min((run.lags for run in runs), key=lambda lags: lags[-1])
        squares = np.stack([np.interp(lags, run.lags, run.squares[species]) for run in runs])
        return mean_curve(side, lags / FS_PER_PS, squares, self.seed, (0.0, np.inf))


def _fit(lags: np.ndarray, squares: np.ndarray) -> tuple[float, float]:
    """Exponent of the growth, and the diffusion coefficient in Å²/ps if that is 1."""
    late = lags >= _FIT_FROM * lags[-1]
    exponent = np.polyfit(np.log(lags[late]), np.log(squares[late]), 1)[0]
    slope = np.polyfit(lags[late] / FS_PER_PS, squares[late], 1)[0]
    return float(exponent), float(slope) / 6.0


def _usual_lag(runs: Sequence[Displacement]) -> float:
    """Median of the longest lags: a run that stopped early does not shorten the others."""
    return float(np.median([run.lags[-1] for run in runs]))


def _reaching(runs: Sequence[Displacement], lag: float) -> list[Displacement]:
    return [run for run in runs if run.lags[-1] >= lag]
