"""MACE, by mace-torch's own blocks: equivariant messages of high body order.

mace-torch's model takes a dictionary with positions and cells and returns forces. Here its blocks, under the
names and with the weights they have there, run on the edges of `dtmd.models` (tests/test_mace.py compares the
two). Importing mace-torch takes seconds, so it happens when the first MACE is made.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Literal

import torch
from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dtmd.models.layered import LayeredModel

Interaction = Literal[
    "RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock",
]


class MACEConfig(BaseModel):
    """Hyperparameters of `MACE`; the defaults are mace-torch's.

    Attributes:
        cutoff: Å.
        channels: of each degree of the features of an atom.
        max_L: highest degree of the features that are passed on.
        max_ell: highest degree of the spherical harmonics.
        correlation: neighbours that a feature may depend on at once.
        n_layers: interactions.
        n_rbf: Bessel functions.
        cutoff_power: p of the polynomial envelope.
        radial_widths: hidden layers of the network from distances to the weights of messages.
        readout_width: hidden layer of the readout of the last interaction.
        avg_num_neighbors: what sums over neighbours are divided by; none takes the mean of the training data.
        first_interaction: mace-torch's block of the first interaction.
        interaction: its block of the others.
        distance_transform: of distances before the Bessel functions, by the covalent radii of the two elements.
        pair_repulsion: adds the repulsion of screened nuclei (Ziegler, Biersack and Littmark).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["mace"] = "mace"
    cutoff: float = Field(default=5.0, gt=0)
    channels: int = Field(default=128, gt=0)
    max_L: int = Field(default=1, ge=0)
    max_ell: int = Field(default=3, ge=1, le=4)
    correlation: int = Field(default=3, ge=1, le=4)
    n_layers: int = Field(default=2, ge=1)
    n_rbf: int = Field(default=8, gt=0)
    cutoff_power: int = Field(default=5, ge=2)
    radial_widths: list[int] = Field(default=[64, 64, 64], min_length=1)
    readout_width: int = Field(default=16, gt=0)
    avg_num_neighbors: float | None = Field(default=None, gt=0)
    first_interaction: Interaction = "RealAgnosticInteractionBlock"
    interaction: Interaction = "RealAgnosticResidualInteractionBlock"
    distance_transform: Literal["none", "Agnesi", "Soft"] = "none"
    pair_repulsion: bool = False

    @property
    def per_atom_energy(self) -> bool:
        """Whether the energy of an atom has a meaning of its own."""
        return True

    @model_validator(mode="after")
    def _degrees_fit(self) -> MACEConfig:
        if self.max_L > self.max_ell:
            raise ValueError(f"max_L: {self.max_L} is above max_ell {self.max_ell}; raise max_ell or lower max_L")
        return self


class MACE(LayeredModel):
    """Batatia, Kovács, Simm, Ortner and Csányi, MACE, NeurIPS 2022, as mace-torch implements it.

    Made in float64 whatever torch's default is, so that its coupling coefficients are exact in both precisions.

    Raises:
        ValueError: the config leaves `avg_num_neighbors` open.
    """

    def __init__(self, elements: list[str], config: MACEConfig) -> None:
        super().__init__()
        if config.avg_num_neighbors is None:
            raise ValueError("avg_num_neighbors must be a number to make a MACE; dtmd train takes it from the data")
        numbers = [atomic_numbers[element] for element in elements]
        model = _whole_model(numbers, config)
        self.n_species = len(elements)
        self.n_layers = config.n_layers
        self.register_buffer("atomic_numbers", torch.tensor(numbers), persistent=False)
        self.node_embedding = model.node_embedding
        self.radial_embedding = model.radial_embedding
        self.spherical_harmonics = model.spherical_harmonics
        self.interactions = model.interactions
        self.products = model.products
        self.readouts = model.readouts
        self.pair_repulsion_fn = model.pair_repulsion_fn if config.pair_repulsion else None

    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes: features (n_atoms, width) and energy (n_atoms, 1). Edges: harmonics and radial features."""
        node_attrs = self.attributes(species)
        distance = torch.linalg.vector_norm(edge_vec, dim=1, keepdim=True).to(node_attrs.dtype)
        edge_attrs = self.spherical_harmonics(-edge_vec.to(node_attrs.dtype))  # mace-torch's vectors run from j to i
        edge_feats = self.radial_embedding(distance, node_attrs, edge_index, self.atomic_numbers)[0]
        energy = torch.zeros_like(node_attrs[:, 0])
        if self.pair_repulsion_fn is not None:
            energy = energy + self.pair_repulsion_fn(distance, node_attrs, edge_index, self.atomic_numbers)
        return [self.node_embedding(node_attrs), energy.unsqueeze(1)], [edge_attrs, edge_feats]

    def layer(
        self, k: int, n_centres: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Interaction, product and readout number k."""
        node_attrs = self.attributes(species)
        head = torch.zeros_like(species[:n_centres])
        node_feats, energy = nodes[0], nodes[1][:n_centres]
        for i, (interaction, product, readout) in enumerate(zip(self.interactions, self.products, self.readouts)):
            if i == k:
                messages, sc = interaction(
                    node_attrs=node_attrs, node_feats=node_feats, edge_attrs=edges[0], edge_feats=edges[1],
                    edge_index=edge_index, cutoff=None,
                )
                node_feats = product(
                    node_feats=messages[:n_centres], sc=None if sc is None else sc[:n_centres],
                    node_attrs=node_attrs[:n_centres],
                )
                energy = energy + readout(node_feats, head)
        return [node_feats, energy], edges

    def energies(self, nodes: list[Tensor], graph_index: Tensor, n_graphs: int) -> Tensor:
        """Energies of the atoms in eV, shape (n_atoms,)."""
        return nodes[1].squeeze(1)

    def attributes(self, species: Tensor) -> Tensor:
        """One-hot species, in the precision of the weights."""
        return nn.functional.one_hot(species, self.n_species).to(self.node_embedding.linear.weight.dtype)

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script compiles in place of this module: e3nn has some of its modules traced."""
        with _known_warnings_ignored():
            return _library().compile(self, in_place=False)


@functools.cache
def _library() -> SimpleNamespace:
    """What is used of mace-torch and e3nn."""
    variable = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    # e3nn reads its constants, which hold slices, by torch.load. mace-torch prints what it does without, and
    # lets every torch.load of the process run code from files, which is undone.
    with torch.serialization.safe_globals([slice]), redirect_stdout(io.StringIO()):
        from e3nn.o3 import Irreps
        from e3nn.util.jit import compile
        from mace import modules
    os.environ.pop(variable, None)
    if before is not None:
        os.environ[variable] = before
    return SimpleNamespace(Irreps=Irreps, compile=compile, modules=modules)


def _whole_model(numbers: list[int], config: MACEConfig) -> nn.Module:
    """mace-torch's model of these atomic numbers, with fresh weights, float64."""
    library = _library()
    blocks = library.modules.interaction_classes
    hidden = "+".join(f"{config.channels}x{degree}{'eo'[degree % 2]}" for degree in range(config.max_L + 1))
    with _float64_by_default(), _known_warnings_ignored():
        return library.modules.MACE(
            r_max=config.cutoff, num_bessel=config.n_rbf, num_polynomial_cutoff=config.cutoff_power,
            max_ell=config.max_ell, interaction_cls=blocks[config.interaction],
            interaction_cls_first=blocks[config.first_interaction], num_interactions=config.n_layers,
            num_elements=len(numbers), hidden_irreps=library.Irreps(hidden),
            MLP_irreps=library.Irreps(f"{config.readout_width}x0e"), atomic_energies=[0.0] * len(numbers),
            avg_num_neighbors=config.avg_num_neighbors, atomic_numbers=numbers, correlation=config.correlation,
            gate=nn.functional.silu, pair_repulsion=config.pair_repulsion, use_reduced_cg=False,
            distance_transform=config.distance_transform, radial_MLP=list(config.radial_widths),
        )


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        # Of an annotation in e3nn's Linear, of no consequence.
        warnings.filterwarnings("ignore", "The TorchScript type system doesn't support", UserWarning)
        yield


@contextmanager
def _float64_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
