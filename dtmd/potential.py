"""A model with what makes it a potential: elements, reference energies, forces and virial."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtmd.errors import DtmdError
from dtmd.models import ModelConfig, build_model
from dtmd.structures import Structures


class Potential(nn.Module):
    """Energy of structures in eV from species, edges and edge vectors.

    Args:
        elements: chemical symbols the potential knows, in the order of the species index.
        config: the architecture and its hyperparameters.
        reference_energies: eV per atom of each element, added in float64, shape (n_elements,).
        energy_scale: eV; the network's output is multiplied by it. Training sets it to the root mean
            square force times 1 Å, so that a fresh network predicts forces of a sensible size.

    Attributes:
        compiled: what `predict` asks in place of autograd, a `dtmd.compilation.CompiledEvaluation`; not saved.
    """

    __jit_unused_properties__ = ["precision"]

    def __init__(
        self, elements: list[str], config: ModelConfig, reference_energies: Tensor, energy_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.elements = list(elements)
        self.config = config
        self.compiled: Callable[..., tuple[Tensor, Tensor]] | None = None
        self.model = build_model(config, self.elements)
        self.register_buffer("reference_energies", reference_energies.to(torch.float64))
        self.register_buffer("energy_scale", torch.tensor(energy_scale, dtype=torch.float64))

    @property
    def precision(self) -> torch.dtype:
        """Of the network; distances, energies and forces are float64 all the same."""
        return next(self.model.parameters()).dtype

    def to_precision(self, precision: torch.dtype) -> Potential:
        """Change the network's precision."""
        self.model.to(precision)
        return self

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, graph_index: Tensor, n_graphs: int
    ) -> Tensor:
        """Per-atom energies, eV, float64 (n_atoms,); edge_vec in Å, float64."""
        return self.scaled(self.model(species, edge_index, edge_vec, graph_index, n_graphs), species)

    def scaled(self, node_energy: Tensor, species: Tensor) -> Tensor:
        """Energies of the atoms, eV, float64, from those that the model gives."""
        return self.energy_scale * node_energy.to(torch.float64) + self.reference_energies[species]

    def species_of(self, symbols: list[str], source: str) -> Tensor:
        """Species indices of atoms given by symbol, int64 (n_atoms,).

        Raises:
            DtmdError: an element the potential was not made for.
        """
        return species_indices(self.elements, symbols, source)


def species_indices(elements: list[str], symbols: list[str], source: str) -> Tensor:
    """Of atoms given by symbol among the elements of a potential, int64 (n_atoms,).

    Raises:
        DtmdError: an element the potential was not made for.
    """
    unknown = sorted(set(symbols) - set(elements))
    if unknown:
        raise DtmdError(f"{source}: the potential does not know {', '.join(unknown)}, "
                        f"only {', '.join(elements)}; train it with data that hold all elements")
    return torch.tensor([elements.index(symbol) for symbol in symbols])


Evaluate = Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]
"""(species, edge_index, edge_vec) → energies of the atoms, gradient of their sum by edge_vec."""


@dataclass(frozen=True)
class Prediction:
    """Energies (B,) in eV and forces (n_atoms, 3) in eV/Å, float64.

    If asked for, virials (B, 3, 3) and energies of the atoms (n_atoms,), both in eV.
    """

    energies: Tensor
    forces: Tensor
    virials: Tensor | None = None
    atom_energies: Tensor | None = None


def predict(
    potential: Potential,
    structures: Structures,
    positions: Tensor,
    edges: tuple[Tensor, Tensor],
    create_graph: bool = False,
) -> Prediction:
    """Energies and forces F = −∇E.

    Args:
        positions: Å, float64 (n_atoms, 3).
        edges: edge_index and shift as `dtmd.neighbors.Edges` gives them.
        create_graph: keep the graph, so that energies and forces can be differentiated again; gradients
            then flow to `positions` if they require them.
    """
    if potential.compiled is not None:
        with torch.set_grad_enabled(create_graph):
            return Prediction(*potential.compiled(potential, structures, positions, edges))
    if not positions.requires_grad:
        positions = positions.detach().requires_grad_()
    edge_index, shift = edges
    with torch.enable_grad():
        edge_vec = positions[edge_index[0]] - positions[edge_index[1]] + shift
        energies = _summed(_atom_energies(potential, structures, edge_index, edge_vec), structures)
        (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)
    if not create_graph:
        energies = energies.detach()
    return Prediction(energies, -gradient)


def predict_with_virial(
    potential: Potential, structures: Structures, positions: Tensor, edges: tuple[Tensor, Tensor]
) -> Prediction:
    """As `predict`, with the energies of the atoms and the virial W = −Σ_edges r_ij ⊗ ∂E/∂r_ij.

    The trace of the virial over 3V is the static pressure.
    """
    def energies(species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> Tensor:
        return _atom_energies(potential, structures, edge_index, edge_vec)

    return predict_by_edges(functools.partial(with_gradient, energies), structures, positions, edges)


def predict_by_edges(
    evaluate: Evaluate, structures: Structures, positions: Tensor, edges: tuple[Tensor, Tensor]
) -> Prediction:
    """As `predict_with_virial`, of what gives energies and their gradient, such as an exported potential."""
    edge_index, shift = edges
    positions = positions.detach()
    edge_vec = positions[edge_index[0]] - positions[edge_index[1]] + shift
    atom_energies, gradient = evaluate(structures.species, edge_index, edge_vec)
    forces, virials = gather_edge_gradient(
        edge_index, edge_vec, gradient, structures.graph_index, structures.n_graphs
    )
    return Prediction(_summed(atom_energies, structures), forces, virials, atom_energies)


def with_gradient(
    energies: Callable[[Tensor, Tensor, Tensor], Tensor], species: Tensor, edge_index: Tensor, edge_vec: Tensor
) -> tuple[Tensor, Tensor]:
    """Energies of the atoms and the gradient of their sum by edge_vec, by autograd."""
    edge_vec = edge_vec.detach().requires_grad_()
    energy = energies(species, edge_index, edge_vec)
    (gradient,) = torch.autograd.grad(energy.sum(), edge_vec)
    return energy.detach(), gradient


def gather_edge_gradient(
    edge_index: Tensor, edge_vec: Tensor, gradient: Tensor, graph_index: Tensor, n_graphs: int
) -> tuple[Tensor, Tensor]:
    """Forces (n_atoms, 3) and virials (n_graphs, 3, 3) from ∂E/∂(edge vector), (n_edges, 3)."""
    forces = gradient.new_zeros(len(graph_index), 3)
    forces = forces.index_add(0, edge_index[1], gradient).index_add(0, edge_index[0], -gradient)
    outer = -edge_vec[:, :, None] * gradient[:, None, :]
    virials = gradient.new_zeros(n_graphs, 3, 3).index_add(0, graph_index[edge_index[1]], outer)
    return forces, virials


def _atom_energies(potential: Potential, structures: Structures, edge_index: Tensor, edge_vec: Tensor) -> Tensor:
    return potential(structures.species, edge_index, edge_vec, structures.graph_index, structures.n_graphs)


def _summed(atom_energies: Tensor, structures: Structures) -> Tensor:
    return atom_energies.new_zeros(structures.n_graphs).index_add(0, structures.graph_index, atom_energies)
