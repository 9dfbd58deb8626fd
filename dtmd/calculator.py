"""A trained potential as an ASE calculator: relaxations, phonons, short MD. Long MD runs in LAMMPS, faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import complete_cell
from ase.stress import full_3x3_to_voigt_6_stress

from dtmd.checkpoint import load_model
from dtmd.neighbors import Edges
from dtmd.potential import predict_with_virial
from dtmd.structures import Structures


class DtmdCalculator(Calculator):
    """Energy and forces; stress where the cell has a volume, energies of the atoms where the readout is per atom.

    Args:
        model: a model file, or a run directory that holds model.pt.
        device: of torch, cpu or cuda.
        precision: of the network, torch.float32 or torch.float64; None leaves it as trained.
        skin: Å beyond the cutoff within which neighbour lists are kept.

    Raises:
        DtmdError: not a model; when it calculates, an element that the model does not know.
    """

    def __init__(
        self, model: str | Path, device: str = "cpu", precision: torch.dtype | None = None, skin: float = 0.5
    ) -> None:
        super().__init__()
        path = Path(model)
        potential = load_model(path / "model.pt" if path.is_dir() else path).potential
        self._potential = potential.to_precision(precision or potential.precision).to(device).requires_grad_(False)
        self._path, self._device, self._skin = path, device, skin
        per_atom = ["energies"] if potential.config.per_atom_energy else []
        self.implemented_properties = ["energy", "free_energy", "forces", "stress", *per_atom]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with all that is implemented, in eV, eV/Å and eV/Å³."""
        super().calculate(atoms, properties, system_changes)
        if {"numbers", "cell", "pbc"} & set(system_changes):
            self._structures = self._as_structures(self.atoms)
            self._edges = Edges(self._structures, self._potential.config.cutoff, self._skin)
        positions = torch.tensor(self.atoms.positions, device=self._device)
        found = predict_with_virial(self._potential, self._structures, positions, self._edges.at(positions))
        energy = found.energies.item()
        self.results = {"energy": energy, "free_energy": energy, "forces": found.forces.cpu().numpy()}
        if "energies" in self.implemented_properties:
            self.results["energies"] = found.atom_energies.cpu().numpy()
        if self.atoms.cell.rank == 3:
            stress = -found.virials[0].cpu().numpy() / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _as_structures(self, atoms: Atoms) -> Structures:
        species = self._potential.species_of(atoms.get_chemical_symbols(), str(self._path))
        cell, pbc = complete_cell(atoms.cell)[None], atoms.pbc[None]
        tensors = species, torch.tensor(atoms.get_masses()), torch.zeros_like(species), *map(torch.tensor, (cell, pbc))
        return Structures(*(tensor.to(self._device) for tensor in tensors))
