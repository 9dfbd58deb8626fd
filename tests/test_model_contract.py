"""What every architecture promises: symmetries, smoothness, exact derivatives, export, LAMMPS."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_cases import (
    CUTOFF, FREE, NAMES, cluster, evaluate, loss_on, placed, plain_rollout, potential_of, random_like, real_frame,
)
from pydantic import TypeAdapter, ValidationError
from scipy.spatial.transform import Rotation
from small import example, real_points, structures_of
from test_lammps_agreement import N_FRAMES, exported, in_lammps, in_python

from dtmd import artefact
from dtmd.lammps import write_start
from dtmd.models import ModelConfig
from dtmd.neighbors import Edges
from dtmd.potential import predict_with_virial
from dtmd.rollout import accumulate_gradient
from dtmd.structures import Structures


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def potential(name):
    return potential_of(name)


def test_rotation_and_reflection(potential):
    structures, positions = cluster()
    expected = evaluate(potential, structures, positions)
    assert expected.forces.abs().max() > 1e-2
    rotation = torch.tensor(Rotation.random(random_state=3).as_matrix())
    for orthogonal in (rotation, -rotation):
        turned = evaluate(potential, structures, positions @ orthogonal.T)
        assert torch.allclose(turned.energies, expected.energies, rtol=1e-12)
        assert torch.allclose(turned.forces, expected.forces @ orthogonal.T, atol=1e-10)


def test_translation(potential):
    structures, positions = cluster()
    expected, moved = (evaluate(potential, structures, r) for r in (positions, positions + 5.0))
    assert torch.allclose(moved.energies, expected.energies, rtol=1e-12)
    assert torch.allclose(moved.forces, expected.forces, atol=1e-10)
    assert expected.forces.sum(0).abs().max() < 1e-10


def test_permutation(potential):
    structures, positions = cluster()
    expected = evaluate(potential, structures, positions)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = replace(structures, species=structures.species[order], masses=structures.masses[order])
    permuted = evaluate(potential, shuffled, positions[order])
    assert torch.allclose(permuted.energies, expected.energies, rtol=1e-12)
    assert torch.allclose(permuted.forces, expected.forces[order], atol=1e-10)


def test_an_image_shift_changes_nothing(potential):
    structures, positions = real_frame()
    shifted = positions.clone()
    shifted[3] += structures.cells[0, 0] - 2 * structures.cells[0, 2]
    expected, got = (evaluate(potential, structures, r) for r in (positions, shifted))
    assert torch.allclose(got.energies, expected.energies, rtol=1e-13)
    assert torch.allclose(got.forces, expected.forces, atol=1e-10)


def test_two_distant_copies_have_twice_the_energy(potential):
    structures, positions = cluster()
    doubled = structures_of(structures.species.tolist() * 2, np.diag([90.0] * 3), FREE)
    one = evaluate(potential, structures, positions)
    two = evaluate(potential, doubled, torch.cat([positions, positions + 40.0]))
    assert torch.allclose(two.energies, 2 * one.energies, rtol=1e-12)
    assert torch.allclose(two.forces, one.forces.repeat(2, 1), atol=1e-10)


def test_a_batch_of_other_sizes_and_species_equals_its_members(potential):
    members = [cluster(9), cluster(6, seed=1, n_species=2), placed([2], [[0.0, 0.0, 0.0]])]
    sizes = [len(positions) for _, positions in members]
    batch = Structures(
        torch.cat([s.species for s, _ in members]), torch.cat([s.masses for s, _ in members]),
        torch.repeat_interleave(torch.arange(3), torch.tensor(sizes)),
        torch.cat([s.cells for s, _ in members]), torch.cat([s.pbc for s, _ in members]),
    )
    together = evaluate(potential, batch, torch.cat([positions for _, positions in members]))
    alone = [evaluate(potential, *member) for member in members]
    assert torch.allclose(together.energies, torch.cat([p.energies for p in alone]), rtol=1e-13)
    assert torch.allclose(together.forces, torch.cat([p.forces for p in alone]), atol=1e-12)


def test_an_isolated_atom_has_an_energy_and_no_force(potential):
    prediction = evaluate(potential, *placed([1], [[0.0, 0.0, 0.0]]))
    assert torch.isfinite(prediction.energies).all() and prediction.forces.abs().max() == 0.0


def test_a_pair_fades_out_at_the_cutoff(potential):
    def pair(distance):
        return evaluate(potential, *placed([0, 2], [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))

    inside, outside = pair(CUTOFF - 1e-6), pair(CUTOFF + 1e-6)
    assert pair(0.5 * CUTOFF).forces.abs().max() > 1e-3
    assert abs(inside.energies - outside.energies) < 1e-10
    assert inside.forces.abs().max() < 1e-5 and outside.forces.abs().max() == 0.0


def test_energy_and_forces_are_continuous_where_a_neighbour_enters(potential):
    """Among other atoms, so that messages pass on what the new neighbour says."""
    def four_atoms(distance):
        places = [[0.0, 0.0, 0.0], [1.5, 0.3, 0.0], [0.2, 1.7, 0.4], [-0.6 * distance, 0.0, -0.8 * distance]]
        return evaluate(potential, *placed([0, 1, 2, 1], places))

    inside, outside = four_atoms(CUTOFF - 1e-6), four_atoms(CUTOFF + 1e-6)
    assert abs(inside.energies - outside.energies) < 1e-10
    assert (inside.forces - outside.forces).abs().max() < 1e-5


def test_forces_are_minus_the_gradient(potential):
    structures, positions = real_frame()
    forces = evaluate(potential, structures, positions).forces
    direction = random_like(positions)
    h = 1e-5
    up, down = (evaluate(potential, structures, positions + x * direction).energies.item() for x in (h, -h))
    assert np.isclose((up - down) / (2 * h), -(forces * direction).sum().item(), rtol=1e-6)


def test_the_virial_is_the_answer_to_a_strain(potential):
    structures, positions = real_frame()
    edges = Edges(structures, CUTOFF, 0.1).at(positions)
    virial = predict_with_virial(potential, structures, positions, edges).virials[0]
    strain = torch.tensor([[1.0, 0.3, 0.0], [0.3, -0.5, 0.2], [0.0, 0.2, 0.7]], dtype=torch.float64)
    energies = []
    for h in (1e-5, -1e-5):
        deformation = torch.eye(3, dtype=torch.float64) + h * strain
        strained = replace(structures, cells=structures.cells @ deformation)
        energies.append(evaluate(potential, strained, positions @ deformation).energies.item())
    assert torch.allclose(virial, virial.T, atol=1e-10)
    assert np.isclose((energies[0] - energies[1]) / 2e-5, -(virial * strain).sum().item(), rtol=1e-5)


SYMMETRIC = placed([2, 0, 0, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.6], [0.0, 0.0, -1.6], [9.0, 9.0, 9.0]])
"""An atom whose neighbours balance and one without any: where norms of vectors vanish."""


@pytest.mark.parametrize("case", [cluster(), SYMMETRIC], ids=["cluster", "symmetric"])
def test_derivatives_of_the_forces_by_positions(potential, case):
    structures, positions = case
    positions = positions.clone().requires_grad_()
    forces = evaluate(potential, structures, positions, create_graph=True).forces
    direction, weight = random_like(positions, 1), random_like(positions, 2)
    (gradient,) = torch.autograd.grad((weight * forces).sum(), positions)
    h = 1e-5
    up, down = (evaluate(potential, structures, (positions + x * direction).detach()).forces for x in (h, -h))
    expected = (weight * (up - down)).sum().item() / (2 * h)
    assert np.isclose((gradient * direction).sum().item(), expected, rtol=1e-5)


@pytest.mark.parametrize("case", [cluster(), SYMMETRIC], ids=["cluster", "symmetric"])
def test_derivatives_of_the_forces_by_weights(potential, case):
    parameters = list(potential.parameters())
    direction = [random_like(p) for p in parameters]

    def loss():
        return evaluate(potential, *case, create_graph=True).forces.square().sum()

    def moved(h):
        torch._foreach_add_([p.data for p in parameters], direction, alpha=h)
        value = loss().item()
        torch._foreach_add_([p.data for p in parameters], direction, alpha=-h)
        return value

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    assert np.isclose(slope, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5)


def test_the_adjoint_of_a_rollout_equals_autograd(potential):
    points = real_points(potential, 2, 3)
    start, loss = points.start, loss_on(points)
    value = accumulate_gradient(potential, start, Edges(start.structures, CUTOFF, 0.3), 3, loss)
    plain = loss(plain_rollout(potential, start, 3))
    parameters = list(potential.parameters())
    expected = torch.autograd.grad(plain, parameters)
    assert torch.isclose(value, plain.detach(), rtol=1e-12)
    largest = max(gradient.abs().max() for gradient in expected)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10, atol=1e-12 * largest)


def test_every_weight_takes_part(potential):
    points = real_points(potential, 1, 1)
    start = points.start
    accumulate_gradient(potential, start, Edges(start.structures, CUTOFF, 0.3), 1, loss_on(points))
    assert not [key for key, p in potential.named_parameters() if p.grad is None or not p.grad.any()]


def test_three_updates_reduce_the_loss(name):
    potential = potential_of(name, torch.float32)
    points = real_points(potential, 4, 2)
    optimizer = torch.optim.Adam(potential.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        edges = Edges(points.start.structures, CUTOFF, 0.3)
        optimizer.zero_grad()
        losses.append(accumulate_gradient(potential, points.start, edges, 2, loss_on(points)).item())
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.999 * losses[0]


def test_float32_stays_near_float64(name):
    structures, positions = real_frame()
    double, single = (evaluate(potential_of(name, p), structures, positions) for p in (torch.float64, torch.float32))
    assert (single.energies - double.energies).abs() < 1e-4
    assert (single.forces - double.forces).abs().max() < 1e-4 * double.forces.abs().max()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_an_export_gives_the_energy_of_each_atom(name, precision, tmp_path):
    potential = potential_of(name, precision)
    energies, metadata = artefact.load(exported(potential, tmp_path))  # the export compares forces and virial
    assert metadata["model"]["architecture"] == name
    structures, positions = real_frame()
    edge_index, shift = Edges(structures, CUTOFF, 0.1).at(positions)
    edge_vec = positions[edge_index[0]] - positions[edge_index[1]] + shift
    expected = potential(structures.species, edge_index, edge_vec, structures.graph_index, 1)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-11}[precision]
    for _ in range(3):  # TorchScript optimises from the second call on
        assert torch.allclose(energies(structures.species, edge_index, edge_vec), expected, rtol=0, atol=tolerance)


def test_lammps_gives_the_numbers_of_python(plugin, name, tmp_path):
    potential = potential_of(name)
    model = exported(potential, tmp_path)
    frames = [(trajectory, frame) for trajectory in example() for frame in range(0, 320, 32)][:N_FRAMES]
    for k, (trajectory, frame) in enumerate(frames, start=1):
        write_start(trajectory, frame, tmp_path / f"frame{k}.data")
    for (trajectory, frame), got in zip(frames, in_lammps(model, tmp_path), strict=True):
        expected = in_python(potential, trajectory, frame)
        for quantity, value in expected.items():
            assert np.abs(got[quantity] - value).max() < 1e-10 * np.abs(value).max(), (quantity, frame)


def test_the_config_names_its_architecture(name):
    config = TypeAdapter(ModelConfig).validate_python({"architecture": name})
    assert config.architecture == name and config.cutoff == 5.0 and config.per_atom_energy


def test_without_a_name_it_is_egnn_and_unknown_names_are_refused():
    adapter = TypeAdapter(ModelConfig)
    assert adapter.validate_python({"width": 7}).architecture == "egnn"
    with pytest.raises(ValidationError, match="'egnn', 'painn'"):
        adapter.validate_python({"architecture": "eggn"})
