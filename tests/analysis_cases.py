"""Calculators with energies that can be written down, for the tests of the analyses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import find_mic
from small import small_potential, structures_of

from dtmd.checkpoint import ModelFile, ProbeFrames, save_model
from dtmd.named_calculators import NamedCalculator
from dtmd.neighbors import Edges
from dtmd.potential import predict
from dtmd.structures import Structures

MORSE = {"depth": 4.75, "width": 1.94, "length": 0.74}
"""H2 about as it is: eV, 1/Å, Å."""


class Springs(Calculator):
    """E = ½ k Σ (d_ij − l_ij)² over pairs of atoms, with nearest images."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, stiffness: float, lengths: dict[tuple[int, int], float]) -> None:
        super().__init__()
        self.stiffness, self.lengths = stiffness, lengths

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        for (i, j), length in self.lengths.items():
            (vector,), (distance,) = find_mic(atoms.positions[[j]] - atoms.positions[[i]], atoms.cell, atoms.pbc)
            energy += 0.5 * self.stiffness * (distance - length) ** 2
            pull = self.stiffness * (distance - length) * vector / distance
            forces[i] += pull
            forces[j] -= pull
        self.results = {"energy": energy, "forces": forces}


class Trap(Calculator):
    """E = ½ Σ_α k_α r_α² of the last atom; `poison`: not a number beyond that distance from the origin."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, stiffness: tuple[float, float, float], poison: float = np.inf) -> None:
        super().__init__()
        self.stiffness, self.poison = np.array(stiffness), poison

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        place = atoms.positions[-1]
        forces = np.zeros((len(atoms), 3))
        forces[-1] = -self.stiffness * place
        if np.linalg.norm(place) > self.poison:
            forces[-1] = np.nan
        self.results = {"energy": 0.5 * float(self.stiffness @ place**2), "forces": forces}


def dimer() -> Calculator:
    """For `module:factory`: two atoms on a spring of 30 eV/Å², 0.74 Å apart."""
    return Springs(30.0, {(0, 1): 0.74})


def called(label: str, calculator: Calculator, closest_pairs: dict[str, float] | None = None) -> NamedCalculator:
    return NamedCalculator(label, label, calculator, None, closest_pairs)


def springs_of(atoms: Atoms, stiffness: float = 10.0, cutoff: float = np.inf) -> Springs:
    """All pairs within the cutoff on springs, at rest where they are."""
    distances = atoms.get_all_distances(mic=True)
    pairs = [(i, j) for i in range(len(atoms)) for j in range(i) if distances[i, j] < cutoff]
    return Springs(stiffness, {(i, j): distances[i, j] for i, j in pairs})


def wavenumber(stiffness: float, mass: float) -> float:
    """Of √(k/m), cm⁻¹, by ASE's constants; eV/Å² and u."""
    quantum = units._hbar * 1e10 / np.sqrt(units._e * units._amu)  # eV for 1 eV/(Å²u)
    return quantum * np.sqrt(stiffness / mass) / units.invcm


def morse(distances: np.ndarray) -> np.ndarray:
    """Energies of H2, eV."""
    return MORSE["depth"] * (1.0 - np.exp(-MORSE["width"] * (distances - MORSE["length"]))) ** 2


def morse_stiffness() -> float:
    """At the minimum, eV/Å²."""
    return 2.0 * MORSE["depth"] * MORSE["width"] ** 2


def train_on_h2(path: Path, n_steps: int = 400, **metadata) -> Path:
    """Fit a small network to energies and forces of H2 along its bond, and write the model file."""
    potential = small_potential(n_knots=0)
    lengths = np.linspace(0.6, 1.0, 9)
    step = 1e-4
    slopes = torch.tensor((morse(lengths + step) - morse(lengths - step)) / (2 * step))
    structures = [structures_of([0, 0], np.eye(3), (False, False, False)) for _ in lengths]
    batch = Structures(
        torch.cat([s.species for s in structures]), torch.cat([s.masses for s in structures]),
        torch.arange(len(lengths)).repeat_interleave(2), torch.cat([s.cells for s in structures]),
        torch.cat([s.pbc for s in structures]),
    )
    positions = torch.zeros(2 * len(lengths), 3, dtype=torch.float64)
    positions[1::2, 2] = torch.tensor(lengths)
    edges = Edges(batch, potential.config.cutoff, 0.1).at(positions)
    optimizer = torch.optim.Adam(potential.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        optimizer.zero_grad()
        forces = predict(potential, batch, positions, edges, create_graph=True).forces[1::2, 2]
        (forces + slopes).square().mean().backward()
        optimizer.step()
        schedule.step()
    save_model(ModelFile(potential, ProbeFrames(structures[0], positions[:2].clone()), metadata), path)
    return path
