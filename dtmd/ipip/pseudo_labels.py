"""Frames with the labels of a potential: told apart by who labelled them, each geometry once, written once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from dtmd.ensemble.starts import Start
from dtmd.store import read_store, write_store
from dtmd.trajectory import Origin, Trajectory

SAME = 1e-4
"""Å; positions that agree to this are one geometry."""

_PER_FRAME = ("cells", "times", "positions", "velocities", "forces", "energies")


@dataclass(frozen=True)
class Labeller:
    """Who gave energies and forces.

    Attributes:
        name: with the hash of the potential, as in "teacher GFN1-xTB 0f3a…".
        shift: eV per atom of each element that was added to its energies, to bring them to the reference's level of
            theory; empty for a potential of that level.
    """

    name: str
    shift: Mapping[str, float]

    def labelled(self, trajectory: Trajectory, run: str) -> Trajectory:
        """Frames with its labels as they are kept: energies shifted, and where they come from told.

        Args:
            trajectory: with its forces and unshifted energies.
            run: that the frames are from, the unit of splits.
        """
        shift = sum(self.shift.get(symbol, 0.0) for symbol in trajectory.symbols)
        digest = hashlib.sha256(np.ascontiguousarray(trajectory.positions, dtype=float).data)
        digest.update(np.ascontiguousarray(trajectory.forces, dtype=float).data)
        settings = {f"energy shift of {element}, eV": value for element, value in self.shift.items()}
        return replace(trajectory, energies=trajectory.energies + shift, source=run, notes=(), origin=Origin(
            run=run, labels=self.name, settings=settings, digest=digest.hexdigest()))


def picked(trajectory: Trajectory, frames: Sequence[int] | np.ndarray) -> Trajectory:
    """These frames, in memory; in ascending order."""
    frames = np.sort(np.asarray(frames, dtype=int))
    return replace(trajectory, **{name: np.asarray(values)[frames] for name in _PER_FRAME
                                  if (values := getattr(trajectory, name)) is not None})


def joined(pieces: Sequence[Trajectory]) -> Trajectory:
    """One after the other, in memory."""
    names = [name for name in _PER_FRAME if getattr(pieces[0], name) is not None]
    return replace(pieces[0], **{name: np.concatenate([getattr(t, name) for t in pieces]) for name in names})


def atoms_of_frame(trajectory: Trajectory, k: int) -> Atoms:
    """Frame k, without a cell where nothing is periodic."""
    cell = complete_cell(trajectory.cells[k]) if trajectory.pbc.any() else np.zeros((3, 3))
    return Atoms(trajectory.numbers, np.array(trajectory.positions[k]), cell=cell, pbc=trajectory.pbc)


def single_frames(starts: Iterable[Start]) -> list[Trajectory]:
    """The frames of starts, each alone, named as these."""
    return [replace(start.trajectory.window(start.frame, start.frame + 1), source=start.name) for start in starts]


class Unseen:
    """Which frames have not been there before, by their geometry."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self.n_twice = 0

    def of(self, trajectory: Trajectory) -> np.ndarray:
        """Indices of the new frames, which are known from now on; the others are counted in `n_twice`."""
        numbers, new = trajectory.numbers.tobytes(), []
        for k, (cell, positions) in enumerate(zip(trajectory.cells, trajectory.positions, strict=True)):
            geometry = np.concatenate([cell, positions - positions[0]])
            rounded = np.round(geometry / SAME).astype(np.int64)
            key = hashlib.blake2b(numbers + rounded.tobytes(), digest_size=16).digest()
            if key not in self._seen:
                self._seen.add(key)
                new.append(k)
        self.n_twice += len(trajectory) - len(new)
        return np.array(new, dtype=int)


def write_frames(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a store that was not there; returns the number of frames.

    Raises:
        DtmdError: as `write_store`; no frames.
    """
    write_store(path, trajectories, append=False)
    return count(read_store(path))


def without_repeats(trajectories: Iterable[Trajectory], unseen: Unseen) -> Iterator[Trajectory]:
    """The trajectories with the frames that have not been there before, those with none left out."""
    for trajectory in trajectories:
        new = unseen.of(trajectory)
        if len(new) == len(trajectory):
            yield trajectory
        elif len(new):
            yield picked(trajectory, new)


def count(trajectories: Iterable[Trajectory]) -> int:
    """Frames in all."""
    return sum(map(len, trajectories))


def drawn(trajectories: Sequence[Trajectory], share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Of each trajectory the indices of the frames that belong to a random share of all frames, at least one."""
    ends = np.cumsum([len(t) for t in trajectories])
    chosen = np.sort(rng.permutation(ends[-1])[: max(1, round(share * ends[-1]))])
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - begin for part, begin in zip(parts, [0, *ends[:-1]], strict=True)]


def frames_for(trajectories: Sequence[Trajectory], most: int) -> list[Trajectory]:
    """At most so many frames, evenly over all, each trajectory under its name."""
    n_all = sum(map(len, trajectories))
    chosen = np.unique(np.linspace(0, n_all - 1, min(most, n_all)).round().astype(int))
    begins = np.cumsum([0, *map(len, trajectories)])
    parts = [chosen[(chosen >= first) & (chosen < last)] - first
             for first, last in zip(begins, begins[1:], strict=False)]
    return [picked(t, frames) for t, frames in zip(trajectories, parts, strict=True) if len(frames)]
