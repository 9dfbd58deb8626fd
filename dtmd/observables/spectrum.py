"""Vibrational density of states from the velocity autocorrelation, MD against AIMD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from dtmd import units
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import RULE, estimate_row, means_row
from dtmd.observables.section import AIMD, Curve, Plot, Row, Section, judged, sides
from dtmd.observables.statistics import Estimate, interval, random_halves, resamples
from dtmd.observables.vacf import Autocorrelation, AutocorrelationOfRun
from dtmd.trajectory import Trajectory

ALL = "all atoms"
N_PEAKS = 3
"""Strongest peaks of the AIMD that are looked for in the MD, for each species."""

_POINTS_PER_LINE = 8
_PROMINENCE = 0.1
"""Of a peak, as a share of that of the most prominent one."""

_ABOVE_NOISE = 0.02
"""Least prominence of a peak, as a share of the highest value."""

_N_SPLITS = 50
_COSINES_AT_ONCE = 2_000_000


def wavenumbers(depth: float, highest: float) -> np.ndarray:
    """Where a spectrum of lags up to `depth` (fs) is evaluated: from 0 to `highest`, cm⁻¹, (F,)."""
    return np.linspace(0.0, highest, int(np.ceil(_POINTS_PER_LINE * highest / resolution(depth))) + 1)


def resolution(depth: float) -> float:
    """Full width at half maximum, in cm⁻¹, of a line in the spectrum of lags up to `depth` (fs)."""
    return units.WAVENUMBER / depth


def density_of_states(run: Autocorrelation, depth: float, at: np.ndarray) -> np.ndarray:
    """g_s(ν) of each species, whose integral over all ν ≥ 0 and all species is the number of degrees of freedom.

    g_s(ν) = 2/(k_B·T) ∫ w(τ) C_s(τ) cos(2πντ) dτ over −depth … depth, with the Hann window w = cos²(πτ/2·depth), and
    T from the kinetic energy of the same frames. As w(0) = 1, the window changes widths only: the integral of g_s up
    to half the sampling frequency is C_s(0)/(k_B·T) whatever the depth, the kinetic energy of the species in units of
    ½ k_B·T (Allen and Tildesley, Computer Simulation of Liquids, 2017, section 2.7).

    Args:
        run: its lags reach `depth` at least.
        depth: fs.
        at: wavenumbers, cm⁻¹, (F,).

    Returns:
        1/cm⁻¹, shape (n_species, F).
    """
    n_lags = int(depth / run.spacing * (1.0 + 1e-9)) + 1
    lags = run.spacing * np.arange(n_lags)
    window = np.cos(0.5 * np.pi * lags / depth) ** 2 * np.where(lags == 0.0, 1.0, 2.0)
    scale = 2.0 * run.spacing / (units.WAVENUMBER * run.thermal_energy)
    weighted = scale * run.values[:, :n_lags] * window
    parts = np.array_split(2.0 * np.pi * at / units.WAVENUMBER, -(-len(at) * n_lags // _COSINES_AT_ONCE))
    return np.concatenate([weighted @ np.cos(np.outer(lags, part)) for part in parts], axis=1)


def peak_positions(spectrum: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Wavenumbers of the maxima that rise above their surroundings by a tenth of what the one that rises most does.

    Translation, at zero, does not count: beside it the lines of a molecule that flies freely are low. What rises by
    less than 2 % of the highest value is taken for noise. Between the points a parabola through the three highest
    gives the position.

    Args:
        spectrum: (F,).
        at: wavenumbers, evenly spaced, cm⁻¹, (F,).

    Returns:
        cm⁻¹, the most prominent first.
    """
    found, of = find_peaks(spectrum, prominence=_ABOVE_NOISE * spectrum.max())
    prominence = of["prominences"]
    kept = np.argsort(-prominence)[: int((prominence >= _PROMINENCE * prominence.max(initial=0.0)).sum())]
    left, middle, right = (spectrum[found[kept] + k] for k in (-1, 0, 1))
    return at[found[kept]] + 0.5 * (left - right) / (left - 2.0 * middle + right) * (at[1] - at[0])


def overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """∫min(p, q) dν of spectra (…, F) scaled to a unit integral; what is below zero for noise counts as zero."""
    p, q = (np.maximum(s, 0.0) / np.maximum(s, 0.0).sum(axis=-1, keepdims=True) for s in (p, q))
    return np.minimum(p, q).sum(axis=-1)


@dataclass(frozen=True)
class _Spectra:
    """Spectra of the runs of one side, (n_runs, n_species, F)."""

    of_runs: np.ndarray

    def replicas(self, species: int | None, seed: int) -> np.ndarray:
        """Mean over the runs, then over bootstrap samples of them, (1 + n_resamples, F)."""
        runs = self.of_runs.sum(axis=1) if species is None else self.of_runs[:, species]
        samples = resamples(len(runs), seed) if len(runs) > 1 else np.zeros((0, 1))
        return np.vstack([runs.mean(axis=0, keepdims=True), samples @ runs / len(runs)])


class Spectrum(Observable):
    """Velocity autocorrelation and its spectrum, by species.

    Args:
        depth: longest lag, fs; the resolution is `WAVENUMBER`/depth.
        highest: cm⁻¹; frames must be near enough in time to resolve it. By default beyond the stretch of H₂, whose
            line at 4400 cm⁻¹ is widened by rotation.
        tolerance: cm⁻¹, difference of a peak's position that is accepted; the resolution where that is coarser.
        distance: of two spectra, 1 − overlap, that is accepted; what halves of the AIMD have where that is larger.
        seed: of the bootstrap.
    """

    name = "spectrum"
    needs = ("velocities",)

    def __init__(
        self, depth: float = 1000.0, highest: float = 5000.0, tolerance: float = 20.0, distance: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.depth, self.highest, self.tolerance, self.distance, self.seed = depth, highest, tolerance, distance, seed

    def start(self, first: Trajectory) -> AutocorrelationOfRun:
        if first.velocities is None:
            raise NotApplicable("no velocities")
        return AutocorrelationOfRun(first, self.depth, widest=0.5 * units.WAVENUMBER / self.highest)

    def compare(self, md: Mapping[str, Sequence[Autocorrelation]], aimd: Sequence[Autocorrelation]) -> Section:
        by_side = sides(md, aimd)
        depth = min(float(np.median([run.depth for run in runs])) for runs in by_side.values())
        used = {side: [run for run in runs if _reaches(run, depth)] for side, runs in by_side.items()}
        at = wavenumbers(depth, self.highest)
        spectra = {side: _Spectra(np.stack([density_of_states(run, depth, at) for run in runs]))
                   for side, runs in used.items()}
        any_run = next(iter(used.values()))[0]
        moving = {element: k for k, element in enumerate(any_run.elements) if any_run.n_components[k]}
        rows = self._temperature_rows(moving, used)
        if AIMD in spectra:
            for name, species in [(ALL, None), *moving.items()]:
                replicas = {side: of_side.replicas(species, self.seed + (side == AIMD))
                            for side, of_side in spectra.items()}
                equal = _split_half(spectra[AIMD].of_runs, species, self.seed)
                rows.append(self._distance_row(name, replicas, equal))
                rows += self._peak_rows(name, replicas, at, depth) if species is not None else []
        left_out = [run.source for runs in by_side.values() for run in runs if not _reaches(run, depth)]
        return Section(
            name=self.name, title="Vibrational spectrum", definition=self._definition(depth), rows=rows,
            plots=[*_autocorrelation_plots(moving, used, depth), *_spectrum_plots(moving, spectra, at)],
            rule=self._rule(depth) if AIMD in spectra else "",
            caveats=_caveats(left_out, depth),
        )

    def _temperature_rows(self, moving: Mapping[str, int], used: Mapping[str, Sequence[Autocorrelation]]) -> list[Row]:
        """The integral of each species' spectrum, as a temperature."""
        rows = []
        for element, k in moving.items():
            by_side = {side: [_species_temperature(run, k) for run in runs] for side, runs in used.items()}
            rows.append(means_row(f"temperature of {element}", "K", by_side, self.seed))
        return rows

    def _distance_row(self, name: str, replicas: Mapping[str, np.ndarray], equal: float | None) -> Row:
        """1 − overlap with the AIMD of each side."""
        reference, distances = replicas[AIMD], {}
        for side, of_side in replicas.items():
            if side != AIMD:
                value = float(1.0 - overlap(of_side[0], reference[0]))
                several = min(len(of_side), len(reference)) > 1
                distances[side] = (interval(value, 1.0 - overlap(of_side[1:], reference[1:]), (0.0, 1.0)) if several
                                   else Estimate(value))
        accepted = max(self.distance, equal or 0.0)
        return Row(f"1 − overlap with the AIMD, {name}", "", None, {}, distances, equal,
                   {side: judged(distance, accepted) for side, distance in distances.items()})

    def _peak_rows(self, name: str, replicas: Mapping[str, np.ndarray], at: np.ndarray, depth: float) -> list[Row]:
        """The strongest peaks of the AIMD, each with the nearest one of each side."""
        rows, accepted = [], max(self.tolerance, resolution(depth))
        for k, position in enumerate(sorted(peak_positions(replicas[AIMD][0], at)[:N_PEAKS]), start=1):
            found = {side: _followed(of_side, at, position, depth) for side, of_side in replicas.items()}
            there = {side: estimate for side, estimate in found.items() if estimate is not None}
            missing = [side for side in found if side not in there]
            rows.append(estimate_row(f"peak {k} of {name}", "cm⁻¹", there, accepted,
                                     f"no such peak in {', '.join(missing)}" if missing else ""))
        return rows

    def _definition(self, depth: float) -> str:
        return (
            "C(τ) = Σ m_i ⟨v_i(t)·v_i(t+τ)⟩ over the atoms of a species and all times t of the longest evenly spaced "
            f"stretch of a run that resolves {self.highest:g} cm⁻¹, by zero-padded FFT (Wiener–Khinchin). Spectrum: "
            f"cosine transform of C with a Hann window to {depth:.4g} fs, so that a line is "
            f"{resolution(depth):.3g} cm⁻¹ wide at half its height; scaled by 2/(k_B·T), so that the integral over "
            "all species is the number of degrees of freedom. That of one species is its kinetic energy, given as a "
            "temperature. Mean over runs."
        )

    def _rule(self, depth: float) -> str:
        return (
            f"{RULE} Peaks are the {N_PEAKS} most prominent ones of each species in the AIMD, each against the "
            f"nearest one in the MD; tolerance: {max(self.tolerance, resolution(depth)):.3g} cm⁻¹. Spectra of "
            f"unit integral: 1 − overlap is accepted up to {self.distance:g}, or up to its mean between random "
            "halves of the AIMD runs where that is larger."
        )


def _reaches(run: Autocorrelation, depth: float) -> bool:
    return run.depth >= depth * (1.0 - 1e-9)


def _species_temperature(run: Autocorrelation, species: int) -> float:
    """Kinetic temperature, K; the components of the centre of mass are shared out by number of components."""
    freedom = run.n_components[species] * run.n_freedom / run.n_components.sum()
    return float(run.values[species, 0]) / (freedom * units.BOLTZMANN)


def _followed(replicas: np.ndarray, at: np.ndarray, position: float, depth: float) -> Estimate | None:
    """The peak nearest to a position, with the interval from the nearest ones of the replicas.

    Further off than four times the resolution it is another peak; a replica without one does not count.
    """
    near = [_nearest(spectrum, at, position, 4.0 * resolution(depth)) for spectrum in replicas]
    if near[0] is None:
        return None
    others = np.array([value for value in near[1:] if value is not None])
    return interval(near[0], others) if len(others) else Estimate(near[0])


def _nearest(spectrum: np.ndarray, at: np.ndarray, position: float, reach: float) -> float | None:
    peaks = peak_positions(spectrum, at)
    near = peaks[np.abs(peaks - position) <= reach]
    return float(near[np.argmin(np.abs(near - position))]) if len(near) else None


def _split_half(runs: np.ndarray, species: int | None, seed: int) -> float | None:
    """Mean of 1 − overlap between random halves of the runs; None for a single run."""
    if len(runs) < 2:
        return None
    spectra = runs.sum(axis=1) if species is None else runs[:, species]
    in_first = random_halves(len(runs), seed, _N_SPLITS)
    return float(1.0 - overlap(in_first @ spectra, (1.0 - in_first) @ spectra).mean())


def _autocorrelation_plots(
    moving: Mapping[str, int], used: Mapping[str, Sequence[Autocorrelation]], depth: float
) -> list[Plot]:
    plots = []
    for element, k in moving.items():
        curves = []
        for side, runs in used.items():
            lags = runs[0].spacing * np.arange(int(depth / runs[0].spacing * (1.0 + 1e-9)) + 1)
            of_runs = [np.interp(lags, run.spacing * np.arange(run.values.shape[1]), run.values[k] / run.values[k, 0])
                       for run in runs if run.values[k, 0] > 0.0]
            if of_runs:
                curves.append(Curve(side, lags, np.mean(of_runs, axis=0), side=side))
        plots.append(Plot(f"vacf_{element}", f"Normalised velocity autocorrelation of {element}.", "lag (fs)",
                          "C(τ)/C(0)", curves, from_zero=False))
    return plots


def _spectrum_plots(moving: Mapping[str, int], spectra: Mapping[str, _Spectra], at: np.ndarray) -> list[Plot]:
    plots = []
    for element, k in moving.items():
        curves = [Curve(side, at, of_side.of_runs[:, k].mean(axis=0), side=side) for side, of_side in spectra.items()]
        plots.append(Plot(f"spectrum_{element}", f"Vibrational density of states of {element}.",
                          "wavenumber (cm⁻¹)", "density of states (1/cm⁻¹)", curves, from_zero=False))
    return plots


def _caveats(left_out: Sequence[str], depth: float) -> list[str]:
    caveats = ["Nuclei are classical: positions of lines compare between MD and AIMD, not with experiment."]
    if left_out:
        caveats.append(f"Left out, as their lags do not reach {depth:.4g} fs: {', '.join(left_out)}.")
    return caveats
