"""Short LAMMPS runs of toy potentials, for the tests of pair_style dtmd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from toys import ELEMENTS, write_toy

from dtmd.lammps import write_start
from dtmd.lmp import run_lammps
from dtmd.trajectory import Trajectory

SKEWED = np.array([[3.4, 0, 0], [0.9, 3.7, 0], [-0.7, 1.1, 4.3]])  # below the cutoff in two directions
WIDE = np.array([[9.0, 0, 0], [-3.0, 8.0, 0], [0, 0, 9.5]])

HEAD = """
units metal
atom_modify map yes
boundary {boundary}
read_data start.data
pair_style dtmd device cpu
pair_coeff * * model.lammps.pt {elements}
"""
MEASURE = """
compute e all pe/atom
compute s all stress/atom NULL virial
compute p all pressure NULL virial
thermo_style custom step pe c_p[1] c_p[2] c_p[3] c_p[4] c_p[5] c_p[6]
dump d all custom {stride} run.dump id type x y z ix iy iz fx fy fz c_e c_s[*]
dump_modify d sort id format float %.17g
"""
PRINT_ENERGY = 'print "MEASURED $(pe:%.17g)"\n'


def write_case(folder: Path, atoms: Atoms, dtype: str = "float64", speed: float = 0.0, **toy) -> None:
    """A model, a start file and nothing else in the folder."""
    velocities = np.random.default_rng(1).normal(0, 1, (len(atoms), 3)) * speed
    write_toy(folder / "model.lammps.pt", dtype, **toy)
    trajectory = Trajectory(
        numbers=atoms.numbers, masses=atoms.get_masses(), pbc=atoms.pbc, cells=atoms.cell.array[None],
        times=np.zeros(1), positions=atoms.positions[None], velocities=velocities[None],
    )
    write_start(trajectory, 0, folder / "start.data")


def head(atoms: Atoms) -> str:
    boundary = " ".join("p" if periodic else "s" for periodic in atoms.pbc)
    present = [element for element in ELEMENTS if element in atoms.symbols]
    return HEAD.format(boundary=boundary, elements=" ".join(present))


def run(folder: Path, text: str, ranks: int = 1) -> str:
    (folder / "in.test").write_text(text)
    return run_lammps("in.test", {}, cwd=folder, ranks=ranks)


def frames(folder: Path, n_atoms: int) -> np.ndarray:
    """The dumped numbers, shape (frames, atoms, columns)."""
    lines = (folder / "run.dump").read_text().splitlines()
    size = n_atoms + 9
    rows = [[line.split() for line in lines[k + 9:k + size]] for k in range(0, len(lines), size)]
    return np.array(rows, float)


def measured(output: str) -> list[np.ndarray]:
    """The numbers that the input printed after the word MEASURED."""
    return [np.array(line.split()[1:], float) for line in output.splitlines() if line.startswith("MEASURED")]
