"""The program that makes AIMD data: launch conditions, files, resuming, MPI; with EMT, so in seconds."""

import fcntl
import gzip
import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import read
from ase.optimize import BFGS
from scipy.stats import kstest

from dtmd.ingest import read_aimd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from aimd_protocol import (  # noqa: E402
    Protocol, Vibration, bond_potential, diatomic, langevin, launch, reduced_mass,
)
from make_aimd import calculator_arguments  # noqa: E402

N, STEPS = 4, 60
EMT_NAME = "ase.calculators.emt:EMT"
ON_SLAB = Protocol(height=6.0, plane_element="Pd", radius=2.0)
COMMON = ["--plane-element", "Pd", "--height", "6", "--radius", "inf", "--steps", STEPS,
          "--thermalise-steps", 40, "--snapshots", 3, "--snapshot-steps", 20]
ELECTRONVOLT, MASS_UNIT = 1.602176634e-19, 1.66053906660e-27


def slab() -> Atoms:
    atoms = fcc111("Pd", (2, 2, 2), vacuum=6.0)
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)


def command(folder: Path, *more) -> list[str]:
    substrate = folder.parent / "slab.xyz"
    if not substrate.exists():
        slab().write(substrate)
    words = [sys.executable, ROOT / "tools" / "make_aimd.py", folder, "--n", N, "--substrate", substrate,
             "--calculator", EMT_NAME, *COMMON, *more]
    return [str(word) for word in words]


def execute(words: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


def trajectories(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("traj_*"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    done = execute(command(folder))
    assert done.returncode == 0, done.stderr
    assert f"{N} of {N} trajectories" in done.stdout
    return folder


@pytest.fixture(scope="module")
def vibration() -> Vibration:
    table = bond_potential(diatomic("H2"), slab().cell, True, EMT())
    return Vibration.in_potential(*table.T, reduced_mass(diatomic("H2")), 0.27)


def launched(vibration: Vibration, number: int, protocol: Protocol = ON_SLAB) -> Atoms:
    substrate = slab()
    substrate.set_velocities(np.random.default_rng(number).normal(size=(8, 3)) * 0.01)
    return launch(substrate, vibration, protocol, np.random.default_rng([1, number]))


# --- launch ------------------------------------------------------------------------------------------


def test_molecule_comes_down_with_the_incidence_energy(vibration):
    speed = np.sqrt(2 * 0.125 * ELECTRONVOLT / (2 * 1.008 * MASS_UNIT)) * 1e-5  # Å/fs
    for number in range(20):
        atoms = launched(vibration, number)
        in_ase_time = np.sqrt(MASS_UNIT / ELECTRONVOLT) * 1e5  # fs
        velocity = atoms.get_velocities()[:2].mean(axis=0) / in_ase_time
        np.testing.assert_allclose(velocity, [0.0, 0.0, -speed], atol=1e-7)
        assert atoms.positions[:2, 2].mean() - slab().positions[:, 2].mean() == pytest.approx(6.0)
        np.testing.assert_allclose(atoms.get_momenta()[2:].sum(axis=0), 0.0, atol=1e-12)


def test_vibration_has_its_energy_in_the_calculators_potential_and_no_rotation(vibration):
    lone = Atoms("H2", [[0, 0, 0], [0, 0, 0.78]], cell=slab().cell, pbc=True)
    lone.calc = EMT()
    BFGS(lone, logfile=None).run(fmax=1e-5)
    lowest = lone.get_potential_energy()
    for number in range(50):
        h2 = launched(vibration, number)[:2]
        momentum = h2.get_momenta() - h2.get_momenta().mean(axis=0)
        lone.positions = [[0, 0, 0], [0, 0, h2.get_distance(0, 1)]]
        kinetic = (momentum**2).sum() / (2 * 1.008)
        assert lone.get_potential_energy() - lowest + kinetic == pytest.approx(0.27, abs=2e-4)
        np.testing.assert_allclose(np.cross(momentum[0], h2.positions[1] - h2.positions[0]), 0.0, atol=1e-9)


def test_orientations_and_impact_points_are_uniform(vibration):
    starts = [launched(vibration, number)[:2].positions for number in range(1500)]
    bonds = np.array([p[1] - p[0] for p in starts])
    bonds /= np.linalg.norm(bonds, axis=1, keepdims=True)
    lateral = np.array([p.mean(axis=0) for p in starts])[:, :2] - slab().positions.mean(axis=0)[:2]
    uniform = [
        (bonds[:, 2] + 1) / 2,
        np.arctan2(bonds[:, 1], bonds[:, 0]) / (2 * np.pi) + 0.5,
        (lateral**2).sum(axis=1) / 2.0**2,
        np.arctan2(lateral[:, 1], lateral[:, 0]) / (2 * np.pi) + 0.5,
    ]
    for sample in uniform:
        assert kstest(sample, "uniform").pvalue > 0.01


def test_infinite_radius_aims_anywhere_in_the_cell(vibration):
    anywhere = replace(ON_SLAB, radius=float("inf"))
    centres = np.array([launched(vibration, n, anywhere)[:2].positions.mean(axis=0) for n in range(1000)])
    scaled = np.linalg.solve(slab().cell[:].T, (centres - slab().positions.mean(axis=0)).T)[:2] + 0.5
    for sample in scaled:
        assert kstest(sample, "uniform").pvalue > 0.01


def test_harmonic_vibration_has_the_known_period_and_phases():
    mass, stiffness, rest, energy = 0.504, 35.0, 0.75, 0.27
    lengths = np.linspace(0.4, 1.3, 45)
    vibration = Vibration.in_potential(lengths, 0.5 * stiffness * (lengths - rest) ** 2 - 3.0, mass, energy)
    half_period = np.pi * np.sqrt(mass * MASS_UNIT / (stiffness * ELECTRONVOLT * 1e20)) * 1e15
    assert vibration.times[-1] == pytest.approx(half_period, rel=1e-6)

    rng = np.random.default_rng(3)
    bonds, rates = np.array([vibration.sample(rng) for _ in range(2000)]).T
    amplitude = np.sqrt(2 * energy / stiffness)
    phase = np.arctan2(rates * half_period / np.pi, bonds - rest)
    assert kstest(phase / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    np.testing.assert_allclose(np.hypot(rates * half_period / np.pi, bonds - rest), amplitude, rtol=1e-5)


class NoForces(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def test_thermostat_has_the_stated_friction_and_temperature():
    protocol = Protocol(friction=0.01, timestep=0.5, snapshot_steps=400)
    cold, gas = Atoms("Pd", calculator=NoForces()), Atoms("Pd1000", calculator=NoForces())
    cold.set_velocities([[1.0, 0.0, 0.0]])
    list(langevin(cold, replace(protocol, temperature=1e-9), np.random.default_rng(5)))
    assert cold.get_velocities()[0, 0] == pytest.approx(np.exp(-0.01 * 0.5 * 400), rel=1e-2)
    list(langevin(gas, protocol, np.random.default_rng(5)))
    reached = 300.0 * (1 - np.exp(-2 * 0.01 * 0.5 * 400))  # from rest
    assert gas.get_temperature() == pytest.approx(reached, rel=0.08)


# --- files -------------------------------------------------------------------------------------------


def test_trajectories_have_the_format_of_the_example_data(undisturbed):
    example = next((ROOT / "inputs" / "aimd" / "train").glob("*.xz"))
    with lzma.open(example, "rt") as theirs, gzip.open(undisturbed / "traj_000.extxyz.gz", "rt") as ours:
        headers = [[next(file), next(file)][1] for file in (theirs, ours)]
        rows = [next(file) for file in (theirs, ours)]
    skeletons = [re.sub(r"[-+]?\d+\.\d+(e[-+]?\d+)?", "x", header) for header in headers]
    assert re.sub("step=[0-9]+", "step=0", skeletons[0]) == skeletons[1]
    ends = [[word.end() for word in re.finditer(r"\S+", row)] for row in rows]
    assert ends[0] == ends[1] and len(ends[0]) == 10


def test_trajectory_is_complete_and_right(undisturbed):
    frames = read(undisturbed / "traj_001.extxyz.gz", ":")
    assert [frame.info["step"] for frame in frames] == list(range(STEPS + 1))
    assert str(frames[0].symbols) == "H2Pd8"
    again = frames[7].copy()
    again.calc = EMT()
    assert frames[7].get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(frames[7].get_forces(), again.get_forces(), atol=1e-6)
    found = read_aimd([undisturbed])  # all there is to train on; checks velocities, forces and time step
    assert len(found) == N and {trajectory.timestep for trajectory in found} == {0.5}


def test_another_number_or_seed_is_another_trajectory(undisturbed, tmp_path):
    assert len(set(trajectories(undisturbed).values())) == N
    assert execute(command(tmp_path / "out", "--seed", 2)).returncode == 0
    assert not set(trajectories(tmp_path / "out").values()) & set(trajectories(undisturbed).values())


# --- resuming ----------------------------------------------------------------------------------------


def test_only_what_is_missing_is_made(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    shutil.copy(undisturbed.parent / "slab.xyz", tmp_path)
    (folder / "traj_002.extxyz.gz").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("traj_*")}
    assert execute(command(folder)).returncode == 0
    assert trajectories(folder) == trajectories(undisturbed)
    assert all((folder / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())


def test_killed_at_any_stage_the_same_command_finishes_the_work(undisturbed, tmp_path):
    folder = tmp_path / "out"
    for awaited in ("relaxed.traj", "thermal/state_001.traj", "traj_000.extxyz.gz"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command(folder, "--n", 40), **quiet)
        while process.poll() is None and not (folder / awaited).exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    (folder / ".traj_003.extxyz.gz.abc.part").write_text("half")
    assert execute(command(folder)).returncode == 0
    made = trajectories(folder)
    assert {name: made[name] for name in trajectories(undisturbed)} == trajectories(undisturbed)
    assert not list(folder.rglob("*.part"))


def test_two_ranks_make_the_same_trajectories(undisturbed, tmp_path):
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    done = execute([mpirun, "-n", "2", *command(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert trajectories(tmp_path / "out") == trajectories(undisturbed)
    assert (tmp_path / "out" / "summary.tsv").read_text() == (undisturbed / "summary.tsv").read_text()


def test_other_settings_are_refused_by_name(undisturbed):
    before = trajectories(undisturbed)
    done = execute(command(undisturbed, "--incidence-energy", 0.2))
    assert done.returncode == 2
    assert "begun with incidence_energy = 0.125, now it is 0.2" in done.stderr
    assert trajectories(undisturbed) == before


def test_a_folder_in_use_is_refused(undisturbed):
    with open(undisturbed / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = execute(command(undisturbed))
    assert done.returncode == 2 and "another make_aimd.py is at work" in done.stderr


# --- what goes wrong ---------------------------------------------------------------------------------


def test_wandering_energy_is_marked(undisturbed):
    done = execute(command(undisturbed, "--max-energy-error", 0.02))
    table = [line.split("\t") for line in (undisturbed / "summary.tsv").read_text().splitlines()[1:]]
    assert done.returncode == 1
    for name, _, deviation, _, _, conserved in table:
        frames = read(undisturbed / name, ":")
        velocities = np.array([frame.arrays["velocities"] for frame in frames])
        kinetic = 0.5 * (frames[0].get_masses() * (velocities**2).sum(axis=2)).sum(axis=1)
        total = kinetic * MASS_UNIT * 1e10 / ELECTRONVOLT + [frame.get_potential_energy() for frame in frames]
        assert float(deviation) == pytest.approx(1e3 * np.abs(total - total[0]).max(), abs=0.01)
        assert conserved == ("yes" if float(deviation) <= 20 else "no")
    assert done.stdout.count("NOT CONSERVED") == sum(row[-1] == "no" for row in table) > 0


FAILING = """
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

class Failing(EMT):
    def calculate(self, *args, **kwargs):
        if self.directory.endswith("traj_001"):
            raise CalculationFailed("no convergence")
        super().calculate(*args, **kwargs)
"""


def test_a_failed_calculation_does_not_stop_the_others(tmp_path):
    (tmp_path / "mine.py").write_text(FAILING)
    done = execute(command(tmp_path / "out", "--calculator", "mine:Failing"), cwd=tmp_path)
    assert done.returncode == 1
    assert "traj_001.extxyz.gz: not made, calculation failed: no convergence" in done.stdout
    assert list(trajectories(tmp_path / "out")) == [f"traj_00{k}.extxyz.gz" for k in (0, 2, 3)]


@pytest.mark.parametrize("options, message", [
    (["--calculator", "nowhere:Calculator"], "No module named 'nowhere'; install the package"),
    (["--calculator", "ase.build:nothing"], "has no attribute 'nothing'"),
    (["--calculator-args", "asap_cutoff"], "give key=value"),
    (["--molecule", "H2O"], "3 atoms, but only diatomic"),
    (["--molecule", "Qq"], "not a molecule that ase.build.molecule knows"),
    (["--vibration-energy", "50"], "give such an energy"),
    (["--height", "1"], "from the substrate or an image"),
    (["--plane-element", "C"], "--plane-element C: not in the substrate"),
    (["--substrate", "nothing.xyz"], "no such file"),
])
def test_bad_options_say_what_to_do_and_do_not_bind_the_folder(tmp_path, options, message):
    done = execute(command(tmp_path / "out", *options))
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "settings.json").exists()


def test_calculator_arguments_are_literals_or_words():
    given = calculator_arguments(["xc=PBE", "encut=400", "kpts=[2,2,1]", "lreal=False", "ediff=1e-6"], "vasp")
    assert given == {"xc": "PBE", "encut": 400, "kpts": [2, 2, 1], "lreal": False, "ediff": 1e-6}


# --- the default calculator --------------------------------------------------------------------------


@pytest.mark.slow
def test_default_calculator_makes_a_trajectory(tmp_path):
    pytest.importorskip("tblite")
    words = [sys.executable, str(ROOT / "tools" / "make_aimd.py"), str(tmp_path / "out"), "--n", "1",
             "--steps", "4", "--thermalise-steps", "1", "--snapshots", "1", "--snapshot-steps", "2"]
    done = execute(words)
    assert done.returncode == 0, done.stderr
    trajectory = read_aimd([tmp_path / "out" / "traj_000.extxyz.gz"])[0]
    assert len(trajectory) == 5 and trajectory.symbols[:3] == ["H", "H", "C"]
    assert trajectory.energies[0] == pytest.approx(-3584, abs=3)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["calculator_args"]["electronic_temperature"] == 1000.0
