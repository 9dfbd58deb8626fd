"""Forces and virial against finite differences of the energy."""

import numpy as np
import pytest
import torch
from small import example, real_points, small_potential, structures_of

from dtmd.errors import DtmdError
from dtmd.neighbors import Edges
from dtmd.potential import predict, predict_with_virial
from dtmd.structures import Structures


def energy(potential, structures, positions) -> float:
    edges = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    return predict(potential, structures, positions, edges).energies.sum().item()


def real_frame():
    trajectory = example()[0]
    structures = structures_of([0] * 2 + [1] * 49 + [2] * 6, trajectory.cells[0], (True, True, True))
    return structures, torch.tensor(trajectory.positions[100])


@pytest.mark.parametrize("readout", ["per_atom", "pooled"])
def test_forces_are_minus_the_gradient(readout):
    potential = small_potential(readout=readout)
    structures, positions = real_frame()
    edges = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    forces = predict(potential, structures, positions, edges).forces
    assert torch.allclose(predict_with_virial(potential, structures, positions, edges).forces, forces, atol=1e-12)
    direction = torch.randn(positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = 1e-5
    slope = (energy(potential, structures, positions + h * direction)
             - energy(potential, structures, positions - h * direction)) / (2 * h)
    assert np.isclose(slope, -(forces * direction).sum().item(), rtol=1e-6)
    assert forces.sum(0).abs().max() < 1e-10


def test_the_virial_is_the_answer_to_a_strain():
    potential = small_potential()
    structures, positions = real_frame()
    virial = predict_with_virial(
        potential, structures, positions, Edges(structures, potential.config.cutoff, 0.1).at(positions)
    ).virials[0]
    assert torch.allclose(virial, virial.T, atol=1e-10)
    strain = torch.tensor([[1.0, 0.3, 0.0], [0.3, -0.5, 0.2], [0.0, 0.2, 0.7]], dtype=torch.float64)
    energies = []
    for h in (1e-5, -1e-5):
        deformation = torch.eye(3, dtype=torch.float64) + h * strain
        strained = Structures(structures.species, structures.masses, structures.graph_index,
                              structures.cells @ deformation, structures.pbc)
        energies.append(energy(potential, strained, positions @ deformation))
    assert np.isclose((energies[0] - energies[1]) / 2e-5, -(virial * strain).sum().item(), rtol=1e-5)


def test_an_image_shift_changes_nothing():
    potential = small_potential()
    structures, positions = real_frame()
    shifted = positions.clone()
    shifted[3] += structures.cells[0, 0] - 2 * structures.cells[0, 2]
    assert np.isclose(energy(potential, structures, positions), energy(potential, structures, shifted), rtol=1e-14)


def test_the_order_of_the_edges_does_not_matter_even_in_float32():
    potential = small_potential(precision=torch.float32, width=32)
    structures, positions = real_frame()
    index, shift = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    order = torch.randperm(len(shift), generator=torch.Generator().manual_seed(0))
    a = predict(potential, structures, positions, (index, shift)).forces
    b = predict(potential, structures, positions, (index[:, order], shift[order])).forces
    assert (a - b).abs().max() < 1e-12 * a.abs().max()


def test_float32_stays_near_float64():
    double, single = small_potential(), small_potential()
    single.load_state_dict(double.state_dict())
    single.to_precision(torch.float32)
    points = real_points(double, 4, 1)
    start = points.start
    edges = Edges(start.structures, double.config.cutoff, 0.1).at(start.positions)
    a = predict(double, start.structures, start.positions, edges)
    b = predict(single, start.structures, start.positions, edges)
    assert (a.forces - b.forces).abs().max() < 1e-4 * a.forces.abs().max()
    assert (a.energies - b.energies).abs().max() < 1e-4


def test_an_unknown_element_is_refused():
    with pytest.raises(DtmdError, match="run.extxyz: the potential does not know O, only H, C, Pd"):
        small_potential().species_of(["H", "O"], "run.extxyz")
