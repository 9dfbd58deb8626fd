"""Neighbour lists against ASE, and the skin against fresh lists."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from small import example, real_points, small_potential, structures_of

from dtmd.neighbors import Edges, FrameEdges
from dtmd.rollout import rollout

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


def test_no_pair_is_missing_at_the_predicted_positions():
    """A rollout that runs far from where its lists began, with a potential of random weights."""
    potential = small_potential()
    potential.energy_scale.fill_(20.0)
    start = real_points(potential, 2, 1).start
    frames = list(rollout(potential, start, Edges(start.structures, cutoff=4.0, skin=0.5), 60))
    assert (frames[-1].positions - start.positions).norm(dim=1).max() > 1.0  # many times half the skin
    for frame in frames:
        assert same(frame.edges, Edges(start.structures, cutoff=4.0, skin=1e-6).at(frame.positions))


@pytest.mark.parametrize("every", [1, 4])
def test_no_pair_is_missing_at_the_aimd_frames(every):
    trajectory = example()[0]
    structures = structures_of([0] * 2 + [1] * 49 + [2] * 6, trajectory.cells[0], (True, True, True))
    frames = torch.tensor(trajectory.positions[:200:10]).transpose(0, 1)
    edges = FrameEdges(Edges(structures, cutoff=4.0, skin=0.5), frames, every)
    lists = []
    for step in range(20):
        lists.append(edges.at_step(step, torch.full((57, 3), torch.nan)))
        listed = frames[:, step - step % every]
        assert same(lists[-1], Edges(structures, cutoff=4.0, skin=1e-6).at(listed))
    assert not same(lists[0], lists[-1])  # the lists do change


def same(one, two):
    """Whether two lists hold the same pairs with the same shifts, in any order."""
    return pairs(*one) == pairs(*two)


def test_the_lists_of_aimd_frames_begin_anew_with_each_rollout():
    potential = small_potential()
    start = real_points(potential, 1, 1).start
    trajectory = example()[0]
    frames = torch.tensor(trajectory.positions[:90:30]).transpose(0, 1)
    edges = FrameEdges(Edges(start.structures, 4.0, 0.5), frames, every=1)
    one, two = ([f.edges for f in rollout(potential, start, edges, 3)] for _ in range(2))
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
