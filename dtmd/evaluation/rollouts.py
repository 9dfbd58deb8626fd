"""Force errors of rollouts from AIMD frames, each start on its own, with those that fail found and told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import scatter

from dtmd.memory import enough_memory
from dtmd.potential import Potential
from dtmd.rollout import NonFiniteForces
from dtmd.structures import Structures
from dtmd.subsequences import Subsequences, by_run
from dtmd.trajectory import Trajectory
from dtmd.validation import errors_along

SKIN = 0.5
"""Å, of the neighbour lists, which are exact with any."""


@dataclass(frozen=True)
class StartFrame:
    """A frame that rollouts start from; `run` is the unit of the bootstrap."""

    source: str
    frame: int
    run: str


@dataclass(frozen=True)
class RolloutErrors:
    """Of B starts over the steps 0 … T, eV/Å.

    Attributes:
        errors: mean absolute force component of each species, (B, T + 1, n_species); NaN for a species that
            a structure lacks, and at all steps of a rollout that failed.
        failed_at: the step at which forces were not finite, −1 where all were, (B,).
    """

    errors: np.ndarray
    failed_at: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[RolloutErrors]) -> RolloutErrors:
        """One after the other."""
        return cls(np.concatenate([p.errors for p in parts]), np.concatenate([p.failed_at for p in parts]))


def start_frames(trajectories: Sequence[Trajectory], indices: Sequence[int], steps: int) -> list[StartFrame]:
    """What indices into subsequences of steps + 1 frames, at stride 1, stand for."""
    run_of = {t.source: name for name, pieces in by_run(trajectories).items() for t in pieces}
    ends = np.cumsum([len(t) - steps for t in trajectories])
    which = np.searchsorted(ends, indices, side="right")
    frames = np.asarray(indices) - np.concatenate([[0], ends])[which]
    return [StartFrame(trajectories[k].source, int(frame), run_of[trajectories[k].source])
            for k, frame in zip(which, frames, strict=True)]


def rollout_errors(
    potential: Potential, points: Subsequences, indices: Sequence[int], steps: int, batch_size: int,
    watch: Callable[[int], None],
) -> RolloutErrors:
    """Roll out from all starts, `batch_size` side by side, on the GPU if there is one.

    Args:
        potential: is moved to the device; its parameters need no gradients afterwards.
        points: subsequences of steps + 1 frames.
        indices: of the starts.
        steps: T.
        batch_size: changes memory and speed only.
        watch: told the number of steps of structures done, negative for those that are done again.

    Raises:
        DtmdError: the batch does not fit into the memory of the device.
    """
    potential.to(_device()).requires_grad_(False)
    parts = []
    for batch in _batches(indices, batch_size):
        size = len(batch)
        with enough_memory(lambda size=size: f"{size} rollouts side by side do not fit into the memory of the "
                           "device; give a smaller --batch-size"):
            parts.append(_side_by_side(potential, points, batch, steps, watch))
    return RolloutErrors.joined(parts)


def reference_force(points: Subsequences, indices: Sequence[int], n_species: int, batch_size: int) -> float:
    """Norm of L_force of the AIMD forces at the steps 1 … T, mean over steps and starts, eV/Å."""
    total = 0.0
    for chosen in _batches(indices, batch_size):
        batch = points.batch(chosen, torch.device("cpu"))
        per_atom = batch.forces[:, 1:].abs().mean(dim=(1, 2))
        group = _groups(batch.start.structures, n_species)
        total += scatter(per_atom, group, dim_size=len(chosen) * n_species, reduce="mean").sum().item()
    return total / len(indices)


def _batches(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    return [indices[first : first + size] for first in range(0, len(indices), size)]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _side_by_side(
    potential: Potential, points: Subsequences, indices: Sequence[int], steps: int, watch: Callable[[int], None]
) -> RolloutErrors:
    """One batch; where a rollout fails the batch is halved until that one is alone, so that the others go on."""
    batch = points.batch(indices, _device())
    structures, n_species, rows = batch.start.structures, len(potential.elements), []
    try:
        for _, errors in errors_along(potential, batch, steps + 1, SKIN):
            rows.append(errors)
            watch(len(indices))
    except NonFiniteForces as error:
        if len(indices) == 1:
            watch(steps + 1 - len(rows))
            return RolloutErrors(np.full((1, steps + 1, n_species), np.nan), np.array([error.step]))
        watch(-len(rows) * len(indices))
        middle = len(indices) // 2
        halves = indices[:middle], indices[middle:]
        return RolloutErrors.joined([_side_by_side(potential, points, half, steps, watch) for half in halves])
    n_atoms = torch.bincount(_groups(structures, n_species), minlength=len(indices) * n_species)
    lacking = n_atoms.view(-1, 1, n_species) == 0
    errors = torch.stack(rows, dim=1).masked_fill(lacking, torch.nan)
    return RolloutErrors(errors.cpu().numpy(), np.full(len(indices), -1))


def _groups(structures: Structures, n_species: int) -> Tensor:
    """One number for each pair of structure and species, of each atom."""
    return structures.graph_index * n_species + structures.species
