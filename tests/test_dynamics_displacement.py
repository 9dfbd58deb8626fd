"""Mean square displacements against the double sum, ballistic and diffusive motion, and real frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from observable_cases import free, gather

from dtmd.ingest import read_aimd
from dtmd.observables.displacement import LAGS_PER_LEVEL, MeanSquareDisplacement, SquareDisplacements
from dtmd.observables.observable import NotApplicable
from dtmd.observables.section import Verdict

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"
BLOCKS = pytest.mark.parametrize("block", [1, 13, 100000])


def trajectory(positions, dt=1.0, source="run", **settings):
    n_frames, n_atoms = positions.shape[:2]
    return free(positions, np.repeat([1, 6], n_atoms // 2), np.repeat([1.008, 12.011], n_atoms // 2),
                dt * np.arange(n_frames), source=source, **settings)


def result(run, block=1000):
    return gather(MeanSquareDisplacement(), run, [block])


def centred(positions, masses):
    return positions - (np.einsum("n,tni->ti", masses, positions) / masses.sum())[:, None]


def squares(positions, lag):
    """⟨|r(t + lag) − r(t)|²⟩ over all t, (N,)."""
    moved = positions[lag:] - positions[: len(positions) - lag]
    return (moved**2).sum(axis=-1).mean(axis=0)


@BLOCKS
def test_lags_of_the_first_level_are_the_double_sum(block):
    rng = np.random.default_rng(0)
    positions, group = np.cumsum(rng.normal(size=(150, 4, 3)), axis=0), np.array([0, 1, 1, 0])
    gathered = SquareDisplacements(group)
    for k in range(0, 150, block):
        gathered.add(positions[k : k + block])
    lags, found = gathered.means()
    assert lags.tolist() == [*range(1, 17), *range(18, 33, 2), *range(36, 65, 4), *range(72, 129, 8), 144]
    for k in range(LAGS_PER_LEVEL):
        own = squares(positions, lags[k])
        np.testing.assert_allclose(found[:, k], [own[group == g].mean() for g in (0, 1)])
    own = squares(positions[::8], 9)  # level 3: every eighth frame
    np.testing.assert_allclose(found[:, lags.tolist().index(72)], [own[group == g].mean() for g in (0, 1)])


def ballistic(seed=0, n_frames=400):
    velocity = np.random.default_rng(seed).normal(scale=0.01, size=(10, 3))
    return trajectory(np.arange(n_frames)[:, None, None] * velocity)


def test_ballistic_motion_grows_with_the_square_of_time():
    run = ballistic()
    drifting = replace(run, positions=run.positions + 0.5 * np.arange(400)[:, None, None])
    found = result(drifting, 33)
    velocity = centred(run.positions, run.masses)[1] - centred(run.positions, run.masses)[0]
    speeds = [(velocity[atoms] ** 2).sum(axis=1).mean() for atoms in (slice(0, 5), slice(5, 10))]
    np.testing.assert_allclose(found.squares, np.outer(speeds, found.lags**2), rtol=1e-9)
    assert found.lags[0] == 1.0 and 180.0 < found.lags[-1] < 200.0
    section = MeanSquareDisplacement().compare({"MD": [found]}, [])
    rows = {row.quantity: row for row in section.rows}
    assert rows["exponent of the displacement of H"].md["MD"].value == pytest.approx(2.0, abs=1e-6)
    assert "MD (α = 2.0)" in rows["exponent of the displacement of H"].note
    assert not any("diffusion" in quantity for quantity in rows)


def test_the_frame_of_held_atoms_is_kept():
    run = ballistic()
    held = np.zeros((10, 3), dtype=bool)
    held[0] = True
    found = result(replace(run, fixed=held))
    expected = ((run.positions[1] - run.positions[0]) ** 2).sum(axis=1)[:5].mean()
    assert found.squares[0, 0] == pytest.approx(expected)


def walk(seed, step=0.05, n_frames=3000, n_atoms=100, dt=2.0):
    """Atoms that step at random: D = 3·step²/(6·dt) Å²/fs."""
    steps = np.random.default_rng(seed).normal(scale=step, size=(n_frames, n_atoms, 3))
    return trajectory(np.cumsum(steps, axis=0), dt=dt, source=f"{seed}")


def test_random_walks_diffuse():
    observable = MeanSquareDisplacement(tolerance=0.25)
    same, fast, aimd = ([result(walk(seed, step), 97) for seed in range(first, first + 6)]
                        for step, first in ((0.05, 0), (0.08, 10), (0.05, 20)))
    section = observable.compare({"same": same, "fast": fast}, aimd)
    rows = {row.quantity: row for row in section.rows}
    row = rows["diffusion coefficient of C"]
    expected = 3 * 0.05**2 / (6 * 2.0) * 1000.0
    assert row.aimd.low < expected < row.aimd.high
    assert row.aimd.value == pytest.approx(expected, rel=0.15)
    assert row.md["fast"].value == pytest.approx(expected * 2.56, rel=0.15)
    assert row.verdict["fast"] is Verdict.DIFFERS and row.verdict["same"] is not Verdict.DIFFERS
    assert rows["exponent of the displacement of C"].aimd.value == pytest.approx(1.0, abs=0.1)
    square = next(row for quantity, row in rows.items() if quantity.startswith("mean square displacement of C"))
    assert square.aimd.value == pytest.approx(6 * expected / 1000.0 * same[0].lags[-1], rel=0.15)
    assert [curve.side for curve in section.plots[0].curves] == ["same", "fast", "AIMD"]


@BLOCKS
def test_real_aimd_in_blocks(block):
    run = read_aimd([AIMD / "test"])[0]
    found = result(run, block)
    positions = centred(run.positions, run.masses)
    assert found.elements == ["H", "C", "Pd"] and found.lags[0] == 0.5 and found.lags[-1] == 72.0
    for lag in (1, 5, 16):
        own = squares(positions, lag)
        np.testing.assert_allclose(found.squares[:, lag - 1], [own[run.numbers == z].mean() for z in (1, 6, 46)])


def test_runs_that_blow_up_or_are_too_short():
    run = ballistic()
    positions = run.positions.copy()
    positions[300:] = np.inf
    assert result(replace(run, positions=positions), 64).lags[-1] <= 150.0
    with pytest.raises(NotApplicable, match="no 32 frames"):
        result(run.window(0, 20))
    with pytest.raises(NotApplicable, match="single atom"):
        MeanSquareDisplacement().start(replace(trajectory(run.positions[:, [0, 5]]).window(0, 1), numbers=np.array([1]),
                                               masses=np.ones(1), positions=np.zeros((1, 1, 3))))


def test_atoms_that_do_not_move_have_no_rows():
    still = trajectory(np.zeros((100, 4, 3)))
    assert MeanSquareDisplacement().compare({"MD": [result(still)]}, []).rows == []
