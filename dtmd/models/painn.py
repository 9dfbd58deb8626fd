"""PaiNN: equivariant message passing with scalar and vector features per atom."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dtmd.models.edges import gather, of_centres, sum_at
from dtmd.models.layered import LayeredModel
from dtmd.models.radial import smooth_envelope


class PaiNNConfig(BaseModel):
    """Hyperparameters of `PaiNN`; the defaults have the paper's size.

    Attributes:
        cutoff: Å.
        width: length F of the scalar features, and number of vectors, of an atom.
        n_layers: message and update blocks.
        n_rbf: radial basis functions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["painn"] = "painn"
    cutoff: float = Field(default=5.0, gt=0)
    width: int = Field(default=128, ge=2)
    n_layers: int = Field(default=3, gt=0)
    n_rbf: int = Field(default=20, gt=0)

    @property
    def per_atom_energy(self) -> bool:
        """Whether the energy of an atom has a meaning of its own."""
        return True


class PaiNN(LayeredModel):
    """Schütt, Unke and Gastegger, Equivariant message passing, ICML 2021 (fig. 2), with a smooth envelope.

    The weights that the paper's network has but never uses are left out: the vectors are zero before the
    first layer, and the last layer's are not read.
    """

    def __init__(self, elements: list[str], config: PaiNNConfig) -> None:
        super().__init__()
        width, last = config.width, config.n_layers - 1
        self.n_layers = config.n_layers
        self.cutoff = config.cutoff
        self.n_rbf = config.n_rbf
        self.width = width
        self.embedding = nn.Embedding(len(elements), width)
        self.messages = nn.ModuleList(_Message(config, reads_vectors=k > 0) for k in range(config.n_layers))
        self.updates = nn.ModuleList(_Update(width, writes_vectors=k < last) for k in range(config.n_layers))
        self.readout = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1))

    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes: s (n_atoms, F), v (n_atoms, 3, F). Edges: radial (n_edges, n_rbf + 1), unit vectors (n_edges, 3)."""
        distance = torch.linalg.vector_norm(edge_vec, dim=1, keepdim=True)
        s = self.embedding(species)
        unit = (edge_vec / distance).to(s.dtype)
        radial = self.radial(distance).to(s.dtype)
        v = torch.zeros(s.shape[0], 3, self.width, dtype=s.dtype, device=s.device)
        return [s, v], [radial, unit]

    def layer(
        self, k: int, n_centres: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Message and update block number k."""
        s, v = nodes[0], nodes[1]
        for i, (message, update) in enumerate(zip(self.messages, self.updates)):
            if i == k:
                s, v = message(s, v, n_centres, edge_index, edges[0], edges[1])
                s, v = update(s, v)
        return [s, v], edges

    def energies(self, nodes: list[Tensor], graph_index: Tensor, n_graphs: int) -> Tensor:
        """Energies of the atoms in eV, shape (n_atoms,)."""
        return self.readout(nodes[0]).squeeze(1)

    def radial(self, distance: Tensor) -> Tensor:
        """sin(nπr/r_cut)/r for n = 1 … n_rbf, and 1 for the bias of the filters, times the envelope.

        Args:
            distance: r in Å, float64 (n_edges, 1).

        Returns:
            Shape (n_edges, n_rbf + 1).
        """
        envelope = smooth_envelope(distance, self.cutoff)
        n = torch.arange(1, self.n_rbf + 1, dtype=distance.dtype, device=distance.device)
        return torch.cat([torch.sin(n * (math.pi / self.cutoff) * distance) * (envelope / distance), envelope], dim=1)


class _Message(nn.Module):
    """Δs_i = Σ_j φ_s(s_j)∘W_s(r),  Δv_i = Σ_j v_j∘φ_vv(s_j)∘W_vv(r) + φ_vs(s_j)∘W_vs(r) r̂_ij."""

    def __init__(self, config: PaiNNConfig, reads_vectors: bool) -> None:
        super().__init__()
        width, n_parts = config.width, 3 if reads_vectors else 2
        self.width = width
        self.reads_vectors = reads_vectors
        self.phi = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_parts * width))
        # The last column is the bias. One product with the basis is cheaper than a look-up in a table.
        self.filters = nn.Linear(config.n_rbf + 1, n_parts * width, bias=False)

    def forward(
        self, s: Tensor, v: Tensor, n_centres: int, edge_index: Tensor, radial: Tensor, unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        neighbour, centre = edge_index[0], edge_index[1]
        weights = gather(self.phi(s), neighbour) * self.filters(radial)
        scalar = weights[:, : self.width]
        vector = unit.unsqueeze(2) * weights[:, None, self.width : 2 * self.width]
        if self.reads_vectors:
            vector = torch.addcmul(vector, gather(v, neighbour), weights[:, None, 2 * self.width :])
        s = of_centres(s, n_centres) + sum_at(centre, scalar, n_centres)
        return s, of_centres(v, n_centres) + sum_at(centre, vector, n_centres)


class _Update(nn.Module):
    """Δs = a_ss + a_sv ⟨Uv, Vv⟩,  Δv = a_vv Uv,  a = MLP(s, ‖Vv‖), atom by atom."""

    def __init__(self, width: int, writes_vectors: bool) -> None:
        super().__init__()
        self.width = width
        self.writes_vectors = writes_vectors
        self.mix = nn.Linear(width, 2 * width, bias=False)
        n_parts = 3 if writes_vectors else 2
        self.gates = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, n_parts * width))

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        uv, vv = torch.chunk(self.mix(v), 2, dim=2)
        # The bare norm has a cusp where the neighbours of an atom balance: forces would jump there.
        norm = torch.sqrt(vv.square().sum(1) + 1e-4)
        gates = self.gates(torch.cat([s, norm], dim=1))
        s = s + gates[:, : self.width] + gates[:, self.width : 2 * self.width] * (uv * vv).sum(1)
        if self.writes_vectors:
            v = v + uv * gates[:, None, 2 * self.width :]
        return s, v
