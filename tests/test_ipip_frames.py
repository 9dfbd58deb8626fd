"""Pseudo-labelled frames: whose labels they have, that each is there once, which are forgotten and which are chosen."""

from dataclasses import replace

import numpy as np
import pytest
from small import example

from dtmd.errors import DtmdError
from dtmd.ipip.pseudo_labels import (
    Labeller, Unseen, count, drawn, frames_for, picked, without_repeats, write_frames,
)
from dtmd.ipip.selection import Candidates, Descriptor, choose, known_descriptors, usual_distance
from dtmd.store import read_store
from dtmd.trajectory import Trajectory


def cluster(n_frames=20, seed=0, spread=0.02) -> Trajectory:
    """Five carbon atoms and two hydrogen atoms that wander."""
    rng = np.random.default_rng(seed)
    start = 1.5 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=float)
    steps = rng.normal(0.0, spread, (n_frames, 7, 3))
    steps[0] = 0.0
    return Trajectory(
        numbers=np.array([6, 6, 6, 6, 6, 1, 1]), masses=np.array([12.0] * 5 + [1.0] * 2), pbc=np.zeros(3, dtype=bool),
        cells=np.zeros((n_frames, 3, 3)), times=np.arange(n_frames, dtype=float),
        positions=start + np.cumsum(steps, axis=0), forces=rng.normal(size=(n_frames, 7, 3)),
        energies=rng.normal(size=n_frames), source=f"cluster{seed}",
    )


def test_labels_are_kept_with_their_origin_and_shift(tmp_path):
    labeller = Labeller("teacher GFN1 0123456789ab", {"C": 2.0, "H": -0.5})
    labelled = labeller.labelled(cluster(), "teacher/300K/a@0")
    assert write_frames(tmp_path / "frames.h5", [labelled]) == 20
    (stored,) = read_store(tmp_path / "frames.h5")
    assert stored.origin.labels == labeller.name and stored.origin.run == "teacher/300K/a@0"
    assert stored.origin.settings == {"energy shift of C, eV": 2.0, "energy shift of H, eV": -0.5}
    np.testing.assert_allclose(stored.energies, cluster().energies + 5 * 2.0 - 2 * 0.5, atol=1e-6)
    assert len(stored.origin.digest) == 64 != labeller.labelled(cluster(seed=1), "b").origin.digest


def test_frames_that_were_there_are_left_out_wherever_they_have_moved():
    first, unseen = cluster(), Unseen()
    moved = replace(first, positions=first.positions + 3.0, source="moved")
    other = cluster(seed=1)
    half = replace(first, positions=np.concatenate([first.positions[:5], other.positions[5:]]), source="half")
    kept = list(without_repeats([first, moved, half], unseen))
    assert [len(t) for t in kept] == [20, 15] and unseen.n_twice == 25
    np.testing.assert_array_equal(kept[1].positions, half.positions[5:])
    assert list(without_repeats([replace(first, numbers=np.array([6] * 5 + [1, 8]))], unseen))  # other atoms


def test_a_share_is_drawn_at_random_over_all_frames():
    trajectories = [cluster(7), cluster(30, seed=1), cluster(1, seed=2)]
    kept = drawn(trajectories, 0.9, np.random.default_rng(0))
    assert sum(map(len, kept)) == round(0.9 * 38) and len(kept) == 3
    for t, frames in zip(trajectories, kept, strict=True):
        assert (np.diff(frames) > 0).all() and set(frames) <= set(range(len(t)))
    assert [len(part) for part in drawn(trajectories, 1.0, np.random.default_rng(0))] == [7, 30, 1]
    assert sum(map(len, drawn(trajectories, 0.001, np.random.default_rng(0)))) == 1


def test_frames_are_taken_evenly_from_all_runs():
    runs = [cluster(50), cluster(50, seed=1)]
    assert [len(t) for t in frames_for(runs, 10)] == [5, 5]
    assert count(frames_for(runs, 1000)) == 100


def test_the_descriptor_is_that_of_the_structure_and_smooth():
    t = cluster()
    descriptor = Descriptor([1, 6])
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
    order = [4, 3, 2, 1, 0, 6, 5]
    same = replace(t, positions=(t.positions @ turn.T + 2.0)[:, order], numbers=t.numbers[order])
    np.testing.assert_allclose(descriptor.of(same), descriptor.of(t), atol=1e-10)
    nudged = t.positions.copy()
    nudged[:, 0, 0] += 1e-5
    change = np.linalg.norm(descriptor.of(replace(t, positions=nudged)) - descriptor.of(t), axis=1)
    assert 0.0 < change.max() < 1e-3
    swapped = replace(t, numbers=np.array([1, 6, 6, 6, 6, 6, 1]))
    assert np.linalg.norm(descriptor.of(swapped) - descriptor.of(t), axis=1).min() > 0.05


def test_ends_of_runs_come_first_then_what_is_farthest_and_near_duplicates_never():
    known = cluster(30)
    descriptor = Descriptor([1, 6])
    near = 0.5 * usual_distance([known], descriptor)
    assert near > 0.0
    broken, whole = cluster(12, seed=3, spread=0.05), cluster(12, seed=4, spread=0.05)
    far = whole.positions.copy()
    far[7, 6] += 1.0
    candidates = [Candidates(lambda: replace(broken, source="broken"), True), Candidates(lambda: known, False),
                  Candidates(lambda: replace(whole, source="whole", positions=far), False)]
    choice = choose(candidates, known_descriptors([known], descriptor), descriptor, n=6, n_last=3, near=near)
    chosen = {t.source: t.times.astype(int).tolist() for t in choice.trajectories}
    assert chosen["broken"][-3:] == [9, 10, 11] and choice.n_last == 3 and choice.n_diverse == 3
    assert 7 in chosen["whole"] and known.source not in chosen
    twice = choose([candidates[0], candidates[0]], known_descriptors([known], descriptor), descriptor, n=100, n_last=2,
                   near=near)
    assert twice.n_near == 2 and count(twice.trajectories) <= 12
    nothing = choose([Candidates(lambda: known, True)], known_descriptors([known], descriptor), descriptor, n=5,
                     n_last=2, near=near)
    assert nothing.trajectories == [] and nothing.n_near == 2


def test_a_store_of_no_frames_is_refused(tmp_path):
    with pytest.raises(DtmdError, match="no trajectories to store"):
        write_frames(tmp_path / "none.h5", [])
    assert len(picked(example()[0], [3, 1])) == 2
