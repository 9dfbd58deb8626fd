"""Architectures: (species, edges, edge vectors) → per-atom energies.

An architecture is one file with a pydantic config whose `architecture` field names it and a
`torch.nn.Module` built from `(n_species, config)`. Its forward pass has the signature

    forward(species, edge_index, edge_vec, graph_index, n_graphs) -> node_energy

with species int64 (n_atoms,), edge_index int64 (2, n_edges) from neighbour j (row 0) to centre i
(row 1), both directions present, edge_vec = r_j − r_i in Å, float64 (n_edges, 3), graph_index
int64 (n_atoms,) and node_energy (n_atoms,) in eV, in the precision of its parameters. It must be
scriptable by TorchScript.
"""

from __future__ import annotations

from torch import nn

from dtmd.models.egnn import EGNN, EGNNConfig

ModelConfig = EGNNConfig
"""The union of the architectures' configs, told apart by `architecture`."""

_ARCHITECTURES = {"egnn": EGNN}


def build_model(config: ModelConfig, n_species: int) -> nn.Module:
    """The module that `config.architecture` names, with fresh weights."""
    return _ARCHITECTURES[config.architecture](n_species, config)
