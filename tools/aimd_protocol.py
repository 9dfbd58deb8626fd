"""The physics of a molecule thrown at a surface: thermal substrate, launch, constant-energy run.

The protocol is that of Supplementary Note 4 of the dynamic training article: a substrate at 300 K, H₂
above it at normal incidence with its zero-point vibration and without rotation, then NVE. Units are
those of the project (eV, Å, fs, u, K); ASE's own unit of time appears only where ASE is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.build import molecule as named_molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar

from dtmd import units
from dtmd.errors import DtmdError

CLOSEST_START = 1.5  # Å; nearer than this at launch the molecule would start inside the substrate
RELAX_STEPS = 2000
MOLECULE_SIZE = 2  # its atoms come first in every frame


def _option(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Protocol:
    """Everything that decides what a trajectory is; each field is a command-line option of that name."""

    seed: int = _option(1, "seed; a trajectory depends on it and on its own number only")
    steps: int = _option(800, "steps of each trajectory")
    timestep: float = _option(0.5, "time step, fs")
    temperature: float = _option(300.0, "temperature of the substrate, K")
    friction: float = _option(0.02, "friction of the Langevin thermostat, 1/fs")
    thermalise_steps: int = _option(2000, "steps before the first snapshot of the substrate is taken")
    snapshots: int = _option(12, "snapshots, shared by the trajectories in turn")
    snapshot_steps: int = _option(100, "steps between snapshots")
    fmax: float = _option(0.05, "relax the substrate to this largest force, eV/Å (the article: 0.02)")
    molecule: str = _option("H2", "diatomic molecule, by its name in ASE")
    incidence_energy: float = _option(0.125, "translational energy at normal incidence, eV")
    vibration_energy: float = _option(0.27, "vibrational energy above the potential's minimum, eV")
    height: float = _option(8.5, "start height of the centre of mass above the plane, Å (the article: 9)")
    radius: float = _option(4.0, "radius of the disc around the cluster's axis that is aimed at, Å; "
                                 "inf: anywhere in the cell")
    plane_element: str = _option("C", "the plane is at the mean height of the atoms of this element")
    cluster_element: str = _option("Pd", "the axis goes through the mean position of these atoms")


@dataclass(frozen=True)
class Vibration:
    """A classical vibration from the inner to the outer turning point, half a period.

    Attributes:
        times: fs since the inner turning point, shape (K,).
        lengths: bond length, Å, shape (K,).
        rates: its rate of change, Å/fs, shape (K,); not negative, the way back has the other sign.
    """

    times: np.ndarray
    lengths: np.ndarray
    rates: np.ndarray

    @classmethod
    def in_potential(cls, lengths, energies, reduced_mass: float, energy: float) -> Vibration:
        """The vibration of a given energy in a tabulated potential.

        The length is r(θ) = r̄ − a·cos θ between the turning points r̄ ± a, so that dt = a·sin θ dθ / ṙ
        with ṙ = √(2(E − V)/µ) has no singularity at either end.

        Args:
            lengths, energies: the potential V(r), Å and eV, shape (n,), increasing lengths.
            reduced_mass: µ, u.
            energy: E above the minimum of V, eV.

        Raises:
            DtmdError: the energy is not positive or the table does not reach both turning points.
        """
        spline = CubicSpline(lengths, energies)
        bottom, inner, outer = _turning_points(spline, energy)
        edges = np.linspace(0.0, np.pi, 4001)
        middles = 0.5 * (edges[1:] + edges[:-1])

        def length(angle: np.ndarray) -> np.ndarray:
            return 0.5 * (inner + outer) - 0.5 * (outer - inner) * np.cos(angle)

        def rate(r: np.ndarray) -> np.ndarray:
            kinetic = np.maximum(bottom + energy - spline(r), 0.0)
            return np.sqrt(2.0 * kinetic / (reduced_mass * units.KINETIC))

        spent = 0.5 * (outer - inner) * np.sin(middles) / rate(length(middles)) * np.diff(edges)
        path = length(edges)
        return cls(np.concatenate([[0.0], np.cumsum(spent)]), path, rate(path))

    def sample(self, rng: np.random.Generator) -> tuple[float, float]:
        """Bond length in Å and its rate in Å/fs at a phase uniform in time."""
        phase = rng.uniform(-1.0, 1.0)
        time = abs(phase) * self.times[-1]
        rate = np.interp(time, self.times, self.rates)
        return float(np.interp(time, self.times, self.lengths)), float(np.copysign(rate, phase))


def _turning_points(potential: CubicSpline, energy: float) -> tuple[float, float, float]:
    """Lowest value of the potential (eV), and where it is `energy` above it on either side (Å)."""
    first, last = potential.x[0], potential.x[-1]
    bond = potential.x[int(np.argmin(potential(potential.x)))]
    near = (0.9 * bond, 1.1 * bond)
    lowest = minimize_scalar(potential, bounds=near, method="bounded", options={"xatol": 1e-10})
    depth = float(potential([first, last]).min() - lowest.fun)
    if not 0 < energy < depth:
        raise DtmdError(
            f"--vibration-energy {energy:g}: the molecule's potential from {first:.2f} to {last:.2f} Å has "
            f"vibrations above 0 and below {depth:.3f} eV; give such an energy, or a calculator that binds it"
        )

    def excess(r: float) -> float:
        return float(potential(r) - lowest.fun - energy)

    return float(lowest.fun), brentq(excess, first, lowest.x), brentq(excess, lowest.x, last)


def diatomic(name: str) -> Atoms:
    """The molecule of that name in ASE's collection.

    Raises:
        DtmdError: there is none of that name, or it has not two atoms.
    """
    try:
        found = named_molecule(name)
    except KeyError as error:
        raise DtmdError(f"--molecule {name}: not a molecule that ase.build.molecule knows") from error
    if len(found) != MOLECULE_SIZE:
        raise DtmdError(f"--molecule {name}: {len(found)} atoms, but only diatomic molecules are launched")
    return found


def reduced_mass(molecule: Atoms) -> float:
    """m₁m₂/(m₁ + m₂) in u."""
    first, second = molecule.get_masses()
    return float(first * second / (first + second))


def bond_potential(molecule: Atoms, cell, pbc, calculator) -> np.ndarray:
    """Energy of the lone molecule in the substrate's cell against its bond length.

    Returns:
        Lengths in Å and energies in eV, shape (45, 2).
    """
    lone = Atoms(molecule.symbols, np.zeros((2, 3)), cell=cell, pbc=pbc)
    lone.calc = calculator
    lengths = molecule.get_distance(0, 1) * np.linspace(0.6, 1.7, 45)
    energies = []
    for length in lengths:
        lone.positions[1] = (0.0, 0.0, length)
        energies.append(potential_energy(lone))
    return np.column_stack([lengths, energies])


def potential_energy(atoms: Atoms) -> float:
    """The energy whose gradient the forces are: the free energy where the calculator smears electrons, eV."""
    smeared = "free_energy" in atoms.calc.implemented_properties
    return float(atoms.get_potential_energy(force_consistent=smeared))


def relax(atoms: Atoms, fmax: float) -> None:
    """Move the atoms to the nearest minimum, in place.

    Raises:
        DtmdError: not there after two thousand steps.
    """
    if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=RELAX_STEPS):
        worst = np.linalg.norm(atoms.get_forces(), axis=1).max()
        raise DtmdError(
            f"the substrate still has a force of {worst:.3f} eV/Å after {RELAX_STEPS} steps, not {fmax:g}; "
            "start from a better structure or raise --fmax"
        )


def heat(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Give the atoms velocities of a temperature in K, in place."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)


def langevin(atoms: Atoms, protocol: Protocol, rng: np.random.Generator) -> Iterator[int]:
    """Move the atoms in place under the thermostat for `snapshot_steps`; yields after each step."""
    dynamics = Langevin(
        atoms, protocol.timestep / units.ASE_TIME, temperature_K=protocol.temperature,
        friction=protocol.friction * units.ASE_TIME, fixcm=False, rng=rng,
    )
    yield from _numbers(dynamics, protocol.snapshot_steps)


def nve(atoms: Atoms, protocol: Protocol) -> Iterator[int]:
    """Move the atoms in place at constant energy (velocity Verlet); yields steps 0 … `steps`."""
    yield from _numbers(VelocityVerlet(atoms, protocol.timestep / units.ASE_TIME), protocol.steps)


def _numbers(dynamics, steps: int) -> Iterator[int]:
    for step, _ in enumerate(dynamics.irun(steps)):
        yield step


def launch(substrate: Atoms, vibration: Vibration, protocol: Protocol, rng: np.random.Generator) -> Atoms:
    """The start of a trajectory: the molecule first, then the substrate, which is given no net momentum.

    Raises:
        DtmdError: an element of the protocol is not in the substrate, or the molecule would touch it.
    """
    flying = diatomic(protocol.molecule)
    masses = flying.get_masses()
    to_atoms = np.array([-masses[1], masses[0]]) / masses.sum()  # along the bond, from the centre of mass
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    length, rate = vibration.sample(rng)
    speed = np.sqrt(2.0 * protocol.incidence_energy / (masses.sum() * units.KINETIC))
    flying.positions = _start_point(substrate, protocol, rng) + length * np.outer(to_atoms, axis)
    flying.set_velocities((rate * np.outer(to_atoms, axis) - [0.0, 0.0, speed]) * units.ASE_TIME)
    flying.set_cell(substrate.cell)
    flying.pbc = substrate.pbc

    resting = substrate.copy()
    velocities, weights = resting.get_velocities(), resting.get_masses()
    resting.set_velocities(velocities - weights @ velocities / weights.sum())
    start = flying + resting
    nearest = start.get_all_distances(mic=True)[:MOLECULE_SIZE, MOLECULE_SIZE:].min()
    if nearest < CLOSEST_START:
        raise DtmdError(
            f"--height {protocol.height:g}: the molecule would start {nearest:.2f} Å from the substrate or "
            f"an image of it; give a height that leaves {CLOSEST_START:g} Å on both sides"
        )
    return start


def _start_point(substrate: Atoms, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Centre of mass at the start, Å: uniform in the disc, or in the cell where the radius is infinite."""
    plane = _mean_position(substrate, protocol.plane_element, "--plane-element")
    point = _mean_position(substrate, protocol.cluster_element, "--cluster-element")
    first, second = rng.uniform(size=2)
    if np.isinf(protocol.radius):
        point = point + (first - 0.5) * substrate.cell[0] + (second - 0.5) * substrate.cell[1]
    else:
        distance, angle = protocol.radius * np.sqrt(first), 2.0 * np.pi * second
        point = point + distance * np.array([np.cos(angle), np.sin(angle), 0.0])
    return np.array([point[0], point[1], plane[2] + protocol.height])


def _mean_position(substrate: Atoms, element: str, option: str) -> np.ndarray:
    chosen = substrate.symbols == element
    if not chosen.any():
        raise DtmdError(f"{option} {element}: not in the substrate, {substrate.symbols}; name one that is")
    return substrate.positions[chosen].mean(axis=0)
