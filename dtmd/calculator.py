"""Potentials, trained or exported, as ASE calculators: relaxations, phonons, short MD. Long MD in LAMMPS is faster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import complete_cell
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from dtmd import artefact
from dtmd.checkpoint import file_of, load_model
from dtmd.errors import DtmdError
from dtmd.neighbors import Edges
from dtmd.potential import Prediction, predict_by_edges, predict_with_virial, species_indices, with_gradient
from dtmd.rollout import PART_ATOMS
from dtmd.structures import Structures


class DtmdCalculator(Calculator):
    """Energy and forces; stress where the cell has a volume, energies of the atoms where the readout is per atom.

    Args:
        model: a model file, a run directory that holds model.pt, a file of mace-torch, or an exported potential
            for `pair_style dtmd`.
        device: of torch, cpu or cuda; exported potentials run on the CPU alone.
        precision: of the network, torch.float32 or torch.float64; None leaves it as trained. That of an exported
            potential cannot be changed.
        skin: Å beyond the cutoff within which neighbour lists are kept.

    Attributes:
        path: the file.
        closest_pairs: Å, the smallest distance of each pair of elements in the training data, such as {"H-Pd": 1.6},
            the cutoff for pairs that are never within it; None where the file does not say.

    Raises:
        DtmdError: not a model; when it calculates, an element that the model does not know.
    """

    def __init__(
        self, model: str | Path, device: str = "cpu", precision: torch.dtype | None = None, skin: float = 0.5
    ) -> None:
        super().__init__()
        self.path = file_of(Path(model))
        if artefact.kind_of(self.path):
            self._source, self._device = _exported(self.path), "cpu"
        else:
            self._source, self._device = _trained(self.path, device, precision), device
        self._skin = skin
        known = self._source.metadata.get("closest_pairs")
        self.closest_pairs = None if known is None else artefact.every_closest_pair(
            known, self._source.elements, self._source.cutoff)
        per_atom = ["energies"] if self._source.per_atom_energy else []
        self.implemented_properties = ["energy", "free_energy", "forces", "stress", *per_atom]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with all that is implemented, in eV, eV/Å and eV/Å³."""
        super().calculate(atoms, properties, system_changes)
        if {"numbers", "cell", "pbc"} & set(system_changes):
            self._structures = self._as_structures(self.atoms, 1)
            self._edges = Edges(self._structures, self._source.cutoff, self._skin)
        positions = torch.tensor(self.atoms.positions, device=self._device)
        found = self._source.predict(self._structures, positions, self._edges.at(positions))
        energy = found.energies.item()
        self.results = {"energy": energy, "free_energy": energy, "forces": found.forces.cpu().numpy()}
        if "energies" in self.implemented_properties:
            self.results["energies"] = found.atom_energies.cpu().numpy()
        if self.atoms.cell.rank == 3:
            stress = -found.virials[0].cpu().numpy() / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def evaluate_many(self, atoms: Atoms, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same atoms at many places, several side by side where the potential allows it.

        Args:
            atoms: elements, cell and periodicity.
            positions: Å, (K, N, 3).

        Returns:
            Energies (K,), eV, and forces (K, N, 3), eV/Å.
        """
        together = max(1, PART_ATOMS // len(atoms)) if self._source.batches else 1
        energies, forces, edges = [], [], None
        for first in range(0, len(positions), together):
            part = torch.tensor(positions[first : first + together], dtype=torch.float64, device=self._device)
            if edges is None or len(part) < together:
                structures = self._as_structures(atoms, len(part))
                edges = Edges(structures, self._source.cutoff, self._skin)
            found = self._source.predict(structures, part.reshape(-1, 3), edges.at(part.reshape(-1, 3)))
            energies.append(found.energies.cpu().numpy())
            forces.append(found.forces.reshape(part.shape).cpu().numpy())
        return np.concatenate(energies), np.concatenate(forces)

    def _as_structures(self, atoms: Atoms, n_copies: int) -> Structures:
        species = species_indices(self._source.elements, atoms.get_chemical_symbols(), str(self.path))
        copies = torch.arange(n_copies).repeat_interleave(len(atoms))
        cells = torch.tensor(complete_cell(atoms.cell)).repeat(n_copies, 1, 1)
        pbc = torch.tensor(atoms.pbc).repeat(n_copies, 1)
        tensors = species.repeat(n_copies), torch.tensor(atoms.get_masses()).repeat(n_copies), copies, cells, pbc
        return Structures(*(tensor.to(self._device) for tensor in tensors))


@dataclass(frozen=True)
class _Source:
    """What the calculator needs of a potential.

    Attributes:
        batches: whether `predict` takes several structures at a time.
    """

    elements: list[str]
    cutoff: float
    per_atom_energy: bool
    batches: bool
    metadata: Mapping[str, Any]
    predict: Callable[[Structures, Tensor, tuple[Tensor, Tensor]], Prediction]


def _trained(path: Path, device: str, precision: torch.dtype | None) -> _Source:
    model = load_model(path)
    potential = model.potential.to_precision(precision or model.potential.precision).to(device).requires_grad_(False)
    predict = functools.partial(predict_with_virial, potential)
    config = potential.config
    return _Source(potential.elements, config.cutoff, config.per_atom_energy, True, model.metadata, predict)


def _exported(path: Path) -> _Source:
    kind = artefact.kind_of(path)
    if kind == "ML-IAP":
        raise DtmdError(f"{path}: is for pair_style mliap of LAMMPS and runs there alone; give the model that it was "
                        "exported from, such as RUN_DIR/model.pt")
    if kind == "AOTInductor":
        graphs, metadata = artefact.load_compiled(path)
        evaluate = graphs["whole"]
    else:
        energies, metadata = artefact.load(path)
        evaluate = functools.partial(with_gradient, energies)
    predict = functools.partial(predict_by_edges, evaluate)
    per_atom = metadata["per_atom_energy"]  # one that is not knows no end of a structure within a batch
    return _Source(metadata["elements"], metadata["cutoff"], per_atom, per_atom, metadata, predict)
