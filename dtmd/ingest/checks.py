"""Is this really a trajectory? Positions, velocities, forces and the time step must tell one story."""

from __future__ import annotations

import numpy as np

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.trajectory import Trajectory

TOLERANCE = 0.25
"""Largest relative deviation of a frame; thermostats stay below 0.05, a missing frame is far above 1."""

TIMESTEP_TOLERANCE = 0.02
"""Largest relative deviation of the time step that the motion shows from the one that is said."""


def check_physics(trajectory: Trajectory) -> None:
    """Refuse a trajectory whose frames do not follow from one another.

    Compares r(t+1) − 2r(t) + r(t−1) with F/m·Δt², and the velocities with central differences.

    Raises:
        DtmdError: names the file, the frame, the number found and what to do.
    """
    for name in ("positions", "velocities", "forces", "energies"):
        _check_finite(trajectory, name)
    dt = trajectory.timestep
    if len(trajectory) < 3:
        raise DtmdError(f"{trajectory.source}: {len(trajectory)} frames; at least 3 are needed to check the motion")
    scale, residuals = acceleration_residuals(trajectory)
    _check_timestep(trajectory, dt, scale)
    _check_order(trajectory, residuals)
    _check_velocities(trajectory, dt)


def acceleration_residuals(trajectory: Trajectory) -> tuple[float, np.ndarray]:
    """Second differences of the positions against F/m·Δt².

    Returns:
        The scale that fits them best (1 if forces, masses and time step are right; median over the
        frames, so that single bad frames do not hide it) and the relative residual of each inner
        frame, shape (T − 2,).
    """
    r = trajectory.positions
    second = r[2:] - 2.0 * r[1:-1] + r[:-2]
    acceleration = units.ACCELERATION * trajectory.forces[1:-1] / trajectory.masses[:, None]
    expected = acceleration * trajectory.timestep**2
    norm = np.maximum(np.sum(expected**2, axis=(1, 2)), np.finfo(float).tiny)
    scale = float(np.median(np.sum(second * expected, axis=(1, 2)) / norm))
    return scale, np.sqrt(np.sum((second - expected) ** 2, axis=(1, 2)) / norm)


def _check_finite(trajectory: Trajectory, name: str) -> None:
    value = getattr(trajectory, name)
    if value is None:
        raise DtmdError(f"{trajectory.source}: no {name}; training and comparison need them in every frame")
    finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
    if not finite.all():
        frame = int(np.argmin(finite))
        raise DtmdError(f"{trajectory.source}: frame {frame} has {name} that are not finite; "
                        "remove the frames from there on")


def _check_timestep(trajectory: Trajectory, dt: float, scale: float) -> None:
    if scale <= 0.0:
        raise DtmdError(f"{trajectory.source}: the atoms accelerate against the forces (scale {scale:.2f}); "
                        "the forces have the wrong sign or belong to other frames")
    shown = dt * np.sqrt(scale)
    if abs(shown / dt - 1.0) > TIMESTEP_TOLERANCE:
        raise DtmdError(f"{trajectory.source}: the time step is said to be {dt:g} fs, the motion shows {shown:.4g} fs "
                        "between frames (or masses other than the standard ones); correct the time step or the masses")


def _check_order(trajectory: Trajectory, residuals: np.ndarray) -> None:
    bad = np.flatnonzero(residuals > TOLERANCE)
    if len(bad):
        raise DtmdError(
            f"{trajectory.source}: the motion around frame {bad[0] + 1} does not follow from the forces "
            f"(r(t+1) − 2r(t) + r(t−1) is off F/m·Δt² by {residuals[bad[0]]:.1f} times its size; {len(bad)} frames in "
            "all): frames are missing, doubled or out of order there; split the file at that frame"
        )


def _check_velocities(trajectory: Trajectory, dt: float) -> None:
    r, v = trajectory.positions, trajectory.velocities
    central = (r[2:] - r[:-2]) / (2.0 * dt)
    norm = np.maximum(np.sum(central**2, axis=(1, 2)), np.finfo(float).tiny)
    residuals = np.sqrt(np.sum((v[1:-1] - central) ** 2, axis=(1, 2)) / norm)
    if residuals.max() > TOLERANCE:
        frame = int(np.argmax(residuals > TOLERANCE)) + 1
        raise DtmdError(
            f"{trajectory.source}: the velocities of frame {frame} differ from the motion by "
            f"{100 * residuals[frame - 1]:.0f} %; write them in Å/fs, or leave them out to have them reconstructed"
        )
