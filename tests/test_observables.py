"""Observables against ASE, SciPy, brute force and counts made by hand."""

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from ase.geometry import find_mic
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from observable_cases import HEXAGONAL, gather, trajectory
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest, wasserstein_distance

from dtmd import units
from dtmd.ingest import read_aimd
from dtmd.observables.conservation import conservation
from dtmd.observables.dissociation import BondCriterion, BondFollower, hydrogen_molecules
from dtmd.observables.dissociation_comparison import Dissociations, DissociationSettings
from dtmd.observables.distance_comparison import Distances
from dtmd.observables.distances import BIN_WIDTH, PairHistogram, minimum_image_distances, pair_distances, pair_label
from dtmd.observables.distributions import stacked
from dtmd.observables.force_error import force_error_by_species
from dtmd.observables.histograms import overlap, share_outside, wasserstein
from dtmd.observables.observable import NotApplicable
from dtmd.observables.rollout import Follower, find_start
from dtmd.observables.statistics import block_average, frame_weights, interval, resamples, wilson_interval
from dtmd.observables.temperature import mean_temperature

CELLS = {
    "orthogonal": np.diag([5.0, 6.0, 7.0]),
    "hexagonal slab": HEXAGONAL,
    "skewed": np.array([[10.0, 0, 0], [9.5, 1.5, 0], [3.0, 3.0, 4.0]]),
    "left-handed": np.array([[0, 4.0, 1.0], [5.0, 0, 0.5], [0.2, -1.0, 6.0]]),
}


def make(positions, cell=HEXAGONAL, numbers=None, dt=0.5, **arrays_):
    positions = np.asarray(positions, dtype=float)
    numbers = numbers if numbers is not None else [1, 1, 6, 46][:positions.shape[1]]
    return trajectory(positions, numbers, cell, dt=dt, **arrays_)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_distances_agree_with_ase(cell):
    vectors = np.random.default_rng(0).normal(scale=12.0, size=(3000, 3))
    expected = find_mic(vectors, cell, pbc=True)[1]
    np.testing.assert_allclose(minimum_image_distances(vectors, cell, np.ones(3, bool)), expected, atol=1e-12)


@pytest.mark.parametrize("pbc", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_distances_agree_with_all_images(cell, pbc):
    """ASE's own answer is wrong for partly periodic cells whose vectors are not at right angles."""
    vectors = np.random.default_rng(1).normal(scale=4.0, size=(40, 3))
    images = np.array(list(product(*[range(-16, 17) if periodic else (0,) for periodic in pbc])))
    expected = [np.linalg.norm(vector + images @ cell, axis=1).min() for vector in vectors]
    np.testing.assert_allclose(minimum_image_distances(vectors, cell, np.array(pbc)), expected, atol=1e-12)


def pair_histogram(run):
    """Counts of each kind of pair, by its label."""
    histogram = PairHistogram(run.numbers)
    histogram.add(run, frame_weights(run.times))
    return dict(zip([pair_label(*pair) for pair in histogram.pairs], histogram.counts, strict=True))


@settings(max_examples=50, deadline=None)
@given(
    scaled=arrays(float, (2, 5, 3), elements=st.floats(0, 1, width=32)),
    shifts=arrays(int, (2, 5, 3), elements=st.integers(-3, 3)),
    numbers=st.lists(st.sampled_from([1, 6, 46]), min_size=5, max_size=5),
    name=st.sampled_from(sorted(CELLS)),
)
def test_histogram_counts_each_pair_once_and_ignores_image_shifts(scaled, shifts, numbers, name):
    run = make(scaled @ CELLS[name], CELLS[name], numbers)
    pairs = np.array(list(combinations(range(5), 2)))
    counts = pair_histogram(run)
    kinds = ["–".join(run.symbols[k] for k in sorted(pair, key=run.numbers.__getitem__)) for pair in pairs]
    assert sorted(counts) == sorted(set(kinds))
    for label, of_kind in counts.items():
        assert of_kind.sum() == pytest.approx(kinds.count(label) * run.times[-1])
    moved = replace(run, positions=(scaled + shifts) @ CELLS[name])
    np.testing.assert_allclose(pair_distances(moved, pairs), pair_distances(run, pairs), atol=1e-6)
    own, other = stacked({"": [np.array(list(c.values())) for c in (counts, pair_histogram(moved))]})[""]
    assert (wasserstein(own, other) <= 1.001 * BIN_WIDTH).all()  # rounding at the edge of a bin


def test_frames_count_for_the_time_they_stand_for():
    run = make([[[0, 0, 0], [0, 0, d]] for d in (1.005, 1.005, 1.005, 2.005)])
    run = replace(run, times=np.array([0.0, 1.0, 2.0, 12.0]))
    np.testing.assert_allclose(frame_weights(run.times), [0.5, 1.0, 5.5, 5.0])
    counts = pair_histogram(run)["H–H"]
    assert counts[[100, 200]] == pytest.approx([7.0, 5.0]) and counts.sum() == pytest.approx(12.0)


def histogram_of(values, n_bins=2000):
    return np.bincount((values / BIN_WIDTH).astype(int), minlength=n_bins).astype(float)


def test_wasserstein_agrees_with_scipy():
    rng = np.random.default_rng(2)
    a, b = rng.normal(5.0, 0.7, 20000), rng.gamma(6.0, 0.9, 8000)
    found = wasserstein(histogram_of(a), histogram_of(b))
    assert found == pytest.approx(wasserstein_distance(a, b), abs=0.5 * BIN_WIDTH)
    centres = [(np.floor(x / BIN_WIDTH) + 0.5) * BIN_WIDTH for x in (a, b)]
    assert found == pytest.approx(wasserstein_distance(*centres), rel=1e-9)


def test_overlap_and_share_outside():
    p, q = histogram_of(np.array([1.01, 1.01, 2.01, 3.01])), histogram_of(np.array([1.02, 2.02]))
    assert overlap(p, q) == pytest.approx(0.5 + 0.25)
    assert overlap(p, p) == pytest.approx(1.0)
    assert overlap(histogram_of(np.array([1.0])), histogram_of(np.array([4.0]))) == 0.0
    assert share_outside(p, q) == pytest.approx(0.75)  # all but 2.01
    assert share_outside(q, p) == 0.0


def test_split_half_of_two_trajectories_is_their_distance():
    near, far = (make([[[0, 0, 0], [0, 0, d]]] * 3) for d in (1.005, 2.005))
    near, far = (gather(Distances(), run) for run in (near, far))
    section = Distances().compare({"MD": [near]}, [near, far])
    assert [row.quantity for row in section.rows[::4]] == ["W₁ of all distances", "W₁ of H–H distances"]
    pair, _, _, outside = section.rows[4:]
    assert pair.equal == pytest.approx(1.0)
    assert pair.difference["MD"].value == pytest.approx(0.5) and outside.md["MD"].value == 0.0
    assert pair.difference["MD"].low < 0.5 < pair.difference["MD"].high
    alone, shared = Distances().compare({"MD": [near]}, [far]).rows[:2]
    assert alone.equal is None and alone.difference["MD"].low is None and shared.md["MD"].value == 0.0
    assert [curve.side for curve in section.plots[1].curves] == ["MD", "AIMD"]
    for curve in section.plots[1].curves:
        assert curve.y.sum() * (curve.x[1] - curve.x[0]) == pytest.approx(1.0)


def bonds_followed(run, bonds, criterion=BondCriterion()):
    follower = BondFollower(run, np.array(bonds), criterion)
    follower.add(run, frame_weights(run.times))
    return follower.result()


def test_dissociation_in_the_reference_data(shared_data):
    """Seen in the files by hand: H–H passes 1.5 Å at frame 105 of 007 and stays apart; never in 001."""
    files = [shared_data / "h2pd6_gfn1" / f"traj_{k}.extxyz.gz" for k in ("007", "001")]
    broken, whole = read_aimd(files)
    bonds = hydrogen_molecules(broken, 1.0)
    assert bonds.tolist() == [[0, 1]]
    result = bonds_followed(broken, bonds)
    assert [(event.frame, event.time) for event in result.events] == [(105, 52.5)] and result.undecided == 0
    section = Dissociations().compare({}, [gather(Dissociations(), run) for run in (broken, whole)])
    assert section.rows[0].aimd == wilson_interval(1, 2)
    assert [Path(run).name for _, run, *_ in section.tables[0].rows] == ["traj_007.extxyz.gz"]
    too_late = bonds_followed(broken.window(0, 150), bonds)
    assert too_late.events == [] and too_late.undecided == 1


@pytest.mark.parametrize(
    ("distances", "breaks", "undecided"),
    [
        ([0.7, 1.4, 0.7, 1.49, 0.8] * 4, [], 0),
        ([0.7] * 5 + [1.6] + [1.2] * 3 + [0.9] + [0.7] * 10, [], 0),
        ([0.7] * 5 + [1.6] + [1.2] * 14, [5], 0),
        ([0.7] * 5 + [1.6] * 7 + [0.7] * 3 + [2.0] * 8, [5, 15], 0),
        ([0.7] * 16 + [1.6] * 4, [], 1),
        ([0.7] * 20, [], 0),
    ],
    ids=["vibration", "recombines soon", "stays stretched", "twice", "undecided", "never"],
)
def test_hysteresis(distances, breaks, undecided):
    run = make([[[0, 0, 0], [0, 0, d]] for d in distances], dt=10.0)
    result = bonds_followed(run, [(0, 1)], BondCriterion(persistence=50.0))
    assert ([event.frame for event in result.events], result.undecided) == (breaks, undecided)


def test_named_bonds_that_start_broken_are_not_counted():
    apart = make([[[0, 0, 0], [0, 0, 3.0]]] * 3)
    with pytest.raises(NotApplicable, match="the named bonds are broken"):
        Dissociations(DissociationSettings(bonds=((0, 1),))).start(apart)
    with pytest.raises(NotApplicable, match="no H₂ molecule"):
        Dissociations().start(apart)


def test_force_error_is_a_mean_within_each_species():
    numbers = np.array([1, 1, 46])
    reference = np.zeros((3, 3))
    predicted = np.array([[0.3, 0.0, 0.0], [0.0, -0.6, 0.3], [1.0, -2.0, 3.0]])
    np.testing.assert_allclose(force_error_by_species(predicted, reference, numbers), [(0.1 + 0.3) / 2, 2.0])


def follow(run, reference, frame):
    follower = Follower(run, reference, frame)
    follower.add(run)
    return follower.result()


def rotation(angle=0.7, axis=(1.0, 2.0, 0.5)):
    return Rotation.from_rotvec(angle * np.array(axis)).as_matrix()


def moving(seed=3, n_frames=40):
    rng = np.random.default_rng(seed)
    velocity = rng.normal(scale=0.02, size=(4, 3))
    positions = rng.random((4, 3)) @ HEXAGONAL + 0.5 * np.arange(n_frames)[:, None, None] * velocity
    return make(positions, velocities=np.broadcast_to(velocity, positions.shape).copy(),
                forces=rng.normal(size=positions.shape))


def test_rollout_with_a_known_force_error_in_a_rotated_shifted_cell():
    reference, turn = moving(), rotation()
    start, error = 7, np.array([0.1, 0.1, 0.2, 0.4])
    rest = reference.window(start, len(reference))
    images = np.array([[1, 0, -1], [0, 2, 0], [0, 0, 0], [-1, -1, 1]]) @ HEXAGONAL
    run = replace(
        rest, times=rest.times - rest.times[0], cells=rest.cells @ turn,
        positions=(rest.positions + images + [0.3, -0.2, 5.0]) @ turn, velocities=rest.velocities @ turn,
        forces=rest.forces @ turn + error[:, None],
    )
    found = find_start(run, [moving(seed=4), reference], tolerance=1e-6)
    assert (found.trajectory, found.frame) == (1, start)
    assert found.distance < 1e-12 and found.velocity_difference < 1e-12
    rollout = follow(run, reference, found.frame)
    assert rollout.n_even == len(rest) - 1
    np.testing.assert_allclose(rollout.mean_errors(rollout.n_even), [0.1, 0.2, 0.4])
    np.testing.assert_allclose(rollout.rmsd, 0.0, atol=1e-12)
    scale = [np.abs(rest.forces[:, [0, 1]] @ turn).mean(), np.abs(rest.forces[:, 2] @ turn).mean()]
    np.testing.assert_allclose(rollout.reference_forces.mean(axis=0)[:2], scale)


def test_rollout_uses_only_common_times_and_an_even_start():
    reference = moving(n_frames=41)
    steps = [0, 1, 2, 3, 4, 5, 20, 40]
    run = reference.window(0, 41)
    run = replace(run, times=run.times[steps], cells=run.cells[steps], positions=run.positions[steps] + 0.0,
                  velocities=run.velocities[steps], forces=run.forces[steps])
    run.forces[:] += 0.1 * np.array(steps)[:, None, None]
    late = replace(run, times=run.times + np.array([0, 0, 0, 0, 0, 0, 0.2, 0]))
    rollout = follow(run, reference, 0)
    np.testing.assert_allclose(rollout.times, 0.5 * np.array(steps))
    assert rollout.n_even == 5
    assert rollout.mean_errors(5).sum() == pytest.approx(3 * 0.1 * np.mean([1, 2, 3, 4, 5]))
    np.testing.assert_allclose(follow(late, reference, 0).times, 0.5 * np.array([0, 1, 2, 3, 4, 5, 40]))
    assert follow(run.window(0, 1), reference, 0) is None


def test_start_is_not_found_where_one_atom_is_off():
    reference = moving()
    run = replace(reference, positions=reference.positions.copy())
    run.positions[0, 2, 1] += 0.01
    assert find_start(run, [reference], tolerance=1e-3) is None
    assert find_start(run, [reference], tolerance=0.02).frame == 0


def test_energy_drift_of_a_known_slope():
    times = np.concatenate([np.arange(0, 10, 0.5), np.arange(10, 500, 10.0)])
    still = make(np.zeros((len(times), 2, 3)), velocities=np.zeros((len(times), 2, 3)),
                 energies=-5.0 + 2e-6 * times)
    result = conservation(replace(still, times=times))
    assert result.drift == pytest.approx(1.0)  # 2e-6 eV/fs for two atoms
    assert result.largest == pytest.approx(0.49)
    assert result.deviation == pytest.approx(0.49 / np.sqrt(12), rel=0.02)
    assert result.fluctuation == pytest.approx(0.0, abs=1e-9)
    waves = replace(still, times=times, energies=still.energies + 1e-4 * np.sin(times))  # 0.05 meV/atom
    assert conservation(waves).fluctuation == pytest.approx(0.05 / np.sqrt(2), rel=0.2)


def test_total_energy_adds_the_kinetic_energy():
    velocities = np.zeros((2, 1, 3))
    velocities[1, 0, 0] = 0.01
    kinetic = 0.5 * 1.0 * 0.01**2 * units.KINETIC
    run = make(np.zeros((2, 1, 3)), velocities=velocities, energies=np.array([0.0, -kinetic]))
    assert conservation(run).largest == pytest.approx(0.0, abs=1e-12)


def test_temperature_of_a_maxwell_distribution():
    masses = np.full(400, 12.0)
    velocity = np.sqrt(units.BOLTZMANN * 300.0 / (12.0 * units.KINETIC))
    velocities = np.random.default_rng(5).normal(scale=velocity, size=(50, 400, 3))
    run = make(np.zeros((50, 400, 3)), numbers=[6] * 400, masses=masses, velocities=velocities)
    mean, error = mean_temperature(run)
    assert mean == pytest.approx(300.0 * 1200 / 1197, abs=5 * 300 * np.sqrt(2 / (3 * 400 * 50)))
    assert error == pytest.approx(300 * np.sqrt(2 / (3 * 400 * 50)), rel=0.8)


def test_statistics_against_scipy_and_theory():
    for k, n in ((0, 4), (2, 4), (7, 100)):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        estimate = wilson_interval(k, n)
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    values = np.random.default_rng(6).normal(size=400)
    mean = interval(values.mean(), resamples(400, seed=0) @ values / 400)
    assert mean.high - mean.value == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    average, error = block_average(np.random.default_rng(7).normal(size=5000), np.arange(5000.0))
    assert abs(average) < 0.06 and error == pytest.approx(1 / np.sqrt(5000), rel=0.8)
    assert block_average(np.arange(4.0), np.arange(4.0)) == (1.5, None)
