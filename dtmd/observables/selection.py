"""Groups of atoms, by element or by index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from ase.data import atomic_numbers
from pydantic import AfterValidator

from dtmd.errors import DtmdError
from dtmd.trajectory import Trajectory


def _index(atom_id: int) -> int:
    if atom_id < 1:
        raise ValueError("atom ids count from 1, as in LAMMPS")
    return atom_id - 1


Atom = Annotated[int, AfterValidator(_index)]
"""Index of an atom, from 0; in a file of settings its id, from 1."""

Pair = tuple[Atom, Atom]

Selection = tuple[str | Atom, ...]
"""Symbols of elements and indices of atoms: ("Pd",), (0, 1)."""


def selected(selection: Selection, trajectory: Trajectory) -> np.ndarray:
    """Indices of the atoms of a group in ascending order, (n,).

    Raises:
        DtmdError: an element or an atom that the trajectory does not have.
    """
    chosen: set[int] = set()
    for part in selection:
        if isinstance(part, str):
            found = np.flatnonzero(trajectory.numbers == atomic_numbers.get(part, -1))
            if not len(found):
                raise DtmdError(f"{trajectory.source}: no atoms {part!r} among {', '.join(trajectory.elements)}; "
                                "name an element of the system or an atom")
            chosen |= set(found.tolist())
        else:
            check_atoms([(part,)], trajectory)
            chosen.add(part)
    return np.array(sorted(chosen), dtype=np.int64)


def check_atoms(groups: Iterable[tuple[int, ...]], trajectory: Trajectory) -> None:
    """Refuse bonds, angles or dihedrals of atoms that are not there, or that name an atom twice."""
    n_atoms = len(trajectory.numbers)
    for atoms in groups:
        if len(set(atoms)) < len(atoms) or not all(0 <= atom < n_atoms for atom in atoms):
            raise DtmdError(f"{trajectory.source}: atoms {atom_ids(atoms)}: give different atom ids between 1 and "
                            f"{n_atoms}")


def atom_ids(atoms: Iterable[int]) -> str:
    """Atoms by their ids, which count from 1 as in LAMMPS: "1–2"."""
    return "–".join(str(atom + 1) for atom in atoms)
