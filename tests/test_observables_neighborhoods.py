"""Neighbourhoods of runs that pass by in blocks: Jaccard indices against counts by hand and `dtmd data neighbors`."""

from dataclasses import replace

import numpy as np
import pytest
from observable_cases import SKEWED, assert_same, gather, trajectory, wandering
from small import example

from dtmd.comparison.settings import load_settings
from dtmd.data_views import neighbor_similarity
from dtmd.errors import DtmdError
from dtmd.observables.neighborhoods import NeighborhoodRun, Neighborhoods, NeighborhoodSettings
from dtmd.observables.observable import NotApplicable
from dtmd.observables.section import Verdict


def observable(**settings):
    return Neighborhoods(NeighborhoodSettings(**{"cutoff": 3.0, "every": 0.0, **settings}))


def line(*far_frames, n_frames=20, times=None):
    """A chain of four atoms 2 Å apart; in the given frames the last is far away. Times in fs."""
    positions = np.zeros((n_frames, 4, 3))
    positions[:, :, 0] = [0.0, 2.0, 4.0, 6.0]
    positions[list(far_frames), 3, 0] = 60.0
    times = np.arange(float(n_frames)) if times is None else np.array(times, dtype=float)
    return trajectory(positions, (6, 6, 6, 1), 100.0 * np.eye(3), (False, False, False), times=times)


def test_a_rigid_crystal_keeps_its_neighbours():
    """It drifts through the boundaries of its cell, in which atoms are neighbours of their own images."""
    places = 2.0 * np.array([[x, y, 0.0] for x in range(2) for y in range(2)])
    positions = places + 0.37 * np.arange(40.0)[:, None, None] * [1.0, -0.5, 0.2]
    run = gather(observable(offsets=(0.5, 5.0)), trajectory(positions, (46,) * 4, np.diag([4.0, 4.0, 2.0])), [7])
    assert list(run.index) == [0.5, 5.0] and run.n_starts == {0.5: 39, 5.0: 30}
    assert all((index == 1.0).all() for index in run.index.values())


def test_a_neighbour_that_leaves_counts_as_by_hand():
    """Of the 19 pairs of frames one has the atom leave; its neighbour keeps one of two, itself none of one."""
    run = gather(observable(offsets=(1.0,)), line(*range(12, 20)))
    np.testing.assert_allclose(run.index[1.0], [1.0, 1.0, (18 + 0.5) / 19, 18 / 19])
    far = gather(observable(offsets=(4.0,)), line(*range(12, 20)))
    np.testing.assert_allclose(far.index[4.0], [1.0, 1.0, (12 + 4 * 0.5) / 16, 12 / 16])


@pytest.mark.parametrize("n_offsets", [1, 9])
def test_all_start_frames_give_the_similarity_of_the_data(n_offsets):
    run = example()[0]
    offset = n_offsets * 0.5
    found = gather(observable(cutoff=5.0, offsets=(offset,), n_starts=1000), run, [100])
    expected = neighbor_similarity([run], 5.0, n_offsets, 1000)
    assert found.n_starts[offset] == expected.n_starts == len(run) - n_offsets
    np.testing.assert_allclose(found.index[offset], expected.jaccard[-1], rtol=1e-12)
    assert found.index[offset].min() < 0.995


def test_thinned_starts_come_to_the_same():
    run = example()[0]
    thinned = gather(Neighborhoods(), run, [100])
    assert thinned.n_starts == {1.0: 16, 2.0: 16, 5.0: 16, 10.0: 15}
    full = gather(observable(cutoff=5.0, offsets=(5.0,), n_starts=1000), run).index[5.0]
    found = thinned.index[5.0]
    assert abs(found.mean() - full.mean()) < 0.002 and np.abs(found - full).max() < 0.05


@pytest.mark.parametrize("sizes", [[1], [3, 8, 1, 5], [20]])
def test_blocks_do_not_matter(sizes):
    run = wandering(3, n_frames=60)
    settings = {"cutoff": 4.0, "offsets": (0.5, 2.0, 7.5), "every": 1.0, "n_starts": 8}
    whole = gather(observable(**settings), run)
    assert_same(gather(observable(**settings), run, sizes), whole)
    assert whole.index[7.5].min() < 0.9


def test_dense_frames_then_sparse_ones():
    """Ten frames 1 fs apart, then 4 fs: offsets of 1 and 4 fs are known of other numbers of frames, 3 fs of few."""
    times = [*range(10), *range(13, 53, 4)]
    run = gather(observable(offsets=(1.0, 3.0, 4.0, 7.5)), line(n_frames=20, times=times))
    assert run.n_starts == {1.0: 9, 3.0: 7, 4.0: 6 + 10}
    with pytest.raises(NotApplicable, match="no start frame has one that is 7.5 fs later; set the offsets"):
        gather(observable(offsets=(7.5,)), line(n_frames=20, times=times))


def test_each_start_frame_stands_for_those_left_out():
    """Of 40 frames the first 4 are start frames, then every second, fourth, eighth and sixteenth."""
    moved = line(*range(1, 40, 2), n_frames=40)  # comes and goes with every frame
    run = gather(observable(offsets=(1.0,), n_starts=4), moved, [9])
    assert run.n_starts[1.0] == 4 + 2 + 2 + 2 + 1
    np.testing.assert_allclose(run.index[1.0], [1.0, 1.0, 0.5, 0.0])
    late = gather(observable(offsets=(1.0,), n_starts=4), line(*range(17, 40), n_frames=40), [9])
    # Starts 0, 1, 2, 3 count once, 4 and 6 for 1 and 2, 8 … for the gap before each; the atom leaves after frame 16.
    weights = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 6: 2, 8: 2, 12: 4, 16: 4, 24: 8, 32: 8}
    assert late.index[1.0][3] == pytest.approx(1.0 - weights[16] / sum(weights.values()))


def test_a_run_that_breaks_counts_up_to_there():
    broken = line(n_frames=20)
    broken.positions[12:, 0] = np.nan
    flown = line(n_frames=20)
    flown.positions[12:, 0] = 1e9
    for run in (broken, flown):
        assert gather(observable(offsets=(1.0,)), run, [5]).n_starts[1.0] == 11


@pytest.mark.parametrize(("axis", "n_starts"), [(0, 19), (1, 19), (2, 11)])
def test_far_along_a_surface_is_near_and_far_above_it_is_gone(axis, n_starts):
    run = replace(line(n_frames=20), pbc=np.array([True, True, False]))
    run.positions[12:, 3, axis] += 1e6
    found = gather(observable(offsets=(1.0,)), run, [5])
    assert found.n_starts[1.0] == n_starts


def result(h, pd, offsets=(1.0, 5.0), source="run", symbols=("H", "H", "Pd")):
    """A run of given indices of its elements; those of a later offset are lower by 0.1."""
    index = {offset: np.array([h if symbol == "H" else pd for symbol in symbols]) - 0.1 * (offset > 1.0)
             for offset in offsets}
    return NeighborhoodRun(source, list(symbols), index, dict.fromkeys(offsets, 7))


def test_sides_are_judged_at_the_first_offset_that_they_have_in_common():
    aimd = [result(0.9 + 0.001 * k, 0.99, source=f"aimd {k}") for k in range(4)]
    md = {"near": [result(0.902 + 0.001 * k, 0.99) for k in range(4)],
          "sparse": [result(0.6 + 0.001 * k, 0.99, (5.0,)) for k in range(4)]}
    section = Neighborhoods().compare(md, aimd)
    h, pd = section.rows
    assert "neighbours of H after 5\u00a0fs" in h.quantity and h.aimd.value == pytest.approx(0.8015)
    assert h.difference["near"].value == pytest.approx(0.002)
    assert h.verdict == {"near": Verdict.AGREES, "sparse": Verdict.DIFFERS}
    assert pd.verdict == {"near": Verdict.AGREES, "sparse": Verdict.AGREES}
    assert h.note == "near: 28 start frames; sparse: 28 start frames; AIMD: 28 start frames"
    plots = {plot.name: plot for plot in section.plots}
    assert list(plots) == ["neighborhoods", "neighborhoods-1", "neighborhoods-2", "neighborhoods-AIMD"]
    assert [curve.side for curve in plots["neighborhoods"].curves] == ["near", "sparse", "AIMD"]
    assert plots["neighborhoods"].curves[2].y == pytest.approx([0.8015, 0.8015, 0.89])
    assert plots["neighborhoods"].curves[2].low[0] < 0.8015 < plots["neighborhoods"].curves[2].high[0]
    assert plots["neighborhoods"].vertical == {"H": 1.0, "Pd": 3.0}
    assert [curve.label for curve in plots["neighborhoods-1"].curves] == ["1\u00a0fs", "5\u00a0fs"]
    assert [curve.label for curve in plots["neighborhoods-2"].curves] == ["5\u00a0fs"]
    assert section.tables[0].rows[2] == ("sparse", "H", "–", "0.5015") and section.caveats == []


def test_runs_that_do_not_fit_are_left_out_and_named():
    other = result(0.9, 0.99, source="turned", symbols=("H", "Pd", "H"))
    section = Neighborhoods().compare({"MD": [result(0.9, 0.99), other, result(0.5, 0.5, (5.0,), "sparse")]}, [])
    assert [row.md["MD"].value for row in section.rows] == pytest.approx([0.9, 0.99])
    assert section.plots[0].curves[0].y == pytest.approx([0.9, 0.9, 0.99])
    assert section.rule == "" and not any(row.verdict for row in section.rows)
    assert [text.split(":")[0] for text in section.caveats] == ["sparse", "turned"]
    alone = Neighborhoods().compare({"MD": [result(0.9, 0.99)]}, [result(0.9, 0.99)])
    assert set(alone.rows[0].verdict.values()) == {Verdict.UNDECIDED} and alone.plots[0].curves[0].low is None


def test_periodic_images_and_widths():
    """In the skewed cell, wrapping the atoms of the whole run by lattice vectors changes nothing."""
    run = wandering(5, n_frames=25)
    moved = replace(run, positions=run.positions + np.array([[1, 0, -2]] * 3 + [[0, 3, 1]] * 3) @ SKEWED)
    settings = {"cutoff": 5.0, "offsets": (1.0, 3.0)}
    assert_same(gather(observable(**settings), moved), gather(observable(**settings), run))


def test_settings_of_a_file(tmp_path):
    file = tmp_path / "observables.yaml"
    file.write_text("observables:\n  neighborhoods: {cutoff: 4, offsets: [0.5, 3]}\n")
    made = {type(o): o for o in load_settings(file).observables(example()[:1])}
    assert made[Neighborhoods].settings == NeighborhoodSettings(cutoff=4.0, offsets=(0.5, 3.0))
    for wrong in ("offsets: []", "offsets: [0]", "cutoff: -1", "n_starts: 0"):
        file.write_text(f"observables:\n  neighborhoods: {{{wrong}}}\n")
        with pytest.raises(DtmdError, match=f"neighborhoods.{wrong.split(':')[0]}"):
            load_settings(file)
