"""Runs that start on an AIMD frame, followed against the AIMD that comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell

from dtmd.observables.force_error import force_error_by_species
from dtmd.observables.series import n_finite
from dtmd.trajectory import Trajectory

TIME_TOLERANCE = 1e-3
"""fs; frames of both sides belong together when their times agree to this."""


@dataclass(frozen=True)
class Start:
    """Where a run starts on AIMD: index of the trajectory, its frame, and how well both agree.

    Attributes:
        distance: largest distance of an atom to its AIMD position, Å.
        velocity_difference: largest difference of a velocity component, Å/fs; None if one side has none.
    """

    trajectory: int
    frame: int
    distance: float
    velocity_difference: float | None


@dataclass(frozen=True)
class Rollout:
    """A run against the AIMD from the same start, at the K + 1 times that both have.

    Attributes:
        times: since the start, fs, shape (K + 1,), from 0.
        force_errors: per species in the order of the atomic numbers, eV/Å, shape (K + 1, n_species).
        reference_forces: the same norm of the AIMD forces themselves, shape (K + 1, n_species).
        rmsd: root mean square over atoms of the difference in displacement, Å, shape (K + 1,).
        n_even: T, the steps 1 … T at even spacing from the start that the mean is taken over.
        ended: time of the first frame in which the run is not finite, fs; it and all after it are left out. None where
            there is none within the reference.
    """

    times: np.ndarray
    force_errors: np.ndarray
    reference_forces: np.ndarray
    rmsd: np.ndarray
    n_even: int
    ended: float | None

    def mean_errors(self, n_steps: int) -> np.ndarray:
        """Mean over the steps 1 … n_steps of the force error of each species; their sum is the MEPA."""
        return self.force_errors[1 : n_steps + 1].mean(axis=0)


def find_start(run: Trajectory, references: Sequence[Trajectory], tolerance: float) -> Start | None:
    """The AIMD frame on which the first frame of `run` lies, or None.

    Scaled coordinates are compared, with periodic images and a common translation taken out, so
    that a cell rotated into LAMMPS's form and a shifted origin do no harm. Among several matching
    frames the one whose velocities agree best is taken.

    Args:
        run: same atoms in the same order as the references.
        references: AIMD.
        tolerance: Å, largest distance of an atom.
    """
    matches = []
    for k, reference in enumerate(references):
        distances = _start_distances(run, reference)
        for frame in np.flatnonzero(distances <= tolerance):
            matches.append(start_at(run, references, k, int(frame)))
    return min(matches, key=lambda start: (start.velocity_difference or 0.0, start.distance), default=None)


def start_at(run: Trajectory, references: Sequence[Trajectory], trajectory: int, frame: int) -> Start:
    """The start on a given AIMD frame, however well it agrees."""
    reference = references[trajectory]
    difference = None
    if run.velocities is not None and reference.velocities is not None:
        rotation = _rotation(run, reference, frame)
        difference = float(np.abs(run.velocities[0] - reference.velocities[frame] @ rotation).max())
    distance = float(_start_distances(run, reference.window(frame, frame + 1))[0])
    return Start(trajectory, frame, distance, difference)


def _periodic_cell(cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with unit vectors at right angles in the directions that are not periodic."""
    return complete_cell(np.where(pbc[:, None], cells, 0.0))


def _rotation(run: Trajectory, reference: Trajectory, frame: int) -> np.ndarray:
    """R with v_run = v_reference · R, (3, 3)."""
    own = _periodic_cell(run.cells[0], run.pbc)
    return np.linalg.solve(_periodic_cell(reference.cells[frame], reference.pbc), own)


def _start_distances(run: Trajectory, reference: Trajectory) -> np.ndarray:
    """Largest distance between an atom of the run's first frame and of each reference frame, Å, (T,)."""
    own = _periodic_cell(run.cells[0], run.pbc)
    scaled = np.linalg.solve(own.T, run.positions[0].T).T
    if np.array_equal(reference.cells, np.broadcast_to(reference.cells[0], reference.cells.shape)):
        cell = _periodic_cell(reference.cells[0], reference.pbc)
        others = reference.positions @ np.linalg.inv(cell)
    else:
        inverse = [np.linalg.inv(_periodic_cell(cell, reference.pbc)) for cell in reference.cells]
        others = reference.positions @ np.array(inverse)
    difference = others - scaled
    difference = difference - difference[:, :1]
    difference -= np.round(difference) * run.pbc
    difference -= difference.mean(axis=1, keepdims=True)
    return np.linalg.norm(difference @ own, axis=-1).max(axis=1)


class Follower:
    """Force error and displacement of a run against a reference from one of its frames on, in one pass.

    Args:
        first: first frames of the run, with forces.
        reference: AIMD with forces.
        frame: of the reference, on which the run starts.
    """

    def __init__(self, first: Trajectory, reference: Trajectory, frame: int) -> None:
        self._start, self._positions = float(first.times[0]), first.positions[0].copy()
        self._reference, self._frame = reference, frame
        self._rotation = _rotation(first, reference, frame)
        self._elapsed = reference.times - reference.times[frame]
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._ended: float | None = None

    def add(self, frames: Trajectory) -> None:
        """Take in the next frames; only those at times of the reference are kept of."""
        if self._ended is not None:
            return
        elapsed = frames.times - self._start
        elapsed = elapsed[elapsed <= self._elapsed[-1] + TIME_TOLERANCE]
        if not len(elapsed):
            return
        n = n_finite(frames.positions[: len(elapsed)], frames.forces[: len(elapsed)])
        if n < len(elapsed):
            self._ended = float(elapsed[n])
        mine, theirs = self._common(elapsed[:n])
        if not len(mine):
            return
        forces = self._reference.forces[theirs] @ self._rotation
        moved = frames.positions[mine] - self._positions
        expected = (self._reference.positions[theirs] - self._reference.positions[self._frame]) @ self._rotation
        self._parts.append((
            elapsed[mine],
            force_error_by_species(frames.forces[mine], forces, frames.numbers),
            force_error_by_species(np.zeros_like(forces), forces, frames.numbers),
            np.sqrt(np.mean(np.sum((moved - expected) ** 2, axis=-1), axis=-1)),
        ))

    def result(self) -> Rollout | None:
        """None where no time after the start is on both sides."""
        if sum(len(part[0]) for part in self._parts) < 2:
            return None
        times, errors, scales, rmsd = (np.concatenate(values) for values in zip(*self._parts, strict=True))
        even = np.abs(np.diff(times) - times[1]) <= TIME_TOLERANCE
        n_even = len(even) if even.all() else int(np.argmin(even))
        return Rollout(times, errors, scales, rmsd, n_even, self._ended)

    def _common(self, elapsed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the frames of the run and of the reference at the same time after the start."""
        nearest = np.clip(np.searchsorted(self._elapsed, elapsed - TIME_TOLERANCE), 0, len(self._elapsed) - 1)
        shared = np.flatnonzero(np.abs(self._elapsed[nearest] - elapsed) <= TIME_TOLERANCE)
        return shared, nearest[shared]
