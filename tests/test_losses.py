"""The loss terms against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from small import CPU, structures_of

from dtmd.config import LossConfig
from dtmd.errors import DtmdError
from dtmd.losses import RolloutLoss, energy_loss, force_error_by_species
from dtmd.observables import force_error
from dtmd.potential import Prediction
from dtmd.structures import Structures

BOX = np.diag([9.0, 9.0, 9.0])
FORCES = torch.tensor([[3.0, 0, 0], [0, -9.0, 0], [1.0, 1.0, 1.0], [0, 0, 6.0], [3.0, 0, 0], [0, 0, 0]]).double()
ZERO = torch.zeros(6, 3, dtype=torch.float64)


def joined(one: Structures, two: Structures) -> Structures:
    return Structures(
        torch.cat([one.species, two.species]), torch.cat([one.masses, two.masses]),
        torch.cat([one.graph_index, two.graph_index + one.n_graphs]), torch.cat([one.cells, two.cells]),
        torch.cat([one.pbc, two.pbc]),
    )


def two_structures() -> Structures:
    """H H C Pd, and C C."""
    return joined(*(structures_of(s, BOX, (True,) * 3) for s in ([0, 0, 1, 2], [1, 1])))


def loss_of(**settings) -> RolloutLoss:
    return RolloutLoss.of(LossConfig(**settings), ["H", "C", "Pd"], CPU)


def test_the_force_loss_is_a_sum_over_the_species_present():
    structures = two_structures()
    by_species = force_error_by_species(structures, FORCES, ZERO, 3)
    assert by_species.tolist() == [[2.0, 1.0, 2.0], [0.0, 0.5, 0.0]]
    assert loss_of().force_loss(structures, FORCES, ZERO).item() == (5.0 + 0.5) / 2


@pytest.mark.parametrize(("settings", "expected"), [
    ({"kind": "mae"}, ((1 + 3 + 1 + 2) / 4 + 1 / 2) / 2),
    ({"kind": "mse"}, ((3 + 27 + 1 + 12) / 4 + 3 / 2) / 2),
    ({"species_weights": {"H": 2.0, "C": 0.5}}, (2 * 2 + 0.5 * 1 + 2 + 0.5 * 0.5) / 2),
    ({"kind": "mae", "species_weights": {"H": 2.0, "C": 0.5}}, ((2 + 6 + 0.5 + 2) / 4 + 0.5 / 2) / 2),
])
def test_kinds_and_species_weights(settings, expected):
    assert loss_of(**settings).force_loss(two_structures(), FORCES, ZERO).item() == pytest.approx(expected, rel=1e-15)


def test_a_weight_for_an_element_that_is_not_there():
    with pytest.raises(DtmdError, match="loss.species_weights: O is not among the elements H, C, Pd"):
        loss_of(species_weights={"H": 2.0, "O": 3.0})


def test_the_energy_loss_is_per_atom():
    energies = torch.tensor([4.0, 1.0]).double()
    assert energy_loss(two_structures(), energies, torch.zeros(2).double()).item() == (1.0 + 0.5) / 2
    assert energy_loss(two_structures(), energies, torch.zeros(2).double(), squared=True).item() == (4.0 + 0.5) / 2


@pytest.mark.parametrize(("settings", "alone", "three"), [
    ({}, 0.75 + 2, 52 * 2),
    ({"step_decay": 0.5}, 0.75 + 2, 51.5 * 2),
    ({"first_weight": 3.0, "step_decay": 2.0}, 0.75 + 2, 6 * 2),
    ({"energy_weight": 10.0}, 7.5 + 2, 52 * 2),
    ({"energy": "all", "energy_weight": 10.0}, 7.5 + 2, 50 * 7.5 + 52 * 2),
    ({"kind": "mse", "energy": "all"}, 2.25 + 1, 50 * 2.25 + 52 * 1),
])
def test_weights_and_energy_term_of_the_rollout_loss(settings, alone, three):
    reference, energies = torch.zeros(6, 3, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    # force loss of each frame: three species with error 1, one species with error 1
    ones = Prediction(torch.tensor([4.0, 1.0]).double(), torch.ones(6, 3, dtype=torch.float64))
    loss = loss_of(**settings)
    assert loss(two_structures(), [ones], energies, reference).item() == alone
    assert loss(two_structures(), [ones] * 3, energies, reference).item() == three


@pytest.mark.parametrize("kind", ["mepa", "mae", "mse"])
def test_a_batch_is_the_mean_of_its_structures_whatever_they_hold(kind):
    """Sizes differ, species are missing from structures, and Pd from both."""
    alone = [structures_of(s, BOX, (True,) * 3) for s in ([0, 0, 1, 1, 1], [1])]
    generator = torch.Generator().manual_seed(0)
    forces = torch.randn(6, 3, dtype=torch.float64, generator=generator).requires_grad_()
    prediction = Prediction(torch.tensor([4.0, 1.0]).double(), forces)
    parts = [Prediction(prediction.energies[:1], forces[:5]), Prediction(prediction.energies[1:], forces[5:])]
    reference, energies = torch.randn(6, 1, 3, dtype=torch.float64, generator=generator), torch.zeros(2).double()
    loss = loss_of(kind=kind, species_weights={"H": 3.0})
    whole = loss(joined(*alone), [prediction], energies, reference)
    mean = (loss(alone[0], parts[:1], energies[:1], reference[:5]) + loss(alone[1], parts[1:], energies[1:],
                                                                         reference[5:])) / 2
    assert torch.isclose(whole, mean, rtol=1e-14)
    gradients = [torch.autograd.grad(value, forces)[0] for value in (whole, mean)]
    assert torch.allclose(*gradients, rtol=1e-14) and torch.isfinite(gradients[0]).all()


def test_training_and_comparison_measure_the_same_force_error():
    structures = structures_of([0, 0, 1, 2, 1], BOX, (True,) * 3)
    forces, reference = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    numbers = np.array([1, 6, 46])[structures.species.numpy()]
    expected = force_error.force_error_by_species(forces.numpy(), reference.numpy(), numbers).sum()
    assert np.isclose(loss_of().force_loss(structures, forces, reference).item(), expected, rtol=1e-14)
