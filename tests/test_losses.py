"""The loss terms against numbers worked out by hand."""

import numpy as np
import torch
from small import structures_of

from dtmd.losses import energy_loss, force_error_by_species, force_loss, rollout_loss
from dtmd.observables.force_error import force_error
from dtmd.potential import Prediction
from dtmd.structures import Structures

BOX = np.diag([9.0, 9.0, 9.0])


def two_structures() -> Structures:
    """H H C Pd, and C C."""
    one, two = (structures_of(s, BOX, (True,) * 3) for s in ([0, 0, 1, 2], [1, 1]))
    return Structures(
        torch.cat([one.species, two.species]), torch.cat([one.masses, two.masses]),
        torch.tensor([0, 0, 0, 0, 1, 1]), torch.cat([one.cells, two.cells]), torch.cat([one.pbc, two.pbc]),
    )


def test_the_force_loss_is_a_sum_over_the_species_present():
    structures = two_structures()
    reference = torch.zeros(6, 3, dtype=torch.float64)
    forces = torch.tensor([[3.0, 0, 0], [0, -9.0, 0], [1.0, 1.0, 1.0], [0, 0, 6.0], [3.0, 0, 0], [0, 0, 0]]).double()
    by_species = force_error_by_species(structures, forces, reference, 3)
    assert by_species.tolist() == [[2.0, 1.0, 2.0], [0.0, 0.5, 0.0]]
    assert force_loss(structures, forces, reference, 3).item() == (5.0 + 0.5) / 2


def test_the_energy_loss_is_per_atom():
    energies = torch.tensor([4.0, 1.0]).double()
    assert energy_loss(two_structures(), energies, torch.zeros(2).double()).item() == (1.0 + 0.5) / 2


def test_weights_and_energy_term_of_the_rollout_loss():
    structures = two_structures()
    reference = torch.zeros(6, 3, 3, dtype=torch.float64)
    ones = Prediction(torch.tensor([4.0, 1.0]).double(), torch.ones(6, 3, dtype=torch.float64))
    energies = torch.zeros(2, dtype=torch.float64)
    per_frame = (3.0 + 1.0) / 2  # three species with error 1, one species with error 1
    assert rollout_loss(structures, [ones], energies, reference, 3, 50.0).item() == 0.75 + per_frame
    assert rollout_loss(structures, [ones] * 3, energies, reference, 3, 50.0).item() == 52 * per_frame


def test_training_and_comparison_measure_the_same_force_error():
    structures = structures_of([0, 0, 1, 2, 1], BOX, (True,) * 3)
    forces, reference = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    numbers = np.array([1, 6, 46])[structures.species.numpy()]
    expected = force_error(forces.numpy(), reference.numpy(), numbers)
    assert np.isclose(force_loss(structures, forces, reference, 3).item(), expected, rtol=1e-14)
