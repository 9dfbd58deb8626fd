"""The network: size, symmetries, smoothness."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small import small_potential, structures_of

from dtmd.models.egnn import EGNN, EGNNConfig
from dtmd.neighbors import Edges
from dtmd.potential import predict
from dtmd.structures import Structures

FREE = (False, False, False)
BOX = np.diag([30.0, 30.0, 30.0])


def cluster(n_atoms: int = 9, seed: int = 0) -> tuple[Structures, torch.Tensor]:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(-1, 3)[:n_atoms] * 1.7
    positions = torch.tensor(grid + rng.normal(0, 0.2, grid.shape))
    return structures_of([k % 3 for k in range(n_atoms)], BOX, FREE), positions


def evaluate(potential, structures, positions):
    return predict(potential, structures, positions, Edges(structures, potential.config.cutoff, 0.1).at(positions))


def test_the_article_size_has_513281_parameters():
    assert sum(p.numel() for p in EGNN(3, EGNNConfig()).parameters()) == 513_281
    article = EGNNConfig(envelope="none", readout="pooled", n_knots=0)
    assert sum(p.numel() for p in EGNN(3, article).parameters()) == 513_281


@pytest.mark.parametrize("readout", ["per_atom", "pooled"])
def test_rotation_translation_and_permutation(readout):
    potential = small_potential(readout=readout)
    structures, positions = cluster()
    expected = evaluate(potential, structures, positions)
    rotation = torch.tensor(Rotation.random(random_state=3).as_matrix())
    rotated = evaluate(potential, structures, positions @ rotation.T + 5.0)
    assert torch.allclose(rotated.energies, expected.energies, rtol=1e-12)
    assert torch.allclose(rotated.forces, expected.forces @ rotation.T, atol=1e-10)
    order = torch.randperm(9)
    shuffled = Structures(structures.species[order], structures.masses[order], structures.graph_index,
                          structures.cells, structures.pbc)
    permuted = evaluate(potential, shuffled, positions[order])
    assert torch.allclose(permuted.energies, expected.energies, rtol=1e-12)
    assert torch.allclose(permuted.forces, expected.forces[order], atol=1e-10)


def test_two_distant_copies_have_twice_the_energy_with_the_per_atom_readout():
    structures, positions = cluster()
    doubled = structures_of([k % 3 for k in range(9)] * 2, BOX * 3, FREE)
    apart = torch.cat([positions, positions + 40.0])
    one = evaluate(small_potential(), structures, positions).energies.item()
    assert np.isclose(evaluate(small_potential(), doubled, apart).energies.item(), 2 * one, rtol=1e-12)
    pooled = small_potential(readout="pooled")
    one = evaluate(pooled, structures, positions).energies.item()
    assert abs(evaluate(pooled, doubled, apart).energies.item() - 2 * one) > 1e-3


def pair_energies(potential, distances):
    structures = structures_of([0, 2], BOX, FREE)
    places = [torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, d]], dtype=torch.float64) for d in distances]
    return [evaluate(potential, structures, r) for r in places]


def test_energy_and_force_are_continuous_at_the_cutoff():
    inside, outside = pair_energies(small_potential(), [4.0 - 1e-6, 4.0 + 1e-6])
    assert abs(inside.energies - outside.energies) < 1e-12
    assert inside.forces.abs().max() < 1e-9 and outside.forces.abs().max() == 0.0
    inside, outside = pair_energies(small_potential(envelope="none"), [4.0 - 1e-6, 4.0 + 1e-6])
    assert abs(inside.energies - outside.energies) > 1e-3  # the article's jump


def test_an_isolated_atom_has_an_energy_and_no_force():
    structures = structures_of([1], BOX, FREE)
    prediction = evaluate(small_potential(), structures, torch.zeros(1, 3, dtype=torch.float64))
    assert torch.isfinite(prediction.energies).all() and prediction.forces.abs().max() == 0.0


def test_a_batch_equals_its_members_and_does_not_mix_them():
    potential = small_potential()
    (one, r_one), (two, r_two) = cluster(9), cluster(6, seed=1)
    both = Structures(
        torch.cat([one.species, two.species]), torch.cat([one.masses, two.masses]),
        torch.tensor([0] * 9 + [1] * 6), torch.cat([one.cells, two.cells]), torch.cat([one.pbc, two.pbc]),
    )
    batch = evaluate(potential, both, torch.cat([r_one, r_two]))
    alone = [evaluate(potential, one, r_one), evaluate(potential, two, r_two)]
    assert torch.allclose(batch.energies, torch.cat([p.energies for p in alone]), rtol=1e-13)
    assert torch.allclose(batch.forces, torch.cat([p.forces for p in alone]), atol=1e-12)


def test_filters_on_knots_approach_those_on_every_edge():
    structures, positions = cluster()
    exact = small_potential(seed=4, n_knots=0, width=32, frequency_std=4.0)
    expected = evaluate(exact, structures, positions)
    errors = []
    for n_knots in (512, 1023):
        gridded = small_potential(n_knots=n_knots, width=32, frequency_std=4.0)
        gridded.load_state_dict(exact.state_dict())
        got = evaluate(gridded, structures, positions)
        assert (got.energies - expected.energies).abs().max() < 1e-6
        errors.append((got.forces - expected.forces).abs().max().item())
    assert errors[0] < 5e-5 and errors[0] / errors[1] > 6.0  # the slope of cubic interpolation is of third order
