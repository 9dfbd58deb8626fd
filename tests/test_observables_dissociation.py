"""Dissociation, recombination and elongation of runs that pass by in blocks."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observable_cases import assert_same, gather, trajectory, wandering

from dtmd.errors import DtmdError
from dtmd.ingest import read_aimd
from dtmd.observables.dissociation import hydrogen_molecules
from dtmd.observables.dissociation_comparison import Dissociations, DissociationSettings
from dtmd.observables.elongation import Elongation, ElongationSettings
from dtmd.observables.observable import NotApplicable
from dtmd.observables.section import Verdict
from dtmd.observables.statistics import wilson_interval

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"

APART = {"h2pd6_007_from_000": 105, "h2pd6_012_from_000": 130, "h2pd6_100_from_480": 664 - 480,
         "h2pd6_009_from_480": 590 - 480}
"""Frames of the dissociations, from the table in inputs/aimd/README.md."""


@pytest.fixture(scope="module")
def example():
    return read_aimd([AIMD / "train", AIMD / "validation", AIMD / "test"])


def h2(distances, dt=10.0):
    """A molecule with this bond length in each frame, and a Pd atom far away."""
    distances = np.asarray(distances, dtype=float)
    positions = np.zeros((len(distances), 3, 3))
    positions[:, 1, 2], positions[:, 2, 0] = distances, 50.0
    return trajectory(positions, [1, 1, 46], pbc=(False,) * 3, dt=dt, source="h2")


def test_dissociations_of_the_example_are_those_of_its_table(example):
    observable = Dissociations()
    results = [gather(observable, run, [13, 1, 50]) for run in example]
    found = {Path(r.source).name.split(".")[0]: e.frame for r in results for e in r.events}
    assert found == APART
    section = observable.compare({"MD": results[:5]}, results)
    share = section.rows[0]
    assert share.aimd == wilson_interval(len(APART), len(example)) and share.aimd.value == pytest.approx(0.4)
    assert len(section.tables[0].rows) == len(APART) + sum(bool(r.events) for r in results[:5])
    assert share.verdict["MD"] is Verdict.UNDECIDED


@settings(max_examples=40, deadline=None)
@given(
    distances=st.lists(st.sampled_from([0.7, 0.9, 1.2, 1.45, 1.6, 2.5]), min_size=2, max_size=40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_blocks_of_any_size_give_the_result_of_one(distances, sizes):
    run = h2([0.74, *distances])
    for observable in (Dissociations(), Elongation(), Elongation(ElongationSettings(pairs=((0, 1), (1, 2))))):
        assert_same(gather(observable, run, sizes), gather(observable, run))


def test_elongation_in_blocks_of_a_skewed_cell():
    for observable in (Elongation(), Elongation(ElongationSettings(groups=(("H", "C"),)))):
        run = wandering(3, n_frames=50)
        assert_same(gather(observable, run, [1, 7, 11]), gather(observable, run))


def test_recombination_survival_and_what_is_not_decided():
    observable = Dissociations()
    again = gather(observable, h2([0.7] * 5 + [1.6] * 7 + [0.7] * 3 + [2.0] * 8), [4])
    assert [event.frame for event in again.events] == [5, 15]
    assert [(event.frame, event.time) for event in again.recombinations] == [(12, 120.0)]
    vibrating = gather(observable, h2([0.7, 1.6, 0.7, 1.6, 0.7] * 5), [2])
    assert vibrating.events == [] and vibrating.followed == 240.0
    pending = gather(observable, h2([0.7] * 16 + [1.6] * 4), [3])
    assert pending.events == [] and pending.undecided == 1 and pending.followed == 160.0
    section = observable.compare({"MD": [again, pending]}, [vibrating] * 3 + [again])
    total, within, ends = section.rows
    assert total.md["MD"].value == 0.5 and total.aimd == wilson_interval(1, 4)
    assert total.difference["MD"].value == pytest.approx(0.25) and "MD: 1 undecided" in total.note
    assert "within 160 fs" in within.quantity and within.md["MD"].value == pytest.approx(0.5)
    assert ends.md["MD"].value == 0.5
    lines = [row[3:] for row in section.tables[0].rows if row[0] == "MD"]
    assert lines == [("dissociation", "50", "5"), ("recombination", "120", "12"), ("dissociation", "150", "15")]


def test_molecules_of_hydrogen_are_not_the_hydrogen_of_water():
    positions = [[[0, 0, 0], [0.757, 0.587, 0], [-0.757, 0.587, 0], [5, 5, 5], [5, 5, 5.8]]]
    both = trajectory(positions, [8, 1, 1, 1, 1], pbc=(False,) * 3)
    assert hydrogen_molecules(both, 1.6).tolist() == [[3, 4]]
    no_molecule = trajectory(np.array(positions)[:, :3], [8, 1, 1], pbc=(False,) * 3)
    with pytest.raises(NotApplicable):
        Dissociations().start(no_molecule)
    with pytest.raises(DtmdError, match="1–8: give different atom ids between 1 and 3"):
        Dissociations(DissociationSettings(bonds=((0, 7),))).start(no_molecule)


def test_the_pair_that_stretches_most_is_a_neighbour(example):
    result = gather(Elongation(), example[0], [100])
    assert set(result.stretches) == {"H", "Pd"}
    hydrogen, cluster = result.stretches["H"], result.stretches["Pd"]
    bond = np.linalg.norm(example[0].positions[:, 1] - example[0].positions[:, 0], axis=1)
    np.testing.assert_allclose(hydrogen.distances, bond, atol=1e-6)
    assert hydrogen.largest == pytest.approx((bond - bond[0]).max())
    assert hydrogen.time == pytest.approx(0.5 * bond.argmax()) and hydrogen.pair == (0, 1)
    assert min(cluster.pair) >= 51 and cluster.distances[0] < 3.6


def test_the_shape_of_the_cluster_is_drawn_against_time(example):
    """The distances of the article's Fig. 9: the pair of neighbours that stretches most, and the cluster's size."""
    observable = Elongation()
    results = [gather(observable, run, [33]) for run in example[:4]]
    section = observable.compare({"MD": results[:2]}, results[2:])
    plots = {plot.name: plot for plot in section.plots}
    assert list(plots) == ["elongation-h", "elongation-pd", "elongation-pd-size"]
    pairs = list(combinations(np.flatnonzero(example[0].numbers == 46), 2))
    for run, size, stretch in zip(example[:4], plots["elongation-pd-size"].curves, plots["elongation-pd"].curves,
                                  strict=True):
        distances = np.array([np.linalg.norm(run.positions[:, j] - run.positions[:, i], axis=1) for i, j in pairs])
        np.testing.assert_allclose(size.y, distances.max(axis=0), atol=1e-5)
        np.testing.assert_allclose(size.x, run.times - run.times[0])
        neighbours = distances[distances[:, 0] < 1.3 * distances[:, 0].min()]
        assert len(neighbours) == 12
        largest = (neighbours - neighbours[:, :1]).max(axis=1)
        np.testing.assert_allclose(stretch.y, neighbours[largest.argmax()], atol=1e-5)
        assert size.run == stretch.run == run.source
    row = next(row for row in section.rows if row.quantity == "time average of the largest distance within Pd")
    assert 3.5 < row.aimd.value < 4.5 and row.difference["MD"].value == pytest.approx(
        row.md["MD"].value - row.aimd.value)


def test_a_cluster_that_changes_its_shape():
    """An octahedron with edges of 2.7 Å, one of whose atoms moves outwards after 20 fs; the diagonal is 3.82 Å."""
    corners = 2.7 / np.sqrt(2.0) * np.concatenate([np.eye(3), -np.eye(3)])
    positions = np.repeat(corners[None], 40, axis=0)
    positions[20:, 0, 0] += 1.0
    result = gather(Elongation(), trajectory(positions, [46] * 6, pbc=(False,) * 3, dt=1.0), [9])
    size = result.spans["Pd"]
    np.testing.assert_allclose(size.distances, np.repeat([2.7 * np.sqrt(2.0), 2.7 * np.sqrt(2.0) + 1.0], 20), atol=1e-6)
    assert size.mean == pytest.approx(2.7 * np.sqrt(2.0) + 19.5 / 39.0)
    stretch = result.stretches["Pd"]
    assert stretch.time == 20.0 and 0 in stretch.pair and stretch.pair != (0, 3)
    assert stretch.largest == pytest.approx(np.hypot(2.7 / np.sqrt(2.0) + 1.0, 2.7 / np.sqrt(2.0)) - 2.7)
    many = gather(Elongation(ElongationSettings(groups=(("Pd",),))),
                  trajectory(np.random.default_rng(0).random((3, 30, 3)) * 9.0, [46] * 30, pbc=(False,) * 3))
    assert many.spans == {} and list(many.stretches) == ["Pd"]


def test_elongation_is_told_with_curves_and_intervals():
    observable = Elongation(ElongationSettings(tolerance=0.2))
    aimd = [gather(observable, h2([0.7, 0.7 + x, 0.7])) for x in (0.3, 0.32, 0.34)]
    md = [gather(observable, h2([0.7, 0.7, 0.7 + x])) for x in (1.3, 1.32, 1.34)]
    section = observable.compare({"MD": md, "same": aimd}, aimd)
    row = section.rows[0]
    assert row.aimd.value == pytest.approx(0.32) and row.difference["MD"].value == pytest.approx(1.0)
    assert row.verdict == {"MD": Verdict.DIFFERS, "same": Verdict.AGREES}
    assert [curve.run for curve in section.plots[0].curves] == ["h2"] * 9
    assert section.tables[0].rows[0][-2:] == ("0.300", "10")
    long = gather(observable, h2(0.7 + 0.1 * np.sin(np.arange(9000))))
    assert 1000 < len(long.stretches["H"].times) <= 2000
    with pytest.raises(NotApplicable):
        Elongation().start(trajectory(np.zeros((1, 2, 3)), [1, 6]))
