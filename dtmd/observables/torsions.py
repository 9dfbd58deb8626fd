"""Dihedral angles, and the ones that a molecule can turn about."""

from __future__ import annotations

from collections import deque

import numpy as np
from ase.data import chemical_symbols

from dtmd.observables.bond_graph import NONMETALS, BondSearch, molecules
from dtmd.observables.distances import pair_vectors
from dtmd.observables.selection import Atom
from dtmd.trajectory import Trajectory

Dihedral = tuple[Atom, Atom, Atom, Atom]

LARGEST_MOLECULE = 500

_STRAIGHT = np.cos(np.radians(15.0))


def dihedral_angles(trajectory: Trajectory, dihedrals: list[Dihedral]) -> np.ndarray:
    """Angles of D dihedrals in every frame, degrees in [−180, 180), shape (T, D).

    Minimum images; cis is 0, and clockwise seen along the central bond is positive (IUPAC).
    """
    atoms = np.array(dihedrals)
    steps = np.stack([atoms[:, :-1], atoms[:, 1:]], axis=-1).reshape(-1, 2)
    vectors = pair_vectors(trajectory, steps).reshape(len(trajectory), len(atoms), 3, 3)
    first, centre, last = (vectors[:, :, k] for k in range(3))
    before, after = np.cross(first, centre), np.cross(centre, last)
    sine = np.linalg.norm(centre, axis=-1) * np.einsum("tdi,tdi->td", first, after)
    angles = np.degrees(np.arctan2(sine, np.einsum("tdi,tdi->td", before, after)))
    return np.where(angles >= 180.0, -180.0, angles)


def rotatable_dihedrals(first: Trajectory) -> list[Dihedral]:
    """One dihedral about each bond of the first frame that a molecule of non-metals can turn about.

    These are the bonds outside rings between atoms that both have another neighbour than H and are not in a straight
    line with it. Outer atoms: those with most neighbours other than H, then the heaviest, then the first. Molecules
    of more than `LARGEST_MOLECULE` atoms are left out.
    """
    numbers = first.numbers
    pairs, _ = BondSearch(numbers).bonds(first, 0)
    neighbours: list[set[int]] = [set() for _ in numbers]
    for a, b in pairs.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    flexible = {
        int(atom) for piece in molecules(len(numbers), pairs) for atom in piece
        if 4 <= len(piece) <= LARGEST_MOLECULE and NONMETALS.issuperset(chemical_symbols[z] for z in numbers[piece])
    }
    found = []
    for b, c in sorted({(min(a, b), max(a, b)) for a, b in pairs.tolist() if a != b}):
        if b in flexible:
            ends = [_outer(atom, other, numbers, neighbours) for atom, other in ((b, c), (c, b))]
            if None not in ends and not _in_ring(b, c, neighbours):
                found.append((ends[0], b, c, ends[1]))
    return [dihedral for dihedral in found if not _straight(first, dihedral)]


def _outer(atom: int, other: int, numbers: np.ndarray, neighbours: list[set[int]]) -> int | None:
    heavy = [n for n in neighbours[atom] if n != other and numbers[n] > 1]
    return max(heavy, key=lambda n: (sum(numbers[m] > 1 for m in neighbours[n]), numbers[n], -n), default=None)


def _in_ring(first: int, second: int, neighbours: list[set[int]]) -> bool:
    """Whether there is another way from one to the other than their bond."""
    seen, queue = {first}, deque(neighbours[first] - {second})
    while queue:
        atom = queue.popleft()
        if atom == second:
            return True
        if atom not in seen:
            seen.add(atom)
            queue.extend(neighbours[atom] - seen)
    return False


def _straight(first: Trajectory, dihedral: Dihedral) -> bool:
    vectors = pair_vectors(first.window(0, 1), np.array([dihedral[:-1], dihedral[1:]]).T)[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return bool((np.einsum("ki,ki->k", unit[:-1], unit[1:]) > _STRAIGHT).any())
