"""Velocity autocorrelations against the double sum, spectra of oscillators, equipartition and uneven dumps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from observable_cases import free, gather

from dtmd import units
from dtmd.ingest import read_aimd
from dtmd.observables.even import EvenStretches
from dtmd.observables.observable import NotApplicable
from dtmd.observables.section import Verdict
from dtmd.observables.spectrum import (
    Spectrum, density_of_states, overlap, peak_positions, resolution, wavenumbers,
)
from dtmd.observables.vacf import LaggedProducts

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"
BLOCKS = pytest.mark.parametrize("block", [1, 13, 100000])


def trajectory(times, velocities, numbers, source="run"):
    masses = np.where(np.asarray(numbers) == 1, 1.008, 12.011)
    return free(np.zeros_like(velocities), numbers, masses, times, velocities=velocities, source=source)


def oscillators(lines, n_frames=4000, dt=1.0, temperature=300.0, n_atoms=30, seed=0, source="run"):
    """Atoms of H and C that each swing at the line (cm⁻¹) of their species, all with k_B·T on average."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat([1, 6], n_atoms)
    masses = np.where(numbers == 1, 1.008, 12.011)
    frequency = np.where(numbers == 1, *lines) / units.WAVENUMBER
    times = dt * np.arange(n_frames)
    phases = 2 * np.pi * (frequency[:, None] * times[:, None, None] + rng.random((2 * n_atoms, 3)))
    amplitude = np.sqrt(2 * units.BOLTZMANN * temperature / (masses * units.KINETIC))
    return trajectory(times, amplitude[:, None] * np.cos(phases), numbers, source)


@BLOCKS
@pytest.mark.parametrize("n_frames", [5, 16, 33, 200])
def test_lagged_products_are_the_double_sum(block, n_frames):
    rng = np.random.default_rng(0)
    values, group, weights = rng.normal(size=(n_frames, 5, 3)), np.array([0, 1, 0, 1, 1]), rng.random(5)
    products = LaggedProducts(12, group, weights)
    for k in range(0, n_frames, block):
        products.add(values[k : k + block])
    expected = np.zeros((2, 12))
    for lag in range(min(12, n_frames)):
        dots = np.einsum("tni,tni->n", values[: n_frames - lag], values[lag:]) * weights
        expected[:, lag] = np.bincount(group, dots)
    np.testing.assert_allclose(products.sums(), expected, atol=1e-10)


@BLOCKS
def test_even_stretches_are_cut_where_the_spacing_changes(block):
    class Kept(list):
        def add(self, values):
            self.extend(values[:, 0, 0].tolist())

    times = np.concatenate([np.arange(0, 20, 0.5), np.arange(20, 100, 10.0), np.arange(100, 130, 1.0)])
    values = np.broadcast_to(times[:, None, None], (len(times), 1, 3))

    def longest(**settings):
        stretches = EvenStretches(lambda spacing: Kept(), **settings)
        for k in range(0, len(times), block):
            stretches.add(times[k : k + block], values[k : k + block])
        return stretches.longest()

    sparse = longest(fewest=3)
    assert (sparse.spacing, sparse.n_frames, sparse.duration) == (10.0, 9, 80.0)
    assert sparse.correlation == np.arange(20, 101, 10.0).tolist()
    late = longest(fewest=3, widest=2.0)
    assert (late.spacing, late.n_frames) == (1.0, 30) and late.correlation == np.arange(100, 130, 1.0).tolist()
    assert longest(fewest=35).correlation == np.arange(0, 20.1, 0.5).tolist()
    assert longest(fewest=35, widest=0.1) is None


def test_oscillators_have_their_line_and_every_degree_of_freedom():
    run = oscillators((3000.0, 800.0))
    found = gather(Spectrum(), run)
    at = wavenumbers(found.depth, 0.5 * units.WAVENUMBER / found.spacing)
    spectra = density_of_states(found, found.depth, at)
    for spectrum, line in zip(spectra, (3000.0, 800.0), strict=True):
        assert peak_positions(spectrum, at) == pytest.approx([line], abs=1.0)
        half = at[spectrum > 0.5 * spectrum.max()]
        assert np.ptp(half) == pytest.approx(resolution(found.depth), rel=0.15)
    integrals = np.trapezoid(spectra, at, axis=1) if hasattr(np, "trapezoid") else np.trapz(spectra, at, axis=1)
    assert integrals.sum() == pytest.approx(run.n_freedom, rel=1e-6)
    assert integrals == pytest.approx([run.n_freedom / 2] * 2, rel=0.01)
    assert found.thermal_energy == pytest.approx(units.BOLTZMANN * run.temperatures().mean(), rel=1e-9)


@BLOCKS
def test_real_aimd_in_blocks(block):
    """Against the double sum over the frames of one real run."""
    run = read_aimd([AIMD / "test"])[0]
    found = gather(Spectrum(), run, [block])
    assert (found.elements, found.spacing, found.duration, found.n_freedom) == (["H", "C", "Pd"], 0.5, 159.5, 168)
    assert found.values.shape == (3, 160)
    for lag in (0, 1, 57, 159):
        dots = np.einsum("tni,tni->n", run.velocities[: 320 - lag], run.velocities[lag:]) / (320 - lag)
        expected = [units.KINETIC * (run.masses * dots)[run.numbers == z].sum() for z in (1, 6, 46)]
        np.testing.assert_allclose(found.values[:, lag], expected, rtol=1e-9, atol=1e-12)


def test_the_line_of_a_molecule_that_flies_is_found_beside_its_translation():
    """H₂ over Pd: translation and rotation are twelve times higher than the stretch; ripples are no lines."""
    at = np.arange(0.0, 5000.0, 10.0)
    translation = np.exp(-0.5 * (at / 200.0) ** 2)
    stretch = 0.08 * np.exp(-0.5 * ((at - 4404.0) / 80.0) ** 2)
    noise = 0.006 * np.cos(at / 30.0)
    shift = 0.006 / 30.0 / (0.08 / 80.0**2)  # steepest slope of the ripples over the curvature of the line
    assert peak_positions(translation + stretch + noise, at) == pytest.approx([4404.0], abs=shift)
    assert len(peak_positions(translation + noise, at)) == 0
    assert peak_positions(translation + stretch, at) == pytest.approx([4404.0], abs=0.5)


def test_uneven_dumps_use_the_stretch_that_resolves_or_say_why_not():
    run = oscillators((3000.0, 800.0), n_frames=3000)
    dense_then_sparse = np.concatenate([np.arange(0, 400), np.arange(400, 3000, 20)])
    picked = trajectory(run.times[dense_then_sparse], run.velocities[dense_then_sparse], run.numbers)
    found = gather(Spectrum(), picked, [37])
    assert (found.spacing, found.duration) == (1.0, 400.0)
    at = wavenumbers(found.depth, 4500.0)
    assert peak_positions(density_of_states(found, found.depth, at)[0], at) == pytest.approx([3000.0], abs=5.0)
    sparse = trajectory(run.times[::20], run.velocities[::20], run.numbers)
    with pytest.raises(NotApplicable, match="3.34 fs or less"):
        gather(Spectrum(), sparse)
    with pytest.raises(NotApplicable, match="no velocities"):
        Spectrum().start(replace(run, velocities=None))


def test_a_run_that_blows_up_is_used_up_to_there():
    run = oscillators((3000.0, 800.0), n_frames=600)
    run.velocities[400:] = np.nan
    found = gather(Spectrum(), run, [64])
    assert found.duration == 399.0 and np.isfinite(found.values).all()


def side(lines, seeds, **settings):
    return [gather(Spectrum(depth=500.0), oscillators(lines, n_frames=1500, n_atoms=10, seed=seed, source=f"{seed}",
                                                      **settings)) for seed in seeds]


def test_lines_are_compared_with_those_of_the_aimd():
    aimd = side((3000.0, 800.0), range(4), dt=0.5)
    section = Spectrum(depth=500.0).compare(
        {"same": side((3000.0, 800.0), range(10, 14)), "soft": side((2800.0, 800.0), range(20, 24)),
         "alone": side((3000.0, 800.0), [30])}, aimd)
    rows = {row.quantity: row for row in section.rows}
    peak = rows["peak 1 of H"]
    assert peak.aimd.value == pytest.approx(3000.0, abs=3.0)
    assert peak.difference["same"].value == pytest.approx(0.0, abs=5.0)
    assert peak.difference["soft"].value == pytest.approx(-200.0, abs=5.0)
    assert peak.verdict == {"same": Verdict.AGREES, "soft": Verdict.DIFFERS, "alone": Verdict.UNDECIDED}
    distance = rows["1 − overlap with the AIMD, H"]
    assert distance.verdict == {"same": Verdict.AGREES, "soft": Verdict.DIFFERS, "alone": Verdict.UNDECIDED}
    assert distance.difference["soft"].value > 0.9 and distance.equal < 0.1
    assert rows["peak 1 of C"].verdict["soft"] is Verdict.AGREES
    assert rows["temperature of H"].md["same"].value == pytest.approx(300.0 * 60 / 57, rel=0.01)  # 3N − 3
    assert {plot.name for plot in section.plots} == {"vacf_H", "vacf_C", "spectrum_H", "spectrum_C"}


def test_a_line_that_is_missing_is_said():
    found = Spectrum(depth=500.0).compare({"MD": side((2000.0, 800.0), range(2))}, side((3000.0, 800.0), range(2)))
    row = next(row for row in found.rows if row.quantity == "peak 1 of H")
    assert row.md == {} and row.note == "no such peak in MD"


def test_a_short_run_does_not_spoil_the_resolution_of_the_others():
    runs = side((3000.0, 800.0), range(2))
    short = gather(Spectrum(), oscillators((3000.0, 800.0), n_frames=100, source="short"))
    section = Spectrum(depth=500.0).compare({"MD": [*runs, short]}, [])
    assert any("short" in caveat for caveat in section.caveats) and "500 fs" in section.definition
    assert section.rule == "" and len(section.rows) == 2


def test_overlap_of_spectra():
    p, q = np.array([1.0, 1.0, 0.0, -0.1]), np.array([0.0, 3.0, 3.0, 0.0])
    assert overlap(p, p) == pytest.approx(1.0) and overlap(p, q) == pytest.approx(0.5)


def test_some_atoms_stand_for_all_where_memory_is_short():
    """Atoms of a group that all move alike: any of them give the sums of all."""
    group, weights = np.repeat([0, 1], [7, 20]), np.repeat([2.0, 3.0], [7, 20])
    motion = np.random.default_rng(0).normal(size=(100, 2, 3))
    values = motion[:, group]
    whole, part = LaggedProducts(10, group, weights), LaggedProducts(10, group, weights, most=32 * 24 * 9)
    for products in (whole, part):
        products.add(values)
    np.testing.assert_allclose(part.sums(), whole.sums())
