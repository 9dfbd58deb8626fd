"""A molecular dynamics trajectory as it flows through the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from ase.data import chemical_symbols
from ase.geometry import complete_cell

from dtmd import units
from dtmd.errors import DtmdError


@dataclass(frozen=True)
class Check:
    """What one check of the data found.

    Attributes:
        name: as in `--allow NAME`.
        verdict: "ok", "warning", "failed" or "allowed" (failed, and let through by the user).
        value: the number it went by; None where there is none.
        text: the finding in words, with the frame and what to do; empty where all is well.
    """

    name: str
    verdict: str
    value: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a trajectory comes from.

    Attributes:
        run: name of the run, shared by the segments that gaps split it into; they are never separated
            into training and validation.
        code, version: what computed it.
        files: what was read, relative to the folder that was given where they lie in it.
        digest: SHA-256 over the contents of the files.
        timestep_from: where the time step is written, such as "POTIM", or how it was found.
        settings: of the calculation, as far as the reader keeps them.
        checks: all checks with their findings.
        labels: what gave energies and forces, where that is a potential in place of the run's own method.
    """

    run: str = ""
    code: str = ""
    version: str = ""
    files: tuple[str, ...] = ()
    digest: str = ""
    timestep_from: str = ""
    settings: Mapping[str, str | float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    labels: str = ""


@dataclass(frozen=True)
class Trajectory:
    """Frames of one run, in order, with constant atoms.

    Positions are unwrapped over time, so that they may be differenced; T frames, N atoms.

    Attributes:
        numbers: atomic numbers, shape (N,).
        masses: u, shape (N,).
        pbc: periodic directions, shape (3,), bool.
        cells: rows are the cell vectors, Å, shape (T, 3, 3).
        times: fs, strictly increasing, shape (T,).
        positions: Å, shape (T, N, 3).
        velocities: Å/fs, shape (T, N, 3), or None.
        forces: eV/Å, shape (T, N, 3), or None.
        energies: potential energy, consistent with the forces, eV, shape (T,), or None.
        source: the file the frames come from, for messages and provenance.
        notes: what the reader had to decide or leave out, for the user.
        fixed: components that the run did not move (selective dynamics), shape (N, 3), bool, or None.
        origin: code, files and checks behind it.

    Raises:
        DtmdError: shapes that do not fit, no frames, or times that do not increase.
    """

    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    cells: np.ndarray
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None = None
    forces: np.ndarray | None = None
    energies: np.ndarray | None = None
    source: str = "memory"
    notes: tuple[str, ...] = ()
    fixed: np.ndarray | None = None
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        n_frames, n_atoms = len(self.times), len(self.numbers)
        if n_frames == 0 or n_atoms == 0:
            raise DtmdError(f"{self.source}: {n_frames} frames of {n_atoms} atoms; nothing to work with")
        expected = {
            "masses": (n_atoms,), "pbc": (3,), "cells": (n_frames, 3, 3),
            "positions": (n_frames, n_atoms, 3), "velocities": (n_frames, n_atoms, 3),
            "forces": (n_frames, n_atoms, 3), "energies": (n_frames,), "fixed": (n_atoms, 3),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise DtmdError(f"{self.source}: {name} have shape {value.shape}, expected {shape}")
        later = np.flatnonzero(np.diff(self.times) <= 0)
        if len(later):
            k = int(later[0])
            raise DtmdError(
                f"{self.source}: frame {k + 1} is at {self.times[k + 1]:g} fs, not after frame {k} at "
                f"{self.times[k]:g} fs; put the frames in order"
            )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def symbols(self) -> list[str]:
        """Chemical symbol of each atom."""
        return [chemical_symbols[z] for z in self.numbers]

    @property
    def elements(self) -> list[str]:
        """The distinct chemical symbols, by atomic number."""
        return [chemical_symbols[z] for z in np.unique(self.numbers)]

    @property
    def timestep(self) -> float:
        """Spacing of the frames in fs.

        Raises:
            DtmdError: a single frame, or frames that are not equally spaced.
        """
        if len(self) < 2:
            raise DtmdError(f"{self.source}: a single frame has no time step")
        steps = np.diff(self.times)
        spacing = float(np.median(steps))
        uneven = np.flatnonzero(np.abs(steps - spacing) > 1e-4 * spacing)
        if len(uneven):
            k = int(uneven[0])
            raise DtmdError(
                f"{self.source}: frames {k} and {k + 1} are {steps[k]:g} fs apart, most others {spacing:g} fs; "
                "give a run without gaps"
            )
        return spacing

    def kinetic_energies(self) -> np.ndarray:
        """Kinetic energy of each frame, eV, shape (T,); needs velocities."""
        return 0.5 * units.KINETIC * np.einsum("n,tni,tni->t", self.masses, self.velocities, self.velocities)

    @property
    def n_freedom(self) -> int:
        """Degrees of freedom: 3N − 3; where atoms are held, as many as components that are not; at least 1."""
        return max(1, 3 * len(self.numbers) - (3 if self.fixed is None else int(self.fixed.sum())))

    def temperatures(self) -> np.ndarray:
        """Temperature of each frame, K, shape (T,); needs velocities."""
        return 2.0 * self.kinetic_energies() / (self.n_freedom * units.BOLTZMANN)

    def window(self, start: int, stop: int) -> Trajectory:
        """Frames start … stop − 1 as a trajectory of their own (views, no copy)."""
        per_frame = ("cells", "times", "positions", "velocities", "forces", "energies")
        cut = {name: getattr(self, name)[start:stop] for name in per_frame if getattr(self, name) is not None}
        return replace(self, **cut)


def unwrap(positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Undo jumps across periodic boundaries, frame to frame and cumulatively.

    Against the first frame instead, an atom that drifts further than half a cell would be torn
    from its neighbours. Cells may be flipped on the way (LAMMPS manual, "Triclinic simulation boxes").

    Args:
        positions: Å, shape (T, N, 3); no atom may move half a cell between two frames.
        cells: Å, shape (T, 3, 3).
        pbc: shape (3,), bool; the other directions are left alone.

    Returns:
        Continuous positions, Å, shape (T, N, 3); the first frame is unchanged.
    """
    if not np.any(pbc):
        return positions
    if (cells == cells[:1]).all():
        cells = cells[:1]
    if not cells.any(axis=2).all():
        cells = np.array([complete_cell(cell) for cell in cells])
    cells = _without_flips(cells, pbc)
    scaled = positions @ np.linalg.inv(cells)
    jumps = np.round(np.diff(scaled, axis=0)) * pbc
    images = np.concatenate([np.zeros_like(scaled[:1]), np.cumsum(jumps, axis=0)])
    return positions - images @ cells


def _without_flips(cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The same lattices with vectors that change little from frame to frame, (T, 3, 3).

    A tilted cell that leans too far is replaced, as by LAMMPS, by the equivalent one that leans the other way:
    whole multiples of periodic vectors are added to others, by which scaled coordinates jump by any amount.
    """
    turns = np.round(cells[1:] @ np.linalg.inv(cells[:-1]))
    turns[:, ~np.outer(pbc, pbc) | np.eye(3, dtype=bool)] = 0.0
    turns += np.eye(3)
    turned = (turns != np.eye(3)).any(axis=(1, 2)) & (np.round(np.abs(np.linalg.det(turns))) == 1.0)
    same, total = cells.copy(), np.eye(3)
    for k in np.flatnonzero(turned):
        total = turns[k] @ total
        same[k + 1:] = np.linalg.inv(total) @ cells[k + 1:]
    return same
