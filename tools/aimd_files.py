"""The files of `make_aimd.py`: extended XYZ in the project's columns, and what a finished one shows."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.io import read, write
from ase.io.extxyz import write_xyz

from aimd_protocol import MOLECULE_SIZE, potential_energy
from dtmd import units
from dtmd.files import written_whole
from dtmd.ingest import read_aimd
from dtmd.observables.conservation import MEV, conservation


def frame_text(atoms: Atoms, step: int, timestep: float) -> str:
    """One frame with energy (eV), forces (eV/Å) and velocities (Å/fs), 8 decimals."""
    frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.info = {"energy": potential_energy(atoms), "step": step, "timestep_fs": timestep}
    frame.arrays["forces"] = atoms.get_forces()
    frame.arrays["velocities"] = atoms.get_velocities() / units.ASE_TIME
    text = io.StringIO()
    write_xyz(text, frame, columns=["symbols", "positions", "forces", "velocities"], write_results=False)
    return text.getvalue()


def write_trajectory(path: Path, frames: list[str]) -> None:
    """A gzipped file of these frames whose bytes depend on them only: no name, no time in it."""
    with written_whole(path) as temporary:
        temporary.write_bytes(gzip.compress("".join(frames).encode(), mtime=0))


def write_state(path: Path, atoms: Atoms) -> None:
    """Positions and momenta of the substrate to go on from, in full precision.

    In ASE's own format: a folder searched for AIMD must not show these as trajectories.
    """
    with written_whole(path) as temporary:
        write(temporary, atoms, format="traj")


def read_state(path: Path) -> Atoms:
    """What `write_state` wrote, without a calculator."""
    return read(path, format="traj").copy()


@dataclass(frozen=True)
class EnergyReport:
    """How well one trajectory conserves its total energy.

    Attributes:
        name: the file.
        drift: slope of a straight line through the total energy, meV/atom/ps.
        deviation: largest distance from the first frame's total energy, meV.
        spread: standard deviation of the total energy, meV.
        temperature: of the substrate in the first frame, 3N − 3 degrees of freedom, K.
        conserved: the deviation is within the bound.
    """

    name: str
    drift: float
    deviation: float
    spread: float
    temperature: float
    conserved: bool

    def __str__(self) -> str:
        mark = "" if self.conserved else "  <- ENERGY NOT CONSERVED"
        return (f"{self.name}: drift {self.drift:+.2f} meV/atom/ps, max |ΔE| {self.deviation:.1f} meV, "
                f"spread {self.spread:.1f} meV, substrate at {self.temperature:.0f} K{mark}")


def energy_report(path: Path, bound: float) -> EnergyReport:
    """Judge a finished trajectory by what is in its file; the bound of the deviation is in eV.

    Raises:
        DtmdError: the motion in the file does not follow from its forces.
    """
    trajectory = read_aimd([path])[0]
    energy = conservation(trajectory)
    n_atoms = len(trajectory.masses)
    masses, velocities = trajectory.masses[MOLECULE_SIZE:], trajectory.velocities[0, MOLECULE_SIZE:]
    freedom = 3 * len(masses) - 3
    return EnergyReport(
        name=path.name,
        drift=energy.drift,
        deviation=n_atoms * energy.largest,
        spread=n_atoms * energy.deviation,
        temperature=units.KINETIC * float(masses @ (velocities**2).sum(axis=1)) / (freedom * units.BOLTZMANN),
        conserved=n_atoms * energy.largest <= MEV * bound,
    )
