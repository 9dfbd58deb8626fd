"""Positions against forces, velocities and energies: what a trajectory's own motion says about it.

Velocity Verlet and the Verlet-like integrators of the codes obey r(t+1) − 2r(t) + r(t−1) = F/m·Δt². A
thermostat or barostat adds a friction along the motion. Nothing here needs the time step: all sums of
products are kept, and fits for any time step follow from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase.geometry import complete_cell

from dtmd import units
from dtmd.ingest.recording import GrowingArray

CHUNK_BYTES = 1 << 20

SMALL_SHARE = 0.5
"""Frames whose accelerations or velocities are below this share of the median are judged as if they had as
much: a vibration passes through moments without forces, a run may start at rest."""

ACROSS = 0.01
"""Share of the squared forces that must be across the motion to tell them from a friction."""

_SECOND, _ACCELERATION, _DISPLACEMENT, _VELOCITY = range(4)


@dataclass(frozen=True)
class Motion:
    """Sums of products of four vectors per inner frame and species; M inner frames, K species.

    An inner frame has both its neighbours in the same segment. The vectors: second differences of the
    positions (Å), F/m (Å/fs²), half of r(t+1) − r(t−1) (Å), velocities as given (Å/fs), all without
    the motion of the centre of mass unless atoms are held. With a changing cell, differences are those of
    the scaled coordinates, in the cell of the frame.

    Attributes:
        frames: index of the inner frames, (M,).
        numbers: atomic numbers of the species, (K,).
        products: (M, K, 4, 4).
        noise: variance that rounded positions give to the squares of the second differences, Å², (K,).
        n_components: coordinates that take part.
    """

    frames: np.ndarray
    numbers: np.ndarray
    products: np.ndarray
    noise: np.ndarray
    n_components: int

    def __len__(self) -> int:
        return len(self.frames)

    def with_accelerations(self, factors: dict[int, float]) -> Motion:
        """As if the species had other masses: accelerations times the factor of their atomic number."""
        scale = np.ones((len(self.numbers), 4))
        scale[:, _ACCELERATION] = [factors.get(int(z), 1.0) for z in self.numbers]
        return replace(self, products=self.products * scale[:, :, None] * scale[:, None, :])

    @cached_property
    def total(self) -> np.ndarray:
        """Products summed over species, (M, 4, 4)."""
        return self.products.sum(axis=1)

    @cached_property
    def timestep(self) -> float | None:
        """Δt that fits best across the motion, where no friction acts, fs; None where nothing fits.

        Median over the frames, which single bad ones do not move.
        """
        squares = self._squares
        square = float(np.median(squares)) if len(squares) else -1.0
        return square**0.5 if square > 0.0 else None

    @cached_property
    def timestep_error(self) -> float:
        """Standard error of `timestep` relative to it, from the scatter between frames; grows with rounding."""
        median = np.median(self._squares)
        spread = 1.4826 * np.median(np.abs(self._squares - median)) / abs(median)
        return float(0.5 * 1.2533 * spread / np.sqrt(len(self._squares)))

    @cached_property
    def _squares(self) -> np.ndarray:
        squares = _scale(self.total)
        return squares[np.isfinite(squares)]

    def scales(self, timestep: float) -> np.ndarray:
        """Factor on F/m·Δt² that fits each species best, 1 if its mass is right, (K,); NaN where none acts."""
        return np.array([np.nanmedian(values) if np.isfinite(values).any() else np.nan
                         for values in (_scale(self.products[:, k]) for k in range(len(self.numbers)))]) / timestep**2

    def frictions(self, timestep: float) -> np.ndarray:
        """Deviation along the motion as a share of the displacement per frame, (M,).

        Nosé–Hoover and Berendsen thermostats give one such number to all atoms.
        """
        g = self.total
        return (g[:, _SECOND, _DISPLACEMENT] - timestep**2 * g[:, _ACCELERATION, _DISPLACEMENT]) / _positive(
            g[:, _DISPLACEMENT, _DISPLACEMENT])

    def friction_errors(self) -> np.ndarray:
        """What rounding alone may look like as a friction, (M,); infinite where it is most of the displacement."""
        moved, noise = self.total[:, _DISPLACEMENT, _DISPLACEMENT], self.noise.sum()
        # Four standard deviations.
        errors = 4.0 * np.sqrt(noise / max(self.n_components, 1) / _positive(moved))
        return np.where(moved > 4.0 * noise, errors, np.inf) if noise else errors

    def residuals(self, timestep: float) -> np.ndarray:
        """The rest of the deviation relative to F/m·Δt², rounding taken out, (M,)."""
        g = self.total
        deviation = (g[:, _SECOND, _SECOND] - 2.0 * timestep**2 * g[:, _SECOND, _ACCELERATION]
                     + timestep**4 * g[:, _ACCELERATION, _ACCELERATION])
        along = self.frictions(timestep) ** 2 * g[:, _DISPLACEMENT, _DISPLACEMENT]
        # A sum of n rounding errors scatters by √(2/n) of itself; four times that is still rounding.
        noise = self.noise.sum() * (1.0 + 4.0 * np.sqrt(2.0 / self.n_components))
        rest = np.maximum(deviation - along - noise, 0.0)
        return np.sqrt(rest) / (timestep**2 * self._accelerations)

    def deviation(self, timestep: float, frames: np.ndarray) -> float:
        """`residuals` of the chosen frames (M, bool) together: root of sums of squares."""
        size = self._accelerations[frames]
        return float(np.sqrt(np.sum((self.residuals(timestep)[frames] * size) ** 2) / np.sum(size**2)))

    def friction_share(self, timestep: float) -> float:
        """Part of the squared deviation from F/m·Δt² that a friction explains, of all frames together."""
        along = np.sum(self.frictions(timestep) ** 2 * self.total[:, _DISPLACEMENT, _DISPLACEMENT])
        rest = np.sum((self.residuals(timestep) * timestep**2 * self._accelerations) ** 2)
        return float(along / max(along + rest + self.noise.sum() * len(self), np.finfo(float).tiny))

    def rounding(self, timestep: float) -> float:
        """Share of rounding in the second differences, relative to F/m·Δt²."""
        return float(np.median(np.sqrt(self.noise.sum()) / (timestep**2 * self._accelerations)))

    def velocity_rounding(self) -> float:
        """Share of rounding in central differences."""
        # (r(t+1) − r(t−1))/2 adds two errors quartered, 1 − 2 + 1 six of them.
        moved = np.median(self.total[:, _DISPLACEMENT, _DISPLACEMENT])
        return float(np.sqrt(self.noise.sum() / 12.0 / max(moved, np.finfo(float).tiny)))

    @cached_property
    def _accelerations(self) -> np.ndarray:
        """Norm of F/m of each frame, never far below the median, (M,)."""
        norms = np.sqrt(self.total[:, _ACCELERATION, _ACCELERATION])
        return np.maximum(norms, max(SMALL_SHARE * float(np.median(norms)), np.finfo(float).tiny))

    def reconstruction_error(self, timestep: float) -> float:
        """What reconstructed velocities are off, relative to them: rounding, and the friction at segment ends."""
        return float(np.hypot(self.velocity_rounding(), 0.5 * np.sqrt(np.mean(self.frictions(timestep) ** 2))))

    def velocity_unit(self, timestep: float) -> float:
        """The given velocities as a multiple of the motion in Å/fs, median over frames."""
        g = self.total
        moved = _positive(g[:, _DISPLACEMENT, _DISPLACEMENT])
        return timestep * float(np.median(g[:, _VELOCITY, _DISPLACEMENT] / moved))

    def rounding_of_species(self) -> np.ndarray:
        """Share of rounding in the squared second differences of each species, (K,)."""
        return self.noise / _positive(np.median(self.products[:, :, _SECOND, _SECOND], axis=0))

    def velocity_residuals(self, timestep: float, shift: float = 0.0, unit: float = 1.0) -> np.ndarray:
        """Deviation of the given velocities from the motion, relative to it, (M,).

        Args:
            timestep: fs.
            shift: time of the velocities within the step: 0 with the positions, ½ or −½ midway.
            unit: the given velocities are divided by it first.
        """
        g = self.total
        expected = _quadratic(g, {_DISPLACEMENT: 1.0 / timestep, _SECOND: shift / timestep})
        # Frames almost at rest, as at a start without velocities, are judged as if they moved a little.
        expected = np.maximum(expected, SMALL_SHARE**2 * np.median(expected))
        difference = _quadratic(g, {_DISPLACEMENT: 1.0 / timestep, _SECOND: shift / timestep, _VELOCITY: -1.0 / unit})
        return np.sqrt(np.maximum(difference, 0.0) / _positive(expected))


def measure(
    positions: np.ndarray, cells: np.ndarray, forces: np.ndarray, velocities: np.ndarray | None,
    numbers: np.ndarray, masses: np.ndarray, moving: np.ndarray, segments: list[tuple[int, int]],
    precision: float | None,
) -> Motion:
    """The motion of all inner frames, read in pieces.

    Args:
        positions, forces, velocities: (T, N, 3); cells: (T, 3, 3); numbers, masses: (N,).
        moving: components that take part, (N, 3), bool.
        segments: first and one-past-last frame of each unbroken piece.
        precision: last digit of the positions, Å, or None.
    """
    kinds = np.unique(numbers)
    members = [np.flatnonzero(numbers == z) for z in kinds]
    frames, products = GrowingArray((), np.int64), GrowingArray((len(kinds), 4, 4))
    for first, last in pieces(segments, positions.shape[1], overlap=2):
        second, displacement = differences(positions[first:last], cells[first:last])
        inner = slice(first + 1, last - 1)
        acceleration = units.ACCELERATION * np.asarray(forces[inner]) / masses[:, None]
        velocity = np.zeros_like(second) if velocities is None else np.asarray(velocities[inner])
        vectors = np.stack([second, acceleration, displacement, velocity], axis=1) * moving
        if moving.all():
            # Codes that write a net force need not have moved the atoms by it (VASP does not).
            vectors -= np.einsum("a,miax->mix", masses / masses.sum(), vectors)[:, :, None]
        products.append(np.stack([np.einsum("miax,mjax->mij", vectors[:, :, own], vectors[:, :, own], optimize=True)
                                  for own in members], axis=1))
        frames.append(np.arange(first + 1, last - 1))
    # Rounding to the digit q has the variance q²/12; 1 − 2 + 1 adds six of them.
    noise = np.array([moving[own].sum() for own in members]) * (precision or 0.0) ** 2 / 2.0
    return Motion(frames.array(), kinds, products.array(), noise, int(moving.sum()))


def work(
    positions: np.ndarray, cells: np.ndarray, forces: np.ndarray, moving: np.ndarray, segments: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Work of the forces between neighbouring frames by the trapezoidal rule, eV: (first of the two frames, work)."""
    starts, values = GrowingArray((), np.int64), GrowingArray(())
    for first, last in pieces(segments, positions.shape[1], overlap=1):
        step = _scaled_differences(positions[first:last], cells[first:last])
        mean = 0.5 * (np.asarray(forces[first:last - 1]) + np.asarray(forces[first + 1:last]))
        values.append(np.sum(mean * step * moving, axis=(1, 2)))
        starts.append(np.arange(first, last - 1))
    return starts.array(), values.array()


def reconstructed_velocities(
    positions: np.ndarray, cells: np.ndarray, forces: np.ndarray, masses: np.ndarray, moving: np.ndarray,
    segments: list[tuple[int, int]], timestep: float,
) -> np.ndarray:
    """Velocities that velocity Verlet had, from its positions and forces; exact for NVE.

    v(t) = (r(t+1) − r(t−1))/(2Δt) inside a segment, one-sided with half a kick of the force at its ends.
    With a changing cell, that of the scaled coordinates, in the cell of the frame. Frames that are
    alone in their segment get zeros.

    Args:
        positions: Å, unwrapped, (T, N, 3); cells: Å, (T, 3, 3); forces: eV/Å, (T, N, 3); masses: u, (N,).
        moving: components that forces move, (N, 3), bool.
        segments: in order; frames between them get zeros.
        timestep: fs.

    Returns:
        Å/fs, (T, N, 3).
    """
    velocities, n_atoms = GrowingArray(positions.shape[1:]), positions.shape[1]

    def half_kick(k: int) -> np.ndarray:
        return 0.5 * timestep * units.ACCELERATION * np.asarray(forces[k]) / masses[:, None] * moving

    done = 0
    for begin, end in segments:
        velocities.append(np.zeros((begin - done, n_atoms, 3)))
        done = end
        if end - begin < 2:
            velocities.append(np.zeros((end - begin, n_atoms, 3)))
            continue
        step = _scaled_differences(positions[begin:begin + 2], cells[begin:begin + 2])
        velocities.append(step / timestep - half_kick(begin))
        for first, last in pieces([(begin, end)], n_atoms, overlap=2):
            velocities.append(differences(positions[first:last], cells[first:last])[1] / timestep)
        step = _scaled_differences(positions[end - 2:end], cells[end - 2:end])
        velocities.append(step / timestep + half_kick(end - 1))
    velocities.append(np.zeros((len(positions) - done, n_atoms, 3)))
    return velocities.array()


def differences(positions: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """r(t+1) − 2r(t) + r(t−1) and (r(t+1) − r(t−1))/2 of the inner frames, Å, (T − 2, N, 3) each.

    With a changing cell, of the scaled coordinates, in the cell of the frame.
    """
    r = np.asarray(positions)
    if (cells == cells[0]).all():
        return r[2:] - 2.0 * r[1:-1] + r[:-2], 0.5 * (r[2:] - r[:-2])
    cells = np.array([complete_cell(cell) for cell in cells])
    q = r @ np.linalg.inv(cells)
    return (q[2:] - 2.0 * q[1:-1] + q[:-2]) @ cells[1:-1], 0.5 * (q[2:] - q[:-2]) @ cells[1:-1]


def pieces(segments: list[tuple[int, int]], n_atoms: int, overlap: int) -> list[tuple[int, int]]:
    """Cuts segments into pieces of some CHUNK_BYTES; neighbours share `overlap` frames, none is shorter than that."""
    length = max(CHUNK_BYTES // (24 * n_atoms), 4 * overlap, 1)
    return [(first, min(first + length, end))
            for begin, end in segments for first in range(begin, end - overlap, length - overlap)]


def _scaled_differences(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """r(t+1) − r(t), (T − 1, N, 3); with a changing cell, of the scaled coordinates in the mean of both cells."""
    r = np.asarray(positions)
    if (cells == cells[0]).all():
        return r[1:] - r[:-1]
    cells = np.array([complete_cell(cell) for cell in cells])
    q = r @ np.linalg.inv(cells)
    return (q[1:] - q[:-1]) @ (0.5 * (cells[1:] + cells[:-1]))


def _scale(g: np.ndarray) -> np.ndarray:
    """Δt² that fits second differences to F/m, the part along the motion left out, (M,); NaN without forces.

    Where all forces are along the motion, as in a lone bond that vibrates, nothing is left out.
    """
    force = g[:, _ACCELERATION, _ACCELERATION]
    share = g[:, _ACCELERATION, _DISPLACEMENT] / _positive(g[:, _DISPLACEMENT, _DISPLACEMENT])
    across = force - share * g[:, _ACCELERATION, _DISPLACEMENT]
    share = np.where(across > ACROSS * force, share, 0.0)
    across = np.where(across > ACROSS * force, across, force)
    fitted = g[:, _SECOND, _ACCELERATION] - share * g[:, _SECOND, _DISPLACEMENT]
    return np.divide(fitted, across, out=np.full(len(g), np.nan), where=across > 0.0)


def _quadratic(g: np.ndarray, factors: dict[int, float]) -> np.ndarray:
    """Square of a sum of the vectors with factors, (M,)."""
    return sum(a * b * g[:, i, j] for i, a in factors.items() for j, b in factors.items())


def _positive(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, np.finfo(float).tiny)
