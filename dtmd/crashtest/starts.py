"""AIMD frames with velocities of a temperature, as LAMMPS and as other programs read them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.calculators.lammps import Prism
from ase.geometry import complete_cell

from dtmd import units
from dtmd.crashtest.tasks import START_INPUT, START_JSON
from dtmd.ensemble.lammps_run import START
from dtmd.ensemble.starts import Start
from dtmd.errors import DtmdError
from dtmd.files import write_text
from dtmd.lammps import id_ranges, write_start
from dtmd.trajectory import Trajectory

_MARGIN = 1.0  # Å

def seeds(seed: int, start: Start) -> list[int]:
    """Of the random numbers of a start: the same for every model and temperature."""
    return [seed, int.from_bytes(hashlib.sha256(start.name.encode()).digest()[:8], "big")]


def at_temperature(start: Start, temperature: float, seed: int) -> Trajectory:
    """The frame alone, with velocities of the Maxwell–Boltzmann distribution.

    They are those of temperature 1 K times √T, without motion of the centre of mass, or with components that are held
    at rest. In directions without a period the box is made to hold the atoms, which LAMMPS wants.

    Args:
        start: the frame, whose own velocities are not used.
        temperature: K.
        seed: one of them gives the same velocities for every model.

    Raises:
        DtmdError: atoms that are held in some directions only, in a cell that LAMMPS wants turned.
    """
    frame = start.trajectory.window(start.frame, start.frame + 1)
    masses = frame.masses[:, None]
    normal = np.random.default_rng(seeds(seed, start)).standard_normal((len(masses), 3))
    velocities = normal * np.sqrt(units.BOLTZMANN * temperature / (units.KINETIC * masses))
    if frame.fixed is None:
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    else:
        velocities[frame.fixed] = 0.0
        _check_held(frame)
    return replace(_boxed(frame), velocities=velocities[None], source=f"{frame.source}@{start.frame}")


def write_for_lammps(frame: Trajectory, folder: Path) -> None:
    """start.data and start.in; raises as `write_start`."""
    write_start(frame, 0, folder / START)
    boundary = " ".join("p" if periodic else "m" for periodic in frame.pbc)
    lines = [f"boundary {boundary}", f"read_data {START}", f'variable elements string "{" ".join(frame.elements)}"',
             f"variable extra_dof equal {3 * len(frame.numbers) - frame.n_freedom}"]
    for k, axis in enumerate("xyz"):
        ids = np.zeros(0) if frame.fixed is None else np.flatnonzero(frame.fixed[:, k]) + 1
        lines.append(f"group held_{axis} id {id_ranges(ids)}" if len(ids) else f"group held_{axis} empty")
    write_text(folder / START_INPUT, "\n".join(lines) + "\n")


def write_for_others(frame: Trajectory, no_cell: np.ndarray, folder: Path) -> None:
    """start.data and start.json; raises as `write_start`.

    Args:
        no_cell: cell vectors that are made up, (3,), bool.
    """
    write_start(frame, 0, folder / START)
    content = {
        "elements": frame.elements, "pbc": frame.pbc.tolist(), "no_cell": no_cell.tolist(),
        "n_freedom": frame.n_freedom, "fixed": None if frame.fixed is None else frame.fixed.tolist(),
    }
    write_text(folder / START_JSON, json.dumps(content) + "\n")


def _boxed(frame: Trajectory) -> Trajectory:
    """With all atoms in the box where it is not periodic; cell vectors that are missing are made up."""
    cell, positions = complete_cell(frame.cells[0]), frame.positions[0].copy()
    scaled = positions @ np.linalg.inv(cell)
    for axis in np.flatnonzero(~frame.pbc):
        low, high = scaled[:, axis].min(), scaled[:, axis].max()
        if low < 0.0 or high > 1.0 or not frame.cells[0, axis].any():
            margin = _MARGIN / np.linalg.norm(cell[axis])
            positions += (margin - low) * cell[axis]
            cell[axis] *= high - low + 2.0 * margin
    return replace(frame, cells=cell[None], positions=positions[None])


def _check_held(frame: Trajectory) -> None:
    partly = frame.fixed.any(axis=1) & ~frame.fixed.all(axis=1)
    turned = not np.allclose(Prism(complete_cell(frame.cells[0])).rot_mat, np.eye(3))
    if partly.any() and turned:
        raise DtmdError(f"{frame.source}: atoms {id_ranges(np.flatnonzero(partly) + 1)} are held in some directions "
                        "only, and LAMMPS wants this cell turned; give AIMD whose first cell vector is along x and the "
                        "second in the xy plane")
