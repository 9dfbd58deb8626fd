"""Architectures: (species, edges, edge vectors) → per-atom energies.

An architecture is one file and one entry of `ARCHITECTURES` below. The file holds a pydantic config,
whose `architecture` field names it and which has a `cutoff` (Å) and a `per_atom_energy`, and a
`LayeredModel` (dtmd/models/layered.py) built from `(elements, config)`, elements by symbol, whose layers make up the
function

    forward(species, edge_index, edge_vec, graph_index, n_graphs) -> node_energy

with species int64 (n_atoms,), edge_index int64 (2, n_edges) from neighbour j (row 0) to centre i
(row 1), both directions present, edge_vec = r_j − r_i in Å, float64 (n_edges, 3), graph_index
int64 (n_atoms,) and node_energy (n_atoms,) in eV, in the precision of its parameters. It must be
scriptable by TorchScript. tests/test_model_contract.py says what else is promised.
"""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import BaseModel, BeforeValidator, Field
from torch import nn

from dtmd.models.egnn import EGNN, EGNNConfig
from dtmd.models.mace import MACE, MACEConfig
from dtmd.models.painn import PaiNN, PaiNNConfig
from dtmd.models.visnet import ViSNet, ViSNetConfig

ARCHITECTURES: dict[type[BaseModel], type[nn.Module]] = {
    EGNNConfig: EGNN,
    PaiNNConfig: PaiNN,
    ViSNetConfig: ViSNet,
    MACEConfig: MACE,
}


def _default_architecture(content: Any) -> Any:
    return {"architecture": "egnn", **content} if isinstance(content, dict) else content


ModelConfig = Annotated[
    Union[tuple(ARCHITECTURES)], Field(discriminator="architecture"), BeforeValidator(_default_architecture)
]
"""The config of any architecture, told apart by `architecture`; without it, EGNN's."""


def build_model(config: ModelConfig, elements: list[str]) -> nn.Module:
    """The module that belongs to the config, with fresh weights."""
    return ARCHITECTURES[type(config)](elements, config)
