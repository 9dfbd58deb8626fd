"""Harmonic frequencies: a relaxed structure, its Hessian by central differences, modes, and models mode by mode.

The mass-weighted Hessian D_ij = (m_i m_j)^-½ ∂²E/∂r_i∂r_j over the components that are free to move has eigenvalues
ω² and eigenvectors e. Wavenumbers are ν = ω/2πc in cm⁻¹; where ω² < 0 they are imaginary and told as −|ω|/2πc.
For periodic structures these are the phonons at the Γ point of the cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build.rotate import rotation_matrix_from_points
from ase.geometry import find_mic
from scipy.optimize import linear_sum_assignment

from dtmd import units
from dtmd.analysis.structures import RelaxationSettings, relaxed
from dtmd.errors import DtmdError
from dtmd.named_calculators import NamedCalculator

DEGENERATE = 1.0
"""cm⁻¹; modes nearer than this have arbitrary directions among themselves, and are matched as one."""

_NO_MOTION = 1e-3
"""A rigid motion that moves atoms less than this, relative to the others, is none: turning a straight molecule."""

_AT_A_TIME = 64
"""Components of the Hessian whose displaced structures are in memory together."""


@dataclass(frozen=True)
class Modes:
    """Harmonic modes of one model at one structure; N atoms, M modes.

    Attributes:
        label: of the model.
        atoms: the structure, relaxed or as given, without constraints.
        energy: eV.
        n_steps: of the relaxation; None where there was none.
        largest_force: eV/Å, on an atom, in the components that are free.
        wavenumbers: cm⁻¹, (M,), ascending; imaginary ones are negative.
        vectors: orthonormal and mass-weighted, (M, N, 3); zero in components that are held.
        rigid: wavenumbers of the rigid motions, cm⁻¹, (R,), before they were projected out; zero in theory.
        asymmetry: largest |H − Hᵀ| before symmetrising, eV/Å²; zero in theory.
    """

    label: str
    atoms: Atoms
    energy: float
    n_steps: int | None
    largest_force: float
    wavenumbers: np.ndarray
    vectors: np.ndarray
    rigid: np.ndarray
    asymmetry: float

    @property
    def zero_point_energy(self) -> float:
        """½ Σ hcν over the real modes, eV."""
        return 0.5 * units.PLANCK / units.WAVENUMBER * float(self.wavenumbers[self.wavenumbers > 0.0].sum())

    @property
    def displacements(self) -> np.ndarray:
        """Directions in which atoms move, e/√m, (M, N, 3); the atom that moves most by 1."""
        moved = self.vectors / np.sqrt(self.atoms.get_masses())[:, None]
        return moved / np.linalg.norm(moved, axis=2).max(axis=1)[:, None, None]


@dataclass(frozen=True)
class Match:
    """Modes of a model beside those of the reference, paired so that the sum of squared overlaps is largest.

    Attributes:
        partners: of each mode of the reference, (M,); −1 where the model has fewer.
        overlaps: Σ (e·e')² over the partner and the modes within `DEGENERATE` of it, (M,), from 0 to 1.
        rmsd: Å, between the structures, without the rigid motions that are free.
    """

    partners: np.ndarray
    overlaps: np.ndarray
    rmsd: float


def harmonic_modes(
    model: NamedCalculator, atoms: Atoms, held: np.ndarray, delta: float = 0.01,
    relaxation: RelaxationSettings | None = RelaxationSettings(),
    watch: Callable[[str], None] = lambda text: None,
) -> Modes:
    """Relax and find the harmonic modes.

    Args:
        held: components that neither move nor vibrate, (N, 3).
        delta: Å, of the displacements.
        relaxation: None leaves the structure as it is.
        watch: told what is being done.

    Raises:
        DtmdError: nothing is free to move, the relaxation does not converge, or forces are not finite.
    """
    free = ~held
    if not free.any():
        raise DtmdError("--fixed: all atoms are held, none can vibrate")
    n_steps = None
    if relaxation is not None:
        watch(f"{model.label}: relaxing")
        atoms, n_steps = relaxed(model, atoms, held, relaxation)
    rigid = rigid_motions(atoms, held)
    internal = np.linalg.qr(rigid, mode="complete")[0][:, rigid.shape[1] :]  # all that is orthogonal to them
    if not internal.shape[1]:
        raise DtmdError("--structure: a single atom that nothing holds has no vibrations")
    (energy,), (forces,) = model.evaluate_many(atoms, atoms.positions[None])
    hessian = _hessian(model, atoms, np.flatnonzero(free), delta, watch)
    root = np.sqrt(np.repeat(atoms.get_masses(), 3)[free.ravel()])
    dynamical = 0.5 * (hessian + hessian.T) / np.outer(root, root)
    eigenvalues, vectors = np.linalg.eigh(internal.T @ dynamical @ internal)
    spread = np.zeros((len(eigenvalues), 3 * len(atoms)))
    spread[:, free.ravel()] = (internal @ vectors).T
    return Modes(
        model.label, _bare(atoms), float(energy), n_steps, float(np.linalg.norm(forces * free, axis=1).max()),
        _wavenumbers(eigenvalues), spread.reshape(-1, len(atoms), 3),
        _wavenumbers(np.linalg.eigvalsh(rigid.T @ dynamical @ rigid)), float(np.abs(hessian - hessian.T).max()),
    )


def rigid_motions(atoms: Atoms, held: np.ndarray) -> np.ndarray:
    """Motions of all atoms together that cost no energy, orthonormal and mass-weighted, (F, R) of F free components.

    Translations; turns about three axes without periodicity, about the axis of a wire with one periodic direction,
    none with more. Of these only what leaves all held components where they are.
    """
    weights = atoms.get_masses()
    centred = atoms.positions - np.average(atoms.positions, axis=0, weights=weights)
    turns = {0: np.eye(3), 1: atoms.cell.array[atoms.pbc]}.get(int(atoms.pbc.sum()), np.empty((0, 3)))
    motions = [np.broadcast_to(axis, centred.shape) for axis in np.eye(3)]
    motions += [np.cross(axis / np.linalg.norm(axis), centred) for axis in turns]
    motions = np.array(motions).reshape(len(motions), -1).T
    if held.any():
        _, sizes, combinations = np.linalg.svd(motions[held.ravel()])
        rank = int((sizes > 1e-6 * sizes[0]).sum())
        motions = motions @ combinations[rank:].T
    free = ~held.ravel()
    left, sizes, _ = np.linalg.svd(np.sqrt(np.repeat(weights, 3))[free, None] * motions[free], full_matrices=False)
    return left[:, sizes > _NO_MOTION * sizes.max(initial=0.0)]


def match(reference: Modes, other: Modes, held: np.ndarray) -> Match:
    """Pair the modes of a model with those of the reference, from the same atoms."""
    turn, rmsd = _aligned(reference.atoms, other.atoms, held)
    vectors = (other.vectors @ turn).reshape(len(other.vectors), -1)
    overlaps = (reference.vectors.reshape(len(reference.vectors), -1) @ vectors.T) ** 2
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    partners, sums = np.full(len(overlaps), -1), np.zeros(len(overlaps))
    partners[rows] = columns
    for row, column in zip(rows, columns, strict=True):
        alike = np.abs(other.wavenumbers - other.wavenumbers[column]) < DEGENERATE
        sums[row] = overlaps[row, alike].sum()
    return Match(partners, sums, rmsd)


def _hessian(
    model: NamedCalculator, atoms: Atoms, free: np.ndarray, delta: float, watch: Callable[[str], None]
) -> np.ndarray:
    """∂²E/∂r_i∂r_j ≈ (F_j(r_i − δ) − F_j(r_i + δ))/2δ in eV/Å², (F, F); δ in Å."""
    rows = []
    for first in range(0, len(free), _AT_A_TIME):
        watch(f"{model.label}: Hessian, {first} of {len(free)} components")
        some = free[first : first + _AT_A_TIME]
        shifts = np.zeros((len(some), 3 * len(atoms)))
        shifts[np.arange(len(some)), some] = delta
        shifts = shifts.reshape(-1, len(atoms), 3)
        _, forces = model.evaluate_many(atoms, atoms.positions + np.concatenate([-shifts, shifts]))
        before, after = forces.reshape(2, len(some), -1)[:, :, free]
        rows.append((before - after) / (2.0 * delta))
    return np.concatenate(rows)


def _wavenumbers(eigenvalues: np.ndarray) -> np.ndarray:
    """cm⁻¹ from ω² in eV/(Å²u)."""
    omega = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues) * units.ACCELERATION)
    return omega / (2.0 * np.pi) * units.WAVENUMBER


def _aligned(reference: Atoms, other: Atoms, held: np.ndarray) -> tuple[np.ndarray, float]:
    """What turns vectors v of `other` as v @ turn to those of the reference, and the RMSD in Å that is left."""
    if held.any():
        return np.eye(3), _rms(find_mic(other.positions - reference.positions, reference.cell, reference.pbc)[0])
    if reference.pbc.any():
        moved, _ = find_mic(other.positions - reference.positions, reference.cell, reference.pbc)
        return np.eye(3), _rms(moved - moved.mean(axis=0))
    there, here = (a.positions - a.positions.mean(axis=0) for a in (other, reference))
    turn = rotation_matrix_from_points(there.T, here.T).T
    return turn, _rms(there @ turn - here)


def _rms(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1).mean()))


def _bare(atoms: Atoms) -> Atoms:
    bare = atoms.copy()
    bare.set_constraint()
    return bare
