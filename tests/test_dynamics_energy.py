"""Energy conservation and temperature as observables: against the functions of whole runs, lines and broken runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from observable_cases import free, gather

from dtmd import units
from dtmd.ingest import read_aimd
from dtmd.observables.conservation import EnergyConservation, conservation, total_energy_change
from dtmd.observables.observable import NotApplicable
from dtmd.observables.section import Verdict
from dtmd.observables.series import LONGEST_CURVE
from dtmd.observables.statistics import Estimate, difference, frame_weights
from dtmd.observables.temperature import Temperature, mean_temperature

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"


def run(times, energies, velocities=None, source="run"):
    n_frames = len(times)
    velocities = np.zeros((n_frames, 2, 3)) if velocities is None else velocities
    return free(np.zeros((n_frames, 2, 3)), [6, 6], [12.0, 12.0], times, velocities=velocities,
                energies=np.asarray(energies, dtype=float), source=source)


def swinging(n_frames=400, slope=0.0, seed=0):
    """Energy that goes along a line in eV/fs while the kinetic energy is that of random velocities."""
    times = 0.5 * np.arange(n_frames)
    velocities = np.random.default_rng(seed).normal(scale=0.01, size=(n_frames, 2, 3))
    kinetic = run(times, times, velocities).kinetic_energies()
    return run(times, slope * times - kinetic, velocities, source=f"run {seed}"), kinetic


@pytest.fixture(scope="module")
def real():
    return read_aimd([AIMD / "test"])


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_real_runs_in_blocks_give_the_numbers_of_the_whole(real, block):
    for trajectory in real:
        found = gather(EnergyConservation(), trajectory, [block])
        assert found.conservation == conservation(trajectory)
        np.testing.assert_array_equal(found.change, total_energy_change(trajectory))
        temperature = gather(Temperature(), trajectory, [block])
        mean, error = mean_temperature(trajectory)
        assert temperature.mean.value == mean
        assert temperature.mean.high - mean == pytest.approx(1.96 * error, rel=1e-4)


def test_drift_ratio_of_a_line():
    trajectory, kinetic = swinging(slope=2e-6)
    found = conservation(trajectory)
    assert found.drift == pytest.approx(1.0)  # 2e-6 eV/fs for two atoms
    weights = frame_weights(trajectory.times)
    spread = 500 * np.sqrt(np.cov(kinetic, aweights=weights, ddof=0))
    assert found.ratio == pytest.approx(1.0 * 0.1995 / spread)


def test_conserving_runs_agree_and_drifting_ones_differ():
    observable = EnergyConservation()
    good, bad = ([gather(observable, swinging(slope=slope, seed=k)[0], [50]) for k in range(3)]
                 for slope in (1e-9, 1e-2))
    row = observable.compare({"good": good, "bad": bad, "alone": good[:1]}, []).rows[0]
    assert row.verdict == {"good": Verdict.AGREES, "bad": Verdict.DIFFERS, "alone": Verdict.UNDECIDED}
    assert row.aimd is None and row.difference == {}


def test_a_run_that_blows_up_is_told_of_up_to_there():
    trajectory, _ = swinging(slope=2e-6)
    energies = trajectory.energies.copy()
    energies[300] = np.nan
    observable = EnergyConservation()
    found = gather(observable, replace(trajectory, energies=energies), [64])
    assert found.ended == 150.0 and found.conservation == conservation(trajectory.window(0, 300))
    section = observable.compare({"MD": [found]}, [])
    assert section.rows[0].verdict == {"MD": Verdict.DIFFERS}
    assert any("from 150 fs on" in caveat for caveat in section.caveats)
    with pytest.raises(NotApplicable, match="fewer than two frames"):
        gather(observable, replace(trajectory, energies=np.full(400, np.inf)), [64])


def test_what_a_run_lacks_is_said():
    trajectory, _ = swinging()
    with pytest.raises(NotApplicable, match="no energies"):
        EnergyConservation().start(replace(trajectory, energies=None))
    with pytest.raises(NotApplicable, match="no velocities"):
        Temperature().start(replace(trajectory, velocities=None))


def test_curves_are_thinned():
    found = gather(EnergyConservation(), swinging(n_frames=9001)[0], [512])
    assert len(found.times) == len(found.change) <= LONGEST_CURVE and found.times[1] == 2.5


def warm(temperature, seed, n_frames=300, n_atoms=200):
    scale = np.sqrt(units.BOLTZMANN * temperature / (12.0 * units.KINETIC))
    velocities = np.random.default_rng(seed).normal(scale=scale, size=(n_frames, n_atoms, 3))
    return free(np.zeros_like(velocities), np.full(n_atoms, 6), np.full(n_atoms, 12.0), np.arange(n_frames),
                velocities=velocities, source=f"{temperature} K, {seed}")


def test_temperatures_are_judged_by_their_difference():
    observable = Temperature(tolerance=0.05)
    same, hot, aimd = (
        [gather(observable, warm(t, seed), [64]) for seed in range(first, first + 3)]
        for t, first in ((300.0, 0), (400.0, 10), (300.0, 20))
    )
    row = observable.compare({"same": same, "hot": hot, "alone": same[:1]}, aimd).rows[0]
    assert row.verdict == {"same": Verdict.AGREES, "hot": Verdict.DIFFERS, "alone": Verdict.AGREES}
    assert row.difference["hot"].value == pytest.approx(100.0 * 600 / 597, abs=2.0)
    assert row.difference["hot"].low < row.difference["hot"].value < row.difference["hot"].high
    assert observable.compare({"same": same}, []).rows[0].verdict == {}


def test_intervals_of_differences_add_in_quadrature():
    found = difference(Estimate(5.0, 2.0, 6.0), Estimate(1.0, 0.0, 5.0))
    assert (found.value, found.low, found.high) == (4.0, pytest.approx(4.0 - 5.0), pytest.approx(4.0 + np.sqrt(2.0)))
    assert difference(Estimate(5.0), Estimate(1.0, 0.0, 5.0)) == Estimate(4.0)
