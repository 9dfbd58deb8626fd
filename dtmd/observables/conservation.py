"""Energy conservation and temperature of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd.observables.statistics import block_average, frame_weights
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS

MEV = 1000.0
"""meV in one eV."""


@dataclass(frozen=True)
class Conservation:
    """Total energy of one run.

    Attributes:
        drift: slope of the least-squares line, meV/atom/ps.
        largest: max |E(t) − E(0)|, meV/atom.
        deviation: standard deviation over time, meV/atom.
        fluctuation: the same about the least-squares line, meV/atom; velocity Verlet leaves one ∝ Δt².
    """

    drift: float
    largest: float
    deviation: float
    fluctuation: float


def total_energy_change(trajectory: Trajectory) -> np.ndarray:
    """E(t) − E(0) with E the potential plus kinetic energy, meV/atom, shape (T,)."""
    total = trajectory.energies + trajectory.kinetic_energies()
    return MEV * (total - total[0]) / len(trajectory.numbers)


def conservation(trajectory: Trajectory) -> Conservation:
    """Drift and fluctuation of the total energy; needs energies, velocities and two frames or more."""
    change, time = total_energy_change(trajectory), (trajectory.times - trajectory.times[0]) / FS_PER_PS
    weights = frame_weights(trajectory.times)
    slope, start = np.polyfit(time, change, 1, w=np.sqrt(weights))
    spread = np.average((change - np.average(change, weights=weights)) ** 2, weights=weights)
    about_line = np.average((change - slope * time - start) ** 2, weights=weights)
    return Conservation(float(slope), float(np.abs(change).max()), float(np.sqrt(spread)), float(np.sqrt(about_line)))


def mean_temperature(trajectory: Trajectory) -> tuple[float, float | None]:
    """Time average and block standard error of the temperature, K; needs velocities."""
    return block_average(trajectory.temperatures(), trajectory.times)
