"""What is special to PaiNN; tests/test_model_contract.py has the rest."""

import math

import numpy as np
import torch
from model_cases import CUTOFF, cluster, evaluate, placed, potential_of, real_frame
from torch import Tensor

from dtmd.models.painn import PaiNN, PaiNNConfig
from dtmd.models.radial import smooth_envelope
from dtmd.neighbors import Edges
from dtmd.potential import Potential, predict


def painn(precision: torch.dtype, **config) -> Potential:
    """A PaiNN for H, C, Pd with fresh weights."""
    torch.manual_seed(0)
    potential = Potential(["H", "C", "Pd"], PaiNNConfig(cutoff=CUTOFF, **config), torch.zeros(3))
    return potential.to_precision(precision)


def test_the_default_size():
    assert sum(p.numel() for p in PaiNN(["H", "C", "Pd"], PaiNNConfig()).parameters()) == 540_929


def test_one_layer_sees_angles():
    """Neighbours that do not see each other, at equal distances: their angle shows in the vectors alone."""
    potential = painn(torch.float64, width=8, n_layers=1)

    def bent(angle):
        away = [2.4 * math.cos(angle), 2.4 * math.sin(angle), 0.0]
        return evaluate(potential, *placed([2, 0, 1], [[0.0, 0.0, 0.0], [2.4, 0.0, 0.0], away])).energies.item()

    assert abs(bent(math.pi) - bent(2.0)) > 1e-6
    assert np.isclose(bent(2.0), bent(-2.0), rtol=1e-13)


def test_the_equations_of_the_paper():
    """Energies of atoms from the equations written out edge by edge, with the vectors that the model skips."""
    potential = potential_of("painn")
    structures, positions = cluster(7)
    edge_index, shift = Edges(structures, CUTOFF, 0.1).at(positions)
    edge_vec = positions[edge_index[0]] - positions[edge_index[1]] + shift
    model = potential.model
    s, v = model.embedding.weight[structures.species], torch.zeros(7, 8, 3, dtype=torch.float64)
    for message, update in zip(model.messages, model.updates, strict=True):
        s, v = _message_by_edges(message, s, v, edge_index, edge_vec)
        s, v = _update_by_atoms(update, s, v)
    energies = model(structures.species, edge_index, edge_vec, structures.graph_index, 1)
    assert torch.allclose(energies, model.readout(s).squeeze(1), rtol=0, atol=1e-12)


def _message_by_edges(block, s: Tensor, v: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[Tensor, Tensor]:
    ds, dv = torch.zeros_like(s), torch.zeros_like(v)
    *weights, bias = block.filters.weight.T
    for (j, i), r in zip(edge_index.T.tolist(), edge_vec, strict=True):
        d = r.norm()
        rbf = [torch.sin(n * math.pi * d / CUTOFF) / d for n in range(1, 7)]
        filters = smooth_envelope(d, CUTOFF) * (bias + sum(b * w for b, w in zip(rbf, weights, strict=True)))
        by_s, by_vs, *by_vv = torch.split(block.phi(s[j]) * filters, 8)
        ds[i] += by_s
        dv[i] += by_vs[:, None] * r / d + sum(w[:, None] * v[j] for w in by_vv)
    return s + ds, v + dv


def _update_by_atoms(block, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    u_matrix, v_matrix = torch.split(block.mix.weight, 8)
    s, v = s.clone(), v.clone()
    for i in range(len(s)):
        uv, vv = u_matrix @ v[i], v_matrix @ v[i]
        norm = (vv.square().sum(1) + 1e-4).sqrt()
        a_ss, a_sv, *a_vv = torch.split(block.gates(torch.cat([s[i], norm])), 8)
        s[i] = s[i] + a_ss + a_sv * (uv * vv).sum(1)
        v[i] = v[i] + sum(a[:, None] * uv for a in a_vv)
    return s, v


def test_the_order_of_the_edges_does_not_matter_even_in_float32():
    potential = painn(torch.float32, width=32, n_layers=2)
    structures, positions = real_frame()
    index, shift = Edges(structures, CUTOFF, 0.1).at(positions)
    order = torch.randperm(len(shift), generator=torch.Generator().manual_seed(0))
    a = predict(potential, structures, positions, (index, shift)).forces
    b = predict(potential, structures, positions, (index[:, order], shift[order])).forces
    assert (a - b).abs().max() < 1e-12 * a.abs().max()
