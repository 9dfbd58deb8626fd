"""Is this really a trajectory? Positions, velocities, forces and the time step must tell one story."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.trajectory import Trajectory

TOLERANCE = 0.25
"""Largest relative deviation of a frame, thermostat friction taken out; a missing frame is far above 1."""

LARGEST_FRICTION = 0.3
"""Largest share of its displacement per frame that a thermostat may take from all atoms; a frame that is
missing, doubled or swapped looks like a friction of about one."""

TIMESTEP_TOLERANCE = 0.02
"""Largest relative deviation of the time step that the motion shows from the one that is said."""


def check_physics(trajectory: Trajectory) -> None:
    """Refuse a trajectory whose frames do not follow from one another.

    Compares r(t+1) − 2r(t) + r(t−1) with F/m·Δt², and the velocities with central differences.

    Raises:
        DtmdError: names the file, the frame, the number found and what to do.
    """
    # Labels first: velocities may have been reconstructed from them.
    for name in ("positions", "forces", "energies", "velocities"):
        _check_finite(trajectory, name)
    dt = trajectory.timestep
    if len(trajectory) < 3:
        raise DtmdError(f"{trajectory.source}: {len(trajectory)} frames; at least 3 are needed to check the motion")
    motion = compare_with_forces(trajectory)
    _check_timestep(trajectory, dt, motion.scale)
    _check_order(trajectory, motion)
    _check_velocities(trajectory, dt)


@dataclass(frozen=True)
class Motion:
    """Second differences of the positions against F/m·Δt², for the T − 2 inner frames.

    Attributes:
        scale: the factor on F/m·Δt² that fits best across the motion, where no friction acts; 1 if forces,
            masses and time step are right. Median over the frames, which single bad ones do not move.
        frictions: the part of the deviation that is along the motion, as a share of the displacement per
            frame; Nosé–Hoover and Berendsen thermostats give one such number to all atoms, (T − 2,).
        residuals: the rest of the deviation relative to F/m·Δt², (T − 2,).
    """

    scale: float
    frictions: np.ndarray
    residuals: np.ndarray


def compare_with_forces(trajectory: Trajectory) -> Motion:
    """r(t+1) − 2r(t) + r(t−1) = F/m·Δt² + c·(r(t+1) − r(t−1))/2, the last term from a thermostat."""
    r = trajectory.positions
    second, displacement = r[2:] - 2.0 * r[1:-1] + r[:-2], 0.5 * (r[2:] - r[:-2])
    acceleration = units.ACCELERATION * trajectory.forces[1:-1] / trajectory.masses[:, None]
    expected = acceleration * trajectory.timestep**2
    across = expected - _slope(expected, displacement) * displacement
    deviation = second - expected
    friction = _slope(deviation, displacement)
    return Motion(
        scale=float(np.median(_slope(second, across))),
        frictions=friction[:, 0, 0],
        residuals=np.sqrt(_squares(deviation - friction * displacement) / _squares(expected)),
    )


def _slope(values: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The factor on `along` that fits `values` best in each frame; both (T, N, 3), the result (T, 1, 1)."""
    return (np.sum(values * along, axis=(1, 2)) / _squares(along))[:, None, None]


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Sum of squares of each frame, never zero, (T,)."""
    return np.maximum(np.sum(vectors**2, axis=(1, 2)), np.finfo(float).tiny)


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


def _check_order(trajectory: Trajectory, motion: Motion) -> None:
    bad = np.flatnonzero((motion.residuals > TOLERANCE) | (np.abs(motion.frictions) > LARGEST_FRICTION))
    if len(bad):
        first = int(bad[0])
        raise DtmdError(
            f"{trajectory.source}: the motion around frame {first + 1} does not follow from the forces "
            f"(r(t+1) − 2r(t) + r(t−1) is off F/m·Δt² by {motion.residuals[first]:.2f} times its size, and "
            f"{abs(motion.frictions[first]):.2f} of the displacement per frame; {len(bad)} frames in all): frames "
            "are missing, doubled or out of order there; split the file at that frame"
        )


def _check_velocities(trajectory: Trajectory, dt: float) -> None:
    r, v = trajectory.positions, trajectory.velocities
    central = (r[2:] - r[:-2]) / (2.0 * dt)
    residuals = np.sqrt(_squares(v[1:-1] - central) / _squares(central))
    if residuals.max() > TOLERANCE:
        frame = int(np.argmax(residuals > TOLERANCE)) + 1
        raise DtmdError(
            f"{trajectory.source}: the velocities of frame {frame} differ from the motion by "
            f"{100 * residuals[frame - 1]:.0f} %; write them in Å/fs, or leave them out to have them reconstructed"
        )
