"""ViSNet: scalar and vector features that talk to each other, with a cost linear in the number of edges.

After Wang et al., Nature Communications 15, 313 (2024). torch_geometric's ViSNet finds its own edges,
without periodic cells and with self-loops, and cannot be scripted; here the same equations run on edges
given from outside (tests/test_visnet.py compares the two). Where it differs from that implementation:
    - The first layer has no vectors yet, so it lacks the weights that only multiply zeros.
    - The vector gates have no bias: with one, a message would not vanish at the cutoff.
    - Norms of vectors are smooth at zero, where an atom at a centre of inversion sits.
    - With lmax = 2 the rejection acts on each degree; on both at once it cancels from the product.
    - Linear maps of atoms are applied before the gather to edges, not after it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dtmd.models.edges import gather, of_centres, sum_at
from dtmd.models.layered import LayeredModel


class ViSNetConfig(BaseModel):
    """Hyperparameters of `ViSNet`.

    Attributes:
        cutoff: Å.
        width: length of the scalar features, and number of vectors.
        n_layers: message-passing layers, at least 2.
        n_heads: attention heads; divides the width.
        n_rbf: radial basis functions.
        lmax: 1 has vectors, 2 also spherical harmonics of degree 2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["visnet"] = "visnet"
    cutoff: float = Field(default=5.0, gt=0)
    width: int = Field(default=128, ge=2)
    n_layers: int = Field(default=4, ge=2)
    n_heads: int = Field(default=8, gt=0)
    n_rbf: int = Field(default=32, ge=2)
    lmax: Literal[1, 2] = 1

    @property
    def per_atom_energy(self) -> bool:
        """Whether the energy of an atom has a meaning of its own."""
        return True

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ViSNetConfig:
        if self.width % self.n_heads:
            raise ValueError(f"n_heads: {self.n_heads} heads do not divide a width of {self.width}; "
                             "make the width a multiple of n_heads")
        return self


def cosine_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """½ (cos(π d/d_c) + 1), zero with zero slope at the cutoff. `distance` in Å, any shape."""
    return 0.5 * (torch.cos(math.pi * torch.clamp(distance / cutoff, max=1.0)) + 1.0)


def radial_basis(distance: Tensor, cutoff: float, n_rbf: int) -> Tensor:
    """Gaussians in exp(−5 d/d_c) times the cosine cutoff, (n_edges, n_rbf).

    PhysNet's basis (Unke and Meuwly, JCTC 15, 3678 (2019), eq. 8); `distance` in Å, (n_edges, 1).
    """
    lowest = math.exp(-5.0)
    means = torch.linspace(lowest, 1.0, n_rbf, dtype=distance.dtype, device=distance.device)
    beta = (0.5 * n_rbf / (1.0 - lowest)) ** 2
    gaussians = torch.exp(-beta * (torch.exp(-5.0 * distance / cutoff) - means) ** 2)
    return cosine_cutoff(distance, cutoff) * gaussians


def spherical_harmonics(direction: Tensor, lmax: int) -> Tensor:
    """Real harmonics of degree 1 to lmax of unit vectors (n, 3), each degree of norm 1: (n, 3) or (n, 8)."""
    if lmax == 1:
        return direction
    x, y, z = direction.unbind(1)
    root = math.sqrt(3.0)
    second = [root * x * z, root * x * y, y * y - 0.5 * (x * x + z * z), root * y * z, 0.5 * root * (z * z - x * x)]
    return torch.cat([direction, torch.stack(second, dim=1)], dim=1)


def smooth_norm(vectors: Tensor, softening: float = 0.01) -> Tensor:
    """√(v² + s²) − s over dim 1: |v| for long vectors, smooth at zero."""
    return torch.sqrt(vectors.square().sum(1) + softening**2) - softening


# Sums over edges, here and in the backward pass of a gather, are float64: so the order of the edges shows in
# rare roundings only, and LAMMPS gives the same numbers as Python.
class ViSNet(LayeredModel):
    """Equivariant message passing with runtime geometry calculation."""

    def __init__(self, elements: list[str], config: ViSNetConfig) -> None:
        super().__init__()
        width = config.width
        self.n_layers = config.n_layers + 1  # the first sums over neighbours by their species
        self.cutoff = config.cutoff
        self.n_rbf = config.n_rbf
        self.lmax: int = config.lmax
        self.embedding = nn.Embedding(len(elements), width)
        self.neighbour_embedding = nn.Embedding(len(elements), width)
        self.neighbour_filter = nn.Linear(config.n_rbf, width)
        self.combine = nn.Linear(2 * width, width)
        self.edge_filter = nn.Linear(config.n_rbf, width)
        self.first = _FirstLayer(config)
        self.middle = nn.ModuleList(_Layer(config) for _ in range(config.n_layers - 2))
        self.edge_updates = nn.ModuleList(_EdgeUpdate(config) for _ in range(config.n_layers - 2))
        self.last = _Layer(config)
        self.norm = nn.LayerNorm(width)
        self.readout = _Readout(width)
        self.apply(_initialise)

    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes: x (n_atoms, width). Edges: radial basis (n_edges, n_rbf), envelope (n_edges, 1), harmonics."""
        precision = self.combine.weight.dtype
        distance = torch.linalg.vector_norm(edge_vec, dim=1, keepdim=True)
        envelope = cosine_cutoff(distance, self.cutoff).to(precision)
        basis = radial_basis(distance, self.cutoff, self.n_rbf).to(precision)
        harmonics = spherical_harmonics(edge_vec / distance, self.lmax).to(precision)
        return [self.embedding(species)], [basis, envelope, harmonics]

    def layer(
        self, k: int, n_centres: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Scalars x from layer 0 on, vectors (n_atoms, 3 or 8, width) and edges f (n_edges, width) from layer 1 on."""
        f, envelope, harmonics = edges[0], edges[1], edges[2]  # before layer 1, f is the radial basis
        x = nodes[0]
        if k == 0:
            return [self._embed_neighbours(x, n_centres, species, edge_index, f, envelope)], edges
        if k == 1:
            f = (gather(x, edge_index[0]) + gather(x, edge_index[1])) * self.edge_filter(f)
            x, vectors = self.first(x, n_centres, f, edge_index, envelope, harmonics)
            return [x, vectors], [f, envelope, harmonics]
        vectors = nodes[1]
        if k == self.n_layers - 1:
            x, vectors = self.last(x, vectors, n_centres, f, edge_index, envelope, harmonics)
        for i, (layer, update) in enumerate(zip(self.middle, self.edge_updates)):
            if i == k - 2:
                change = update(vectors, f, edge_index, harmonics)
                x, vectors = layer(x, vectors, n_centres, f, edge_index, envelope, harmonics)
                f = f + change
        return [x, vectors], [f, envelope, harmonics]

    def energies(self, nodes: list[Tensor], graph_index: Tensor, n_graphs: int) -> Tensor:
        """Energies of the atoms in eV, shape (n_atoms,)."""
        return self.readout(self.norm(nodes[0]), nodes[1])

    def _embed_neighbours(
        self, x: Tensor, n_centres: int, species: Tensor, edge_index: Tensor, basis: Tensor, envelope: Tensor
    ) -> Tensor:
        messages = envelope * self.neighbour_filter(basis)
        messages = messages * gather(self.neighbour_embedding(species), edge_index[0])
        summed = sum_at(edge_index[1], messages, n_centres)
        return self.combine(torch.cat([of_centres(x, n_centres), summed], dim=1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _Messages(nn.Module):
    """m_ij = v_j ∘ d^V_ij · SiLU(⟨q_i, k_j, d^K_ij⟩) · cutoff, the product ⟨⟩ within each head."""

    def __init__(self, config: ViSNetConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = [config.n_heads, width // config.n_heads]
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.edge_key = nn.Linear(width, width)
        self.edge_value = nn.Linear(width, width)

    def forward(self, x: Tensor, n_centres: int, f: Tensor, edge_index: Tensor, envelope: Tensor) -> Tensor:
        x = self.norm(x)
        by_head = [f.shape[0]] + self.heads
        query = gather(self.query(of_centres(x, n_centres)), edge_index[1])
        key = gather(self.key(x), edge_index[0]) * nn.functional.silu(self.edge_key(f))
        value = gather(self.value(x), edge_index[0]) * nn.functional.silu(self.edge_value(f))
        attention = nn.functional.silu((query * key).view(by_head).sum(2)) * envelope
        return (value.view(by_head) * attention.unsqueeze(2)).view(f.shape)


class _FirstLayer(nn.Module):
    """x_i ← x_i + W Σ_j m_ij, and the first vectors Σ_j s_ij ⊗ Y(r_ij)."""

    def __init__(self, config: ViSNetConfig) -> None:
        super().__init__()
        self.messages = _Messages(config)
        self.gate = nn.Linear(config.width, config.width, bias=False)
        self.update = nn.Linear(config.width, config.width)

    def forward(
        self, x: Tensor, n_centres: int, f: Tensor, edge_index: Tensor, envelope: Tensor, harmonics: Tensor
    ) -> tuple[Tensor, Tensor]:
        messages = self.messages(x, n_centres, f, edge_index, envelope)
        gate = nn.functional.silu(self.gate(messages))
        vectors = sum_at(edge_index[1], gate.unsqueeze(1) * harmonics.unsqueeze(2), n_centres)
        summed = sum_at(edge_index[1], messages, n_centres)
        return of_centres(x, n_centres) + self.update(summed), vectors


class _Layer(nn.Module):
    """Messages between scalars and vectors, and their exchange within each atom."""

    def __init__(self, config: ViSNetConfig) -> None:
        super().__init__()
        width = config.width
        self.messages = _Messages(config)
        self.gates = nn.Linear(width, 2 * width, bias=False)
        self.update = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, 3 * width, bias=False)

    def forward(
        self, x: Tensor, vectors: Tensor, n_centres: int, f: Tensor, edge_index: Tensor, envelope: Tensor,
        harmonics: Tensor,
    ) -> tuple[Tensor, Tensor]:
        messages = self.messages(x, n_centres, f, edge_index, envelope)
        along, outward = torch.chunk(nn.functional.silu(self.gates(messages)), 2, dim=1)
        vector_messages = (
            gather(vectors, edge_index[0]) * along.unsqueeze(1) + outward.unsqueeze(1) * harmonics.unsqueeze(2)
        )
        scale, share, change = torch.chunk(self.update(sum_at(edge_index[1], messages, n_centres)), 3, dim=1)
        vectors = of_centres(vectors, n_centres)
        first, second, third = torch.chunk(self.mix(vectors), 3, dim=2)
        x = of_centres(x, n_centres) + (first * second).sum(1) * share + change
        summed = sum_at(edge_index[1], vector_messages, n_centres)
        return x, vectors + third * scale.unsqueeze(1) + summed


class _EdgeUpdate(nn.Module):
    """Change of f_ij by the dihedral-like product of the vectors of i and j, both rejected from r_ij."""

    def __init__(self, config: ViSNetConfig) -> None:
        super().__init__()
        self.degrees: list[int] = [3, 5][: config.lmax]
        self.centre = nn.Linear(config.width, config.width, bias=False)
        self.neighbour = nn.Linear(config.width, config.width, bias=False)
        self.edge = nn.Linear(config.width, config.width)

    def forward(self, vectors: Tensor, f: Tensor, edge_index: Tensor, harmonics: Tensor) -> Tensor:
        a = gather(self.centre(vectors), edge_index[1])
        b = gather(self.neighbour(vectors), edge_index[0])
        y = harmonics.unsqueeze(2)
        product = (a * b).sum(1)
        # ⟨a − y⟨a,y⟩, b − y⟨b,y⟩⟩ = ⟨a,b⟩ − ⟨a,y⟩⟨b,y⟩ for a degree, as its y has norm 1
        for a_y, b_y in zip(torch.split(a * y, self.degrees, 1), torch.split(b * y, self.degrees, 1)):
            product = product - a_y.sum(1) * b_y.sum(1)
        return nn.functional.silu(self.edge(f)) * product


class _Readout(nn.Module):
    """Two gated equivariant blocks, of which the second gives the energy alone, (n_atoms,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.invariant = nn.Linear(width, width, bias=False)
        self.narrow = nn.Linear(width, half, bias=False)
        self.hidden = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 2 * half))
        self.narrow_invariant = nn.Linear(half, half, bias=False)
        self.energy = nn.Sequential(nn.Linear(2 * half, half), nn.SiLU(), nn.Linear(half, 1))

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        hidden = self.hidden(torch.cat([x, smooth_norm(self.invariant(vectors))], dim=1))
        x, gate = torch.chunk(hidden, 2, dim=1)
        norms = smooth_norm(self.narrow_invariant(gate.unsqueeze(1) * self.narrow(vectors)))
        return self.energy(torch.cat([nn.functional.silu(x), norms], dim=1)).squeeze(1)
