"""Short LAMMPS runs of toy potentials and of the real frame, for the tests of pair_style dtmd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from model_cases import CUTOFF, real_frame
from small import example
from toys import ELEMENTS, reference, write_toy

from dtmd.lammps import write_start
from dtmd.lmp import run_lammps
from dtmd.neighbors import Edges
from dtmd.potential import Potential
from dtmd.trajectory import Trajectory

SKEWED = np.array([[3.4, 0, 0], [0.9, 3.7, 0], [-0.7, 1.1, 4.3]])  # below the cutoff in two directions
WIDE = np.array([[9.0, 0, 0], [-3.0, 8.0, 0], [0, 0, 9.5]])
LAMMPS_BAR = 1.6021765e6  # LAMMPS's own factor from eV/Å³ to bar, rounded to eight digits

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
    write_toy(folder / "model.lammps.pt", dtype, **toy)
    start_from(folder, atoms, speed)


def start_from(folder: Path, atoms: Atoms, speed: float = 0.0) -> None:
    """The start file, with random velocities, Å/fs."""
    velocities = np.random.default_rng(1).normal(0, 1, (len(atoms), 3)) * speed
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


def as_tensor(six: np.ndarray) -> np.ndarray:
    """From LAMMPS's order xx yy zz xy xz yz, (3, 3)."""
    xx, yy, zz, xy, xz, yz = six
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def close(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding, column by column."""
    assert got.shape == expected.shape
    scale = np.maximum(np.abs(expected).max(axis=(0, 1)), 1.0)
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=1e-9)


def by_atom(potential: Potential) -> np.ndarray:
    """Columns fx fy fz, energy, xx yy zz xy xz yz of pair_style dtmd on the real frame: half of an edge to each end."""
    structures, positions = real_frame()
    (j, i), shift = edges = Edges(structures, CUTOFF, 0.1).at(positions)
    edge_vec = (positions[j] - positions[i] + shift).requires_grad_()
    energies = potential(structures.species, edges[0], edge_vec, structures.graph_index, 1)
    (gradient,) = torch.autograd.grad(energies.sum(), edge_vec)
    outer = edge_vec.detach()[:, :, None] * gradient[:, None, :] * LAMMPS_BAR
    stress = 0.25 * (outer + outer.transpose(1, 2)).reshape(-1, 9)[:, [0, 4, 8, 1, 2, 5]]
    summed = torch.zeros(57, 10, dtype=torch.float64)
    summed[:, :3] = summed[:, :3].index_add(0, i, gradient).index_add(0, j, -gradient)
    summed[:, 3] = energies.detach()
    summed[:, 4:] = summed[:, 4:].index_add(0, i, stress).index_add(0, j, stress)
    return summed.numpy()


def assert_the_real_frame_has_the_numbers_of_python(
    folder: Path, potential: Potential, first: str, tolerance: float
) -> None:
    """Forces, energies and stresses of its atoms on one to three ranks; `first` is the head of the input."""
    write_start(example()[0], 100, folder / "start.data")
    text = first + MEASURE.format(stride=1) + "run 0\n" + PRINT_ENERGY
    expected = by_atom(potential)
    for ranks in (1, 2, 3):
        output = run(folder, text, ranks)
        got = frames(folder, 57)[0][:, 8:]
        for columns in (slice(0, 3), slice(3, 4), slice(4, 10)):
            largest = np.abs(expected[:, columns]).max()
            np.testing.assert_allclose(got[:, columns], expected[:, columns], rtol=0, atol=tolerance * largest)
        np.testing.assert_allclose(measured(output)[0], expected[:, 3].sum(), rtol=tolerance)


def assert_toy_has_the_numbers_of_python(folder: Path, atoms: Atoms, dumped: np.ndarray, tolerance: float) -> None:
    """Forces, energies and the virial in dumped frames of a toy potential in the folder; `atoms` are moved there."""
    for frame in dumped:
        atoms.positions = frame[:, 2:5]
        expected = reference(folder / "model.lammps.pt", atoms)
        scale = np.abs(expected["forces"]).max()
        np.testing.assert_allclose(frame[:, 8:11], expected["forces"], rtol=0, atol=tolerance * scale)
        np.testing.assert_allclose(frame[:, 11], expected["energies"], rtol=tolerance)
        virial = -as_tensor(frame[:, 12:18].sum(0)) / LAMMPS_BAR
        np.testing.assert_allclose(virial, expected["virial"], rtol=0, atol=tolerance * np.abs(virial).max())
