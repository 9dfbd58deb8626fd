"""EGNN and dynamic training written down straightforwardly: what `bench_training.py` measures dtmd against.

Random Fourier features and the first linear map on every edge, energies by the same envelope and readout, and one
autograd graph through the forces of all steps of a rollout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dtmd.models.radial import smooth_envelope
from dtmd.neighbors import Edges
from dtmd.potential import Potential, Prediction
from dtmd.rollout import Start
from dtmd.structures import Structures


class StraightforwardEGNN(nn.Module):
    """The network of a potential with EGNN, its weights copied; with smooth envelope and per-atom readout."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        model = potential.model
        self.n_species, self.cutoff = model.n_species, model.cutoff
        self.embedding, self.readout = copy.deepcopy(model.embedding), copy.deepcopy(model.readout)
        self.layers = nn.ModuleList(_Layer(layer) for layer in model.layers)
        self.register_buffer("energy_scale", potential.energy_scale.clone())
        self.register_buffer("reference_energies", potential.reference_energies.clone())

    def predict(
        self, structures: Structures, positions: Tensor, edges: tuple[Tensor, Tensor], create_graph: bool = False
    ) -> Prediction:
        """Energies and forces, as `dtmd.potential.predict`."""
        if not positions.requires_grad:
            positions = positions.detach().requires_grad_()
        (neighbour, centre), shift = edges
        distance = torch.linalg.vector_norm(positions[neighbour] - positions[centre] + shift, dim=1, keepdim=True)
        precision = self.embedding.weight.dtype
        envelope = smooth_envelope(distance, self.cutoff).to(precision)
        h = self.embedding(nn.functional.one_hot(structures.species, self.n_species).to(precision))
        for layer in self.layers:
            h = layer(h, neighbour, centre, distance.to(precision), envelope)
        atoms = self.energy_scale * self.readout(h).squeeze(1).to(torch.float64)
        atoms = atoms + self.reference_energies[structures.species]
        energies = atoms.new_zeros(structures.n_graphs).index_add(0, structures.graph_index, atoms)
        (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)
        return Prediction(energies, -gradient)

    def rollout(self, start: Start, n_frames: int, neighbours: Callable, create_graph: bool) -> list[Prediction]:
        """Velocity Verlet, a fresh neighbour list at every step; with one graph through time if asked for."""
        structures, dt, inverse_mass = start.structures, start.atom_timesteps, start.inverse_masses
        positions, velocities = start.positions, start.velocities
        predictions = []
        for k in range(n_frames):
            if k > 0:
                half = velocities + 0.5 * dt * inverse_mass * predictions[-1].forces
                positions = positions + dt * half
            edges = neighbours(structures, positions.detach())
            predictions.append(self.predict(structures, positions, edges, create_graph))
            if k > 0:
                velocities = half + 0.5 * dt * inverse_mass * predictions[-1].forces
        return predictions

    def add_gradient(self, start: Start, n_frames: int, loss: Callable[[list[Prediction]], Tensor]) -> Tensor:
        """Backpropagation through the whole rollout; returns the loss."""
        value = loss(self.rollout(start, n_frames, self.neighbours, create_graph=True))
        value.backward()
        return value.detach()

    def neighbours(self, structures: Structures, positions: Tensor) -> tuple[Tensor, Tensor]:
        """All pairs inside the cutoff, by the search that dtmd uses."""
        return Edges(structures, self.cutoff, skin=0.0).at(positions)

    def gradients_like(self, potential: Potential) -> list[Tensor]:
        """This network's gradients in the order and the shapes of the potential's parameters."""
        gradients = {name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                     for name, parameter in self.named_parameters()}
        return [_part(gradients, name.removeprefix("model.")) for name, _ in potential.named_parameters()]


class _Layer(nn.Module):
    """Φ and Φ' as one chain each, on [h_i, h_j, RFF(d_ij)] and [h_i, Σ_j m_ij]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.register_buffer("frequencies", layer.frequencies.clone())
        parts = layer.from_centre, layer.from_neighbour, layer.from_distance
        first = nn.Linear(sum(part.in_features for part in parts), layer.from_centre.out_features)
        first.weight.data = torch.cat([part.weight.data for part in parts], dim=1)
        first.bias.data = layer.from_centre.bias.data.clone()
        self.message = nn.Sequential(first, *copy.deepcopy(layer.message))
        self.update = copy.deepcopy(layer.update)

    def forward(self, h: Tensor, neighbour: Tensor, centre: Tensor, distance: Tensor, envelope: Tensor) -> Tensor:
        phase = distance * self.frequencies
        message = self.message(torch.cat([h[centre], h[neighbour], torch.sin(phase), torch.cos(phase)], dim=1))
        summed = torch.zeros_like(h).index_add(0, centre, envelope * message)
        return h + self.update(torch.cat([h, summed], dim=1))


def _part(gradients: dict[str, Tensor], name: str) -> Tensor:
    """Of the chain's weights, which hold three linear maps side by side and shift the rest by one place."""
    head, _, tail = name.rpartition(".from_")
    if head:
        width = gradients[f"{head}.message.0.bias"].shape[0]
        columns = {"centre": slice(0, width), "neighbour": slice(width, 2 * width), "distance": slice(2 * width, None)}
        which, kind = tail.split(".")
        first = gradients[f"{head}.message.0.{kind}"]
        return first if kind == "bias" else first[:, columns[which]]
    head, _, tail = name.partition(".message.")
    if tail:
        place, kind = tail.split(".")
        return gradients[f"{head}.message.{int(place) + 1}.{kind}"]
    return gradients[name]
