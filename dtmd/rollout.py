"""Velocity Verlet with a potential, and the exact gradient of a loss through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dtmd import units
from dtmd.neighbors import RolloutEdges
from dtmd.potential import Potential, Prediction, predict
from dtmd.structures import Structures


PART_ATOMS = 500
"""Atoms side by side on a CPU: 32 structures of 57 atoms are two to seven times slower in one piece than in four,
for large arrays are given back to the system and fetched again (full-size EGNN, one and two threads)."""


class NonFiniteForces(Exception):
    """Forces at step `step` of a rollout hold NaN or infinity."""

    def __init__(self, step: int) -> None:
        super().__init__(f"forces are not finite at step {step} of the rollout")
        self.step = step


@dataclass(frozen=True)
class Start:
    """Where a batch of rollouts begins.

    Attributes:
        structures: what stays constant.
        positions: Å, float64 (n_atoms, 3).
        velocities: Å/fs, float64 (n_atoms, 3).
        timesteps: fs, of each structure, float64 (B,).
    """

    structures: Structures
    positions: Tensor
    velocities: Tensor
    timesteps: Tensor

    @property
    def atom_timesteps(self) -> Tensor:
        """Δt of each atom, (n_atoms, 1)."""
        return self.timesteps[self.structures.graph_index].unsqueeze(1)

    @property
    def inverse_masses(self) -> Tensor:
        """1/m of each atom in (Å/fs²)/(eV/Å), (n_atoms, 1)."""
        return units.ACCELERATION / self.structures.masses.unsqueeze(1)


@dataclass(frozen=True)
class Frame:
    """A batch of structures at one step: Å, Å/fs, their neighbours there, and what was predicted."""

    positions: Tensor
    velocities: Tensor
    edges: tuple[Tensor, Tensor]
    prediction: Prediction


def rollout(
    potential: Potential, start: Start, edges: RolloutEdges, n_frames: int, differentiable: bool = False
) -> Iterator[Frame]:
    """Velocity Verlet from the start, which is the first frame; no graph leads from one step to another.

    r_{k+1} = r_k + v_k Δt + ½ a_k Δt²,  v_{k+1} = v_k + ½ (a_k + a_{k+1}) Δt,  a = F/m.

    Args:
        differentiable: keep the graph of the last frame, with `positions` as the leaf; of all frames where it is
            as small as a compiled potential's.

    Raises:
        NonFiniteForces: a force is not finite, so that no next step exists.
    """
    dt, inverse_mass = start.atom_timesteps, start.inverse_masses
    positions, velocities = start.positions, start.velocities
    acceleration = torch.zeros_like(positions)
    for k in range(n_frames):
        if k > 0:
            positions = positions.detach() + dt * velocities + 0.5 * dt**2 * acceleration
            velocities = velocities + 0.5 * dt * acceleration
        with_graph = differentiable and (k == n_frames - 1 or potential.compiled is not None)
        if with_graph:
            positions = positions.detach().requires_grad_()
        pairs = edges.at_step(k, positions)
        prediction = predict(potential, start.structures, positions, pairs, create_graph=with_graph)
        forces = prediction.forces.detach()
        if not torch.isfinite(forces).all():
            raise NonFiniteForces(k)
        acceleration = inverse_mass * forces
        if k > 0:
            velocities = velocities + 0.5 * dt * acceleration
        yield Frame(positions, velocities, pairs, prediction)


def accumulate_gradient(
    potential: Potential,
    start: Start,
    edges: RolloutEdges,
    n_frames: int,
    loss: Callable[[list[Prediction]], Tensor],
    cut_every: int | None = None,
) -> Tensor:
    """Add the gradient of a loss on a rollout's predictions to the parameters' `.grad`.

    The discrete adjoint of velocity Verlet: sweeping back, each frame is evaluated once more and one
    vector–Jacobian product taken, so that memory does not grow with the length. With λx, λv the
    adjoints of positions and velocities and u_k = ∂L/∂F_k + (½Δt² λx_{k+1} + ½Δt λv_{k+1} + [k≥1] ½Δt λv_k)/m:
    λv_k = λv_{k+1} + Δt λx_{k+1},  λx_k = λx_{k+1} + (∂F_k/∂r_k)ᵀ u_k.

    A cut frame k begins the rollout anew: r_k and v_k are constants, F_k is not, so that u_k lacks its last
    term, as at the start, and λx_k = λv_k = 0 for the frames before.

    Args:
        n_frames: length S of the subsequences, the start frame included.
        loss: scalar from the predictions of the S frames.
        cut_every: frames that are multiples of it are cut, so that no gradient passes them; none are if None.

    Returns:
        The loss, detached.

    Raises:
        NonFiniteForces: a force along the rollout is not finite.
    """
    dt, inverse_mass = start.atom_timesteps, start.inverse_masses
    block = cut_every or n_frames
    frames = list(rollout(potential, start, edges, n_frames, differentiable=True))
    leaves = [_as_leaves(frame.prediction) for frame in frames]
    value = loss(leaves)
    by_energies = _gradient(value, [leaf.energies for leaf in leaves])
    by_forces = _gradient(value, [leaf.forces for leaf in leaves])
    parameters = list(potential.parameters())
    zero = torch.zeros_like(start.positions)
    position_adjoint = velocity_adjoint = zero
    for k in reversed(range(n_frames)):
        begins = k % block == 0
        later = 0.5 * dt**2 * position_adjoint + 0.5 * dt * velocity_adjoint
        velocity_adjoint = velocity_adjoint + dt * position_adjoint
        if not begins:
            later = later + 0.5 * dt * velocity_adjoint
        force_adjoint = by_forces[k] + inverse_mass * later
        positions, prediction = _with_graph(potential, start, frames[k])
        scalar = (force_adjoint * prediction.forces).sum() + (by_energies[k] * prediction.energies).sum()
        scalar.backward(inputs=parameters if begins else [positions, *parameters])
        if begins:
            position_adjoint = velocity_adjoint = zero
        else:
            position_adjoint = position_adjoint + positions.grad
    return value.detach()


def _as_leaves(prediction: Prediction) -> Prediction:
    return Prediction(
        prediction.energies.detach().requires_grad_(), prediction.forces.detach().requires_grad_()
    )


def _gradient(value: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """∂value/∂input, zero for inputs that the loss does not use."""
    return torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True, allow_unused=True)


def _with_graph(potential: Potential, start: Start, frame: Frame) -> tuple[Tensor, Prediction]:
    """Positions as a leaf and the prediction there with its graph, evaluated anew where the frame did not keep it."""
    if frame.positions.requires_grad:
        return frame.positions, frame.prediction
    positions = frame.positions.detach().requires_grad_()
    return positions, predict(potential, start.structures, positions, frame.edges, create_graph=True)
