"""Velocity Verlet against ASE's, and the gradient through it against autograd and finite differences."""

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from small import real_points, small_potential

from dtmd import units
from dtmd.losses import rollout_loss
from dtmd.neighbors import Edges
from dtmd.potential import predict
from dtmd.rollout import NonFiniteForces, Start, accumulate_gradient, rollout


def edges_for(potential, start):
    return Edges(start.structures, potential.config.cutoff, skin=0.3)


def loss_on(points, n_species=3, first_weight=50.0):
    return lambda predictions: rollout_loss(
        points.start.structures, predictions, points.energies, points.forces, n_species, first_weight
    )


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
    largest = max(gradient.abs().max() for gradient in expected)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10, atol=1e-12 * largest)


def plain_rollout_loss(potential, points, length):
    """The same rollout with one graph through time."""
    start = points.start
    dt, inverse_mass = start.atom_timesteps, start.inverse_masses
    edges = edges_for(potential, start)
    positions, velocities = start.positions.clone().requires_grad_(), start.velocities
    acceleration = torch.zeros_like(velocities)
    predictions = []
    for k in range(length):
        if k > 0:
            positions = positions + dt * velocities + 0.5 * dt**2 * acceleration
            velocities = velocities + 0.5 * dt * acceleration
        prediction = predict(potential, start.structures, positions, edges.at(positions), create_graph=True)
        acceleration = inverse_mass * prediction.forces
        if k > 0:
            velocities = velocities + 0.5 * dt * acceleration
        predictions.append(prediction)
    return loss_on(points)(predictions)


def test_gradient_of_a_late_force_error_by_finite_differences():
    """Only the last frame counts, so nearly all of the gradient runs through the positions."""
    potential = small_potential()
    points = real_points(potential, 2, 6)
    # A long step and a strong potential make the positions respond to the weights.
    start = Start(points.start.structures, points.start.positions, points.start.velocities, 8 * points.start.timesteps)
    potential.energy_scale.fill_(5.0)

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
    frames = list(rollout(potential, start, edges_for(potential, start), 6, keep_last_graph=True))
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
