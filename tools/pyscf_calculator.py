"""Kohn–Sham DFT of an isolated molecule by PySCF, as an ASE calculator (pip install pyscf).

    --calculator pyscf_calculator:PySCF --calculator-args xc=PBE basis=def2-svp
"""

from __future__ import annotations

import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from pyscf import dft, gto

from dtmd import units


class PySCF(Calculator):
    """Restricted Kohn–Sham of a neutral closed-shell molecule without cell, the Coulomb term by density fitting.

    Attributes:
        xc, basis: names as PySCF knows them.
        grid: PySCF's level of the integration grid, 0 … 9.
        conv_tol: change of the energy in the last iteration, Hartree.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, xc: str, basis: str, grid: int = 2, conv_tol: float = 1e-9) -> None:
        super().__init__()
        self.xc, self.basis, self.grid, self.conv_tol = xc, basis, grid, conv_tol
        self._numbers, self._densities = None, []

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Energy (eV) and forces (eV/Å) at once, for dynamics needs both.

        Raises:
            CalculationFailed: the iterations did not converge.
        """
        super().calculate(atoms, properties, system_changes)
        places = list(zip(self.atoms.symbols, self.atoms.positions / units.BOHR, strict=True))
        molecule = gto.M(atom=places, unit="Bohr", basis=self.basis, verbose=0)
        field = dft.RKS(molecule, xc=self.xc).density_fit()
        field.grids.level, field.conv_tol = self.grid, self.conv_tol
        energy = field.kernel(dm0=self._guess())
        if not field.converged:
            raise CalculationFailed(f"PySCF, {self.xc}/{self.basis}: no convergence in {field.max_cycle} iterations")
        self._densities = [*self._densities[-1:], field.make_rdm1()]
        forces = -field.nuc_grad_method().kernel() * (units.HARTREE / units.BOHR)
        self.results = {"energy": energy * units.HARTREE, "forces": forces}

    def _guess(self) -> np.ndarray | None:
        """The density matrix of the step before, or from two steps the straight line through them: fewer iterations."""
        if not np.array_equal(self.atoms.numbers, self._numbers):
            self._numbers, self._densities = self.atoms.numbers.copy(), []
        if len(self._densities) < 2:
            return self._densities[0] if self._densities else None
        before, last = self._densities
        return 2.0 * last - before
