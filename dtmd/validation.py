"""Rollout validation: the potential's own trajectory against AIMD, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dtmd.losses import energy_loss, force_error_by_species
from dtmd.neighbors import Edges
from dtmd.potential import Potential
from dtmd.ranks import Ranks
from dtmd.rollout import PART_ATOMS, Frame, NonFiniteForces, rollout
from dtmd.subsequences import Points, Subsequences


@dataclass(frozen=True)
class Validation:
    """Errors of rollouts from AIMD frames that the potential was not trained on.

    Attributes:
        elements: of the columns of `by_step`.
        by_step: mean absolute force component of each species at the start frame and at each of the
            T steps, eV/Å, (T + 1, n_elements).
        energy_error: mean |ΔE|/N of the first frames, eV/atom.
        diverged: a rollout came to forces that are not finite; the errors are infinite then.
    """

    elements: list[str]
    by_step: np.ndarray
    energy_error: float
    diverged: bool = False

    @property
    def mepa(self) -> float:
        """Mean over the steps after the start frame of the sum over species, eV/Å (article eq. 13).

        Where there are no steps it is the sum for the start frames.
        """
        return math.inf if self.diverged else float(self._judged.sum(axis=1).mean())

    @property
    def _judged(self) -> np.ndarray:
        return self.by_step[1:] if len(self.by_step) > 1 else self.by_step

    def as_dict(self) -> dict:
        """For the metrics file; an error of a diverged rollout is null."""
        if self.diverged:
            return {"mepa": None, "diverged": True}
        return {
            "mepa": self.mepa,
            "by_species": dict(zip(self.elements, self._judged.mean(axis=0).tolist(), strict=True)),
            "first_frame": float(self.by_step[0].sum()),
            "last_frame": float(self.by_step[-1].sum()),
            "energy_per_atom": self.energy_error,
        }

    def curves(self) -> dict[str, list[float]]:
        """Errors at the start frame and at each step, four digits: their sum, then each species; eV/Å."""
        columns = dict(zip(["sum", *self.elements], [self.by_step.sum(axis=1), *self.by_step.T], strict=True))
        return {name: [float(f"{value:.4g}") for value in values] for name, values in columns.items()}


def validate(
    potential: Potential, points: Subsequences, indices: Sequence[int], length: int, batch_size: int, skin: float,
    ranks: Ranks = Ranks(),
) -> Validation:
    """Roll out from the chosen subsequences for `length` frames, on each rank its share.

    `batch_size` are integrated side by side, on a CPU no more than have some PART_ATOMS atoms.
    """
    device = potential.reference_energies.device
    n_species = len(potential.elements)
    by_step = torch.zeros(length, n_species, dtype=torch.float64, device=device)
    energy_error = torch.zeros((), dtype=torch.float64, device=device)
    own, diverged = ranks.share(indices), False
    if device.type == "cpu":
        batch_size = min(batch_size, math.ceil(PART_ATOMS / points.mean_atoms))
    for first in range(0, len(own), batch_size):
        batch = points.batch(own[first : first + batch_size], device)
        share = batch.start.structures.n_graphs / len(indices)
        try:
            errors, energy = _errors(potential, batch, length, skin)
        except NonFiniteForces:
            diverged = True
            break
        by_step += share * errors
        energy_error += share * energy
    by_step, energy_error = ranks.sum(by_step).cpu().numpy(), ranks.sum(energy_error).item()
    if ranks.any(diverged):
        return Validation(potential.elements, by_step, math.inf, diverged=True)
    return Validation(potential.elements, by_step, energy_error)


def _errors(potential: Potential, batch: Points, length: int, skin: float) -> tuple[torch.Tensor, torch.Tensor]:
    rows, energy = [], None
    for frame, errors in errors_along(potential, batch, length, skin):
        rows.append(errors.mean(dim=0))
        if energy is None:
            energy = energy_loss(batch.start.structures, frame.prediction.energies, batch.energies)
    return torch.stack(rows), energy


def errors_along(
    potential: Potential, batch: Points, length: int, skin: float
) -> Iterator[tuple[Frame, torch.Tensor]]:
    """Frames of the rollouts of a batch, each with its `force_error_by_species`, eV/Å, (B, n_species).

    Raises:
        NonFiniteForces: a force is not finite.
    """
    structures, n_species = batch.start.structures, len(potential.elements)
    edges = Edges(structures, potential.config.cutoff, skin)
    for k, frame in enumerate(rollout(potential, batch.start, edges, length)):
        yield frame, force_error_by_species(structures, frame.prediction.forces, batch.forces[:, k], n_species)
