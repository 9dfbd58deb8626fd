"""Distances, g(r) and bonds that pass by in blocks, against brute force, an ideal gas and known crystals."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st
from observable_cases import SKEWED, assert_same, gather, trajectory, wandering
from scipy.stats import wasserstein_distance
from vesin import NeighborList

from dtmd.observables.bond_graph import pairs_nearby
from dtmd.observables.bonds import Bonds, BondSettings
from dtmd.observables.distance_comparison import Distances, DistanceSettings
from dtmd.observables.distances import BIN_WIDTH, PairHistogram, minimum_image_distances, minimum_images
from dtmd.observables.distributions import N_SPLITS
from dtmd.observables.histograms import COARSE
from dtmd.observables.observable import NotApplicable
from dtmd.observables.rdf import SHELL, RadialDistribution, half_width
from dtmd.observables.section import Verdict
from dtmd.observables.statistics import frame_weights, interval, resamples
from dtmd.trajectory import Trajectory


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, True), (False,) * 3])
def test_shortest_images_have_the_shortest_lengths(pbc):
    vectors = np.random.default_rng(0).normal(scale=9.0, size=(500, 3))
    found = minimum_images(vectors, SKEWED, np.array(pbc))
    expected = minimum_image_distances(vectors, SKEWED, np.array(pbc))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), expected, atol=1e-12)
    images = (vectors - found) @ np.linalg.inv(SKEWED)
    np.testing.assert_allclose(images, np.round(images) * pbc, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6))
@pytest.mark.parametrize("observable", [
    Distances(), Distances(DistanceSettings(max_distances=20)), RadialDistribution(), Bonds()],
    ids=["distances", "thinned", "rdf", "bonds"])
def test_blocks_of_any_size_give_the_result_of_one(observable, sizes):
    run = wandering(1)
    run = replace(run, times=np.cumsum(np.linspace(0.5, 3.0, len(run))))
    assert_same(gather(observable, run, sizes), gather(observable, run))


@st.composite
def skewed_runs(draw):
    """Atoms in a cell of any shape, the same atoms with some of them in other images, and the periodic directions."""
    seed, pbc = draw(st.integers(0, 10**6)), np.array(draw(st.tuples(*[st.booleans()] * 3)))
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(3.0, 9.0, 3)
    cell = np.tril(draw(st.sampled_from([0.0, 0.5, 1.0])) * rng.uniform(-1.0, 1.0, (3, 3)) * lengths, -1)
    cell = (cell + np.diag(lengths)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    numbers = rng.choice([1, 6, 46], size=draw(st.integers(2, 6)))
    places = rng.random((3, len(numbers), 3))
    shifts = rng.integers(-3, 4, size=places.shape) * pbc
    return numbers, cell, pbc, places @ cell, (places + shifts) @ cell


def counted_by_hand(numbers, cell, pbc, positions, weights):
    """Every pair i < j of every frame by a search through many images: {(low, high): {bin: weight}}."""
    images = np.array(list(product(*[range(-5, 6) if periodic else (0,) for periodic in pbc]))) @ cell
    counts = {}
    for frame, weight in zip(positions, weights, strict=True):
        for i, j in combinations(range(len(numbers)), 2):
            distance = np.linalg.norm(frame[j] - frame[i] + images, axis=1).min()
            kind = counts.setdefault(tuple(sorted((int(numbers[i]), int(numbers[j])))), {})
            kind[int(distance / BIN_WIDTH)] = kind.get(int(distance / BIN_WIDTH), 0.0) + weight
    return counts


@settings(max_examples=60, deadline=None)
@given(skewed_runs())
def test_every_pair_is_counted_once_in_any_cell_and_any_image(case):
    numbers, cell, pbc, inside, elsewhere = case
    weights = np.array([0.5, 1.0, 0.25])
    expected = counted_by_hand(numbers, cell, pbc, inside, weights)
    for positions in (inside, elsewhere):
        histogram = PairHistogram(numbers)
        histogram.add(trajectory(positions, numbers, cell, pbc), weights)
        assert histogram.pairs == sorted(expected)
        for pair, counts in zip(histogram.pairs, histogram.counts, strict=True):
            found = {k: counts[k] for k in np.flatnonzero(counts).tolist()}
            assert found == pytest.approx(expected[pair])
        assert histogram.counts.sum() == pytest.approx(1.75 * len(numbers) * (len(numbers) - 1) / 2)


def test_pairs_are_counted_once_in_pieces(monkeypatch):
    run = wandering(2)
    weights = frame_weights(run.times)
    expected = counted_by_hand(run.numbers, SKEWED, run.pbc, run.positions, weights)
    monkeypatch.setattr("dtmd.observables.distances._PAIRS_AT_ONCE", 8)
    histogram = PairHistogram(run.numbers)
    histogram.add(run, weights)
    assert histogram.pairs == sorted(expected) and len(expected) == 5
    for pair, counts in zip(histogram.pairs, histogram.counts, strict=True):
        assert {k: counts[k] for k in np.flatnonzero(counts).tolist()} == pytest.approx(expected[pair])


def counts_by_hand(runs, n_bins=3000):
    """Distances of each run in fine bins, by label of the pair, "all" first: {label: (n_runs, n_bins)}."""
    every = {"all": np.zeros((len(runs), n_bins))}
    for k, run in enumerate(runs):
        found = counted_by_hand(run.numbers, SKEWED, run.pbc, run.positions, frame_weights(run.times))
        for pair in sorted(found):
            for label in ("all", "–".join(chemical_symbols[z] for z in pair)):
                bins = list(found[pair])
                every.setdefault(label, np.zeros((len(runs), n_bins)))[k, bins] += list(found[pair].values())
    return every


def w1(p, q):
    """∫|P − Q| dr of counts in fine bins, for each row."""
    p, q = (np.cumsum(x, axis=-1) / x.sum(axis=-1, keepdims=True) for x in (p, q))
    return BIN_WIDTH * np.abs(p - q).sum(axis=-1)


def test_distances_are_those_counted_by_hand():
    md, aimd = [wandering(k) for k in range(3)], [wandering(k) for k in range(10, 15)]
    own, reference = counts_by_hand(md), counts_by_hand(aimd)
    observable = Distances()
    section = observable.compare({"MD": [gather(observable, run, [7]) for run in md]},
                                 [gather(observable, run) for run in aimd])
    assert [row.quantity for row in section.rows[::4]] == [f"W₁ of {pair} distances" for pair in own]
    rng = np.random.default_rng(0)
    halves = np.array([rng.permutation(len(aimd)) < len(aimd) // 2 for _ in range(N_SPLITS)], dtype=float)
    for k, (p, q) in enumerate(zip(own.values(), reference.values(), strict=True)):
        distance, shared, _, outside = section.rows[4 * k : 4 * k + 4]
        new, (p_all, q_all), r = distance.difference["MD"], (p.sum(axis=0), q.sum(axis=0)), BIN_WIDTH * np.arange(3000)
        assert new.value == pytest.approx(wasserstein_distance(r, r, p_all, q_all))
        replicas = w1(resamples(len(md), 0) @ p, resamples(len(aimd), 1) @ q)
        expected = interval(new.value, replicas, (0.0, np.inf))
        assert (new.low, new.high) == pytest.approx((expected.low, expected.high))
        assert distance.equal == pytest.approx(w1(halves @ q, (1.0 - halves) @ q).mean())
        densities = [x.reshape(-1, COARSE).sum(axis=1) / x.sum() for x in (p_all, q_all)]
        assert shared.md["MD"].value == pytest.approx(np.minimum(*densities).sum())
        seen = np.flatnonzero(q_all)
        beyond = p_all[: seen[0]].sum() + p_all[seen[-1] + 1 :].sum()
        assert outside.md["MD"].value == pytest.approx(beyond / p_all.sum())
    curve = section.plots[0].curves[0]
    assert curve.y.sum() * (curve.x[1] - curve.x[0]) == pytest.approx(1.0) and (curve.low <= curve.y).all()


def test_distances_without_aimd_and_of_several_models():
    observable = Distances()
    results = [gather(observable, wandering(k)) for k in range(4)]
    alone = observable.compare({"one": results}, [])
    assert alone.rows == [] and len(alone.plots) == 6
    both = observable.compare({"one": results, "two": [], "three": results[:1]}, results)
    assert list(both.rows[0].difference) == ["one", "three"]
    assert both.rows[0].verdict["one"] is Verdict.AGREES
    with pytest.raises(NotApplicable):
        observable.start(wandering(1, n_atoms=1, numbers=[1]))


def gas(seed, numbers, n_frames=400, cell=SKEWED, **others):
    scaled = np.random.default_rng(seed).random((n_frames, len(numbers), 3))
    cells = np.broadcast_to(cell, (n_frames, 3, 3))
    return trajectory(np.einsum("tni,tij->tnj", scaled, cells), numbers, cells, **others)


def test_ideal_gas_in_a_skewed_cell_that_breathes():
    swelling = SKEWED * np.linspace(0.9, 1.1, 400)[:, None, None]
    observable = RadialDistribution()
    numbers = [1] * 12 + [6] * 8 + [46]
    results = [gather(observable, gas(k, numbers, cell=swelling)) for k in range(4)]
    longest = half_width(swelling[0], np.ones(3, bool))
    assert results[0].longest == pytest.approx(longest)
    section = observable.compare({"MD": results[:2]}, results[2:])
    assert [plot.caption[-4:].strip(" ,") for plot in section.plots] == ["H–H", "H–C", "H–Pd", "C–C", "C–Pd"]
    for plot, n_pairs in zip(section.plots, (66, 96, 12, 28, 8), strict=True):
        for curve in plot.curves:
            assert len(curve.x) == int(longest / SHELL) and curve.x[-1] < longest
            far = curve.x > 1.0
            in_sphere = 2 * 400 * n_pairs * 4 / 3 * np.pi * longest**3 / abs(np.linalg.det(SKEWED))
            mean = np.average(curve.y[far], weights=curve.x[far] ** 2)
            assert mean == pytest.approx(1.0, abs=5.0 / np.sqrt(in_sphere))


def test_mean_absolute_error_of_g_is_that_of_forces_are_not_enough():
    observable = RadialDistribution()
    one, two = (gather(observable, gas(k, [1, 1, 6], n_frames=50)) for k in (1, 2))
    section = observable.compare({"MD": [one]}, [two])
    for row, plot in zip(section.rows, section.plots, strict=True):
        own, reference = (curve.y for curve in plot.curves)
        expected = np.abs(own - reference).mean() * SHELL * len(own)
        assert row.difference["MD"].value == pytest.approx(expected)


def test_spheres_that_fit():
    assert half_width(np.diag([4.0, 6.0, 9.0]), np.ones(3, bool)) == pytest.approx(2.0)
    hexagonal = np.array([[4.0, 0, 0], [-2.0, np.sqrt(12.0), 0], [0, 0, 0]])
    assert half_width(hexagonal, np.array([True, True, False])) == pytest.approx(np.sqrt(12.0) / 2)
    volume = abs(np.linalg.det(SKEWED))
    areas = [np.linalg.norm(np.cross(SKEWED[k - 1], SKEWED[k - 2])) for k in range(3)]
    assert half_width(SKEWED, np.ones(3, bool)) == pytest.approx(0.5 * min(volume / area for area in areas))


def test_slabs_are_related_to_the_density_within_the_sphere():
    observable = RadialDistribution()
    slab = gas(3, [1] * 20, pbc=(True, True, False))
    section = observable.compare({"MD": [gather(observable, slab)]}, [])
    curve = section.plots[0].curves[0]
    assert np.average(curve.y, weights=(curve.x**2 + SHELL**2 / 12)) == pytest.approx(1.0)
    assert "not periodic in all directions" in section.definition
    with pytest.raises(NotApplicable, match="periodic"):
        observable.start(gas(3, [1, 1], pbc=(False,) * 3))


def test_bonds_of_a_crystal_cross_the_boundaries():
    """fcc Pd, two atoms per cell: twelve neighbours each, most of them images."""
    atoms = bulk("Pd", "fcc", a=3.89)
    positions = np.repeat([[[0.0, 0.0, 0.0], atoms.cell[0]]], 3, axis=0)
    two = trajectory(positions, [46, 46], np.array(atoms.cell) * [[2.0], [1.0], [1.0]])
    result = gather(Bonds(), two)
    assert set(result.lengths) == {(46, 46)}
    assert result.coordination[46, 46].nonzero()[0].tolist() == [12]
    seen = result.lengths[46, 46].nonzero()[0]
    assert (seen * BIN_WIDTH <= 3.89 / np.sqrt(2)).all() and len(seen) == 1
    assert result.lengths[46, 46].sum() == pytest.approx(12 * two.times[-1])


def test_hydrogen_that_vibrates_stays_bonded_and_the_hydrogen_of_water_is_not():
    """With 0.27 eV, H₂ swings to 0.95 Å; the atoms of water are 1.5 Å apart."""
    stretched = trajectory([[[0, 0, 0], [d, 0, 0]] for d in (0.66, 0.75, 0.95)], [1, 1], pbc=(False,) * 3)
    assert gather(Bonds(), stretched).coordination[1, 1].nonzero()[0].tolist() == [1]
    water = molecule("H2O", vacuum=5.0)
    still = trajectory(water.positions[None], water.numbers, np.array(water.cell))
    assert set(gather(Bonds(), still).lengths) == {(1, 8)}
    tight = gather(Bonds(BondSettings(factor=1.1, slack=0.1)), stretched)
    assert tight.coordination[1, 1].nonzero()[0].tolist() == [0, 1]


def test_bonds_of_water_and_their_rows():
    atoms = molecule("H2O", vacuum=5.0)
    rng = np.random.default_rng(4)

    def water():
        shaken = atoms.positions + rng.normal(scale=0.01, size=(20, 3, 3))
        return trajectory(shaken, atoms.numbers, np.array(atoms.cell), pbc=(False,) * 3)

    observable = Bonds()
    aimd, md = ([gather(observable, water()) for _ in range(n)] for n in (5, 4))
    assert set(aimd[0].lengths) == {(1, 8)}
    assert aimd[0].coordination[8, 1].nonzero()[0].tolist() == [2]
    assert aimd[0].coordination[1, 8].nonzero()[0].tolist() == [1]
    section = observable.compare({"MD": md}, aimd)
    rows = {row.quantity: row for row in section.rows}
    assert rows["mean H–O bond length"].aimd.value == pytest.approx(0.969, abs=0.006)
    assert rows["spread of the H–O bond length"].aimd.value == pytest.approx(0.014, abs=0.004)
    assert rows["W₁ of H–O bond lengths"].verdict["MD"] is not Verdict.DIFFERS
    assert rows["mean number of H neighbours of O"].md["MD"].value == pytest.approx(2.0)
    assert rows["mean number of O neighbours of H"].md["MD"].value == pytest.approx(1.0)


@pytest.mark.parametrize("pbc", [(False, False, False), (True, False, False), (True, True, False), (True, True, True)])
def test_atoms_that_flew_off_change_no_pairs(pbc):
    """vesin alone takes minutes where an atom is far off, and breaks where it is further."""
    rng = np.random.default_rng(3)
    cell = np.array([[7.0, 0.0, 0.0], [2.0, 6.0, 0.0], [1.0, -2.0, 9.0]])
    positions = rng.random((1, 30, 3)) @ cell
    pbc = np.array(pbc)
    free = np.linalg.svd(cell[pbc])[2][pbc.sum():] if pbc.any() else np.eye(3)
    far = positions.copy()
    if len(free):
        far[0, [3, 17]] += 1e8 * free[0]
        far[0, 5] -= 1e4 * free[-1]
    run = Trajectory(numbers=np.full(30, 6), masses=np.ones(30), pbc=pbc, cells=cell[None], times=np.zeros(1),
                     positions=far)
    i, j, distances = pairs_nearby(NeighborList(cutoff=3.0, full_list=False), run, 0)
    images = np.array(list(product(*[range(-3, 4) if periodic else (0,) for periodic in pbc]))) @ cell
    expected = [np.linalg.norm(far[0, b] - far[0, a] + images, axis=1) for a in range(30) for b in range(a + 1, 30)]
    expected = np.sort(np.concatenate([d[d < 3.0] for d in expected]))
    found = np.sort(distances[i != j])
    assert len(expected) > 20
    np.testing.assert_allclose(found, expected, atol=1e-6)
