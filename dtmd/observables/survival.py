"""When a run leaves what is physically sensible, and the share of runs that have not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from vesin import NeighborList

from dtmd.errors import DtmdError
from dtmd.observables.bond_graph import NONMETALS, pairs_nearby
from dtmd.observables.distances import minimum_image_distances, pair_distances
from dtmd.observables.kaplan_meier import SurvivalCurve, kaplan_meier, longest_common_time
from dtmd.observables.observable import Observable
from dtmd.observables.over_runs import RULE, estimate_row
from dtmd.observables.section import AIMD, Curve, Plot, Row, Section, Table, sides
from dtmd.observables.selection import Pair
from dtmd.observables.series import n_finite
from dtmd.presentation.numbers import NOTHING, duration
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS

_SKIN = 2.0
"""Å; pairs within the limit plus this are kept until an atom has moved half of it."""

_FRAMES_AHEAD = 64


@dataclass(frozen=True)
class Limits:
    """What ends a run.

    Attributes:
        temperature: K, the lowest and the highest.
        nearest: share of the sum of the covalent radii that two atoms stay apart.
        bonded: share of that sum below which two atoms of the first frame are bonded.
        stretch: Å, largest change of a bond's length from its reference.
        reactive: pairs of elements, such as ("H", "H"), whose bonds may break; None for those of `reactive_pairs`.
    """

    temperature: tuple[float, float] = (0.1, 1e5)
    nearest: float = 0.5
    bonded: float = 1.25
    stretch: float = 0.5
    reactive: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class End:
    """The first frame beyond a limit.

    Attributes:
        frame, time: index of the frame, and fs from the start.
        causes: in words, one for each limit that this frame is beyond.
        bond: atom indices of the bond furthest off its reference, where a bond is among the causes.
    """

    frame: int
    time: float
    causes: tuple[str, ...]
    bond: tuple[int, int] | None


@dataclass(frozen=True)
class Life:
    """How long a run stayed within the limits.

    Attributes:
        observed: fs from the start to the end, or to the last frame where there is none.
        unwatched: what could not be watched, for want of data.
    """

    source: str
    observed: float
    end: End | None
    unwatched: tuple[str, ...]


class Survival(Observable):
    """How long runs stay within limits of temperature, forces, distances and bonds.

    Runs without velocities or forces are watched by the other limits, and named.

    Args:
        limits: what ends a run.
        bonds: atom index pairs to watch; None for those found in the first frame of each run, but for the reactive.
        reference: AIMD, for the mean lengths of bonds; runs with other atoms, or none, are held against the bond
            lengths of their own first frame.
        tolerance: difference of the shares alive that is accepted.
    """

    name = "survival"
    needs = ("velocities", "forces")

    def __init__(
        self, limits: Limits = Limits(), bonds: tuple[Pair, ...] | None = None,
        reference: Sequence[Trajectory] = (), tolerance: float = 0.1,
    ) -> None:
        self.limits, self.bonds, self.tolerance = limits, bonds, tolerance
        self._numbers, self._lengths = self._mean_lengths(reference)

    def start(self, first: Trajectory) -> _Watch:
        bonds = self._bonds(first)
        lengths = pair_distances(first.window(0, 1), bonds)[0]
        if np.array_equal(first.numbers, self._numbers):
            known = [self._lengths.get((int(a), int(b))) for a, b in bonds]
            lengths = np.array([own if mean is None else mean for own, mean in zip(lengths, known, strict=True)])
        return _Watch(first, self.limits, bonds, lengths)

    def _bonds(self, run: Trajectory) -> np.ndarray:
        """Bonds to watch, (n_bonds, 2)."""
        if self.bonds is not None:
            pairs = np.array(self.bonds, dtype=int).reshape(-1, 2)
            if len(pairs) and pairs.max() >= len(run.numbers):
                raise DtmdError(f"{run.source}: bond with atom {pairs.max() + 1} named, but there are "
                                f"{len(run.numbers)} atoms; give ids of atoms that exist")
            return pairs
        pairs = pairs_within(run, 0, self.limits.bonded * covalent_sums(run.numbers))
        named = self.limits.reactive
        named = reactive_pairs(run.elements) if named is None else named
        reactive = {tuple(sorted(atomic_numbers[element] for element in pair)) for pair in named}
        kept = [tuple(sorted(run.numbers[pair].tolist())) not in reactive for pair in pairs]
        return pairs[kept]

    def _mean_lengths(
        self, reference: Sequence[Trajectory]
    ) -> tuple[np.ndarray, dict[tuple[int, int], float]]:
        """Atoms of the reference, and the mean length of each bond in those of its runs that start with it, Å.

        Frames from the one on in which it is first off its start by more than the limit do not count, as a bond that
        breaks in the AIMD would otherwise be taken for longer than it ever is.
        """
        numbers, seen = (reference[0].numbers if reference else np.zeros(0)), {}
        for run in reference:
            if np.array_equal(run.numbers, numbers):
                bonds = self._bonds(run)
                lengths = pair_distances(run, bonds)
                whole = np.logical_and.accumulate(np.abs(lengths - lengths[0]) <= self.limits.stretch)
                for k, (a, b) in enumerate(bonds.tolist()):
                    seen.setdefault((a, b), []).append(lengths[whole[:, k], k])
        return numbers, {bond: float(np.concatenate(of_runs).mean()) for bond, of_runs in seen.items()}

    def compare(self, md: Mapping[str, Sequence[Life]], aimd: Sequence[Life]) -> Section:
        by_side = sides(md, aimd)
        curves = {side: _curve(runs) for side, runs in by_side.items()}
        note = "; ".join(f"{side} {sum(run.end is None for run in runs)} of {len(runs)} to their end"
                         for side, runs in by_side.items())
        rows = [self._row(curves, note)]
        of_md = {side: curve for side, curve in curves.items() if side != AIMD}
        if longest_common_time(of_md.values()) > longest_common_time(curves.values()):
            rows.append(self._row(of_md))
        plot = Plot("survival", "Share of runs within the limits (Kaplan–Meier).", "time (ps)", "share alive",
                    [_steps(side, curve) for side, curve in curves.items()])
        heads = ("side", "run", "alive for", "first limit passed")
        table = Table("How long each run stayed within the limits.", heads,
                      [(side, run.source, duration(run.observed), _cause(run)) for side, runs in by_side.items()
                       for run in runs])
        return Section(
            name=self.name, title="Survival", definition=self._definition(), rows=rows, plots=[plot], tables=[table],
            rule=f"{RULE} Tolerance: {100 * self.tolerance:g} percentage points of the share alive. The intervals of "
            "the shares are Rothman's; a single run has one too."
            if aimd else "",
            caveats=_caveats(by_side),
        )

    def _row(self, curves: Mapping[str, SurvivalCurve], note: str = "") -> Row:
        """Shares alive at the longest time at which all are known."""
        time = longest_common_time(curves.values())
        alive = {side: curve.at(time) for side, curve in curves.items()}
        return estimate_row(f"runs alive after {duration(time)}", "", alive, self.tolerance, note)

    def _definition(self) -> str:
        low, high = self.limits.temperature
        named = self.limits.reactive
        reactive = ("those with a metal, and H–H beside one" if named is None else
                    ", ".join("–".join(pair) for pair in named))
        which = "named" if self.bonds is not None else (
            f"of the first frame (nearer than {self.limits.bonded:g} × the sum of the covalent radii"
            + (f"; not {reactive}, which react)" if reactive else ")"))
        return (
            f"A run ends in the first frame in which its temperature has left {low:g} to {high:g} K, a position, "
            f"velocity or force is not finite, two atoms are nearer than {self.limits.nearest:g} × the sum of their "
            f"covalent radii, or a bond is off its reference length by more than {self.limits.stretch:g} Å. Watched "
            f"are the bonds {which}; the reference is the mean over the AIMD that starts with the bond, while it "
            "holds there, otherwise the length in the run's own first frame. Runs that reach their last frame are "
            "censored there."
        )


class _Passed(NamedTuple):
    """A limit that a block of frames passes: the first such frame of the block, in words, and the bond if it is one."""

    frame: int
    cause: str
    bond: tuple[int, int] | None = None


class _Watch:
    """Follows one run to its end."""

    def __init__(self, first: Trajectory, limits: Limits, bonds: np.ndarray, lengths: np.ndarray) -> None:
        self._source, self._start = first.source, float(first.times[0])
        self._limits, self._bonds, self._lengths = limits, bonds, lengths
        self._close = _ClosePairs(limits.nearest * covalent_sums(first.numbers))
        self._unwatched = tuple(name for name in Survival.needs if getattr(first, name) is None)
        self._n_frames, self._last = 0, self._start
        self._been_warm = False
        self._end: End | None = None

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        if self._end is not None:
            return
        passed = self._passed(frames)
        if passed:
            frame = min(limit.frame for limit in passed)
            now = [limit for limit in passed if limit.frame == frame]
            bond = next((limit.bond for limit in now if limit.bond is not None), None)
            self._end = End(self._n_frames + frame, float(frames.times[frame]) - self._start,
                            tuple(limit.cause for limit in now), bond)
        self._n_frames += len(frames)
        self._last = float(frames.times[-1])

    def result(self) -> Life:
        observed = self._last - self._start if self._end is None else self._end.time
        return Life(self._source, observed, self._end, self._unwatched)

    def _passed(self, frames: Trajectory) -> list[_Passed]:
        """The first passing of each limit; only frames with finite numbers are looked at for the others."""
        arrays = {name: getattr(frames, name) for name in ("positions", *Survival.needs)}
        finite = {name: n_finite(values) for name, values in arrays.items() if values is not None}
        n = min(finite.values())
        passed = [_Passed(k, f"{name} that are not finite") for name, k in finite.items() if k == n < len(frames)]
        if n == 0:
            return passed
        usable = frames.window(0, n)
        found = (self._temperature(usable), self._close.first(usable), self._bond(usable))
        return passed + [limit for limit in found if limit is not None]

    def _temperature(self, frames: Trajectory) -> _Passed | None:
        """A run that starts at rest has not left the range before it has been in it."""
        if frames.velocities is None:
            return None
        temperatures = frames.temperatures()
        low, high = self._limits.temperature
        warm = np.logical_or.accumulate(np.append(self._been_warm, temperatures >= low))[1:]
        self._been_warm = bool(warm[-1])
        outside = (temperatures > high) | (warm & (temperatures < low))
        if not outside.any():
            return None
        k = int(np.argmax(outside))
        return _Passed(k, f"temperature of {temperatures[k]:.3g} K")

    def _bond(self, frames: Trajectory) -> _Passed | None:
        if not len(self._bonds):
            return None
        distances = pair_distances(frames, self._bonds)
        off = np.abs(distances - self._lengths)
        broken = (off > self._limits.stretch).any(axis=1)
        if not broken.any():
            return None
        k = int(np.argmax(broken))
        worst = int(np.argmax(off[k]))
        bond = (int(self._bonds[worst, 0]), int(self._bonds[worst, 1]))
        return _Passed(k, f"bond {_pair(frames.numbers, bond)} of {distances[k, worst]:.2f} Å, reference "
                       f"{self._lengths[worst]:.2f} Å", bond)


class _ClosePairs:
    """Finds two atoms nearer than the limits (N, N) in Å, from a list of pairs that is renewed only when needed."""

    def __init__(self, limits: np.ndarray) -> None:
        self._limits = limits
        self._searched: tuple[np.ndarray, np.ndarray] | None = None

    def first(self, frames: Trajectory) -> _Passed | None:
        """The first frame with such a pair, and the nearest one there."""
        start = 0
        while start < len(frames):
            stop = start + self._n_covered(frames, start)
            first, second = self._pairs.T
            vectors = frames.positions[start:stop, second] - frames.positions[start:stop, first]
            distances = minimum_image_distances(vectors, frames.cells[start], frames.pbc)
            near = distances < self._limits[first, second]
            if near.any():
                k = int(np.argmax(near.any(axis=1)))
                nearest = int(np.argmin(distances[k] / self._limits[first, second]))
                pair = (int(first[nearest]), int(second[nearest]))
                return _Passed(start + k, f"{_pair(frames.numbers, pair)} at {distances[k, nearest]:.2f} Å")
            start = stop
        return None

    def _n_covered(self, frames: Trajectory, start: int) -> int:
        """For how many frames from `start` on the list holds; made anew if not for one."""
        for _ in range(2):
            if self._searched is not None:
                positions, cell = self._searched
                ahead = slice(start, start + _FRAMES_AHEAD)
                moved = np.linalg.norm(frames.positions[ahead] - positions, axis=-1).max(axis=1)
                holds = (moved < 0.5 * _SKIN) & (frames.cells[ahead] == cell).all(axis=(1, 2))
                covered = len(holds) if holds.all() else int(np.argmin(holds))
                if covered:
                    return covered
            self._pairs = pairs_within(frames, start, self._limits + _SKIN)
            self._searched = frames.positions[start].copy(), frames.cells[start].copy()
        return 1


def covalent_sums(numbers: np.ndarray) -> np.ndarray:
    """Sum of the covalent radii (Cordero 2008, as in ASE) of each pair of atoms, Å, (N, N)."""
    radii = covalent_radii[numbers]
    return radii[:, None] + radii[None, :]


def reactive_pairs(elements: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of elements whose bonds may break in a run that is sound: those with a metal, and H–H beside one.

    Metals form and break bonds as their atoms move, and hydrogen dissociates on them.
    """
    if NONMETALS.issuperset(elements):
        return []
    return [pair for pair in combinations_with_replacement(elements, 2)
            if not NONMETALS.issuperset(pair) or set(pair) == {"H"}]


def pairs_within(run: Trajectory, frame: int, limits: np.ndarray) -> np.ndarray:
    """Pairs of atoms i < j nearer than their limit (N, N) in Å in one frame, (P, 2), sorted."""
    search = NeighborList(cutoff=float(limits.max()), full_list=False)
    i, j, distances = pairs_nearby(search, run, frame)
    near = (i != j) & (distances < limits[i, j])
    pairs = np.sort(np.stack([i[near], j[near]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def _pair(numbers: np.ndarray, pair: tuple[int, int]) -> str:
    """Two atoms with their ids, which count from 1 as in LAMMPS."""
    return "–".join(f"{chemical_symbols[numbers[atom]]}{atom + 1}" for atom in pair)


def _curve(runs: Sequence[Life]) -> SurvivalCurve:
    return kaplan_meier(np.array([run.observed for run in runs]), np.array([run.end is not None for run in runs]))


def _steps(side: str, curve: SurvivalCurve) -> Curve:
    times, *values = curve.steps()
    return Curve(side, times / FS_PER_PS, *values, side=side)


def _cause(run: Life) -> str:
    return NOTHING if run.end is None else "; ".join(run.end.causes)


def _caveats(by_side: Mapping[str, Sequence[Life]]) -> list[str]:
    found = ["Bonds that react must be among the reactive ones: a reaction is no failure. Only the frames that "
             "were written are seen."]
    broken = sum(run.end is not None for run in by_side.get(AIMD, ()))
    if broken:
        found.append(f"{broken} of {len(by_side[AIMD])} AIMD runs pass a limit: see their causes in the table; if they "
                     "are bonds, these react.")
    for name in Survival.needs:
        without = [run.source for runs in by_side.values() for run in runs if name in run.unwatched]
        if without:
            found.append(f"Not watched, as there are no {name}: {', '.join(without)}.")
    return found
