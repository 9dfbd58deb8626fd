"""The ASE calculator is the potential, with ASE's units and signs."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from small import example, saved, small_potential

from dtmd.calculator import DtmdCalculator
from dtmd.errors import DtmdError
from dtmd.export import export_torchscript
from dtmd.lammps import pair_coeff_lines, write_start
from dtmd.lmp import run_lammps

INPUT = """
units metal
atom_modify map yes
read_data start.data
{pair}
compute p all pressure NULL virial
thermo_style custom step pe c_p
run 0
print "$(pe:%.17g) $(c_p:%.17g)" file out.txt
"""


def write_model(folder, precision=torch.float64, **config):
    saved(small_potential(precision=precision, **config), folder / "model.pt")
    return folder


def skewed():
    """Seven atoms in a periodic cell smaller than the cutoff, one outside it."""
    rng = np.random.default_rng(3)
    cell = [[4.0, 0.0, 0.0], [0.8, 4.2, 0.0], [-0.5, 0.6, 4.5]]
    return Atoms("HHCCCPdPd", scaled_positions=rng.uniform(0, 1, (7, 3)) + [[2, 0, -1], *[[0, 0, 0]] * 6], cell=cell,
                 pbc=True)


def test_forces_and_stress_are_derivatives_of_the_energy(tmp_path):
    atoms = skewed()
    atoms.calc = DtmdCalculator(write_model(tmp_path))
    assert np.allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-5), atol=1e-6)
    assert np.allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-6), atol=1e-7)
    assert np.isclose(atoms.get_potential_energies().sum(), atoms.get_potential_energy(), rtol=1e-12)


def test_it_gives_the_numbers_of_lammps(tmp_path, plugin):
    trajectory = example()[0]
    write_model(tmp_path)
    export_torchscript(tmp_path)
    write_start(trajectory, 100, tmp_path / "start.data")
    (tmp_path / "in.test").write_text(INPUT.format(pair=pair_coeff_lines("model.lammps.pt", ["H", "C", "Pd"])))
    run_lammps("in.test", {}, cwd=tmp_path)
    energy, pressure = np.loadtxt(tmp_path / "out.txt")
    atoms = Atoms(trajectory.symbols, trajectory.positions[100], cell=trajectory.cells[100], pbc=True)
    atoms.calc = DtmdCalculator(tmp_path / "model.pt")
    assert np.isclose(atoms.get_potential_energy(), energy, rtol=1e-12)
    assert np.isclose(-atoms.get_stress()[:3].mean() / units.bar, pressure, rtol=1e-6)  # 1 bar by other constants


def test_neighbours_follow_atoms_cells_and_elements(tmp_path):
    calculator = DtmdCalculator(write_model(tmp_path))
    atoms = skewed()
    atoms.calc = calculator
    atoms.get_forces()
    for change in (
        lambda: atoms.rattle(0.5, seed=1), lambda: atoms.set_cell(1.1 * atoms.cell, scale_atoms=True),
        lambda: atoms.set_atomic_numbers(atoms.numbers[::-1]), lambda: atoms.set_pbc([True, True, False]),
        lambda: atoms.pop(),
    ):
        change()
        fresh = atoms.copy()
        fresh.calc = DtmdCalculator(tmp_path)
        assert np.allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-12)


def test_without_a_cell_there_is_no_stress(tmp_path):
    molecule = Atoms("HHC", positions=[[0, 0, 0], [0.8, 0, 0], [0, 1.1, 0.2]])
    molecule.calc = DtmdCalculator(write_model(tmp_path))
    in_box = molecule.copy()
    in_box.center(vacuum=10.0)
    in_box.calc = molecule.calc.__class__(tmp_path)
    assert np.allclose(molecule.get_forces(), in_box.get_forces(), atol=1e-12)
    with pytest.raises(PropertyNotImplementedError):
        molecule.get_stress()


def test_what_a_model_does_not_have(tmp_path):
    atoms = skewed()
    atoms.calc = DtmdCalculator(write_model(tmp_path, readout="pooled"))
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()
    gold = bulk("Au")
    gold.calc = atoms.calc
    with pytest.raises(DtmdError, match="does not know Au, only H, C, Pd"):
        gold.get_potential_energy()
    with pytest.raises(DtmdError, match="no such file"):
        DtmdCalculator(tmp_path / "nothing.pt")


def test_a_float32_model_in_float64(tmp_path):
    atoms = skewed()
    energies = []
    for precision in (None, torch.float64):
        atoms.calc = DtmdCalculator(write_model(tmp_path, torch.float32), precision=precision)
        energies.append(atoms.get_potential_energy())
    assert energies[0] != energies[1] and np.isclose(*energies, rtol=1e-6)
