"""Energy along a straight path of a group of atoms against the rest, rigid or with the rest relaxed at each point.

The group moves as a whole by s along a unit vector d. Energies ΔE(s) are relative to the end of the path where the
group is farther from the rest. The force along the path is f(s) = Σ_group F·d = −dE/ds, also where the rest is relaxed,
for its forces are zero then (or hold only its centre of mass, which does not depend on s).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

from dtmd.analysis.structures import RelaxationSettings, atoms_of, relaxed
from dtmd.errors import DtmdError
from dtmd.named_calculators import NamedCalculator


@dataclass(frozen=True)
class Path:
    """A straight path of K points.

    Attributes:
        group: indices of the atoms that move.
        held: indices of other atoms that must stay when the rest is relaxed: the other end of a bond.
        direction: unit vector, (3,).
        shifts: Å along it, of each point from the given structure, (K,).
        values: Å, what the points are told by: the shifts, or the length of the bond, (K,).
        name: of the values, in words.
    """

    group: np.ndarray
    held: np.ndarray
    direction: np.ndarray
    shifts: np.ndarray
    values: np.ndarray
    name: str

    def positions(self, atoms: Atoms) -> np.ndarray:
        """Of the rigid path, Å, (K, N, 3)."""
        places = np.repeat(atoms.positions[None], len(self.shifts), axis=0)
        places[:, self.group] += (self.shifts[:, None] * self.direction)[:, None]
        return places


@dataclass(frozen=True)
class TooNear:
    """Two elements that come nearer to each other than in the training data.

    Attributes:
        pair: their symbols, such as "H-Pd".
        nearest: Å, along the path.
        known: Å, in the training data.
        points: those at which they are too near, (K,), bool.
    """

    pair: str
    nearest: float
    known: float
    points: np.ndarray


@dataclass(frozen=True)
class Scan:
    """One model along the path.

    Attributes:
        label: of the model.
        energies: ΔE, eV, (K,).
        far_energy: eV, E at the far end.
        forces: along the path, eV/Å, (K,).
        positions: Å, (K, N, 3).
        gaps: Å, from the group to the nearest other atom, (K,).
        too_near: pairs that the model has not seen so near; None where its training data are not known.
    """

    label: str
    energies: np.ndarray
    far_energy: float
    forces: np.ndarray
    positions: np.ndarray
    gaps: np.ndarray
    too_near: Sequence[TooNear] | None

    @property
    def unseen(self) -> np.ndarray:
        """Points at which some pair is nearer than in the training data, (K,), bool."""
        points = [near.points for near in self.too_near or []]
        return np.any(points, axis=0) if points else np.zeros(len(self.energies), dtype=bool)

    @property
    def far(self) -> int:
        """The point that energies are relative to."""
        return far_end(self.gaps)


def group_path(atoms: Atoms, move: str, along: str, first: float, last: float, n_points: int) -> Path:
    """The path of a group of atoms, as the command line names it.

    Args:
        move: the group, as `atoms_of` takes it.
        along: x, y or z; A-B: from atom A to atom B, counted from 1; normal: of the plane fitted to the other atoms
            by least squares, to the side on which the group is.
        first, last: Å, from the given structure.
        n_points: both ends included.

    Raises:
        DtmdError: a group of all atoms, an unknown direction, or no path.
    """
    group = atoms_of(move, atoms.get_chemical_symbols(), "--move")
    shifts = _points(first, last, n_points)
    rest = np.setdiff1d(np.arange(len(atoms)), group)
    if not len(rest):
        raise DtmdError(f"--move {move}: these are all {len(atoms)} atoms; leave some to move them against")
    direction = _direction(atoms, along, group, rest)
    return Path(group, np.array([], dtype=int), direction, shifts, shifts, f"displacement along {along}")


def bond_path(
    atoms: Atoms, bond: tuple[int, int], move: str | None, first: float, last: float, n_points: int
) -> Path:
    """The path that stretches a bond.

    Args:
        bond: indices of its atoms; the second one moves.
        move: what moves with it, as `atoms_of` takes it; None for that atom alone.
        first, last: Å, lengths of the bond.
        n_points: both ends included.

    Raises:
        DtmdError: no such atoms, a group that has not the second atom alone of the two, or no path.
    """
    i, j = bond
    text = f"--bond {i + 1}-{j + 1}"
    if i == j or max(bond) >= len(atoms):
        raise DtmdError(f"{text}: give two of the atoms 1 to {len(atoms)}")
    group = np.array([j]) if move is None else atoms_of(move, atoms.get_chemical_symbols(), "--move")
    if j not in group or i in group:
        raise DtmdError(f"--move {move}: has to hold atom {j + 1} and not atom {i + 1} to stretch their bond")
    values = _points(first, last, n_points)
    if values.min() <= 0.0:
        raise DtmdError(f"{text}: --from {first:g} --to {last:g}: lengths of a bond are positive")
    direction, length = _between(atoms, i, j)
    return Path(group, np.array([i]), direction, values - length, values, f"length of the bond {i + 1}-{j + 1}")


def scan(
    model: NamedCalculator, atoms: Atoms, path: Path, held: np.ndarray,
    relaxation: RelaxationSettings | None = None, watch: Callable[[str], None] = lambda text: None,
) -> Scan:
    """Energies and forces of a model along a path.

    With a relaxation it begins at the far end, each next point at the relaxed rest of the last. Where nothing of the
    rest is held, its centre of mass is, or it would follow the group.

    Args:
        held: components that no relaxation moves, (N, 3).
        relaxation: of the rest; None leaves it as it is.
        watch: told what is being done.

    Raises:
        DtmdError: energies or forces that are not finite, or a relaxation that does not converge.
    """
    positions = path.positions(atoms)
    watch(f"{model.label}: {len(positions)} points")
    if relaxation is not None:
        positions = _relaxed_path(model, atoms, path, held, relaxation, watch)
    energies, forces = model.evaluate_many(atoms, positions)
    gaps = _gaps(atoms, positions, path.group)
    far_energy = energies[far_end(gaps)]
    along = forces[:, path.group].sum(axis=1) @ path.direction
    near = None if model.closest_pairs is None else too_near(atoms, positions, model.closest_pairs)
    return Scan(model.label, energies - far_energy, float(far_energy), along, positions, gaps, near)


def far_end(gaps: np.ndarray) -> int:
    """The end of the path, 0 or K − 1, where the group is farther from the rest."""
    return 0 if gaps[0] > gaps[-1] else len(gaps) - 1


def too_near(atoms: Atoms, positions: np.ndarray, known: Mapping[str, float]) -> list[TooNear]:
    """Pairs nearer than `known`, the smallest distances in the training data in Å, by elements such as "H-Pd"."""
    symbols = np.array(atoms.get_chemical_symbols())
    order = {name: "-".join(reversed(name.split("-"))) for name in known}
    nearest = {name: np.full(len(positions), np.inf) for name in known}
    places = atoms.copy()
    for k, structure in enumerate(positions):
        places.positions = structure
        i, j, distances = neighbor_list("ijd", places, max(known.values()))
        pairs = np.char.add(np.char.add(symbols[i], "-"), symbols[j])
        for name in known:
            these = distances[(pairs == name) | (pairs == order[name])]
            nearest[name][k] = these.min(initial=np.inf)
    # A hair of tolerance: the structure of the scan may be the very frame that the training data are nearest in.
    return [TooNear(name, float(nearest[name].min()), known[name], nearest[name] < known[name] - 1e-6)
            for name in known if nearest[name].min() < known[name] - 1e-6]


def _relaxed_path(
    model: NamedCalculator, atoms: Atoms, path: Path, held: np.ndarray, relaxation: RelaxationSettings,
    watch: Callable[[str], None],
) -> np.ndarray:
    rest = np.setdiff1d(np.arange(len(atoms)), path.group)
    held = held.copy()
    held[path.group] = held[path.held] = True
    anchored = None if held[rest].any() else rest
    positions = path.positions(atoms)
    order = np.arange(len(positions))
    if far_end(_gaps(atoms, positions, path.group)) == order[-1]:
        order = order[::-1]
    last = atoms
    for done, k in enumerate(order):
        watch(f"{model.label}: relaxed {done} of {len(order)} points")
        start = last.copy()
        start.positions[path.group] = positions[k, path.group]
        last, _ = relaxed(model, start, held, relaxation, anchored, f" at {path.values[k]:g} Å")
        positions[k] = last.positions
    return positions


def _gaps(atoms: Atoms, positions: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Shortest distance between the group and other atoms at each point, Å, (K,)."""
    rest = np.setdiff1d(np.arange(len(atoms)), group)
    vectors = positions[:, group, None] - positions[:, None, rest]
    _, lengths = find_mic(vectors.reshape(-1, 3), atoms.cell, atoms.pbc)
    return lengths.reshape(len(positions), -1).min(axis=1)


def _points(first: float, last: float, n_points: int) -> np.ndarray:
    if first == last or n_points < 2:
        raise DtmdError(f"--from {first:g} --to {last:g} --steps {n_points}: no path; give two ends, 2 points or more")
    return np.linspace(first, last, n_points)


def _direction(atoms: Atoms, along: str, group: np.ndarray, rest: np.ndarray) -> np.ndarray:
    if along in ("x", "y", "z"):
        return np.eye(3)["xyz".index(along)]
    if along == "normal":
        return _normal(atoms, group, rest)
    ends = along.split("-")
    if len(ends) != 2 or not all(end.isdigit() and 1 <= int(end) <= len(atoms) for end in ends) or ends[0] == ends[1]:
        raise DtmdError(f"--along {along}: write x, y, z, normal, or two of the atoms 1 to {len(atoms)} as A-B")
    return _between(atoms, int(ends[0]) - 1, int(ends[1]) - 1)[0]


def _normal(atoms: Atoms, group: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Of the plane through the rest, by least squares, towards the group; images nearest to the first atom of it."""
    near, _ = find_mic(atoms.positions - atoms.positions[rest[0]], atoms.cell, atoms.pbc)
    centred = near[rest] - near[rest].mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred)
    if len(rest) < 3 or sizes[1] < 1e-3 * sizes[0]:
        raise DtmdError("--along normal: the other atoms lie on a line and span no plane; give another direction")
    normal = axes[2]
    side = find_mic(near[group] - near[rest].mean(axis=0), atoms.cell, atoms.pbc)[0].mean(axis=0) @ normal
    return -normal if side < 0.0 else normal


def _between(atoms: Atoms, i: int, j: int) -> tuple[np.ndarray, float]:
    """Unit vector from atom i to the nearest image of atom j, and the distance in Å."""
    (vector,), (length,) = find_mic(atoms.positions[[j]] - atoms.positions[[i]], atoms.cell, atoms.pbc)
    if length == 0.0:
        raise DtmdError(f"--structure: atoms {i + 1} and {j + 1} are at the same place and give no direction")
    return vector / length, float(length)
