"""One run of a crash test with an ASE calculator: what inputs/crashtest.in does in LAMMPS. A program of its own.

It writes the same files: run.lammpstrj, run.progress and `begun`. Torch is loaded only if the calculator needs it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import TextIO

import numpy as np
from ase import Atoms
from ase.calculators.abc import GetPropertiesMixin
from ase.calculators.lammps import convert
from ase.constraints import FixCartesian
from ase.io.lammpsdata import read_lammps_data
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainThermostat
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from dtmd import units
from dtmd.children import die_with_parent
from dtmd.crashtest.tasks import BEGUN, DUMP, PROGRESS, START_JSON, STOPPED
from dtmd.ensemble.lammps_run import START
from dtmd.errors import DtmdError
from dtmd.factories import made_by_factory, told

_PS = units.FS_PER_PS / units.ASE_TIME
"""In ASE's unit of time."""


class Crash(Exception):
    """Why a run has come to an early end."""


class _Langevin(Langevin):
    """Langevin dynamics with the centre of mass at rest where no atom is held."""

    def step(self, forces: np.ndarray | None = None) -> np.ndarray:
        forces = super().step(forces)
        if not self.atoms.constraints:
            Stationary(self.atoms, preserve_temperature=False)
        return forces


class _NoseHoover(VelocityVerlet):
    """Velocity Verlet between half steps of a chain of three.

    ASE's own NoseHooverChainNVT counts three degrees of freedom for every atom, those at rest too.
    """

    def __init__(self, atoms: Atoms, timestep: float, kelvin: float, damping: float, n_freedom: int) -> None:
        super().__init__(atoms, timestep)
        # It takes the number of atoms only to multiply it by three.
        self._chain = NoseHooverChainThermostat(n_freedom / 3, self.masses, temperature_K=kelvin, tdamp=damping)

    def step(self, forces: np.ndarray | None = None) -> np.ndarray:
        self._rescale()
        forces = super().step(forces)
        self._rescale()
        return forces

    def _rescale(self) -> None:
        self.atoms.set_momenta(self._chain.integrate_nhc(self.atoms.get_momenta(), 0.5 * self.dt))


def run(calculator: GetPropertiesMixin, variables: Mapping[str, str]) -> None:
    """Run in the current folder.

    Args:
        calculator: any of ASE.
        variables: those of inputs/crashtest.in, in LAMMPS's units.

    Raises:
        Crash: forces that are not finite or too large, a temperature too high, or the calculator failed on the way.
        Exception: the calculator cannot even calculate the start.
    """
    atoms, n_freedom = read_start()
    steps, stride = int(variables["steps"]), int(variables["stride"])
    atoms.calc = calculator
    dynamics = _dynamics(atoms, n_freedom, variables)
    forces = atoms.get_forces(md=True)
    Path(BEGUN).touch()
    with open(DUMP, "w") as dump, open(PROGRESS, "w") as progress:
        begun = time.perf_counter()
        for step in range(steps + 1):
            if step:
                forces = _stepped(dynamics, forces, step)
            _check(atoms, forces, n_freedom, step, variables)
            if step % stride == 0:
                _write_frame(dump, atoms, step, float(variables["timestep"]))
                print(step, f"{time.perf_counter() - begun:.6g}", file=progress, flush=True)


def read_start() -> tuple[Atoms, int]:
    """The atoms of start.data as they are to move, and how many components of their velocities do."""
    more = json.loads(Path(START_JSON).read_text())
    numbers = Atoms(more["elements"]).numbers
    atoms = read_lammps_data(START, dict(enumerate(numbers, start=1)), read_image_flags=False, units="metal",
                             atom_style="atomic")
    velocities = convert(atoms.get_velocities(), "velocity", "ASE", "metal") / _PS  # ASE's units of its own constants
    atoms.pbc = more["pbc"]
    atoms.cell[more["no_cell"]] = 0.0
    atoms.set_velocities(velocities)
    if more["fixed"] is not None:
        fixed = np.array(more["fixed"])
        atoms.set_constraint([FixCartesian(np.flatnonzero((fixed == held).all(axis=1)), held)
                              for held in np.unique(fixed, axis=0) if held.any()])
    return atoms, more["n_freedom"]


def _dynamics(atoms: Atoms, n_freedom: int, variables: Mapping[str, str]) -> VelocityVerlet | Langevin:
    timestep, damping = float(variables["timestep"]) * _PS, float(variables["damping"]) * _PS
    kelvin, rng = float(variables["temperature"]), np.random.default_rng(int(variables["seed"]))
    if variables["thermostat"] == "none":
        return VelocityVerlet(atoms, timestep)
    if variables["thermostat"] == "langevin":
        return _Langevin(atoms, timestep, temperature_K=kelvin, friction=1.0 / damping, fixcm=False, rng=rng)
    if variables["thermostat"] == "nose_hoover":
        return _NoseHoover(atoms, timestep, kelvin, damping, n_freedom)
    dynamics = Bussi(atoms, timestep, kelvin, damping, rng=rng)
    # ASE counts the motion of the centre of mass, which is at rest, among those to be kept warm.
    dynamics.ndof, dynamics.target_kinetic_energy = n_freedom, 0.5 * n_freedom * units.BOLTZMANN * kelvin
    return dynamics


def _stepped(dynamics: VelocityVerlet | Langevin, forces: np.ndarray, step: int) -> np.ndarray:
    try:
        return dynamics.step(forces)
    except Exception as error:  # calculators of others fail with exceptions of any kind
        raise Crash(f"step {step}: the calculator failed ({told(error)})") from error


def _check(atoms: Atoms, forces: np.ndarray, n_freedom: int, step: int, variables: Mapping[str, str]) -> None:
    sizes = np.linalg.norm(forces, axis=1)
    if not np.isfinite(sizes).all():
        atom = int(np.argmin(np.isfinite(sizes)))
        raise Crash(f"step {step}: the force on atom {atom + 1} ({atoms.symbols[atom]}) is not a finite number")
    atom, limit = int(np.argmax(sizes)), float(variables["max_force"])
    if sizes[atom] > limit:
        raise Crash(f"step {step}: the force on atom {atom + 1} ({atoms.symbols[atom]}) is {sizes[atom]:.4g} eV/Å, "
                    f"above {limit:g}")
    kelvin = 2.0 * atoms.get_kinetic_energy() / (n_freedom * units.BOLTZMANN)
    if not kelvin <= float(variables["max_temperature"]):
        raise Crash(f"step {step}: the temperature is {kelvin:.4g} K, above {variables['max_temperature']}")


def _write_frame(dump: TextIO, atoms: Atoms, step: int, timestep: float) -> None:
    """A frame as LAMMPS writes it, forces of held atoms zero; at once, so that a killed run leaves whole frames."""
    cell = atoms.cell.complete()
    tilts = [float(cell[1, 0]), float(cell[2, 0]), float(cell[2, 1])]
    xy, xz, yz = tilts
    bounds = [(min(0.0, xy, xz, xy + xz), cell[0, 0] + max(0.0, xy, xz, xy + xz), xy),
              (min(0.0, yz), cell[1, 1] + max(0.0, yz), xz), (0.0, cell[2, 2], yz)]
    boundary = " ".join("pp" if periodic else "mm" for periodic in atoms.pbc)
    text = StringIO()
    if step == 0:
        text.write("ITEM: UNITS\nmetal\n")
    text.write(f"ITEM: TIME\n{step * timestep:.12g}\nITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n"
               f"ITEM: BOX BOUNDS xy xz yz {boundary}\n")
    np.savetxt(text, bounds, fmt="%.16e")
    text.write("ITEM: ATOMS id element mass xu yu zu vx vy vz fx fy fz v_pe_share\n")
    share = np.full((len(atoms), 1), atoms.get_potential_energy() / len(atoms))
    numbers = np.hstack([atoms.get_masses()[:, None], atoms.positions, atoms.get_velocities() * _PS, atoms.get_forces(),
                         share])
    for number, (symbol, values) in enumerate(zip(atoms.symbols, numbers.tolist(), strict=True), start=1):
        text.write(f"{number} {symbol} " + " ".join(f"{value:.10g}" for value in values) + "\n")
    dump.write(text.getvalue())
    dump.flush()


def main(parent: int, here: str, factory: str, arguments: Mapping[str, object], variables: Mapping[str, str]) -> None:
    """Run in the current folder a calculator whose module and files are named from the folder `here`."""
    die_with_parent(parent)
    folder = os.getcwd()
    os.chdir(here)
    try:
        calculator = made_by_factory(factory, arguments)
        os.chdir(folder)
        run(calculator, variables)
    except DtmdError as error:
        sys.exit(str(error))
    except Crash as crash:
        print(crash, flush=True)
        sys.exit(STOPPED)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), json.loads(sys.argv[5]))
