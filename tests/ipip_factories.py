"""Teachers for the tests: EMT, and what is wrong with others. Named as `ipip_factories:NAME`."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT


class Changed(Calculator):
    """EMT with other energies and forces.

    Args:
        energy, forces: factors.
        offset: eV per atom.
        fails_beyond: Å; no forces where an atom is farther than this from the centre of the others.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, energy=1.0, forces=1.0, offset=0.0, fails_beyond=np.inf):
        super().__init__()
        self._factors, self._offset, self._fails_beyond = (energy, forces), offset, fails_beyond

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        copy = self.atoms.copy()
        copy.calc = EMT()
        far = np.linalg.norm(copy.positions - copy.positions.mean(axis=0), axis=1).max() > self._fails_beyond
        energy, forces = self._factors
        self.results = {"energy": energy * copy.get_potential_energy() + self._offset * len(copy),
                        "forces": forces * copy.get_forces() * (np.nan if far else 1.0)}


def changed(**arguments):
    """EMT with these changes."""
    return Changed(**arguments)


def not_finite():
    """Forces that are no numbers."""
    return Changed(forces=np.nan)
