"""Terms of the dynamic-training loss (article eqs. 9–13)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

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


def force_loss(structures: Structures, forces: Tensor, reference: Tensor, n_species: int) -> Tensor:
    """L_force, eq. 11: the *sum* over the species present of `force_error_by_species`, mean over the batch."""
    return force_error_by_species(structures, forces, reference, n_species).sum(dim=1).mean()


def energy_loss(structures: Structures, energies: Tensor, reference: Tensor) -> Tensor:
    """L_energy, eq. 10: mean over the batch of |E_pred − E_ref|/N_atoms, eV; both (B,)."""
    n_atoms = torch.bincount(structures.graph_index, minlength=structures.n_graphs)
    return ((energies - reference).abs() / n_atoms).mean()


def rollout_loss(
    structures: Structures,
    predictions: list[Prediction],
    reference_energies: Tensor,
    reference_forces: Tensor,
    n_species: int,
    first_weight: float,
) -> Tensor:
    """Eq. 9 for one frame (energy and force), eq. 12 for more: Σ_k λ_k L_force^k without the energy.

    Args:
        predictions: of the S frames of the rollouts.
        reference_energies: of the first frames, eV (B,).
        reference_forces: eV/Å (n_atoms, ≥ S, 3).
        first_weight: λ_1; the λ of the later frames is one.
    """
    terms = [
        force_loss(structures, prediction.forces, reference_forces[:, k], n_species)
        for k, prediction in enumerate(predictions)
    ]
    if len(terms) == 1:
        return energy_loss(structures, predictions[0].energies, reference_energies) + terms[0]
    return first_weight * terms[0] + torch.stack(terms[1:]).sum()
