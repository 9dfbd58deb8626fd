"""Survival of runs: each limit on its own, Kaplan and Meier against SciPy, and the embedded AIMD."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from observable_cases import HEXAGONAL, gather, trajectory
from scipy.stats import CensoredData, ecdf

from dtmd.errors import DtmdError
from dtmd.ingest import read_aimd
from dtmd.observables.kaplan_meier import kaplan_meier
from dtmd.observables.section import Verdict
from dtmd.observables.statistics import wilson_interval
from dtmd.observables.survival import Limits, Survival, covalent_sums, pairs_within, reactive_pairs

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"
BLOCKS = pytest.mark.parametrize("block", [1, 7, 1000])


def molecule(n_frames=200, source="run"):
    """CO and H₂ far apart that drift together across the cell, at some 300 K."""
    start = np.array([[0, 0, 1.0], [0, 0, 2.13], [5.0, 0, 1.0], [5.0, 0, 1.74]])
    times = 0.5 * np.arange(n_frames)
    velocity = np.array([0.002, 0.05, 0.0])
    return trajectory(
        start + times[:, None, None] * velocity, [6, 8, 1, 1], HEXAGONAL, masses=np.array([12.0, 16.0, 1.0, 1.0]),
        velocities=np.full((n_frames, 4, 3), 0.004), forces=np.zeros((n_frames, 4, 3)), source=source,
    )


def life(trajectory, block=1000, observable=None):
    return gather(observable or Survival(), trajectory, [block])


def changed(trajectory, name, frame, value, atom=0):
    """One atom's vector replaced from a frame on."""
    values = getattr(trajectory, name).copy()
    values[frame:, atom] = value
    return replace(trajectory, **{name: values})


@BLOCKS
def test_a_quiet_run_is_alive_at_its_end(block):
    found = life(molecule(), block)
    assert found.end is None and found.observed == 99.5 and found.unwatched == ()


@BLOCKS
@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("forces", np.nan, "forces that are not finite"),
        ("positions", np.inf, "positions that are not finite"),
        ("velocities", np.nan, "velocities that are not finite"),
        ("velocities", 50.0, "temperature of"),
    ],
)
def test_what_is_not_finite_or_too_hot_ends_a_run(block, name, value, cause):
    found = life(changed(molecule(), name, 123, value), block)
    assert (found.end.frame, found.end.time, found.observed, found.end.bond) == (123, 61.5, 61.5, None)
    assert len(found.end.causes) == 1 and found.end.causes[0].startswith(cause)


def test_a_run_that_starts_at_rest_is_not_too_cold_before_it_was_warm():
    still = molecule()
    still.velocities[:20] = 0.0
    assert life(still, 7).end is None
    still.velocities[150:] = 0.0
    assert life(still, 7).end.frame == 150


@BLOCKS
def test_a_stretched_bond_is_named(block):
    trajectory = molecule()
    positions = trajectory.positions.copy()
    positions[80:, 1, 2] += 0.49
    positions[90:, 1, 2] += 0.02
    found = life(replace(trajectory, positions=positions), block)
    assert found.end.frame == 90 and found.end.bond == (0, 1)
    assert found.end.causes == ("bond C1–O2 of 1.64 Å, reference 1.13 Å",)


def test_reactive_bonds_may_break_and_named_ones_are_watched_alone():
    trajectory = molecule()
    positions = trajectory.positions.copy()
    positions[50:, 3, 2] += 2.0
    apart = replace(trajectory, positions=positions)
    assert life(apart).end.bond == (2, 3)
    assert life(apart, observable=Survival(Limits(reactive=(("H", "H"),)))).end is None
    assert life(apart, observable=Survival(bonds=[(0, 1)])).end is None
    assert life(apart, observable=Survival(bonds=[(2, 3)])).end.frame == 50
    with pytest.raises(DtmdError, match="bond with atom 9"):
        life(apart, observable=Survival(bonds=[(2, 8)]))


@BLOCKS
def test_atoms_that_come_too_near_across_the_boundary(block):
    """H runs at the periodic image of O; 0.5 × (0.31 + 0.66) Å is passed at a time worked out by hand."""
    trajectory = molecule()
    positions = trajectory.positions.copy()
    distance = 4.0 - 0.05 * np.arange(200)
    positions[:, 2] = positions[:, 1] - HEXAGONAL[1] + HEXAGONAL[0] + distance[:, None] * np.array([0.6, 0.0, 0.8])
    positions[:, 3] = positions[:, 2] + [0.0, 0.74, 0.0]
    found = life(replace(trajectory, positions=positions), block, Survival(Limits(reactive=(("H", "H"),))))
    assert found.end.frame == 71  # 4 − 0.05 k < 0.485
    assert found.end.causes == ("O2–H3 at 0.45 Å",)


def test_bonds_are_held_against_their_mean_in_the_aimd():
    trajectory = molecule(300)
    positions = trajectory.positions.copy()
    positions[:, 1, 2] += 0.3 * np.sin(0.3 * np.arange(300))
    swinging = replace(trajectory, positions=positions)
    stretched = swinging.window(5, 300)  # starts at its longest, so its own start is a bad reference
    assert life(stretched).end.bond == (0, 1)
    assert life(stretched, observable=Survival(reference=[swinging])).end is None


def test_a_bond_that_breaks_in_the_aimd_counts_there_only_while_it_holds():
    """Reference lengths of 0.74 Å, though H–H is 3.74 Å long in half of the frames of the AIMD, or in nearly all."""
    trajectory = molecule()
    for broken_from in (100, 5):
        positions = trajectory.positions.copy()
        positions[broken_from:, 3, 2] += 3.0
        apart = replace(trajectory, positions=positions)
        watched = Survival(reference=[apart, trajectory])
        assert life(trajectory, observable=watched).end is None
        end = life(apart, observable=watched).end
        assert end.frame == broken_from and end.causes == ("bond H3–H4 of 3.74 Å, reference 0.74 Å",)


def test_missing_data_are_said():
    bare = replace(molecule(), velocities=None, forces=None)
    found = life(bare)
    assert found.end is None and found.unwatched == ("velocities", "forces")
    assert sum("Not watched" in caveat for caveat in Survival().compare({"MD": [found]}, []).caveats) == 2


def test_pairs_against_all_distances():
    rng = np.random.default_rng(0)
    trajectory = molecule(1)
    trajectory = replace(
        trajectory, numbers=rng.choice([1, 6, 46], 40), masses=np.ones(40), velocities=None, forces=None,
        positions=rng.random((1, 40, 3)) @ HEXAGONAL * 3.0,
    )
    limits = covalent_sums(trajectory.numbers)
    images = np.array([(a, b, c) for a in range(-4, 5) for b in range(-4, 5) for c in range(-4, 5)]) @ HEXAGONAL
    expected = [
        [i, j] for i in range(40) for j in range(i + 1, 40)
        if np.linalg.norm(trajectory.positions[0, j] - trajectory.positions[0, i] + images, axis=1).min() < limits[i, j]
    ]
    assert expected and pairs_within(trajectory, 0, limits).tolist() == expected


def test_kaplan_meier_against_scipy():
    rng = np.random.default_rng(1)
    times, happened = rng.integers(1, 15, 40).astype(float), rng.random(40) < 0.6
    curve = kaplan_meier(times, happened)
    theirs = ecdf(CensoredData(uncensored=times[happened], right=times[~happened])).sf
    np.testing.assert_allclose(curve.share[1:], theirs.probabilities)
    assert np.all(curve.low <= curve.share) and np.all(curve.share <= curve.high)
    assert curve.times[0] == 0.0 and curve.at(0.5).value == 1.0


def test_bonds_with_metals_react_and_others_do_not():
    assert reactive_pairs(["H", "C", "Pd"]) == [("H", "H"), ("H", "Pd"), ("C", "Pd"), ("Pd", "Pd")]
    assert reactive_pairs(["H", "C"]) == []


def test_kaplan_meier_where_all_or_none_are_alive():
    alive = kaplan_meier(np.full(8, 10.0), np.zeros(8, bool)).at(10.0)
    assert (alive.value, alive.low, alive.high) == (1.0, wilson_interval(8, 8).low, 1.0)
    dead = kaplan_meier(np.full(8, 10.0), np.ones(8, bool)).at(10.0)
    assert (dead.value, dead.low, dead.high) == (0.0, 0.0, wilson_interval(0, 8).high)


def test_sides_are_compared_at_the_time_that_all_have():
    observable = Survival()
    good = [life(molecule(source=f"good {k}"), observable=observable) for k in range(40)]
    broken = changed(molecule(), "forces", 100, np.nan)
    bad = [life(replace(broken, source=f"bad {k}"), observable=observable) for k in range(30)] + good[:10]
    section = observable.compare({"good": good, "bad": bad}, good)
    row = section.rows[0]
    assert row.md["bad"].value == pytest.approx(0.25) and row.verdict["bad"] is Verdict.DIFFERS
    assert row.difference["good"].value == 0.0 and row.verdict["good"] is Verdict.AGREES
    assert row.quantity.endswith("99.5\u00a0fs")
    assert [entry[3] for entry in section.tables[0].rows if entry[0] == "bad"].count("–") == 10
    doomed = [life(replace(broken, source=f"doomed {k}"), observable=observable) for k in range(20)]
    rows = observable.compare({"doomed": doomed, "good": good}, good).rows
    assert rows[0].quantity.endswith("99.5\u00a0fs") and rows[0].md["doomed"].value == 0.0 and len(rows) == 1
    longer = [life(molecule(400), observable=observable)]
    rows = observable.compare({"long": longer}, good).rows
    assert [row.quantity for row in rows] == ["runs alive after 99.5\u00a0fs", "runs alive after 199.5\u00a0fs"]
    alone = observable.compare({"one model": bad}, [])
    assert alone.rows[0].verdict == {} and alone.rows[0].md["one model"].low < 0.25


def test_the_embedded_aimd_survives_but_for_its_reactions():
    """h2pd6_007 dissociates, which ends it unless H–H may react; with all that moves named nothing ends a run."""
    runs = read_aimd([AIMD / "train"])
    reaction = next(run for run in runs if "007" in run.source)
    settling = (("Pd", "Pd"), ("C", "Pd"), ("H", "Pd"), ("H", "C"))
    end = life(reaction, observable=Survival(Limits(reactive=settling))).end
    assert end.bond == (0, 1) and 80 < end.frame < 105
    assert life(reaction).end is None  # H–H may react beside a metal
    settled = Survival(Limits(reactive=(("H", "H"), *settling)), reference=runs)
    assert [life(run, 50, settled).end for run in runs] == [None] * len(runs)
