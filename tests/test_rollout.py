"""Velocity Verlet against ASE's, and the gradient through it against autograd and finite differences."""

import dataclasses

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from small import CPU, example, real_points, small_potential

from dtmd import units
from dtmd.config import LossConfig
from dtmd.losses import RolloutLoss
from dtmd.neighbors import Edges, FrameEdges
from dtmd.potential import predict
from dtmd.rollout import NonFiniteForces, Start, accumulate_gradient, rollout
from dtmd.structures import Structures


def edges_for(potential, start):
    return Edges(start.structures, potential.config.cutoff, skin=0.3)


def loss_on(points, **settings):
    loss = RolloutLoss.of(LossConfig(**settings), ["H", "C", "Pd"], CPU)
    return lambda predictions: loss(points.start.structures, predictions, points.energies, points.forces)


def assert_gradient(potential, expected):
    """The parameters hold this gradient."""
    largest = max(gradient.abs().max() for gradient in expected)
    for parameter, gradient in zip(potential.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10, atol=1e-12 * largest)


def far_moving(potential, points, factor=8):
    """The same with long steps and a strong potential, so that the positions respond to the weights."""
    potential.energy_scale.fill_(5.0)
    timesteps = factor * points.start.timesteps
    return dataclasses.replace(points, start=dataclasses.replace(points.start, timesteps=timesteps))


class PotentialCalculator(Calculator):
    """A potential behind ASE's interface, for one structure."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, potential, structures):
        super().__init__()
        self.potential, self.structures = potential, structures

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions = torch.tensor(atoms.positions)
        edges = Edges(self.structures, self.potential.config.cutoff, 0.1).at(positions)
        prediction = predict(self.potential, self.structures, positions, edges)
        self.results = {"energy": prediction.energies.item(), "forces": prediction.forces.numpy()}


def test_same_trajectory_as_ase():
    potential = small_potential()
    start = real_points(potential, 1, 1).start
    frames = list(rollout(potential, start, edges_for(potential, start), 21))
    structures = start.structures
    symbols = [potential.elements[k] for k in structures.species]
    atoms = Atoms(symbols, positions=start.positions.numpy(), cell=structures.cells[0].numpy(), pbc=True)
    atoms.set_masses(structures.masses.numpy())
    atoms.set_velocities(start.velocities.numpy() / ase.units.fs)
    atoms.calc = PotentialCalculator(potential, structures)
    VelocityVerlet(atoms, timestep=start.timesteps.item() * ase.units.fs).run(20)
    # ASE's constants are older, hence 1e-8
    assert np.abs(frames[-1].positions.numpy() - atoms.positions).max() < 1e-8
    assert np.abs(frames[-1].velocities.numpy() - atoms.get_velocities() * ase.units.fs).max() < 1e-8


@pytest.mark.parametrize("length", [1, 2, 5])
def test_adjoint_equals_autograd(length):
    potential = small_potential()
    points = real_points(potential, 3, length)
    start, loss = points.start, loss_on(points)
    value = accumulate_gradient(potential, start, edges_for(potential, start), length, loss)
    plain = plain_rollout_loss(potential, points, length)
    parameters = list(potential.parameters())
    expected = torch.autograd.grad(plain, parameters, materialize_grads=True)
    assert torch.isclose(value, plain.detach(), rtol=1e-12)
    assert_gradient(potential, expected)


def plain_rollout_loss(potential, points, length, cuts=(), edges=None, **settings):
    """The same rollout with one graph through time, but for frames where the state is detached."""
    start = points.start
    dt, inverse_mass = start.atom_timesteps, start.inverse_masses
    edges = edges or edges_for(potential, start)
    positions, velocities = start.positions.clone().requires_grad_(), start.velocities
    acceleration = torch.zeros_like(velocities)
    predictions = []
    for k in range(length):
        if k > 0:
            positions = positions + dt * velocities + 0.5 * dt**2 * acceleration
            velocities = velocities + 0.5 * dt * acceleration
        if k in cuts:
            positions = positions.detach().requires_grad_()
        prediction = predict(potential, start.structures, positions, edges.at_step(k, positions), create_graph=True)
        acceleration = inverse_mass * prediction.forces
        if k > 0:
            velocities = velocities + 0.5 * dt * acceleration
        if k in cuts:
            velocities = velocities.detach()
        predictions.append(prediction)
    return loss_on(points, **settings)(predictions)


@pytest.mark.parametrize(
    ("cut_every", "cuts"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (3, [3, 6]), (5, [5]), (7, [])]
)
def test_truncated_gradient_equals_autograd_with_detached_states(cut_every, cuts):
    potential = small_potential()
    points = far_moving(potential, real_points(potential, 2, 7))
    settings = {"first_weight": 1.0, "kind": "mse"}
    arguments = potential, points.start, edges_for(potential, points.start), 7, loss_on(points, **settings)
    value = accumulate_gradient(*arguments, cut_every)
    parameters = list(potential.parameters())
    plain = plain_rollout_loss(potential, points, 7, cuts, **settings)
    assert torch.isclose(value, plain.detach(), rtol=1e-12)
    assert_gradient(potential, torch.autograd.grad(plain, parameters, materialize_grads=True))
    truncated = [p.grad.clone() for p in parameters]
    potential.zero_grad()
    accumulate_gradient(*arguments)
    difference = max((p.grad - t).abs().max() for p, t in zip(parameters, truncated, strict=True))
    scale = max(t.abs().max() for t in truncated)
    assert difference > 0.01 * scale if cuts else difference == 0  # the test does see what is cut


def test_without_a_gradient_through_time_each_frame_counts_at_fixed_positions():
    """What the article's released code computes."""
    potential = small_potential()
    points = far_moving(potential, real_points(potential, 2, 4))
    start, loss = points.start, loss_on(points)
    accumulate_gradient(potential, start, edges_for(potential, start), 4, loss, cut_every=1)
    frames = list(rollout(potential, start, edges_for(potential, start), 4))
    at_fixed = [predict(potential, start.structures, f.positions, f.edges, create_graph=True) for f in frames]
    parameters = list(potential.parameters())
    assert_gradient(potential, torch.autograd.grad(loss(at_fixed), parameters, materialize_grads=True))


@pytest.mark.parametrize(("kind", "cut_every"), [("mepa", None), ("mae", 2), ("mse", None)])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(kind, cut_every):
    """Structures of different sizes, species, cells and time steps; Pd and H are missing from some."""
    potential = small_potential()
    points = [far_moving(potential, p, factor) for p, factor in zip(mixed_points(potential), (8, 5, 2), strict=True)]

    def add(part, share):
        loss = loss_on(part, kind=kind, species_weights={"H": 2.0}, energy="all")
        accumulate_gradient(potential, part.start, edges_for(potential, part.start), 4,
                            lambda predictions: share * loss(predictions), cut_every)

    add(joined(points), 1.0)
    whole = [p.grad.clone() for p in potential.parameters()]
    potential.zero_grad()
    add(joined(points[:2]), 2 / 3)
    add(points[2], 1 / 3)
    assert_gradient(potential, whole)


def mixed_points(potential):
    """All 57 atoms of a real subsequence, the carbon alone, and the carbon with hydrogen."""
    species = real_points(potential, 1, 4).start.structures.species
    return [only(real_points(potential, 1, 4), torch.isin(species, torch.tensor(kept)))
            for kept in ([0, 1, 2], [1], [0, 1])]


def only(points, atoms):
    start, old = points.start, points.start.structures
    structures = Structures(old.species[atoms], old.masses[atoms], old.graph_index[atoms], old.cells, old.pbc)
    start = Start(structures, start.positions[atoms], start.velocities[atoms], start.timesteps)
    return dataclasses.replace(points, start=start, forces=points.forces[atoms])


def joined(points):
    def cat(name, get):
        return torch.cat([getattr(get(p), name) for p in points])

    graph_index = torch.repeat_interleave(torch.arange(len(points)), torch.tensor([len(p.forces) for p in points]))
    fixed = [cat(name, lambda p: p.start.structures) for name in ("species", "masses", "cells", "pbc")]
    structures = Structures(*fixed[:2], graph_index, *fixed[2:])
    start = Start(structures, *(cat(name, lambda p: p.start) for name in ("positions", "velocities", "timesteps")))
    return dataclasses.replace(
        points[0], start=start, energies=cat("energies", lambda p: p), forces=cat("forces", lambda p: p)
    )


def test_gradient_with_the_pairs_of_the_aimd_frames_equals_autograd():
    potential = small_potential()
    points = far_moving(potential, real_points(potential, 1, 5), 3)
    frames = torch.tensor(example()[0].positions[:15:3]).transpose(0, 1)
    start = points.start
    edges = [FrameEdges(edges_for(potential, start), frames, every=2) for _ in range(2)]
    accumulate_gradient(potential, start, edges[0], 5, loss_on(points))
    plain = plain_rollout_loss(potential, points, 5, edges=edges[1])
    assert_gradient(potential, torch.autograd.grad(plain, list(potential.parameters()), materialize_grads=True))


def test_gradient_of_a_late_force_error_by_finite_differences():
    """Only the last frame counts, so nearly all of the gradient runs through the positions."""
    potential = small_potential()
    points = far_moving(potential, real_points(potential, 2, 6))
    start = points.start

    def loss(predictions):
        return (predictions[-1].forces - points.forces[:, 5]).square().mean()

    parameters = list(potential.parameters())
    accumulate_gradient(potential, start, edges_for(potential, start), 6, loss)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True)).item()

    def moved(h):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=h)
        value = loss([f.prediction for f in rollout(potential, start, edges_for(potential, start), 6)]).item()
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=-h)
        return value

    h = 1e-6
    assert np.isclose(slope, (moved(h) - moved(-h)) / (2 * h), rtol=1e-5)

    frozen = last_frame_gradient_with_frozen_positions(potential, start, points)
    frozen_slope = sum((g * d).sum() for g, d in zip(frozen, direction, strict=True)).item()
    assert abs(frozen_slope - slope) > 0.01 * abs(slope)  # the test does see the part through the positions


def last_frame_gradient_with_frozen_positions(potential, start, points):
    frames = list(rollout(potential, start, edges_for(potential, start), 6, differentiable=True))
    loss = (frames[-1].prediction.forces - points.forces[:, 5]).square().mean()
    return torch.autograd.grad(loss, list(potential.parameters()), materialize_grads=True)


def total_energies(potential, start, n_frames):
    energies = []
    for frame in rollout(potential, start, edges_for(potential, start), n_frames):
        kinetic = 0.5 * units.KINETIC * (start.structures.masses[:, None] * frame.velocities**2).sum()
        energies.append((frame.prediction.energies.sum() + kinetic).item())
    return np.array(energies)


def test_energy_error_falls_with_the_square_of_the_time_step():
    potential = small_potential()
    potential.energy_scale.fill_(3.0)
    start = real_points(potential, 1, 1).start
    spans = []
    for halvings in (0, 1):
        finer = Start(start.structures, start.positions, start.velocities, start.timesteps / 2**halvings)
        energies = total_energies(potential, finer, 100 * 2**halvings + 1)
        spans.append(np.abs(energies - energies[0]).max())
    assert spans[0] > 1e-6
    assert 3.5 < spans[0] / spans[1] < 4.5


def test_reversed_velocities_lead_back():
    potential = small_potential()
    start = real_points(potential, 1, 1).start
    there = list(rollout(potential, start, edges_for(potential, start), 41))[-1]
    turned = Start(start.structures, there.positions, -there.velocities, start.timesteps)
    back = list(rollout(potential, turned, edges_for(potential, start), 41))[-1]
    assert (back.positions - start.positions).abs().max() < 1e-9


def test_forces_that_are_not_finite_stop_the_rollout():
    potential = small_potential()
    start = real_points(potential, 1, 1).start
    potential.energy_scale.fill_(float("nan"))
    with pytest.raises(NonFiniteForces, match="step 0"):
        list(rollout(potential, start, edges_for(potential, start), 3))
