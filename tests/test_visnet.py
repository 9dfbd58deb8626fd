"""ViSNet against torch_geometric's blocks, and what is special to it; tests/test_model_contract.py has the rest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from small import example, structures_of
from torch_geometric.nn.models import visnet as library

from dtmd.models.visnet import ViSNetConfig, _EdgeUpdate, smooth_norm, spherical_harmonics
from dtmd.neighbors import Edges
from dtmd.potential import Potential, predict

FREE, PERIODIC = (False, False, False), (True, True, True)
BOX = np.diag([30.0, 30.0, 30.0])


def visnet(seed: int = 0, cutoff: float = 4.0, n_layers: int = 4, **config) -> Potential:
    """A narrow ViSNet in float64, its weights and biases all far from their starting values."""
    torch.manual_seed(seed)
    config = ViSNetConfig(cutoff=cutoff, width=16, n_layers=n_layers, n_heads=4, n_rbf=8, **config)
    potential = Potential(["H", "C", "Pd"], config, torch.zeros(3)).to_precision(torch.float64)
    with torch.no_grad():
        for parameter in potential.model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return potential


def evaluate(potential, structures, positions, create_graph=False):
    edges = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    return predict(potential, structures, positions, edges, create_graph)


def test_the_default_size():
    assert sum(p.numel() for p in Potential(["H"], ViSNetConfig(), torch.zeros(1)).model.parameters()) == 985_345


def copy(source: torch.nn.Linear, target: torch.nn.Linear) -> None:
    """A linear map; where the source has no bias, that of the target becomes zero."""
    with torch.no_grad():
        target.weight.copy_(source.weight)
        if target.bias is not None:
            target.bias.zero_() if source.bias is None else target.bias.copy_(source.bias)


def library_block(messages, edge_update, config) -> library.ViS_MP:
    """torch_geometric's message passing with these weights."""
    block = library.ViS_MP(config.n_heads, config.width, config.cutoff, None, False, last_layer=edge_update is None)
    block.to(torch.float64)
    block.layernorm.load_state_dict(messages.norm.state_dict())
    for ours, theirs in [("query", "q"), ("key", "k"), ("value", "v"), ("edge_key", "dk"), ("edge_value", "dv")]:
        copy(getattr(messages, ours), getattr(block, f"{theirs}_proj"))
    if edge_update is not None:
        copy(edge_update.centre, block.w_trg_proj)
        copy(edge_update.neighbour, block.w_src_proj)
        copy(edge_update.edge, block.f_proj)
    return block


def library_blocks(model, config):
    """All message passing blocks; in the first, weights that meet only zeros are left as they are."""
    first = library_block(model.first.messages, None, config)
    with torch.no_grad():
        first.s_proj.bias.zero_()
        first.s_proj.weight[config.width:].copy_(model.first.gate.weight)
        first.o_proj.weight[2 * config.width:].copy_(model.first.update.weight)
        first.o_proj.bias[2 * config.width:].copy_(model.first.update.bias)
    yield first
    for layer, update in itertools.zip_longest([*model.middle, model.last], model.edge_updates):
        block = library_block(layer.messages, update, config)
        copy(layer.gates, block.s_proj)
        copy(layer.update, block.o_proj)
        copy(layer.mix, block.vec_proj)
        yield block


def library_energies(model, config, species, edge_index, edge_vec):
    """Energies of the atoms from torch_geometric's blocks, put together as in its ViSNetBlock."""
    distance = torch.linalg.vector_norm(edge_vec, dim=1)
    direction = library.Sphere(lmax=1)(edge_vec / distance[:, None])
    smearing = library.ExpNormalSmearing(config.cutoff, config.n_rbf, trainable=False)
    lowest = np.exp(-5.0)  # torch_geometric has exp(-cutoff) / Å
    smearing.means = torch.linspace(lowest, 1.0, config.n_rbf, dtype=torch.float64)
    smearing.betas = torch.full((config.n_rbf,), (2.0 / config.n_rbf * (1.0 - lowest)) ** -2, dtype=torch.float64)
    basis = smearing(distance)
    neighbours = library.NeighborEmbedding(config.width, config.n_rbf, config.cutoff, 3).to(torch.float64)
    neighbours.embedding.load_state_dict(model.neighbour_embedding.state_dict())
    copy(model.neighbour_filter, neighbours.distance_proj)
    copy(model.combine, neighbours.combine)
    edges = library.EdgeEmbedding(config.n_rbf, config.width).to(torch.float64)
    copy(model.edge_filter, edges.edge_proj)
    x = neighbours(species, model.embedding(species), edge_index, distance, basis)
    f = edges(edge_index, basis, x)
    vectors = torch.zeros(len(x), 3, config.width, dtype=torch.float64)
    for block in library_blocks(model, config):
        dx, dvectors, df = block(x, vectors, edge_index, distance, f, direction)
        x, vectors = x + dx, vectors + dvectors
        f = f if df is None else f + df
    return library_readout(model, config.width)(model.norm(x), vectors).squeeze(1)


def library_readout(model, width):
    ours, output = model.readout, library.EquivariantScalar(width).to(torch.float64)
    wide, narrow = output.output_network
    copy(ours.invariant, wide.vec1_proj)
    copy(ours.narrow, wide.vec2_proj)
    wide.update_net.load_state_dict(ours.hidden.state_dict())
    copy(ours.narrow_invariant, narrow.vec1_proj)
    copy(ours.energy[0], narrow.update_net[0])
    with torch.no_grad():
        narrow.update_net[2].weight[:1].copy_(ours.energy[2].weight)
        narrow.update_net[2].bias[:1].copy_(ours.energy[2].bias)
    return output.pre_reduce


def test_energies_are_those_of_torch_geometrics_blocks(monkeypatch):
    potential = visnet()
    trajectory = example()[0]
    structures = structures_of([0] * 2 + [1] * 49 + [2] * 6, trajectory.cells[0], PERIODIC)
    positions = torch.tensor(trajectory.positions[100])
    edge_index, shift = Edges(structures, 4.0, 0.1).at(positions)
    edge_vec = positions[edge_index[0]] - positions[edge_index[1]] + shift
    with torch.no_grad():
        ours = potential(structures.species, edge_index, edge_vec, structures.graph_index, 1)
        monkeypatch.setattr(torch, "norm", lambda vectors, dim: smooth_norm(vectors))  # in GatedEquivariantBlock
        theirs = library_energies(potential.model, potential.config, structures.species, edge_index, edge_vec)
    assert ours.std() > 0.1
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def atoms_around(n_atoms: int = 9, seed: int = 0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(-1, 3)[:n_atoms] * 1.7
    positions = torch.tensor(grid + rng.normal(0, 0.2, grid.shape))
    return structures_of([k % 3 for k in range(n_atoms)], BOX, FREE), positions


@pytest.mark.parametrize("lmax", [1, 2])
@pytest.mark.parametrize("determinant", [1.0, -1.0], ids=["rotation", "reflection"])
def test_both_degrees_turn_with_the_atoms(lmax, determinant):
    potential = visnet(lmax=lmax)
    structures, positions = atoms_around()
    expected = evaluate(potential, structures, positions)
    matrix = determinant * torch.tensor(Rotation.random(random_state=3).as_matrix())
    turned = evaluate(potential, structures, positions @ matrix.T)
    assert torch.allclose(turned.energies, expected.energies, rtol=1e-12)
    assert torch.allclose(turned.forces, expected.forces @ matrix.T, atol=1e-10 * expected.forces.abs().max())


def test_vectors_are_rejected_from_the_edge_degree_by_degree():
    config = ViSNetConfig(width=8, lmax=2)
    torch.manual_seed(0)
    update = _EdgeUpdate(config).to(torch.float64)
    vectors, f = torch.randn(2, 8, 8, dtype=torch.float64), torch.randn(1, 8, dtype=torch.float64)
    unit = torch.nn.functional.normalize(torch.randn(1, 3, dtype=torch.float64))
    y = spherical_harmonics(unit, 2)
    product = torch.zeros(8, dtype=torch.float64)
    for degree in (slice(0, 3), slice(3, 8)):
        projector = torch.eye(y[0, degree].numel(), dtype=torch.float64) - torch.outer(y[0, degree], y[0, degree])
        product += ((projector @ update.centre(vectors[1])[degree])
                    * (projector @ update.neighbour(vectors[0])[degree])).sum(0)
    expected = torch.nn.functional.silu(update.edge(f[0])) * product
    assert torch.allclose(update(vectors, f, torch.tensor([[0], [1]]), y)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("lmax", [1, 2])
def test_neither_energy_nor_force_jumps_at_the_cutoff_whatever_the_biases(lmax):
    potential = visnet(lmax=lmax)
    structures = structures_of([0, 2, 1], BOX, FREE)

    def at(distance):  # of the third atom from the first; the second stays 4.3 Å away from it
        positions = torch.tensor([[0, 0, 0], [0, 1.5, 0], [distance, 0, 0]], dtype=torch.float64)
        return evaluate(potential, structures, positions)

    inside, outside = at(4.0 - 1e-6), at(4.0 + 1e-6)
    largest = outside.forces.abs().max()
    assert (inside.energies - outside.energies).abs() < 1e-11 * largest
    assert (inside.forces - outside.forces).abs().max() < 1e-5 * largest
    assert (at(3.9).forces - outside.forces).abs().max() > 1e-3 * largest


@pytest.mark.parametrize("lmax", [1, 2])
def test_torchscript_gives_the_same_energies_and_gradients_also_without_edges(lmax):
    model = visnet(lmax=lmax).model
    scripted = torch.jit.script(model)
    structures, positions = atoms_around()
    edge_index, shift = Edges(structures, 4.0, 0.1).at(positions)
    edge_vec = (positions[edge_index[0]] - positions[edge_index[1]] + shift).requires_grad_()
    for n_edges in (len(shift), 0):
        inputs = structures.species, edge_index[:, :n_edges], edge_vec[:n_edges], structures.graph_index, 1
        expected = model(*inputs)
        assert torch.isfinite(expected).all()
        (gradient,) = torch.autograd.grad(expected.sum(), edge_vec)
        for _ in range(3):  # TorchScript optimises from the second call on
            got = scripted(*inputs)
            assert torch.allclose(got, expected, rtol=1e-12)
            assert torch.allclose(torch.autograd.grad(got.sum(), edge_vec)[0], gradient, rtol=1e-10, atol=1e-12)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValidationError, match="n_heads: 5 heads do not divide a width of 16"):
        ViSNetConfig(width=16, n_heads=5)
