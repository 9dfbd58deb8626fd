"""The E(n)-invariant message-passing network of the dynamic-training article, made smooth."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dtmd.models.edges import of_centres
from dtmd.models.layered import LayeredModel
from dtmd.models.radial import smooth_envelope


class EGNNConfig(BaseModel):
    """Hyperparameters of `EGNN`; the defaults have the article's size.

    Attributes:
        cutoff: Å.
        width: length of the node features.
        n_layers: message-passing layers.
        n_frequencies: random Fourier frequencies per layer; the feature is twice as long.
        frequency_std: σ of the frequencies, 1/Å; they are drawn from N(0, σ²)/√2.
        n_knots: the filters, functions of the distance alone, are evaluated on so many knots and
            interpolated (512 change the forces by some 1e-5 eV/Å at σ = 4); 0 evaluates every edge.
        envelope: smooth switches each message off at the cutoff; none is the article's jump.
        readout: per_atom sums the energies of the atoms, which is extensive and what LAMMPS needs for
            per-atom energies; pooled is the article's network on the summed features.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["egnn"] = "egnn"
    cutoff: float = Field(default=5.0, gt=0)
    width: int = Field(default=128, gt=0)
    n_layers: int = Field(default=3, gt=0)
    n_frequencies: int = Field(default=256, gt=0)
    frequency_std: float = Field(default=4.0, gt=0)
    n_knots: int = Field(default=512, ge=0)
    envelope: Literal["smooth", "none"] = "smooth"
    readout: Literal["per_atom", "pooled"] = "per_atom"

    @property
    def per_atom_energy(self) -> bool:
        """Whether the energy of an atom has a meaning of its own."""
        return self.readout == "per_atom"


class EGNN(LayeredModel):
    """Three message-passing layers over random Fourier features of the distances (article eqs. 2–7)."""

    def __init__(self, elements: list[str], config: EGNNConfig) -> None:
        super().__init__()
        self.n_species = len(elements)
        self.n_layers = config.n_layers
        self.cutoff = config.cutoff
        self.has_envelope = config.envelope == "smooth"
        self.pooled = config.readout == "pooled"
        self.embedding = nn.Linear(len(elements), config.width)
        self.layers = nn.ModuleList(_MessageLayer(config) for _ in range(config.n_layers))
        self.readout = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 1)
        )

    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes: h (n_atoms, width). Edges: distance and envelope, (n_edges, 1)."""
        distance = torch.linalg.vector_norm(edge_vec, dim=1, keepdim=True)
        envelope = smooth_envelope(distance, self.cutoff) if self.has_envelope else torch.ones_like(distance)
        one_hot = nn.functional.one_hot(species, self.n_species)
        h = self.embedding(one_hot.to(self.embedding.weight.dtype))
        return [h], [distance, envelope.to(h.dtype)]

    def layer(
        self, k: int, n_centres: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Messages and update number k."""
        h = nodes[0]
        for i, layer in enumerate(self.layers):
            if i == k:
                h = layer(h, n_centres, edge_index, edges[0], edges[1])
        return [h], edges

    def energies(self, nodes: list[Tensor], graph_index: Tensor, n_graphs: int) -> Tensor:
        """Energies of the atoms in eV, shape (n_atoms,).

        With the pooled readout only their sum over a graph has a meaning: each atom gets an equal share.
        """
        h = nodes[0]
        if not self.pooled:
            return self.readout(h).squeeze(1)
        n_atoms = torch.bincount(graph_index, minlength=n_graphs).to(h.dtype)
        pooled = torch.zeros(n_graphs, h.shape[1], dtype=h.dtype, device=h.device).index_add(0, graph_index, h)
        return (self.readout(pooled).squeeze(1) / n_atoms)[graph_index]


class _MessageLayer(nn.Module):
    """m_ij = Φ(h_i, h_j, RFF(d_ij)), h_i ← h_i + Φ'(h_i, Σ_j m_ij)."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        width = config.width
        self.cutoff = config.cutoff
        self.n_knots = config.n_knots
        std = config.frequency_std / math.sqrt(2.0)
        self.register_buffer("frequencies", std * torch.randn(1, config.n_frequencies))
        # Φ's first linear map in parts: the node parts run once per atom, not once per edge.
        self.from_centre = nn.Linear(width, width)
        self.from_neighbour = nn.Linear(width, width, bias=False)
        self.from_distance = nn.Linear(2 * config.n_frequencies, width, bias=False)
        self.message = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU()
        )
        self.update = nn.Sequential(
            nn.Linear(2 * width, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(),
        )

    def filters(self, distance: Tensor) -> Tensor:
        """Φ's first linear map on the random Fourier features, (n_edges, width); distance in Å, (n_edges, 1)."""
        if self.n_knots == 0:
            phase = distance.to(self.frequencies.dtype) * self.frequencies
            return self.from_distance(torch.cat([torch.sin(phase), torch.cos(phase)], dim=1))
        spacing = self.cutoff / (self.n_knots - 1)
        left = torch.clamp((distance.detach() / spacing).floor(), max=self.n_knots - 2.0)
        t = (distance / spacing - left).to(self.frequencies.dtype)
        cubics = self.cubics(spacing).index_select(0, left.squeeze(1).to(torch.int64))
        c0, c1, c2, c3 = torch.chunk(cubics, 4, dim=1)
        return c0 + t * (c1 + t * (c2 + t * c3))

    def cubics(self, spacing: float) -> Tensor:
        """Coefficients of the Hermite cubics between the knots, (n_knots − 1, 4 · width).

        Independent of the input, so that a frozen TorchScript holds the finished table.
        """
        # Rounded phases would show in the slopes between knots that are close together.
        frequencies = self.frequencies.to(torch.float64)
        knots = torch.arange(self.n_knots, dtype=torch.float64, device=frequencies.device).unsqueeze(1)
        phase = spacing * knots * frequencies
        sin, cos = torch.sin(phase), torch.cos(phase)
        derivative = spacing * torch.cat([frequencies * cos, -frequencies * sin], dim=1)
        value = self.from_distance(torch.cat([sin, cos], dim=1).to(self.frequencies.dtype))
        slope = self.from_distance(derivative.to(self.frequencies.dtype))
        rise, before, after = value[1:] - value[:-1], slope[:-1], slope[1:]
        return torch.cat([value[:-1], before, 3.0 * rise - 2.0 * before - after, before + after - 2.0 * rise], dim=1)

    def forward(self, h: Tensor, n_centres: int, edge_index: Tensor, distance: Tensor, envelope: Tensor) -> Tensor:
        neighbour, centre = edge_index[0], edge_index[1]
        own = of_centres(h, n_centres)
        # Sums over edges, those of the backward pass too, are float64: so the result does not depend on
        # the order of the edges, and LAMMPS gives the same numbers as Python.
        nodes = (
            self.from_centre(own).to(torch.float64).index_select(0, centre)
            + self.from_neighbour(h).to(torch.float64).index_select(0, neighbour)
        )
        message = envelope * self.message(nodes.to(h.dtype) + self.filters(distance))
        summed = torch.zeros(own.shape, dtype=torch.float64, device=h.device)
        summed = summed.index_add(0, centre, message.to(torch.float64)).to(h.dtype)
        return own + self.update(torch.cat([own, summed], dim=1))
