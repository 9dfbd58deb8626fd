"""Every architecture in a small size, structures to evaluate it on, and a rollout to differentiate."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from pydantic import TypeAdapter
from small import example, structures_of
from torch import Tensor

from dtmd.models import ARCHITECTURES, ModelConfig
from dtmd.neighbors import Edges
from dtmd.potential import Potential, Prediction, predict
from dtmd.rollout import Start
from dtmd.structures import Structures
from dtmd.subsequences import Points

NAMES = [config.model_fields["architecture"].default for config in ARCHITECTURES]
SMALL = {
    "egnn": {"width": 16, "n_layers": 2, "n_frequencies": 8},
    "painn": {"width": 8, "n_layers": 2, "n_rbf": 6},
    "visnet": {"width": 8, "n_layers": 3, "n_heads": 2, "n_rbf": 6},
    "mace": {"channels": 4, "max_ell": 2, "correlation": 2, "n_rbf": 4, "radial_widths": [8], "readout_width": 4,
             "avg_num_neighbors": 1.0},
}
"""Settings that make the tests fast; an architecture adds its own here."""

CUTOFF = 4.0
FREE = (False, False, False)
BOX = np.diag([30.0, 30.0, 30.0])


def potential_of(name: str, precision: torch.dtype = torch.float64) -> Potential:
    """A small potential of the architecture for H, C, Pd with fresh weights."""
    return copy.deepcopy(_built(name)).to_precision(precision)


@functools.cache
def _built(name: str) -> Potential:
    torch.manual_seed(0)
    config = TypeAdapter(ModelConfig).validate_python({"architecture": name, "cutoff": CUTOFF, **SMALL[name]})
    return Potential(["H", "C", "Pd"], config, torch.tensor([-14.0, -60.0, -20.0]))


def evaluate(
    potential: Potential, structures: Structures, positions: Tensor, create_graph: bool = False
) -> Prediction:
    """Energies and forces with the neighbours at these positions."""
    edges = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    return predict(potential, structures, positions, edges, create_graph)


def cluster(n_atoms: int = 9, seed: int = 0, n_species: int = 3) -> tuple[Structures, Tensor]:
    """Atoms of the first species, about 1.7 Å apart, without periodicity."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(-1, 3)[:n_atoms] * 1.7
    positions = torch.tensor(grid + rng.normal(0, 0.2, grid.shape))
    return structures_of([k % n_species for k in range(n_atoms)], BOX, FREE), positions


def placed(species: list[int], positions: list[list[float]]) -> tuple[Structures, Tensor]:
    """Atoms at given places, Å, without periodicity."""
    return structures_of(species, BOX, FREE), torch.tensor(positions, dtype=torch.float64)


def real_frame() -> tuple[Structures, Tensor]:
    """H₂ on Pd₆ in graphene, periodic."""
    trajectory = example()[0]
    structures = structures_of([0] * 2 + [1] * 49 + [2] * 6, trajectory.cells[0], (True, True, True))
    return structures, torch.tensor(trajectory.positions[100])


def random_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Normally distributed numbers in the shape and precision of a tensor."""
    return torch.randn(tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(seed))


def loss_on(points: Points) -> Callable[[list[Prediction]], Tensor]:
    """Squared errors of the energies and of all forces, eV² and eV²/Å²."""

    def loss(predictions: list[Prediction]) -> Tensor:
        energy = (predictions[0].energies - points.energies).square().mean()
        forces = [(p.forces - points.forces[:, k]).square().mean() for k, p in enumerate(predictions)]
        return 1e-3 * energy + sum(forces)

    return loss


def plain_rollout(potential: Potential, start: Start, n_frames: int) -> list[Prediction]:
    """Predictions along velocity Verlet, with one graph through time."""
    dt, inverse_mass = start.atom_timesteps, start.inverse_masses
    positions, velocities = start.positions.clone().requires_grad_(), start.velocities
    predictions = [evaluate(potential, start.structures, positions, create_graph=True)]
    for _ in range(1, n_frames):
        half = velocities + 0.5 * dt * inverse_mass * predictions[-1].forces
        positions = positions + dt * half
        predictions.append(evaluate(potential, start.structures, positions, create_graph=True))
        velocities = half + 0.5 * dt * inverse_mass * predictions[-1].forces
    return predictions
