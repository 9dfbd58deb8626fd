"""The rollout error as an observable: today's numbers in one pass, several models, and runs that leave or break."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from observable_cases import gather

from dtmd.ingest import read_aimd
from dtmd.observables.observable import NotApplicable
from dtmd.observables.rollout_error import RolloutError
from dtmd.observables.statistics import mean_over_runs
from dtmd.trajectory import Trajectory

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"


@pytest.fixture(scope="module")
def aimd():
    return read_aimd([AIMD / "test"])


def started(reference, frame, error, source, n_frames=100, drift=0.0):
    """A run from a frame of the reference with every force off by `error`, which drifts by so many Å/fs per atom."""
    part = reference.window(frame, frame + n_frames)
    directions = np.where(np.arange(len(part.numbers)) % 2, 1.0, -1.0)[:, None] * [1.0, 0.0, 0.0]
    times = part.times - part.times[0]
    return replace(part, times=times, positions=part.positions + drift * times[:, None, None] * directions,
                   forces=part.forces + error, source=source)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_give_the_numbers_of_whole_runs(aimd, block):
    starts, errors, drifts, lengths = [(0, 40), (1, 150)], [0.1, 0.3], [1e-3, 0.0], [100, 120]
    runs = [started(aimd[k], frame, error, name, n, drift) for (k, frame), error, name, n, drift in
            zip(starts, errors, "ab", lengths, drifts, strict=True)]
    observable = RolloutError(aimd)
    found = [gather(observable, run, [block]) for run in runs]
    for own, run, (k, frame), error, drift in zip(found, runs, starts, errors, drifts, strict=True):
        assert (own.source, own.reference, own.rollout.n_even) == (run.source, aimd[k].source, len(run) - 1)
        assert (own.start.trajectory, own.start.frame, own.start.velocity_difference) == (k, frame, 0.0)
        assert own.start.distance < 1e-12
        scale = np.abs(aimd[k].forces[frame : frame + len(run)]).mean(axis=2)
        scale = np.stack([scale[:, run.numbers == z].mean(axis=1) for z in (1, 6, 46)], axis=1)
        expected = {"times": run.times, "force_errors": np.full((len(run), 3), error), "reference_forces": scale,
                    "rmsd": drift * run.times}
        for name, values in expected.items():
            np.testing.assert_allclose(getattr(own.rollout, name), values, rtol=1e-12, atol=1e-13)
    rows = observable.compare({"MD": found}, []).rows
    mepa = mean_over_runs(3 * np.array(errors), seed=0)
    assert (rows[0].md["MD"].low, rows[0].md["MD"].high) == pytest.approx((mepa.low, mepa.high))
    assert rows[0].md["MD"].value == pytest.approx(3 * 0.2)  # H, C and Pd
    assert [row.md["MD"].value for row in rows[1:4]] == pytest.approx([0.2] * 3)
    assert "99 steps" in rows[0].quantity


def test_models_are_paired_over_the_same_starts(aimd):
    observable = RolloutError(aimd)
    starts = [(0, 0), (0, 50), (1, 20), (1, 120)]
    spread = (0.1, 0.5, 0.2, 0.9)  # the starts differ far more than the models
    one, two = ([gather(observable, started(aimd[k], frame, error + more, f"{name} {k} {frame}"))
                 for (k, frame), error in zip(starts, spread, strict=True)]
                for name, more in (("one", 0.0), ("two", 0.02)))
    section = observable.compare({"one": one, "two": two[1:], "elsewhere": [
        gather(observable, started(aimd[0], 77, 0.1, "elsewhere"))]}, [])
    row = next(row for row in section.rows if "less that of one" in row.quantity)
    assert list(row.md) == ["two"] and row.note == "two: 3 starts in common; elsewhere: 0 starts in common"
    assert row.md["two"].value == pytest.approx(3 * 0.02)
    assert row.md["two"].high - row.md["two"].low < 1e-9  # while each model alone is uncertain by far more
    assert section.rows[0].md["two"].high - section.rows[0].md["two"].low > 0.1
    assert [curve.side for curve in section.plots[0].curves] == ["one", "two", "elsewhere"]


def test_the_time_at_which_a_run_leaves_the_reference(aimd):
    observable = RolloutError(aimd, leaves=0.0202)
    leaves, stays = (gather(observable, started(aimd[0], 0, 0.1, name, drift=drift), [9])
                     for name, drift in (("leaves", 1e-3), ("stays", 1e-6)))
    section = observable.compare({"MD": [leaves, stays]}, [])
    row = next(row for row in section.rows if row.quantity.startswith("time until the RMSD passes 0.0202 Å"))
    assert row.md["MD"].value == pytest.approx((20.5 + 49.5) / 2)  # 1e-3 Å/fs · 20.5 fs > 0.0202 Å
    assert [entry[6] for entry in section.tables[0].rows] == ["20.5\u00a0fs", "–"]


def test_a_run_that_breaks_counts_up_to_there_and_is_named(aimd):
    run = started(aimd[0], 0, 0.1, "broken")
    run.forces[60:, 3] = np.nan
    observable = RolloutError(aimd)
    found = gather(observable, run, [13])
    assert (found.rollout.n_even, found.rollout.ended) == (59, 30.0) and found.mepa == pytest.approx(0.3)
    section = observable.compare({"MD": [found, gather(observable, started(aimd[1], 0, 0.1, "whole"))]}, [])
    assert "59 steps" in section.rows[0].quantity and any("broken: not finite" in text for text in section.caveats)


def test_only_what_the_reference_covers_is_kept(aimd):
    """The run goes on for three times as long as the AIMD, and breaks there."""
    whole = started(aimd[0], 200, 0.1, "long", n_frames=120)
    n = len(whole)
    long = Trajectory(
        numbers=whole.numbers, masses=whole.masses, pbc=whole.pbc, cells=np.concatenate([whole.cells] * 3),
        times=0.5 * np.arange(3 * n), positions=np.concatenate([whole.positions] * 3),
        velocities=np.concatenate([whole.velocities] * 3),
        forces=np.concatenate([whole.forces, *[np.full_like(whole.forces, np.nan)] * 2]), source="long",
    )
    found = gather(RolloutError(aimd), long, [17])
    assert len(found.rollout.times) == 120 and found.rollout.ended is None and found.mepa == pytest.approx(0.3)


def test_runs_that_cannot_be_followed_say_why(aimd):
    observable = RolloutError(aimd)
    run = started(aimd[0], 0, 0.1, "run")
    with pytest.raises(NotApplicable, match="no forces in run"):
        observable.start(replace(run, forces=None))
    with pytest.raises(NotApplicable, match="velocities differ"):
        observable.start(replace(run, velocities=run.velocities * 1.5))
    with pytest.raises(NotApplicable, match="on no AIMD frame"):
        observable.start(replace(run, positions=run.positions + np.random.default_rng(0).normal(size=(57, 3))))
    with pytest.raises(NotApplicable, match="no frame after its start"):
        gather(observable, run.window(0, 1))
    given = RolloutError(aimd, starts={"run": (aimd[1].source, 5)})
    assert gather(given, run).start.frame == 5


def test_runs_of_another_spacing_are_left_out_and_named(aimd):
    observable = RolloutError(aimd)
    run = started(aimd[0], 0, 0.1, "fine")
    coarse = started(aimd[1], 0, 0.1, "coarse")
    every = np.arange(0, 100, 2)
    coarse = replace(coarse, times=coarse.times[every], cells=coarse.cells[every], positions=coarse.positions[every],
                     velocities=coarse.velocities[every], forces=coarse.forces[every], energies=coarse.energies[every])
    section = observable.compare({"a": [gather(observable, run)], "b": [gather(observable, coarse)]}, [])
    assert list(section.rows[0].md) == ["a"]
    assert "coarse: left out, as its frames are 1 fs apart, those of fine 0.5 fs" in section.caveats


def test_the_error_against_the_number_that_sides_differ_in(aimd):
    """Article Fig. 4: training lengths in the order of their numbers, not of their names or of the command."""
    observable = RolloutError(aimd)
    errors = {"S = 16": (0.1, 0.2), "S = 1": (0.4,), "S = 4": (0.2, 0.4)}
    sides = {side: [gather(observable, started(aimd[k], 40, error, f"{side} {k}")) for k, error in enumerate(of_side)]
             for side, of_side in errors.items()}
    section = observable.compare(sides, [])
    plot = next(plot for plot in section.plots if plot.name == "rollout_mepa")
    assert plot.x_label == "S" and [curve.label for curve in plot.curves] == [
        "MEPA", "term of H", "term of C", "term of Pd"]
    mepa = plot.curves[0]
    assert mepa.x.tolist() == [1.0, 4.0, 16.0] and mepa.y == pytest.approx([1.2, 0.9, 0.45])
    assert plot.curves[3].y == pytest.approx([0.4, 0.3, 0.15])
    estimate = section.rows[0].md["S = 4"]
    assert (mepa.low[1], mepa.high[1]) == (estimate.low, estimate.high) and np.isnan(mepa.low[0])


@pytest.mark.parametrize("names", [("S = 1",), ("S = 1", "MACE"), ("S = 1", "T = 2"), ("S=1", "S=2"),
                                   ("S = 1", "S = x"), ("S = 1", "S = nan")])
def test_sides_that_differ_in_more_than_a_number_are_not_drawn_against_it(aimd, names):
    observable = RolloutError(aimd)
    runs = [gather(observable, started(aimd[0], 40, 0.1, "run", n_frames=5))]
    section = observable.compare({name: runs for name in names}, [])
    assert not any(plot.name == "rollout_mepa" for plot in section.plots)
