"""Velocity autocorrelation of a run, gathered from frames that pass by once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd import units
from dtmd.observables.even import FEWEST_FRAMES, EvenStretches
from dtmd.observables.observable import NotApplicable
from dtmd.observables.series import n_finite
from dtmd.trajectory import Trajectory

_VALUES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Autocorrelation:
    """C_s(τ) = Σ_i m_i ⟨v_i(t) · v_i(t + τ)⟩ over the atoms i of each species s and all t of an even stretch.

    Attributes:
        elements: order of the species.
        spacing: of the lags τ = 0, 1, 2, … spacings, fs.
        duration: of the stretch, fs.
        values: eV, shape (n_species, n_lags); at τ = 0 twice the kinetic energy.
        n_freedom: degrees of freedom of all atoms together.
        n_components: components that move, of each species, (n_species,); their sum is `n_freedom` but for the three
            of the centre of mass.
    """

    source: str
    elements: list[str]
    spacing: float
    duration: float
    values: np.ndarray
    n_freedom: int
    n_components: np.ndarray

    @property
    def depth(self) -> float:
        """The longest lag, fs."""
        return self.spacing * (self.values.shape[1] - 1)

    @property
    def thermal_energy(self) -> float:
        """k_B·T of the stretch, eV."""
        return float(self.values[:, 0].sum()) / self.n_freedom


class LaggedProducts:
    """Sums over all time origins of Σ_i w_i v_i(t) · v_i(t + τ) for lags below a limit.

    Every pair of frames up to the longest lag counts once, as in the textbook double sum, so nothing depends on how
    the frames arrive. It is evaluated as a correlation by FFT (Wiener–Khinchin), a few lags' worth of origins at a
    time with zeros appended so that nothing wraps around. Two to four times `n_lags` frames are held; where these are
    too large, those of every so manieth atom of each group, which then stand for all.

    Args:
        n_lags: lags 0 … n_lags − 1.
        group: of each atom, (N,), from 0.
        weights: of each atom, (N,).
        most: bytes of the frames held.
    """

    def __init__(self, n_lags: int, group: np.ndarray, weights: np.ndarray, most: int = 128_000_000) -> None:
        n_held = _fft_length(2 * n_lags)
        every = -(-n_held * len(group) * 24 // most)
        members = [np.flatnonzero(group == g) for g in range(int(group.max()) + 1)]
        self._atoms = np.concatenate([atoms[::every] for atoms in members])
        stands_for = np.array([len(atoms) / len(atoms[::every]) for atoms in members])
        self._n_lags, self._group = n_lags, group[self._atoms]
        self._weights = weights[self._atoms] * stands_for[self._group]
        self._buffer = np.empty((n_held, len(self._atoms), 3))
        self._held = 0
        self._sums = np.zeros((int(group.max()) + 1, n_lags))

    def add(self, values: np.ndarray) -> None:
        """Take in the next frames, (T, N, 3)."""
        while len(values):
            taken = values[: len(self._buffer) - self._held, self._atoms]
            self._buffer[self._held : self._held + len(taken)] = taken
            self._held += len(taken)
            values = values[len(taken) :]
            if self._held == len(self._buffer):
                n_origins = self._held - self._n_lags + 1
                self._sums += self._products(n_origins)
                self._held -= n_origins
                self._buffer[: self._held] = self._buffer[n_origins:].copy()

    def sums(self) -> np.ndarray:
        """Of all frames so far, (n_groups, n_lags); lag τ has n_frames − τ origins."""
        return self._sums + self._products(self._held)

    def _products(self, n_origins: int) -> np.ndarray:
        """Sums over the first origins in the buffer, each with all that is held after it."""
        n = _fft_length(n_origins + self._n_lags - 1)
        sums = np.zeros_like(self._sums)
        per_turn = max(1, _VALUES_AT_ONCE // (3 * n))
        for k in range(0, len(self._group), per_turn):
            atoms = slice(k, k + per_turn)
            held = self._buffer[: self._held, atoms]
            later = np.fft.rfft(held, n, axis=0)
            origins = np.fft.rfft(held[:n_origins], n, axis=0)
            power = np.einsum("fni,fni->nf", origins.conj(), later) * self._weights[atoms, None]
            products = np.fft.irfft(power, n, axis=1)[:, : self._n_lags]
            np.add.at(sums, self._group[atoms], products)
        return sums


def _fft_length(n: int) -> int:
    """The power of two that holds n."""
    return 1 << (n - 1).bit_length()


class AutocorrelationOfRun:
    """Gathers the velocity autocorrelation of the longest even stretch of a run.

    Args:
        first: first frames of the run, with velocities.
        depth: longest lag, fs; half of the stretch if that is shorter, so that each lag has many origins.
        widest: largest spacing of the frames, fs, that still resolves the frequencies asked for.
    """

    def __init__(self, first: Trajectory, depth: float, widest: float) -> None:
        self._source, self._elements, self._widest = first.source, first.elements, widest
        species, group = np.unique(first.numbers, return_inverse=True)
        free = np.ones((len(group), 3), dtype=bool) if first.fixed is None else ~first.fixed
        self._n_freedom, self._n_components = first.n_freedom, np.bincount(group, free.sum(axis=1)).astype(int)
        weights = units.KINETIC * first.masses
        self._stretches = EvenStretches(
            lambda spacing: LaggedProducts(int(depth / spacing) + 1, group, weights), FEWEST_FRAMES, widest
        )
        self._blown_up = False

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        if not self._blown_up:
            n = n_finite(frames.velocities)
            self._blown_up = n < len(frames)
            self._stretches.add(frames.times[:n], frames.velocities[:n])

    def result(self) -> Autocorrelation:
        stretch = self._stretches.longest()
        if stretch is None:
            raise NotApplicable(f"no {FEWEST_FRAMES} frames in a row are evenly spaced by {self._widest:.3g} fs or "
                                "less, which the highest frequency needs")
        sums = stretch.correlation.sums()[:, : (stretch.n_frames + 1) // 2]
        return Autocorrelation(
            source=self._source, elements=self._elements, spacing=stretch.spacing, duration=stretch.duration,
            values=sums / (stretch.n_frames - np.arange(sums.shape[1])), n_freedom=self._n_freedom,
            n_components=self._n_components,
        )
