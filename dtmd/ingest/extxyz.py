"""Extended XYZ: ASE parses the frames, this module sees to velocities, time step and order."""

from __future__ import annotations

import io
import lzma
import zlib
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import XYZError
from ase.io.formats import open_with_compression

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.trajectory import Trajectory, unwrap

TIMESTEP_KEYS = ("timestep_fs", "dt_fs")
STEP_KEYS = ("step", "md_step")


def read_extxyz(path: Path, timestep: float | None = None) -> Trajectory:
    """Read one trajectory: positions, forces, energy and velocities of every frame.

    The comment line gives the time step as `timestep_fs=…` and the number of the step as `step=…`;
    without the latter the frames are taken as consecutive. `momenta` are in ASE's units, as ASE
    writes them; a `velocities` column may be in Å/fs or in ASE's unit, told apart by the motion.
    Without either, velocities follow from positions and forces.

    Raises:
        DtmdError: an unreadable file; a frame without forces or energy or with other atoms than the
            first; no time step.
    """
    frames = _read_frames(path)
    first = frames[0]
    for k, atoms in enumerate(frames):
        if not np.array_equal(atoms.numbers, first.numbers):
            raise DtmdError(f"{path}: frame {k} has the atoms {atoms.symbols}, frame 0 {first.symbols}; "
                            "a trajectory keeps its atoms in one order")
    times = _times(path, frames, timestep)
    cells = np.array([atoms.cell.array for atoms in frames])
    positions = unwrap(np.array([atoms.positions for atoms in frames]), cells, first.pbc)
    forces = _labels(path, frames, ("forces",))
    energies = _labels(path, frames, ("free_energy", "energy"))
    masses = first.get_masses()
    dt = float(np.median(np.diff(times))) if len(frames) > 1 else None
    velocities, notes = _velocities(path, frames, positions, forces / masses[:, None], dt)
    return Trajectory(
        numbers=first.numbers, masses=masses, pbc=np.asarray(first.pbc), cells=cells, times=times,
        positions=positions, velocities=velocities, forces=forces, energies=energies,
        source=str(path), notes=notes,
    )


def _read_frames(path: Path) -> list[Atoms]:
    frames: list[Atoms] = []
    try:
        with open_with_compression(str(path)) as file:
            # ASE seeks back and forth, which decompresses a packed file again for every frame.
            text = io.StringIO(file.read())
        for atoms in ase.io.iread(text, index=":", format="extxyz"):
            frames.append(atoms)
    except (ValueError, KeyError, IndexError, OSError, EOFError, XYZError, lzma.LZMAError, zlib.error) as error:
        raise DtmdError(f"{path}: frame {len(frames)} cannot be read ({error}); the file is damaged or cut off, "
                        "copy it again or remove the broken frame") from error
    if not frames:
        raise DtmdError(f"{path}: no frames in this file")
    return frames


def _labels(path: Path, frames: list[Atoms], names: tuple[str, ...]) -> np.ndarray:
    """The first of the named results that frame 0 has, in every frame: kinds of energy are never mixed."""
    results = [atoms.calc.results if atoms.calc else {} for atoms in frames]
    name = next((name for name in names if name in results[0]), names[-1])
    for k, result in enumerate(results):
        if name not in result:
            raise DtmdError(f"{path}: frame {k} has no {name}; write positions, forces, energy and velocities "
                            "of every frame")
    return np.array([result[name] for result in results])


def _times(path: Path, frames: list[Atoms], timestep: float | None) -> np.ndarray:
    """Time of each frame in fs."""
    said = next((frames[0].info[key] for key in TIMESTEP_KEYS if key in frames[0].info), timestep)
    if said is None:
        raise DtmdError(f"{path}: the time step is not in the file; write timestep_fs=… into the comment lines "
                        "or give it (data.timestep in the config, --timestep on the command line)")
    if timestep is not None and abs(said - timestep) > 1e-6 * timestep:
        raise DtmdError(f"{path}: the file says {said:g} fs between steps, you say {timestep:g} fs; correct one")
    step_key = next((key for key in STEP_KEYS if key in frames[0].info), None)
    if step_key is None:
        return float(said) * np.arange(len(frames))
    for k, atoms in enumerate(frames):
        if step_key not in atoms.info:
            raise DtmdError(f"{path}: frame {k} has no {step_key}=…, the frames before it have")
    return float(said) * np.array([float(atoms.info[step_key]) for atoms in frames])


def _velocities(
    path: Path, frames: list[Atoms], positions: np.ndarray, force_per_mass: np.ndarray, dt: float | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Velocities in Å/fs and a note on where they come from."""
    for column in ("velocities", "momenta"):
        present = [atoms.has(column) for atoms in frames]
        if any(present) and not all(present):
            raise DtmdError(f"{path}: frame {present.index(False)} has no {column}, other frames have")
    if frames[0].has("velocities"):
        given = np.array([atoms.arrays["velocities"] for atoms in frames])
        if len(frames) > 2 and _in_ase_units(given, positions, dt):
            return given / units.ASE_TIME, ("velocities converted from ASE's unit",)
        return given, ()
    if frames[0].has("momenta"):
        return np.array([atoms.get_velocities() for atoms in frames]) / units.ASE_TIME, ()
    if len(frames) < 2:
        raise DtmdError(f"{path}: a single frame without velocities cannot start a rollout")
    return velocities_from_motion(positions, force_per_mass, dt), ("velocities reconstructed from the motion",)


def _in_ase_units(given: np.ndarray, positions: np.ndarray, dt: float) -> bool:
    central = (positions[2:] - positions[:-2]) / (2.0 * dt)
    ratio = np.sum(given[1:-1] * central) / np.sum(central * central)
    return abs(ratio / units.ASE_TIME - 1.0) < 0.1


def velocities_from_motion(positions: np.ndarray, force_per_mass: np.ndarray, dt: float) -> np.ndarray:
    """Velocities that velocity Verlet had, from its positions and forces; exact for NVE.

    Args:
        positions: Å, unwrapped, shape (T, N, 3), T ≥ 2.
        force_per_mass: eV/(Å·u), shape (T, N, 3).
        dt: fs.

    Returns:
        Å/fs, shape (T, N, 3): v_k = (r_{k+1} − r_{k−1})/(2Δt) inside, one-sided with the force at the ends.
    """
    half_kick = 0.5 * dt * units.ACCELERATION * force_per_mass
    velocities = np.empty_like(positions)
    velocities[1:-1] = (positions[2:] - positions[:-2]) / (2.0 * dt)
    velocities[0] = (positions[1] - positions[0]) / dt - half_kick[0]
    velocities[-1] = (positions[-1] - positions[-2]) / dt + half_kick[-1]
    return velocities
