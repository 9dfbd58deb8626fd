"""Trajectories: unwrapping, time steps, shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtmd.errors import DtmdError
from dtmd.trajectory import Trajectory, unwrap

SKEWED = np.array([[12.3, 0.0, 0.0], [-6.15, 10.65, 0.0], [1.0, 2.0, 14.0]])


def trajectory(times, **fields) -> Trajectory:
    n_frames = len(times)
    return Trajectory(
        numbers=np.array([1, 6]), masses=np.array([1.008, 12.011]), pbc=np.ones(3, bool),
        cells=np.repeat(SKEWED[None], n_frames, axis=0), times=np.asarray(times, float),
        positions=np.zeros((n_frames, 2, 3)), **fields,
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1, 1, 1), (1, 1, 0), (0, 0, 1), (0, 0, 0)]))
def test_unwrapping_restores_a_path_that_drifts_over_many_cells(seed, pbc):
    pbc = np.array(pbc, bool)
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(0.2, 0.5, (200, 3, 3)), axis=0)
    cells = np.repeat(SKEWED[None], 200, axis=0)
    scaled = path @ np.linalg.inv(SKEWED)
    wrapped = (scaled - np.floor(scaled) * pbc) @ SKEWED
    restored = unwrap(wrapped, cells, pbc)
    assert np.allclose(restored - restored[0], path - path[0], atol=1e-9)
    assert np.array_equal(restored[0], wrapped[0])


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (0, 1, 1), (1, 0, 0)])
def test_unwrapping_goes_on_where_the_cell_is_replaced_by_an_equivalent_one(pbc):
    """Multiples of one periodic vector are added to another, several times in a row, as where LAMMPS flips a cell."""
    pbc, rng = np.array(pbc, bool), np.random.default_rng(1)
    path = np.cumsum(rng.normal(0.2, 0.5, (300, 3, 3)), axis=0)
    cells = [SKEWED]
    for _ in range(299):
        turn, (j, k) = np.eye(3), rng.permutation(3)[:2]
        turn[j, k] = rng.integers(-1, 2) * pbc[j] * pbc[k] * (rng.random() < 0.2)
        cells.append(turn @ cells[-1])
    cells = np.array(cells)
    assert (cells != SKEWED).any() == (pbc.sum() > 1)
    scaled = path @ np.linalg.inv(cells)
    wrapped = (scaled - np.floor(scaled) * pbc) @ cells
    restored = unwrap(wrapped, cells, pbc)
    assert np.allclose(restored - restored[0], path - path[0], atol=1e-9)


def test_a_molecule_without_a_cell_is_left_alone():
    positions = np.random.default_rng(0).normal(size=(5, 2, 3))
    assert np.array_equal(unwrap(positions, np.zeros((5, 3, 3)), np.zeros(3, bool)), positions)


def test_uneven_times_have_no_time_step():
    assert trajectory([0.0, 0.5, 1.0]).timestep == 0.5
    with pytest.raises(DtmdError, match="frames 1 and 2 are 1 fs apart"):
        _ = trajectory([0.0, 0.5, 1.5, 2.0, 2.5]).timestep


def test_times_must_increase_and_shapes_fit():
    with pytest.raises(DtmdError, match="frame 2 is at 0.5 fs, not after frame 1"):
        trajectory([0.0, 0.5, 0.5])
    with pytest.raises(DtmdError, match=r"forces have shape \(3, 1, 3\), expected \(3, 2, 3\)"):
        trajectory([0.0, 0.5, 1.0], forces=np.zeros((3, 1, 3)))


def test_temperature_of_known_velocities():
    velocities = np.zeros((1, 2, 3))
    velocities[0, 0, 0] = 0.03  # Å/fs: ½·1.008·0.03² u Å²/fs² = 0.047012 eV, over 3/2 kB
    assert np.isclose(trajectory([0.0], velocities=velocities).temperatures()[0], 363.7, atol=0.1)
