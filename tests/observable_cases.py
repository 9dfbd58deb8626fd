"""Trajectories for the tests of observables, and the way an observable is gathered from them."""

from __future__ import annotations

import numpy as np

from dtmd.observables.statistics import frame_weights
from dtmd.trajectory import Trajectory

SKEWED = np.array([[9.0, 0.0, 0.0], [4.0, 8.0, 0.0], [-2.0, 3.0, 7.0]])
HEXAGONAL = np.array([[12.3, 0, 0], [-6.15, 10.652112, 0], [0, 0, 14.0]])


def trajectory(positions, numbers, cell=SKEWED, pbc=(True, True, True), dt=0.5, **others) -> Trajectory:
    """Frames (T, N, 3) of one cell, or of cells (T, 3, 3)."""
    positions = np.asarray(positions, dtype=float)
    n_frames, n_atoms = positions.shape[:2]
    return Trajectory(
        numbers=np.array(numbers), masses=others.pop("masses", np.ones(n_atoms)), pbc=np.array(pbc),
        cells=np.broadcast_to(cell, (n_frames, 3, 3)), times=others.pop("times", dt * np.arange(n_frames)),
        positions=positions, **others,
    )


def free(positions, numbers, masses, times, **others) -> Trajectory:
    """Frames (T, N, 3) without a cell."""
    return trajectory(positions, numbers, np.zeros((3, 3)), (False,) * 3, masses=np.asarray(masses),
                      times=np.asarray(times, dtype=float), **others)


def wandering(seed, n_frames=30, n_atoms=6, numbers=(1, 1, 1, 6, 6, 46), scale=0.15, **others) -> Trajectory:
    """Atoms on random walks that cross the boundaries of a skewed cell."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=scale, size=(n_frames, n_atoms, 3))
    start = np.random.default_rng(0).random((n_atoms, 3)) @ SKEWED
    return trajectory(start + np.cumsum(steps, axis=0), numbers, **others)


def gather(observable, run, sizes=None):
    """The result of a run that passes by in blocks of these sizes, the last as often as needed; None for one block."""
    weights, edges = frame_weights(run.times), [0]
    sizes = list(sizes or [len(run)])
    while edges[-1] < len(run):
        edges.append(min(len(run), edges[-1] + (sizes.pop(0) if len(sizes) > 1 else sizes[0])))
    accumulator = observable.start(run.window(0, edges[1]))
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        accumulator.add(run.window(start, stop), weights[start:stop])
    return accumulator.result()


def assert_same(first, second):
    """Two results that agree in all numbers, to rounding."""
    if hasattr(first, "__dataclass_fields__"):
        first, second = vars(first), vars(second)
    if isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    elif isinstance(first, (np.ndarray, float)):
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6)
    else:
        assert first == second
