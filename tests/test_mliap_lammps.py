"""pair_style mliap unified in a real LAMMPS, where DTMD_LAMMPS_MLIAP names one, against Python and pair_style dtmd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from conftest import MLIAP_LAMMPS, NO_MLIAP
from lammps_cases import (
    MEASURE, PRINT_ENERGY, SKEWED, WIDE, assert_toy_has_the_numbers_of_python, frames, head, measured, write_case,
)
from lammps_cases import run as run_plugin
from model_cases import NAMES, potential_of
from small import example, small_potential
from test_lammps_agreement import exported
from toys import crystal

from dtmd.export_mliap import wrap
from dtmd.lammps import write_start
from dtmd.mliap import input_lines
from dtmd.plugin import environment_program

PERIODIC = (True, True, True)
MD = "timestep 0.0005\nfix 1 all nve\n" + MEASURE.format(stride=10) + "run 20\n" + PRINT_ENERGY
REAL = head(Atoms("HCPd", pbc=True))
COLUMNS = {"positions": slice(2, 5), "forces": slice(8, 11), "energies": slice(11, 12), "stresses": slice(12, 15)}


class Lammps:
    """The one under test; it runs inputs that are written for pair_style dtmd."""

    def __init__(self, options: list[str]) -> None:
        self.command = [MLIAP_LAMMPS, "-log", "none", *options]
        self.kokkos = bool(options)

    def run(self, folder: Path, text: str, ranks: int = 1) -> subprocess.CompletedProcess:
        """Exit code and output, also of a run that fails."""
        (pair_coeff,) = (line for line in text.splitlines() if line.startswith("pair_coeff"))
        lines = input_lines("model.mliap.pt", pair_coeff.split()[4:])
        text = text.replace("pair_style dtmd device cpu", "").replace(pair_coeff, lines)
        (folder / "in.mliap").write_text(text)
        parallel = [environment_program("mpirun"), "-np", str(ranks)] if ranks > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([*parallel, *self.command, "-in", "in.mliap"], cwd=folder, capture_output=True, text=True,
                              env=environment, timeout=120)

    def output(self, folder: Path, text: str, ranks: int = 1) -> str:
        """Of a run that succeeds."""
        wrap(folder / "model.lammps.pt", folder / "model.mliap.pt")
        done = self.run(folder, text, ranks)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["plain", "Kokkos"])
def lammps(request) -> Lammps:
    if not MLIAP_LAMMPS:
        pytest.skip(NO_MLIAP)
    if request.param == "plain":
        return Lammps([])
    if "KOKKOS package API" not in subprocess.run([MLIAP_LAMMPS, "-h"], capture_output=True, text=True).stdout:
        pytest.skip(f"not run: {MLIAP_LAMMPS} has no Kokkos; build it with tools/build_lammps_mliap.sh --kokkos")
    return Lammps(["-k", "on", "-sf", "kk"])


CASES = {
    "smaller than the cutoff": crystal(SKEWED, 5, PERIODIC),
    "slab": crystal(WIDE, 12, (True, True, False)),
    "molecule": crystal(np.diag([9.0, 8.0, 9.5]), 7, (False, False, False)),
}


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_python_also_after_atoms_crossed_the_boundary(lammps, tmp_path, case, dtype, tolerance):
    atoms = CASES[case].copy()
    write_case(tmp_path, atoms, dtype, speed=0.05)
    lammps.output(tmp_path, head(atoms) + MEASURE.format(stride=40) + "timestep 0.0005\nfix 1 all nve\nrun 120\n")
    dumped = frames(tmp_path, len(atoms))
    assert len(dumped) == 4
    assert_toy_has_the_numbers_of_python(tmp_path, atoms, dumped, tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_a_trajectory_is_that_of_pair_style_dtmd(plugin, lammps, tmp_path, name):
    exported(potential_of(name), tmp_path)
    write_start(example()[0], 100, tmp_path / "start.data")
    energy = measured(run_plugin(tmp_path, REAL + MD))
    expected = frames(tmp_path, 57)
    for ranks in (1, 2) if lammps.kokkos else (1,):
        np.testing.assert_allclose(measured(lammps.output(tmp_path, REAL + MD, ranks)), energy, rtol=1e-11)
        got = frames(tmp_path, 57)
        assert len(got) == len(expected) == 3
        for quantity, columns in COLUMNS.items():
            scale = np.abs(expected[:, :, columns]).max()
            np.testing.assert_allclose(got[:, :, columns], expected[:, :, columns], rtol=0, atol=1e-9 * scale,
                                       err_msg=quantity)


def test_wide_features_fit_the_buffers_of_lammps(plugin, lammps, tmp_path):
    """On the CPU its exchange writes beyond them when it gets more than three numbers for each atom at once."""
    exported(small_potential(width=128, n_layers=3, cutoff=5.0), tmp_path)
    write_start(example()[0], 100, tmp_path / "start.data")
    (energy,) = measured(run_plugin(tmp_path, REAL + "run 0\n" + PRINT_ENERGY))
    for ranks in (1, 2) if lammps.kokkos else (1,):
        (got,) = measured(lammps.output(tmp_path, REAL + "run 0\n" + PRINT_ENERGY, ranks))
        np.testing.assert_allclose(got, energy, rtol=1e-11)


def test_ranks_without_atoms(lammps, tmp_path):
    if not lammps.kokkos:
        pytest.skip("several ranks need Kokkos")
    atoms = crystal(np.diag([9.0, 8.0, 9.0]), 12, (True, True, False))
    atoms.cell[2, 2] = 30.0
    atoms.positions[:, 2] += 5.5
    write_case(tmp_path, atoms, speed=0.05)
    text = head(atoms).replace("boundary p p s", "boundary p p f\nprocessors 1 1 *") + MD
    (alone,), one_rank = measured(lammps.output(tmp_path, text)), frames(tmp_path, 12)
    (energy,) = measured(lammps.output(tmp_path, text, ranks=3))
    np.testing.assert_allclose(energy, alone, rtol=1e-11)
    np.testing.assert_allclose(frames(tmp_path, 12), one_rank, rtol=0, atol=1e-8 * np.abs(one_rank).max())


REFUSALS = {
    "units": ("units metal", "units real", "this run has `units real`; write: units metal"),
    "elements in the wrong order": ("H C Pd", "C H Pd", "mass 1.008 u, but pair_coeff says it is C"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_and_says_what_to_write(lammps, tmp_path, case):
    good, bad, message = REFUSALS[case]
    write_case(tmp_path, crystal(WIDE, 6, PERIODIC))
    wrap(tmp_path / "model.lammps.pt", tmp_path / "model.mliap.pt")
    done = lammps.run(tmp_path, REAL.replace(good, bad) + "run 0\n")
    assert done.returncode != 0 and message in done.stderr, done.stdout + done.stderr


def test_several_ranks_without_kokkos_end_with_a_message(lammps, tmp_path):
    if lammps.kokkos:
        pytest.skip("with Kokkos they run")
    write_case(tmp_path, crystal(WIDE, 6, PERIODIC))
    wrap(tmp_path / "model.lammps.pt", tmp_path / "model.mliap.pt")
    done = lammps.run(tmp_path, REAL + "run 0\n", ranks=2)
    assert done.returncode != 0 and "on 2 MPI ranks the layers of this potential need forward_exchange" in done.stderr


def test_not_a_number_on_one_rank_ends_all_with_step_and_atom(lammps, tmp_path):
    atoms = Atoms("PdCH", positions=[[9, 9, 9], [1, 1, 1], [1, 1, 4.5]], cell=[12, 12, 12], pbc=True)
    write_case(tmp_path, atoms, poison=2.0)
    wrap(tmp_path / "model.lammps.pt", tmp_path / "model.mliap.pt")
    text = REAL.replace("read_data", "processors * 1 1\nread_data")
    text += "group h id 3\nvelocity h set 0 0 -100\nfix 1 all nve\ntimestep 0.001\nrun 100\n"
    done = lammps.run(tmp_path, text, ranks=2 if lammps.kokkos else 1)
    assert done.returncode != 0 and "step 1" in done.stderr and "of atom" in done.stderr, done.stderr
