"""Batches of training points: right frames, from files and from a store alike; segments; held atoms."""

import dataclasses

import numpy as np
import pytest
import torch
from small import CPU, example, small_potential
from test_rollout import edges_for, loss_on, plain_rollout_loss

from dtmd.errors import DtmdError
from dtmd.rollout import accumulate_gradient, rollout
from dtmd.store import read_store, write_store
from dtmd.subsequences import Subsequences, by_run, epoch_order, split
from dtmd.training_data import digest_of, fit_reference_energies
from dtmd.trajectory import Origin

START = ("positions", "velocities", "timesteps")
STRUCTURES = ("species", "masses", "graph_index", "cells", "pbc")


@pytest.fixture(scope="module")
def aimd():
    return example()


def segments(trajectory, *bounds, run="run"):
    """Pieces of one run, as gaps make them."""
    origin = Origin(run=run, digest=run)
    return [dataclasses.replace(trajectory.window(first, last), origin=origin, source=f"{run}[{first}:{last}]")
            for first, last in bounds]


def with_atoms(trajectory, n_atoms):
    """The first atoms alone, as a run of its own."""
    cut = {name: getattr(trajectory, name)[:n_atoms] for name in ("numbers", "masses")}
    cut |= {name: getattr(trajectory, name)[:, :n_atoms] for name in ("positions", "velocities", "forces")}
    return dataclasses.replace(trajectory, **cut, source=f"run {n_atoms}", origin=Origin(run=f"run {n_atoms}"))


def test_batches_hold_the_frames_that_they_name(aimd):
    small = dataclasses.replace(with_atoms(aimd[0], 20), times=2 * aimd[0].times, pbc=np.array([True, False, True]))
    trajectories = [aimd[0], small, aimd[1]]
    points = Subsequences(trajectories, small_potential(), length=11, stride=7)
    n_each = [(len(t) - 11) // 7 + 1 for t in trajectories]
    assert len(points) == sum(n_each)
    indices = [0, n_each[0], len(points) - 1, n_each[0] - 1, n_each[0] + 3]
    expected = [(0, 0), (1, 0), (2, 7 * (n_each[2] - 1)), (0, 7 * (n_each[0] - 1)), (1, 21)]
    batch = points.batch(indices, CPU)
    structures = batch.start.structures
    assert batch.names == [f"{trajectories[t].source} frame {first}" for t, first in expected]
    for k, ((begin, end), (t, first)) in enumerate(zip(structures.atom_ranges, expected, strict=True)):
        trajectory = trajectories[t]
        assert np.array_equal(batch.start.positions[begin:end], trajectory.positions[first])
        assert np.array_equal(batch.start.velocities[begin:end], trajectory.velocities[first])
        assert np.array_equal(batch.forces[begin:end], trajectory.forces[first : first + 11].transpose(1, 0, 2))
        assert np.array_equal(structures.masses[begin:end], trajectory.masses)
        assert np.array_equal(structures.cells[k], trajectory.cells[first])
        assert np.array_equal(structures.pbc[k], trajectory.pbc)
        assert batch.energies[k] == trajectory.energies[first] and batch.start.timesteps[k] == trajectory.timestep
    assert structures.species[:2].tolist() == [0, 0] and structures.graph_index[56:58].tolist() == [0, 1]
    floats = [batch.energies, batch.forces, batch.start.velocities, structures.masses, structures.cells]
    assert {tensor.dtype for tensor in floats} == {torch.float64}
    assert structures.species.dtype == structures.graph_index.dtype == torch.int64
    assert batch.forces.shape == (57 * 3 + 20 * 2, 11, 3)


def test_a_store_gives_the_same_points(aimd, tmp_path):
    write_store(tmp_path / "data.h5", aimd)
    from_store = Subsequences(read_store(tmp_path / "data.h5"), small_potential(), 11, 7)
    from_files = Subsequences(aimd, small_potential(), 11, 7)
    indices = from_files.spread(20)
    a, b = from_files.batch(indices, CPU), from_store.batch(indices, CPU)
    assert torch.equal(a.start.positions, b.start.positions)
    for name in STRUCTURES:
        assert torch.equal(getattr(a.start.structures, name), getattr(b.start.structures, name))
    for got, expected in ((b.forces, a.forces), (b.start.velocities, a.start.velocities)):
        assert torch.equal(got, expected.float().double())
    assert (a.energies - b.energies).abs().max() < 1e-6


def test_short_pieces_of_a_run_are_left_out(aimd):
    pieces = segments(aimd[0], (0, 40), (45, 50), (60, 61), (70, 100))
    points = Subsequences(pieces, small_potential(), length=11, stride=1)
    assert len(points) == 30 + 20 and points.n_left_out == 6
    assert points.batch([30], CPU).names == ["run[70:100] frame 0"]
    single = Subsequences(pieces, small_potential(), length=1, stride=1)
    assert len(single) == 40 + 5 + 1 + 30 and single.n_left_out == 0
    assert single.batch([45], CPU).start.timesteps.tolist() == [0.0]  # a single frame has none, and S = 1 needs none
    with pytest.raises(DtmdError, match=r"run\[0:40\]: the longest of 4 pieces of this run has 40 frames"):
        Subsequences([*pieces, aimd[1]], small_potential(), length=50, stride=1)
    with pytest.raises(DtmdError, match=r"other\[0:9\]: 9 frames, subsequences of 11 are asked for"):
        Subsequences([*pieces, *segments(aimd[1], (0, 9), run="other")], small_potential(), length=11, stride=1)


def test_missing_labels_are_named(aimd):
    for name in ("velocities", "forces", "energies"):
        with pytest.raises(DtmdError, match=f"no {name}; training needs them"):
            Subsequences([dataclasses.replace(aimd[0], **{name: None})], small_potential(), 2, 1)


def test_segments_of_a_run_stay_together(aimd):
    trajectories = [t for k in range(5) for t in segments(aimd[0], (0, 40), (50, 90), (95, 100), run=f"run {k}")]
    mixed = trajectories[::3] + trajectories[1::3] + trajectories[2::3]
    for seed in range(5):
        training, validation = split(mixed, 0.4, seed)
        assert len(training) == 9 and len(validation) == 6
        assert not by_run(training).keys() & by_run(validation).keys()
    assert [t.source for t in split(mixed, 0.4, 3)[0]] == [t.source for t in split(mixed, 0.4, 3)[0]]
    with pytest.raises(DtmdError, match="3 pieces of a single run"):
        split(trajectories[:3], 0.4, 0)


def held(trajectory, atoms, directions=(True, True, True)):
    fixed = np.zeros((len(trajectory.numbers), 3), dtype=bool)
    fixed[atoms] = directions
    return dataclasses.replace(trajectory, fixed=fixed)


def test_held_atoms_stay_and_the_others_move(aimd):
    potential = small_potential()
    potential.energy_scale.fill_(3.0)
    atoms = [0, 30, 56]
    start = Subsequences([held(aimd[0], atoms)], potential, 6, 1).batch([3], CPU).start
    frames = list(rollout(potential, start, edges_for(potential, start), 6))
    moved = (frames[-1].positions - start.positions).norm(dim=1)
    assert torch.all(moved[atoms] == 0) and torch.all(frames[-1].velocities[atoms] == 0)
    assert frames[-1].prediction.forces[atoms].norm(dim=1).min() > 0
    others = [k for k in range(57) if k not in atoms]
    assert moved[others].min() > 0 and torch.isfinite(frames[-1].positions).all()


def test_gradient_through_held_atoms_equals_autograd(aimd):
    potential = small_potential()
    points = Subsequences([held(aimd[0], [1, 40]), aimd[1]], potential, 5, 30).batch([0, 12], CPU)
    value = accumulate_gradient(potential, points.start, edges_for(potential, points.start), 5, loss_on(points))
    parameters = list(potential.parameters())
    expected = torch.autograd.grad(plain_rollout_loss(potential, points, 5), parameters, materialize_grads=True)
    assert torch.isfinite(value)
    largest = max(gradient.abs().max() for gradient in expected)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10, atol=1e-12 * largest)


def test_atoms_held_in_some_directions_are_refused(aimd):
    with pytest.raises(DtmdError, match=r"atom 3 \(C\) and 1 others are held in some directions only"):
        Subsequences([held(aimd[0], [2, 7], (True, False, True))], small_potential(), 2, 1)


def test_reference_energies_of_compositions_that_tell_them(aimd):
    h, c = -13.0, -150.0
    runs = [dataclasses.replace(with_atoms(aimd[0], n), energies=np.full(len(aimd[0]), 2 * h + (n - 2) * c + off))
            for n, off in ((10, 0.0), (20, 0.03), (30, 0.0))]
    # a run in two pieces counts once
    whole = runs.pop()
    fit = fit_reference_energies([*runs, whole.window(0, 5), whole.window(5, len(whole))], ["H", "C"])
    assert np.allclose(fit.values, [h + 0.005, c], atol=1e-8) and fit.ambiguous == []
    # the straight line through three points, of which the middle one is 0.03 eV too high
    assert fit.residuals == pytest.approx({"run 10": -0.01 / 10, "run 20": 0.02 / 20, "run 30": -0.01 / 30}, abs=1e-9)


def test_reference_energies_that_nothing_tells_are_named(aimd):
    fit = fit_reference_energies(aimd, ["H", "C", "Pd"])
    assert fit.ambiguous == ["H", "C", "Pd"] and np.abs(list(fit.residuals.values())).max() < 1e-2
    h2c8, h2c18 = with_atoms(aimd[0], 10), with_atoms(aimd[0], 20)
    assert fit_reference_energies([h2c8, h2c18], ["H", "C"]).ambiguous == []
    assert fit_reference_energies([h2c8, h2c18], ["H", "C", "Pd"]).ambiguous == ["Pd"]
    assert fit_reference_energies([h2c8, aimd[0]], ["H", "C", "Pd"]).ambiguous == ["H", "C", "Pd"]
    assert fit_reference_energies([h2c8, h2c18, aimd[0]], ["H", "C", "Pd"]).ambiguous == []
    with pytest.raises(DtmdError, match="no energies"):
        fit_reference_energies([dataclasses.replace(aimd[0], energies=None)], ["H", "C", "Pd"])


def test_the_digest_follows_the_files_or_the_arrays(aimd, tmp_path):
    write_store(tmp_path / "data.h5", segments(aimd[0], (0, 20), (30, 50)))
    stored, given = read_store(tmp_path / "data.h5"), segments(aimd[0], (0, 20), (30, 50))
    assert digest_of(stored) == digest_of(given) != digest_of(given[:1])
    assert digest_of(given) != digest_of(segments(aimd[0], (0, 20), (31, 51)))
    changed = dataclasses.replace(aimd[0], origin=Origin(), forces=aimd[0].forces + 1e-9)
    bare = dataclasses.replace(aimd[0], origin=Origin())
    assert digest_of([bare]) == digest_of([bare]) != digest_of([changed])


def test_epochs_of_part_of_the_points_take_each_once_before_any_twice():
    epochs = [epoch_order(10, 4, seed=1, epoch=k) for k in range(5)]
    assert all(len(epoch) == 4 for epoch in epochs)
    seen = sum(epochs, [])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]


def test_an_epoch_of_all_points_is_one_shuffle_of_them():
    orders = [epoch_order(7, 7, seed=3, epoch=k) for k in (0, 1, 1)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] == orders[2]
