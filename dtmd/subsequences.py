"""Training points: pieces of trajectories, collated into batches of rollout starts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

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
        energies: of the first frames, eV, float64 (B,).
        forces: of all frames, eV/Å, float64 (n_atoms, S, 3).
        names: source and frame of each, for messages.
    """

    start: Start
    energies: Tensor
    forces: Tensor
    names: list[str]


class Subsequences:
    """All subsequences of `length` frames whose first frames lie `stride` frames apart.

    No subsequence crosses from one trajectory into the next.

    Raises:
        DtmdError: a trajectory shorter than `length`, or an element that the potential does not know.
    """

    def __init__(self, trajectories: Sequence[Trajectory], potential: Potential, length: int, stride: int) -> None:
        self._length = length
        self._trajectories = list(trajectories)
        self._timesteps = [torch.tensor([t.timestep], dtype=torch.float64) for t in trajectories]
        self._species = [potential.species_of(t.symbols, t.source) for t in trajectories]
        self._starts: list[tuple[int, int]] = []
        for index, trajectory in enumerate(trajectories):
            if len(trajectory) < length:
                raise DtmdError(f"{trajectory.source}: {len(trajectory)} frames, subsequences of {length} are asked "
                                "for; lower the lengths in the config or leave the trajectory out")
            self._starts += [(index, first) for first in range(0, len(trajectory) - length + 1, stride)]

    def __len__(self) -> int:
        return len(self._starts)

    def spread(self, n_points: int) -> list[int]:
        """Indices of at most `n_points` subsequences, evenly over all of them."""
        n_points = min(n_points, len(self))
        return [round(k * (len(self) - 1) / max(n_points - 1, 1)) for k in range(n_points)]

    def batch(self, indices: Sequence[int], device: torch.device) -> Points:
        """The subsequences with these indices as one batch on `device`."""
        batch = Batch.from_data_list([self._point(*self._starts[k]) for k in indices]).to(device)
        structures = Structures(batch.species, batch.masses, batch.batch, batch.cell, batch.pbc)
        start = Start(structures, batch.pos, batch.velocities, batch.timestep)
        names = [f"{self._trajectories[t].source} frame {first}" for t, first in map(self._starts.__getitem__, indices)]
        return Points(start, batch.energy, batch.forces, names)

    def _point(self, index: int, first: int) -> Data:
        piece = self._trajectories[index].window(first, first + self._length)
        return Data(
            pos=torch.as_tensor(piece.positions[0]),
            velocities=torch.as_tensor(piece.velocities[0]),
            forces=torch.as_tensor(piece.forces).transpose(0, 1),
            energy=torch.as_tensor(piece.energies[:1]),
            species=self._species[index],
            masses=torch.as_tensor(piece.masses),
            cell=torch.as_tensor(piece.cells[:1]),
            pbc=torch.as_tensor(piece.pbc).unsqueeze(0),
            timestep=self._timesteps[index],
            num_nodes=len(piece.masses),
        )


def split(trajectories: list[Trajectory], share: float, seed: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """Set whole trajectories apart for validation, at least one: (training, validation).

    Raises:
        DtmdError: a single trajectory, from which no unseen one can be taken.
    """
    if len(trajectories) < 2:
        raise DtmdError(f"{trajectories[0].source}: a single trajectory; validation needs another one, "
                        "frames of one run are too alike. Give data.validation or more trajectories")
    n_validation = min(max(1, round(share * len(trajectories))), len(trajectories) - 1)
    chosen = set(random.Random(seed).sample(range(len(trajectories)), n_validation))
    return (
        [t for k, t in enumerate(trajectories) if k not in chosen],
        [t for k, t in enumerate(trajectories) if k in chosen],
    )
