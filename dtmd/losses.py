"""Terms of the dynamic-training loss (article eqs. 9–14 and 16), each a mean over the structures of a batch.

So the loss of a batch is the mean of the losses of its parts, weighted by their numbers of structures,
whatever atoms they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from dtmd.config import LossConfig
from dtmd.errors import DtmdError
from dtmd.potential import Prediction
from dtmd.structures import Structures


def force_error_by_species(structures: Structures, forces: Tensor, reference: Tensor, n_species: int) -> Tensor:
    """Mean absolute force component of each species in each structure, eV/Å, shape (B, n_species).

    Zero for a species that a structure does not hold. Forces and reference: eV/Å, (n_atoms, 3).
    """
    per_atom = (forces - reference).abs().mean(dim=1)
    group = structures.graph_index * n_species + structures.species
    means = scatter(per_atom, group, dim_size=structures.n_graphs * n_species, reduce="mean")
    return means.view(structures.n_graphs, n_species)


def energy_loss(structures: Structures, energies: Tensor, reference: Tensor, squared: bool = False) -> Tensor:
    """Mean over the batch of |ΔE|/N_atoms, eV (eq. 10), or of ΔE²/N_atoms, eV² (eq. 14); energies (B,)."""
    difference = energies - reference
    n_atoms = torch.bincount(structures.graph_index, minlength=structures.n_graphs)
    return ((difference.square() if squared else difference.abs()) / n_atoms).mean()


@dataclass(frozen=True)
class RolloutLoss:
    """Loss of a rollout: eq. 9 for one frame (energy and force), eq. 12 for more, with the choices of `config`.

    Attributes:
        species_weights: factor on the force errors of each species, float64 (n_species,).
    """

    config: LossConfig
    species_weights: Tensor

    @classmethod
    def of(cls, config: LossConfig, elements: Sequence[str], device: torch.device) -> RolloutLoss:
        """For a potential of these elements.

        Raises:
            DtmdError: a weight of an element that is not among them.
        """
        unknown = sorted(set(config.species_weights) - set(elements))
        if unknown:
            raise DtmdError(f"loss.species_weights: {', '.join(unknown)} is not among the elements "
                            f"{', '.join(elements)} of the potential; correct it or leave it out")
        weights = [config.species_weights.get(element, 1.0) for element in elements]
        return cls(config, torch.tensor(weights, dtype=torch.float64, device=device))

    def __call__(
        self, structures: Structures, predictions: Sequence[Prediction], energies: Tensor, forces: Tensor
    ) -> Tensor:
        """Scalar loss.

        Args:
            predictions: of the S frames of the rollouts.
            energies: reference of the first frames, eV (B,).
            forces: reference, eV/Å (n_atoms, ≥ S, 3).
        """
        config, single = self.config, len(predictions) == 1
        first, *later = [self.force_loss(structures, p.forces, forces[:, k]) for k, p in enumerate(predictions)]
        if single or config.energy == "all":
            energy = energy_loss(structures, predictions[0].energies, energies, squared=config.kind == "mse")
            first = config.energy_weight * energy + first
        if single:
            return first
        decayed = [config.step_decay**k * term for k, term in enumerate(later)]
        return config.first_weight * first + torch.stack(decayed).sum()

    def force_loss(self, structures: Structures, forces: Tensor, reference: Tensor) -> Tensor:
        """L_force of one frame, mean over the batch: eV/Å, for mse eV²/Å²; forces (n_atoms, 3).

        mepa: the *sum* over the species present of their mean absolute component (eq. 11); mae and mse: the
        mean over all atoms of a structure (eqs. 16, 14).
        """
        if self.config.kind == "mepa":
            by_species = force_error_by_species(structures, forces, reference, len(self.species_weights))
            return (by_species * self.species_weights).sum(dim=1).mean()
        difference = forces - reference
        error = difference.square() if self.config.kind == "mse" else difference.abs()
        per_atom = self.species_weights[structures.species] * error.mean(dim=1)
        return scatter(per_atom, structures.graph_index, dim_size=structures.n_graphs, reduce="mean").mean()
