"""Crash tests: the same starts for every model, crashes as results, what can happen to the runs."""

import re
from functools import partial

import crash_cases
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from crash_cases import aimd, calculator, starts
from crash_factories import STIFFNESS
from rich.console import Console
from toys import crystal, write_toy

from dtmd import artefact, units
from dtmd.calculator import DtmdCalculator
from dtmd.crashtest.models import CrashModel, models_of
from dtmd.crashtest.protocol import Protocol
from dtmd.crashtest.results import results_of
from dtmd.crashtest.runs import run_crash_test
from dtmd.crashtest.starts import at_temperature
from dtmd.ensemble.lammps_run import state_of
from dtmd.ensemble.starts import Start
from dtmd.errors import DtmdError
from dtmd.launcher.display import LaunchDisplay
from dtmd.launcher.processes import processes
from dtmd.md import open_run
from dtmd.observables.survival import Limits, Survival
from dtmd.trajectory import Trajectory


@pytest.fixture(autouse=True)
def beside_the_factories(monkeypatch):
    monkeypatch.chdir(crash_cases.HERE)


def protocol(time=50.0, temperatures=(300.0,), thermostat="none", stride=10, n=2) -> Protocol:
    return Protocol(temperatures, n, time, 0.5, stride, thermostat, seed=3)


def crash_test(folder, models, chosen, settings):
    with processes(2) as place:
        return run_crash_test(folder, models, chosen, settings, place, partial(LaunchDisplay, Console(quiet=True)))


def frames_of(run):
    return open_run(run.folder / "run.lammpstrj").whole()


STRAIGHT = np.diag([9.0, 8.0, 7.0])


def some_held(n_atoms):
    """The first two atoms, and the third along y."""
    fixed = np.zeros((n_atoms, 3), dtype=bool)
    fixed[:2], fixed[2, 1] = True, True
    return fixed


def keeps_still(run, fixed) -> bool:
    """Held components, or else the centre of mass."""
    if fixed is None:
        return bool(np.abs(run.masses @ run.velocities).max() < 1e-6)
    return not np.any(run.positions[:, fixed] != run.positions[0, fixed]) and not run.velocities[:, fixed].any()


def toy_on_both_sides(folder):
    """A potential in LAMMPS and, by a factory in the folder, in ASE."""
    path = write_toy(folder / "toy.pt")
    (folder / "toy_side.py").write_text(
        "from dtmd.calculator import DtmdCalculator\ndef toy():\n    return DtmdCalculator('toy.pt')\n")
    return [CrashModel("lammps", folder / "ct" / "lammps", artefact=path, metadata=artefact.read_metadata(path)),
            CrashModel("ase", folder / "ct" / "ase", factory="toy_side:toy")]


def toy_start(cell, fixed, periodic=True):
    """Nine atoms that the potential knows, in the cell or, not periodic, in none."""
    atoms = crystal(cell, 9, (periodic,) * 3)
    return Trajectory(atoms.numbers, atoms.get_masses(), atoms.pbc, cell[None] * periodic, np.zeros(1),
                      atoms.positions[None], fixed=fixed, source="toy")


def test_every_model_and_temperature_has_the_same_starts(tmp_path):
    models, chosen = [calculator(tmp_path, name) for name in ("wells", "failing")], starts()
    batches, failed = crash_test(tmp_path, models, chosen, protocol(time=20.0, temperatures=(300.0, 1200.0)))
    assert not failed and [batch.side for batch in batches] == [
        "wells, 300 K", "wells, 1200 K", "failing, 300 K", "failing, 1200 K"]
    texts = [[(run.folder / "start.data").read_text() for run in batch.runs] for batch in batches]
    assert texts[0] == texts[2] != texts[1] == texts[3] and texts[0][0] != texts[0][1]
    cold, hot = frames_of(batches[0].runs[1]), frames_of(batches[1].runs[1])
    np.testing.assert_allclose(hot.velocities[0], 2.0 * cold.velocities[0], rtol=1e-8)
    np.testing.assert_allclose(cold.masses @ cold.velocities[0], 0.0, atol=1e-9)
    np.testing.assert_allclose(cold.positions[0], chosen[1].trajectory.positions[1], atol=1e-8)


def test_velocities_have_the_temperature_and_another_seed_or_start_gives_others():
    many = aimd(n_frames=1000)
    kelvin = np.array([at_temperature(start, 250.0, 0).temperatures()[0] for start in starts(1000, many)])
    assert abs(kelvin.mean() - 250.0) < 5.0 * kelvin.std() / np.sqrt(1000)
    assert kelvin.std() == pytest.approx(250.0 * np.sqrt(2.0 / many.n_freedom), rel=0.15)
    first, second = starts(2)
    drawn = [at_temperature(start, 300.0, seed).velocities for start, seed in ((first, 0), (first, 1), (second, 0))]
    assert not np.allclose(drawn[0], drawn[1]) and not np.allclose(drawn[0], drawn[2])


def test_a_run_is_read_as_what_the_calculator_did(tmp_path):
    (batch,), _ = crash_test(tmp_path, [calculator(tmp_path, "wells")], starts(), protocol())
    run = frames_of(batch.runs[0])
    np.testing.assert_allclose(run.times, 5.0 * np.arange(11))
    away = run.positions - run.positions[0]
    np.testing.assert_allclose(run.forces, -STIFFNESS * away, atol=1e-6)
    np.testing.assert_allclose(run.energies, 0.5 * STIFFNESS * (away**2).sum(axis=(1, 2)), atol=1e-6)
    frequency = np.sqrt(STIFFNESS * units.ACCELERATION / run.masses[:, None])
    expected = run.velocities[0] / frequency * np.sin(frequency * run.times[4])
    np.testing.assert_allclose(away[4], expected, atol=5e-4)
    state = state_of(batch.runs[0].folder)
    assert state["state"] == "finished" and state["steps"] == 100 and state["md_seconds"] > 0.0


@pytest.mark.parametrize(("name", "reason"), [
    ("exploding", r"step \d+: the (force on atom \d \([CH]\)|temperature) is [\d.e+]+ (eV/Å|K), above"),
    ("failing", r"step 15: the calculator failed \(ValueError: no neighbours left\)"),
])
def test_a_crash_is_a_result_and_is_not_repeated(tmp_path, name, reason):
    (batch,), failed = crash_test(tmp_path, [calculator(tmp_path, name)], starts(1), protocol(n=1))
    (run,) = batch.runs
    state = state_of(run.folder)
    assert not failed and state["state"] == "crashed" and re.fullmatch(reason + ".*", state["problem"])
    assert frames_of(run).times[-1] == 0.5 * state["steps"] > 0.0
    frames = (run.folder / "run.lammpstrj").read_bytes()
    (run.folder / "run.lammpstrj").write_bytes(b"")  # as of a crash before the first frame
    (result,) = results_of(batch, Survival()).runs
    assert (result.dump, result.life.observed, result.alive) == (None, 0.0, False) and result.crash == state["problem"]
    (run.folder / "run.lammpstrj").write_bytes(frames)
    written = (run.folder / "state.json").stat().st_mtime_ns
    crash_test(tmp_path, [calculator(tmp_path, name)], starts(2), protocol(n=2))
    assert (run.folder / "state.json").stat().st_mtime_ns == written


def test_a_model_that_cannot_run_is_told_before_any_run(tmp_path):
    models = [calculator(tmp_path, "wells"), calculator(tmp_path, "unable")]
    with pytest.raises(DtmdError, match="unable: cannot run, so no run was started. exit code 1; .*no neighbours"
                       .replace(".*", r"[\s\S]*")):
        crash_test(tmp_path, models, starts(), protocol())
    assert not list(tmp_path.glob("*/300K"))


def test_a_factory_gets_its_arguments(tmp_path):
    model = calculator(tmp_path, "stiff", stiffness=2.0)
    (batch,), _ = crash_test(tmp_path, [model], starts(1), protocol(n=1))
    run, state = frames_of(batch.runs[0]), state_of(batch.runs[0].folder)
    np.testing.assert_allclose(run.forces, -2.0 * (run.positions - run.positions[0]), atol=1e-6)
    assert state["calculator"] == "crash_factories:stiff" and state["arguments"] == {"stiffness": 2.0}
    with pytest.raises(DtmdError, match=r"the variable calculator was crash_factories:stiff\(stiffness=2.0\), now "
                                        r"crash_factories:stiff\(stiffness=3.0\)"):
        crash_test(tmp_path, [calculator(tmp_path, "stiff", stiffness=3.0)], starts(1), protocol(n=1))
    wrong = calculator(tmp_path / "wrong", "stiff", hardness="high")
    with pytest.raises(DtmdError, match=r"stiff: stiff\(hardness='high'\) failed \(TypeError: .*'hardness'"):
        crash_test(tmp_path / "wrong", [wrong], starts(1), protocol(n=1))


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    model = calculator(tmp_path, "wells")
    crash_test(tmp_path, [model], starts(), protocol())
    with pytest.raises(DtmdError, match="the variable stride was 10, now 20"):
        crash_test(tmp_path, [model], starts(), protocol(stride=20))
    batches, _ = crash_test(tmp_path, [model], starts(), protocol(temperatures=(300.0, 400.0)))
    assert all(run.done() for batch in batches for run in batch.runs)


def near_400_kelvin(run, n_freedom) -> bool:
    """Within four standard errors of its mean."""
    kelvin = 2.0 * run.kinetic_energies()[100:] / (n_freedom * units.BOLTZMANN)
    blocks = kelvin[: len(kelvin) // 20 * 20].reshape(20, -1).mean(axis=1)
    return abs(blocks.mean() - 400.0) < 4.0 * blocks.std() / np.sqrt(20)


@pytest.mark.parametrize(("thermostat", "held"), [
    ("csvr", True), ("langevin", True), ("langevin", False), ("nose-hoover", True)])
def test_a_thermostat_keeps_the_temperature_also_where_atoms_are_held(tmp_path, thermostat, held):
    run = aimd(cell=STRAIGHT, fixed=some_held(6) if held else None)
    settings = protocol(time=4000.0, temperatures=(400.0,), thermostat=thermostat, n=1)
    (batch,), _ = crash_test(tmp_path, [calculator(tmp_path, "wells")], starts(1, run), settings)
    found = frames_of(batch.runs[0])
    assert near_400_kelvin(found, run.n_freedom) and keeps_still(found, run.fixed)


@pytest.mark.parametrize(("thermostat", "held"), [
    ("langevin", True), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("csvr", True), ("csvr", False), ("langevin", False), ("nose-hoover", True), ("nose-hoover", False)))])
def test_a_thermostat_of_lammps_does_so_too_and_its_forces_are_not_in_the_dump(tmp_path, plugin, thermostat, held):
    model, _ = toy_on_both_sides(tmp_path)
    run = toy_start(STRAIGHT, some_held(9) if held else None)
    settings = protocol(time=4000.0, temperatures=(400.0,), thermostat=thermostat, n=1)
    (batch,), _ = crash_test(tmp_path / "ct", [model], [Start("x@0", run, 0)], settings)
    found = frames_of(batch.runs[0])
    assert near_400_kelvin(found, run.n_freedom) and keeps_still(found, run.fixed)
    last = Atoms(found.numbers, found.positions[-1], cell=STRAIGHT, pbc=True,
                 calculator=DtmdCalculator(tmp_path / "toy.pt"))
    forces = np.where(run.fixed, 0.0, last.get_forces()) if held else last.get_forces()
    np.testing.assert_allclose(found.forces[-1], forces, atol=1e-6)


def test_atoms_held_in_some_directions_only_are_refused_where_lammps_turns_the_cell():
    with pytest.raises(DtmdError, match="atoms 3 are held in some directions only, and LAMMPS wants this cell turned"):
        at_temperature(starts(1, aimd(cell=STRAIGHT[:, [1, 0, 2]], fixed=some_held(6)))[0], 300.0, 0)


def test_emt_by_its_name_conserves_energy(tmp_path):
    cluster = Atoms("Cu2Pd2", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0], [1.3, 0.8, 2.1]])
    cluster.calc = EMT()
    run = Trajectory(cluster.numbers, cluster.get_masses(), np.zeros(3, bool), np.zeros((1, 3, 3)), np.zeros(1),
                     cluster.positions[None])
    (model,) = models_of(["emt=ase.calculators.emt:EMT"], tmp_path)
    (batch,), _ = crash_test(tmp_path, [model], [Start("x@0", run, 0)], protocol(n=1))
    found = frames_of(batch.runs[0])
    assert found.energies[0] == pytest.approx(cluster.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(found.forces[0], cluster.get_forces(), atol=1e-6)
    total = found.energies + found.kinetic_energies()
    assert np.ptp(total) < 1e-3 < np.ptp(found.energies)


@pytest.mark.parametrize(("kind", "thermostat"), [
    ("periodic, held", "nose-hoover"), *(pytest.param(kind, "none", marks=pytest.mark.slow)
                                         for kind in ("periodic, held", "free"))])
def test_lammps_and_ase_do_the_same(tmp_path, plugin, monkeypatch, kind, thermostat):
    """One potential on both sides, without random numbers: the same frames, temperatures and ends."""
    monkeypatch.chdir(tmp_path)
    cell = np.array([[7.0, 0, 0], [-2.0, 6.5, 0], [1, 0.5, 7.5]])
    free = kind == "free"
    run = toy_start(cell, None if free else np.arange(9)[:, None].repeat(3, axis=1) < 2, periodic=not free)
    lammps, ase = crash_test(tmp_path / "ct", toy_on_both_sides(tmp_path), [Start("x@0", run, 0)],
                             protocol(time=20.0, thermostat=thermostat, n=1))[0]
    one, other = frames_of(lammps.runs[0]), frames_of(ase.runs[0])
    shift = one.positions[0] - other.positions[0]
    np.testing.assert_allclose(shift, shift[:1].repeat(9, axis=0), atol=1e-7)
    for name, size in (("times", 1e-9), ("velocities", 1e-7), ("forces", 1e-6), ("energies", 1e-7), ("masses", 1e-9)):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=size, err_msg=name)
    np.testing.assert_allclose(one.positions - shift, other.positions, atol=1e-7)
    assert np.abs(one.positions[-1] - one.positions[0]).max() > 0.05
    logged = re.search(r"Step +Time +Temp.*\n +0 +0 +(\S+)", (lammps.runs[0].folder / "run.log").read_text())
    begin = at_temperature(lammps.starts[0], 300.0, 3)
    assert float(logged[1]) == pytest.approx(begin.temperatures()[0], rel=1e-5)  # LAMMPS has constants of its own
    state = state_of(lammps.runs[0].folder)
    assert state["steps"] == 40 and state["md_seconds"] > 0.0


def test_a_crash_in_lammps_is_a_result_and_a_wrong_model_is_told(tmp_path, plugin):
    path = write_toy(tmp_path / "toy.lammps.pt", poison=0.9)  # no number for atoms that are nearer, in Å
    atoms = crystal(np.array([[7.0, 0, 0], [-2.0, 6.5, 0], [1, 0.5, 7.5]]), 9, (True,) * 3)
    run = Trajectory(atoms.numbers, atoms.get_masses(), atoms.pbc, atoms.cell.array[None], np.zeros(1),
                     atoms.positions[None], source="toy")
    model = CrashModel("toy", tmp_path / "ct" / "toy", artefact=path, metadata=artefact.read_metadata(path))
    (batch,), failed = crash_test(
        tmp_path / "ct", [model], [Start("x@0", run, 0)], protocol(time=500.0, temperatures=(3e4,), stride=1, n=1))
    state, frames = state_of(batch.runs[0].folder), frames_of(batch.runs[0])
    assert not failed and state["state"] == "crashed"
    found = re.match(r"LAMMPS failed: ERROR: step (\d+): the energy or force of atom .* is not a finite number",
                     state["problem"])
    assert found and 0 < int(found[1]) == state["steps"] + 1 == len(frames)
    result, = results_of(batch, Survival(Limits(nearest=0.0), bonds=[])).runs
    assert result.life.observed == pytest.approx(frames.times[-1]) and result.crash in result.life.end.causes
    with pytest.raises(DtmdError, match="toy: knows H C Pd, and the starts hold Cu Zn too"):
        model.check_elements(["H", "Zn", "Cu"])
