"""What is special to EGNN: its size, the article's variants, tabulated filters; tests/test_model_contract.py
has the rest."""

from dataclasses import replace

import pytest
import torch
from model_cases import BOX, CUTOFF, FREE, cluster, evaluate, placed
from scipy.spatial.transform import Rotation
from small import small_potential, structures_of

from dtmd.models.egnn import EGNN, EGNNConfig


def test_the_article_size_has_513281_parameters():
    assert sum(p.numel() for p in EGNN(["H", "C", "Pd"], EGNNConfig()).parameters()) == 513_281
    article = EGNNConfig(envelope="none", readout="pooled", n_knots=0)
    assert sum(p.numel() for p in EGNN(["H", "C", "Pd"], article).parameters()) == 513_281


@pytest.fixture
def pooled():
    return small_potential(readout="pooled")


def test_the_pooled_readout_has_the_symmetries(pooled):
    structures, positions = cluster()
    expected = evaluate(pooled, structures, positions)
    rotation = torch.tensor(Rotation.random(random_state=3).as_matrix())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = replace(structures, species=structures.species[order], masses=structures.masses[order])
    moved = evaluate(pooled, shuffled, positions[order] @ rotation.T + 5.0)
    assert torch.allclose(moved.energies, expected.energies, rtol=1e-12)
    assert torch.allclose(moved.forces, expected.forces[order] @ rotation.T, atol=1e-10)


def test_the_pooled_readout_is_not_extensive(pooled):
    structures, positions = cluster()
    doubled = structures_of(structures.species.tolist() * 2, BOX * 3, FREE)
    one = evaluate(pooled, structures, positions).energies.item()
    two = evaluate(pooled, doubled, torch.cat([positions, positions + 40.0])).energies.item()
    assert abs(two - 2 * one) > 1e-3
    assert not pooled.config.per_atom_energy


def test_the_article_jumps_at_the_cutoff():
    def energy(distance):
        places = [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]
        return evaluate(small_potential(envelope="none"), *placed([0, 2], places)).energies.item()

    assert abs(energy(CUTOFF - 1e-6) - energy(CUTOFF + 1e-6)) > 1e-3


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
