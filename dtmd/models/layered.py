"""What an architecture is: node features that pass through layers, so that LAMMPS can exchange them in between."""

from __future__ import annotations

from torch import Tensor, nn


class LayeredModel(nn.Module):
    """Base class of the architectures; a subclass sets `n_layers` and defines `embed`, `layer` and `energies`.

    One rule: a layer reads the features of the atoms at both ends of the edges and gives those of the
    centres alone, which are the first `n_centres` atoms. In Python these are all atoms. In LAMMPS the rest are
    atoms of other MPI ranks, whose features come from there after each layer. A layer is a function of its
    arguments: what it needs of the geometry passes through `edges`, and the edges stay with their centres.

    Nodes and edges are lists of tensors of any length whose first dimension counts atoms and edges, of a shape
    that does not depend on their number. All must be scriptable by TorchScript.
    """

    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes and edges before the first layer; what a neighbour reads of an atom depends on its species alone."""
        raise NotImplementedError

    def layer(
        self, k: int, n_centres: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes of the centres and edges after layer k, which counts from 0."""
        raise NotImplementedError

    def energies(self, nodes: list[Tensor], graph_index: Tensor, n_graphs: int) -> Tensor:
        """Energies of the atoms in eV, (n_atoms,), from the nodes after the last layer."""
        raise NotImplementedError

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, graph_index: Tensor, n_graphs: int
    ) -> Tensor:
        """Energies of the atoms in eV, shape (n_atoms,); see `dtmd.models` for the arguments."""
        nodes, edges = self.embed(species, edge_index, edge_vec)
        for k in range(self.n_layers):
            nodes, edges = self.layer(k, species.shape[0], species, edge_index, nodes, edges)
        return self.energies(nodes, graph_index, n_graphs)
