"""What LAMMPS's `pair_style mliap unified` hands to Python, made from ASE atoms on one rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor
from toys import CUTOFF, ELEMENTS


class Data:
    """The data object of mliap_unified_couple.pyx: owned atoms, then their images as ghosts; all pairs twice."""

    def __init__(self, atoms: Atoms, eflag: int = 1, cutoff: float = CUTOFF) -> None:
        i, j, shifts = neighbor_list("ijS", atoms, cutoff)
        images = sorted({(k, *shift) for k, shift in zip(j.tolist(), shifts.tolist()) if any(shift)})
        place = {image: len(atoms) + number for number, image in enumerate(images)}
        self.owner = np.array([*range(len(atoms)), *(image[0] for image in images)])
        self.nlocal = self.nlistatoms = len(atoms)
        self.ntotal, self.npairs, self.eflag = len(self.owner), len(i), eflag
        self.elems = np.array([ELEMENTS.index(symbol) for symbol in atoms.symbols], np.int32)[self.owner]
        self.iatoms = np.arange(len(atoms), dtype=np.int32)[::-1].copy()
        self.pair_i = i.astype(np.int32)
        self.pair_j = np.array(
            [place.get((k, *shift), k) for k, shift in zip(j.tolist(), shifts.tolist())], np.int32)
        self.rij = atoms.positions[j] + shifts @ atoms.cell.array - atoms.positions[i]
        self.f, self.virial = np.zeros((self.ntotal, 3)), np.zeros((3, 3))

    def update_pair_forces(self, fij: np.ndarray) -> None:
        """As mliap_unified.cpp does."""
        np.add.at(self.f, self.pair_i, fij)
        np.add.at(self.f, self.pair_j, -fij)
        self.virial -= self.rij.T @ fij

    @property
    def forces(self) -> np.ndarray:
        """With those of the ghosts, which LAMMPS adds to their owners'."""
        forces = np.zeros((self.nlocal, 3))
        np.add.at(forces, self.owner, self.f)
        return forces

    @property
    def energies(self) -> np.ndarray:
        """In the order of the owned atoms."""
        energies = np.empty(self.nlocal)
        energies[self.iatoms] = self.eatoms
        return energies


class KokkosData(Data):
    """That of mliap_unified_couple_kokkos.pyx, whose buffers on the CPU hold three numbers for each atom."""

    def __init__(self, atoms: Atoms, eflag: int = 1, cutoff: float = CUTOFF) -> None:
        super().__init__(atoms, eflag, cutoff)
        self._eatoms = np.full(self.nlocal, np.nan)

    @property
    def eatoms(self) -> np.ndarray:
        """To be written to; it cannot be set."""
        return self._eatoms

    def forward_exchange(self, given: Tensor, result: Tensor, width: int) -> None:
        """Ghosts get what their owners have."""
        assert width == given.shape[1] <= 3 and given.is_contiguous() and given.dtype == result.dtype
        result[:] = given[self.owner]

    def reverse_exchange(self, given: Tensor, result: Tensor, width: int) -> None:
        """Owners get the sum; ghosts have nothing then."""
        assert width == given.shape[1] <= 3 and given.is_contiguous() and given.dtype == result.dtype
        result[:] = 0
        np.add.at(result.numpy(), self.owner, given.numpy())


@dataclass
class Lammps:
    """The part of `dtmd.mliap.Lammps` that asks the C library, for a `Data`."""

    data: Data
    units: str = "metal"
    n_ranks: int = 1
    version: int = 20260704
    step: int = 12
    device: str = "cpu"
    has_ids: bool = True
    mass: dict[str, float] = field(default_factory=lambda: {"H": 2.014, "C": 12.011, "Pd": 106.42})

    def ids(self, n_atoms: int) -> np.ndarray | None:
        """In no order."""
        return (7 * self.data.owner[:n_atoms] + 3) % 101 + 1 if self.has_ids else None

    def masses(self, n_atoms: int) -> np.ndarray:
        """Of the elements."""
        return np.array([self.mass[ELEMENTS[k]] for k in self.data.elems[:n_atoms]])
