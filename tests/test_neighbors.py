"""Neighbour lists against ASE, and the skin against fresh lists."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from small import example, structures_of

from dtmd.neighbors import Edges

CELLS = {
    "orthogonal": np.diag([7.0, 8.0, 9.0]),
    "skewed": np.array([[6.0, 0.0, 0.0], [-3.0, 5.2, 0.0], [1.0, 2.0, 7.0]]),
    "smaller than the cutoff": np.array([[3.0, 0.0, 0.0], [0.4, 3.2, 0.0], [0.2, 0.3, 3.5]]),
}


def pairs(index, vectors):
    rows = np.round(np.concatenate([np.asarray(index).T, np.asarray(vectors)], axis=1), 6) + 0.0
    return sorted(map(tuple, rows))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, False)])
def test_same_edges_as_ase(cell, pbc):
    rng = np.random.default_rng(1)
    atoms = Atoms("HC5Pd", positions=(rng.random((7, 3)) * 2 - 0.5) @ cell, cell=cell, pbc=pbc)
    positions = torch.tensor(atoms.positions)
    index, shift = Edges(structures_of([0] + [1] * 5 + [2], cell, pbc), cutoff=4.0, skin=0.3).at(positions)
    vectors = positions[index[0]] - positions[index[1]] + shift
    i, j, expected = neighbor_list("ijD", atoms, 4.0)
    assert pairs(index, vectors) == pairs(np.stack([j, i]), expected)


def test_no_pair_is_missing_while_the_skin_is_kept():
    trajectory = example()[0]
    structures = structures_of([0] * 2 + [1] * 49 + [2] * 6, trajectory.cells[0], (True, True, True))
    kept = Edges(structures, cutoff=4.0, skin=0.5)
    for frame in range(0, 200, 10):
        positions = torch.tensor(trajectory.positions[frame])
        fresh, _ = Edges(structures, cutoff=4.0, skin=1e-6).at(positions)
        index, shift = kept.at(positions)
        assert sorted(map(tuple, index.T.tolist())) == sorted(map(tuple, fresh.T.tolist()))
        distances = (positions[index[0]] - positions[index[1]] + shift).norm(dim=1)
        assert distances.max() < 4.0
