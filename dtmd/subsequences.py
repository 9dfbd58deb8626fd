"""Training points: pieces of trajectories, collated into batches of rollout starts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dtmd.errors import DtmdError
from dtmd.potential import Potential
from dtmd.rollout import Start
from dtmd.structures import Structures
from dtmd.trajectory import Trajectory


@dataclass(frozen=True)
class Points:
    """A batch of B subsequences of equal length S.

    Attributes:
        start: the first frames, ready for a rollout.
        positions: of all frames, Å, float64 (n_atoms, S, 3).
        energies: of the first frames, eV, float64 (B,).
        forces: of all frames, eV/Å, float64 (n_atoms, S, 3).
        names: source and frame of each, for messages.
    """

    start: Start
    positions: Tensor
    energies: Tensor
    forces: Tensor
    names: list[str]


class Subsequences:
    """All subsequences of `length` frames whose first frames lie `stride` frames apart.

    No subsequence crosses from one trajectory into the next. Pieces of a run that are too short are left
    out, unless all of the run are.

    Args:
        setting: what asks for the length, for messages.

    Attributes:
        n_left_out: frames in the pieces that are left out.

    Raises:
        DtmdError: a run shorter than `length`, a trajectory without labels or with atoms that are held in some
            directions only, or an element that the potential does not know.
    """

    def __init__(
        self, trajectories: Sequence[Trajectory], potential: Potential, length: int, stride: int,
        setting: str = "the number of steps",
    ) -> None:
        for run in by_run(trajectories).values():
            _check_length(run, length, setting)
        long_enough = [t for t in trajectories if len(t) >= length]
        self.n_left_out = sum(map(len, trajectories)) - sum(map(len, long_enough))
        self._length, self._stride = length, stride
        self._pieces = [_Piece.of(t, potential, in_time=length > 1) for t in long_enough]
        self._ends = np.cumsum([(len(t) - length) // stride + 1 for t in long_enough])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def mean_atoms(self) -> float:
        """Atoms of a structure, mean over the trajectories."""
        return float(np.mean([len(piece.masses) for piece in self._pieces]))

    def spread(self, n_points: int) -> list[int]:
        """Indices of at most `n_points` subsequences, evenly over all of them."""
        n_points = min(n_points, len(self))
        return [round(k * (len(self) - 1) / max(n_points - 1, 1)) for k in range(n_points)]

    def batch(self, indices: Sequence[int], device: torch.device) -> Points:
        """The subsequences with these indices as one batch on `device`."""
        which = np.searchsorted(self._ends, indices, side="right")
        begins = np.concatenate([[0], self._ends])[which]
        firsts = (self._stride * (np.asarray(indices) - begins)).tolist()
        pieces = [self._pieces[k] for k in which]
        counts = [len(piece.masses) for piece in pieces]
        ends = np.cumsum(counts).tolist()
        velocities = np.empty((ends[-1], 3))
        # One frame after the other, as in the trajectories: long pieces of memory are copied.
        positions, forces = np.empty((2, self._length, ends[-1], 3))
        energies, cells = np.empty(len(pieces)), np.empty((len(pieces), 3, 3))
        begin = 0
        for k, (piece, first, end) in enumerate(zip(pieces, firsts, ends, strict=True)):
            positions[:, begin:end] = piece.positions[first : first + self._length]
            velocities[begin:end] = piece.velocities[first]
            forces[:, begin:end] = piece.forces[first : first + self._length]
            energies[k] = piece.energies[first]
            cells[k] = piece.cells[first]
            begin = end
        masses = np.concatenate([piece.masses for piece in pieces])
        velocities[np.isinf(masses)] = 0.0
        species = np.concatenate([piece.species for piece in pieces])
        pbc = np.array([piece.pbc for piece in pieces])
        timesteps = np.array([piece.timestep for piece in pieces])
        graph_index = np.repeat(np.arange(len(pieces)), counts)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        structures = Structures(*map(tensor, (species, masses, graph_index, cells, pbc)))
        start = Start(structures, tensor(positions[0]), tensor(velocities), tensor(timesteps))
        names = [f"{piece.source} frame {first}" for piece, first in zip(pieces, firsts, strict=True)]
        along = tensor(positions).transpose(0, 1), tensor(energies), tensor(forces).transpose(0, 1)
        return Points(start, *along, names)


@dataclass(frozen=True)
class _Piece:
    """A trajectory as batches are made from it: plain arrays, which are much faster to index than memory maps.

    Attributes:
        species: index into the potential's elements, int64 (N,).
        masses: u, (N,), infinite for atoms that are held.
        timestep: fs; 0 where there is none, which only S = 1 can use, as it can do without velocities, zero then.
    """

    source: str
    species: np.ndarray
    masses: np.ndarray
    timestep: float
    pbc: np.ndarray
    cells: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    forces: np.ndarray
    energies: np.ndarray

    @classmethod
    def of(cls, trajectory: Trajectory, potential: Potential, in_time: bool) -> _Piece:
        check_labels(trajectory, in_time)
        velocities = trajectory.velocities
        if velocities is None:
            velocities = np.broadcast_to(0.0, trajectory.positions.shape)
        return cls(
            trajectory.source, potential.species_of(trajectory.symbols, trajectory.source).numpy(),
            _masses(trajectory), _timestep(trajectory, in_time),
            *map(np.asarray, (trajectory.pbc, trajectory.cells, trajectory.positions, velocities, trajectory.forces,
                              trajectory.energies)),
        )


def _timestep(trajectory: Trajectory, in_time: bool) -> float:
    """fs; 0 for frames that have none and need none. Raises DtmdError where they need one."""
    try:
        return trajectory.timestep
    except DtmdError:
        if in_time:
            raise
        return 0.0


def check_labels(trajectory: Trajectory, in_time: bool) -> None:
    """Raises DtmdError where something is missing that training needs; velocities where frames are followed in time."""
    for name in ("velocities", "forces", "energies"):
        if getattr(trajectory, name) is None and (in_time or name != "velocities"):
            raise DtmdError(f"{trajectory.source}: no {name}; training needs them, leave the trajectory out")


def _masses(trajectory: Trajectory) -> np.ndarray:
    """u, (N,); infinite where the atom is held, so that nothing accelerates it."""
    if trajectory.fixed is None:
        return trajectory.masses
    held = trajectory.fixed.all(axis=1)
    partly = np.flatnonzero(trajectory.fixed.any(axis=1) & ~held)
    if len(partly):
        k = int(partly[0])
        raise DtmdError(f"{trajectory.source}: atom {k + 1} ({trajectory.symbols[k]}) and {len(partly) - 1} others "
                        "are held in some directions only; rollouts can hold whole atoms, leave the trajectory out")
    return np.where(held, np.inf, trajectory.masses)


def _check_length(run: list[Trajectory], length: int, setting: str) -> None:
    """Raises DtmdError where not one piece of a run can be used."""
    longest = max(run, key=len)
    if len(longest) < length:
        which = f"the longest of {len(run)} pieces of this run has " if len(run) > 1 else ""
        raise DtmdError(f"{longest.source}: {which}{len(longest)} frames, subsequences of {length} are asked "
                        f"for; lower {setting} or leave the trajectory out")


def epoch_order(n_points: int, size: int, seed: int, epoch: int) -> list[int]:
    """Indices of an epoch: the next `size` of all points in random order, shuffled anew when all have been taken.

    Which they are depends on nothing else, so that a training goes on with the same after an interruption.
    """
    first, order = epoch * size, []
    while len(order) < size:
        shuffle, begin = divmod(first + len(order), n_points)
        generator = torch.Generator().manual_seed(1_000_003 * seed + shuffle)
        order += torch.randperm(n_points, generator=generator)[begin : begin + size - len(order)].tolist()
    return order


def by_run(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    """The trajectories of each run, in the order given, under its name."""
    runs: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        runs.setdefault(trajectory.origin.run or trajectory.source, []).append(trajectory)
    return runs


def split(trajectories: list[Trajectory], share: float, seed: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """Set whole runs apart for validation, at least one: (training, validation).

    Raises:
        DtmdError: a single run, from which no unseen one can be taken.
    """
    runs = list(by_run(trajectories).values())
    if len(runs) < 2:
        what = "a single trajectory" if len(trajectories) == 1 else f"{len(trajectories)} pieces of a single run"
        raise DtmdError(f"{trajectories[0].source}: {what}; validation needs another one, "
                        "frames of one run are too alike. Give data.validation or more trajectories, or, knowing "
                        "that it flatters the model, data.split: time")
    n_validation = min(max(1, round(share * len(runs))), len(runs) - 1)
    chosen = set(random.Random(seed).sample(range(len(runs)), n_validation))
    return (
        [t for k, run in enumerate(runs) if k not in chosen for t in run],
        [t for k, run in enumerate(runs) if k in chosen for t in run],
    )


def split_in_time(trajectories: list[Trajectory], share: float) -> tuple[list[Trajectory], list[Trajectory]]:
    """Set the last `share` of the frames of each trajectory apart for validation: (training, validation)."""
    pieces: tuple[list[Trajectory], list[Trajectory]] = ([], [])
    for trajectory in trajectories:
        cut = len(trajectory) - max(1, round(share * len(trajectory)))
        for part, (first, last) in zip(pieces, ((0, cut), (cut, len(trajectory))), strict=True):
            if last > first:
                name = f"{trajectory.source}[{first}:{last}]"
                part.append(replace(trajectory.window(first, last), source=name))
    return pieces
