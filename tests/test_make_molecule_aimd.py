"""The program that makes AIMD of a molecule in vacuum (with EMT, so in seconds), and the ethane data it has made."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read

from dtmd import units
from dtmd.ingest import read_aimd
from dtmd.trajectory import Trajectory

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "make_molecule_aimd.py"
sys.path.insert(0, str(TOOL.parent))

from make_molecule_aimd import PYSCF_ARGS, method_of, parse  # noqa: E402

ETHANE = ROOT / "inputs" / "ethane"
EMT_NAME = "ase.calculators.emt:EMT"
SETS = ["--set", "train", "300", "2", "6", "--set", "test", "600", "1", "9"]


def execute(folder: Path, *more: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    words = [sys.executable, str(TOOL), str(folder), "--molecule", "CH4", "--start", EMT_NAME, "--reference", EMT_NAME,
             "--start-steps", "40", *SETS, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.extxyz.gz"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("molecule") / "out"
    done = execute(folder)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 pieces" in done.stdout
    return folder


# --- the tool ----------------------------------------------------------------------------------------


def test_files_hold_the_sets_that_were_asked_for(made):
    assert list(contents(made)) == [
        "test/CH4_test_600K_00.extxyz.gz", "train/CH4_train_300K_00.extxyz.gz", "train/CH4_train_300K_01.extxyz.gz"]
    frames = read(made / "test" / "CH4_test_600K_00.extxyz.gz", ":")
    assert [frame.info["step"] for frame in frames] == list(range(9))
    assert {frame.info["timestep_fs"] for frame in frames} == {0.5}
    again = frames[4].copy()
    again.calc = EMT()
    assert frames[4].get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(frames[4].get_forces(), again.get_forces(), atol=1e-5)


def test_pieces_start_apart_without_drift_and_rotation(made):
    starts = [read(path, 0) for path in sorted(made.rglob("*.extxyz.gz"))]
    for start in starts:
        start.set_velocities(start.arrays["velocities"])
        assert np.abs(start.get_center_of_mass()).max() < 1e-7
        assert np.abs(start.get_momenta().sum(axis=0)).max() < 1e-6
        assert np.abs(start.get_angular_momentum()).max() < 1e-6
    assert np.abs(starts[1].positions - starts[2].positions).max() > 0.01


def test_a_piece_depends_on_its_name_only_and_a_finished_one_is_kept(made, tmp_path):
    folder = tmp_path / "out"
    (folder / "train").mkdir(parents=True)
    kept = folder / "train" / "CH4_train_300K_00.extxyz.gz"
    kept.write_bytes((made / "train" / kept.name).read_bytes())
    before = kept.stat().st_mtime_ns
    assert execute(folder, "--workers", "2").returncode == 0
    assert contents(folder) == contents(made)
    assert kept.stat().st_mtime_ns == before


def test_energy_that_is_not_conserved_is_said(made):
    done = execute(made, "--max-energy-error", "1e-9")
    assert done.returncode == 1 and done.stdout.count("NOT CONSERVED") == 3


def test_another_method_does_not_go_into_the_same_folder(made):
    done = execute(made, "--seed", "2")
    assert done.returncode == 2 and "begun with other options" in done.stderr


@pytest.mark.parametrize(("words", "told"), [
    (["--molecule", "C2H7"], "--molecule C2H7: not one of those"),
    (["--reference", "nosuchmodule:X"], "nosuchmodule:X"),
    (["--set", "train", "hot", "2", "6"], "give FOLDER KELVIN PIECES FRAMES"),
])
def test_wrong_input_is_told_before_anything_is_written(tmp_path, words, told):
    done = execute(tmp_path / "out", *words)
    assert done.returncode == 2 and told in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_failed_calculation_is_left_out(tmp_path):
    (tmp_path / "stubborn.py").write_text(
        "from ase.calculators.calculator import CalculationFailed\n"
        "from ase.calculators.emt import EMT\n"
        "class Stubborn(EMT):\n"
        "    def calculate(self, *args, **kwargs):\n"
        "        raise CalculationFailed('no convergence')\n")
    done = execute(tmp_path / "out", "--reference", "stubborn:Stubborn", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("not made, calculation failed: no convergence") == 3
    assert "0 of 3 pieces" in done.stdout


# --- the ethane data ---------------------------------------------------------------------------------


@cache
def ethane() -> dict[Path, Trajectory]:
    return {path: read_aimd([path])[0] for path in sorted(ETHANE.rglob("*.extxyz.gz"))}


def test_ethane_has_the_sets_of_its_readme():
    sets = {}
    for path, trajectory in ethane().items():
        assert trajectory.timestep == 0.5
        temperature = path.name.split("_")[2]
        sets.setdefault((path.parent.name, temperature), []).append(len(trajectory))
    assert sets == {("train", "300K"): [12] * 10, ("validation", "300K"): [12] * 4,
                    ("test", "300K"): [121] * 3, ("test", "1000K"): [121] * 3}
    assert sum(path.stat().st_size for path in ETHANE.rglob("*")) < 600_000


def test_ethane_settings_are_the_defaults_of_the_tool():
    settings = json.loads((ETHANE / "settings.json").read_text())
    method = vars(method_of(parse([str(ETHANE)])))
    assert settings == method
    assert method["molecule"] == "C2H6" and method["reference_args"]["xc"] == "PBE"


def test_ethane_conserves_what_velocity_verlet_conserves():
    """The total energy oscillates by terms of order Δt²; once these are taken out, little is left."""
    for path, t in ethane().items():
        mass, v, forces = t.masses[:, None], t.velocities, t.forces
        change = (forces[2:] - forces[:-2]) / (2.0 * t.timestep)
        second_order = t.timestep**2 * (-(v[1:-1] * change).sum(axis=(1, 2)) / 12.0
                                        - (forces[1:-1] ** 2 / mass).sum(axis=(1, 2)) * units.ACCELERATION / 24.0)
        shadow = (t.energies + t.kinetic_energies())[1:-1] + second_order
        limit = 1e-3 if "1000K" in path.name else 3e-4
        assert np.ptp(shadow) < limit, path.name


def test_ethane_temperatures_are_those_of_the_names():
    for kelvin in (300, 1000):
        found = [2.0 * t.kinetic_energies()[0] / (18 * units.BOLTZMANN)
                 for path, t in ethane().items() if f"_{kelvin}K_" in path.name]
        error_of_mean = kelvin * np.sqrt(2 / 18 / len(found))
        assert np.mean(found) == pytest.approx(kelvin, abs=3 * error_of_mean)


def test_the_reference_gives_the_energies_and_forces_of_the_data():
    pytest.importorskip("pyscf")
    from pyscf_calculator import PySCF

    frame = read(ETHANE / "train" / "C2H6_train_300K_00.extxyz.gz", 5)
    again = frame.copy()
    again.calc = PySCF(**PYSCF_ARGS)
    assert again.get_potential_energy() == pytest.approx(frame.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(again.get_forces(), frame.get_forces(), atol=3e-4)
