"""pair_style dtmd in the real lmp against Python: energies, forces, virial and longer runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from lammps_cases import (
    LAMMPS_BAR, MEASURE, PRINT_ENERGY, SKEWED, WIDE, assert_toy_has_the_numbers_of_python, frames, head, measured, run,
    write_case,
)
from toys import crystal, reference

CASES = {
    "skewed": (SKEWED, 5, (True, True, True)),
    "slab": (WIDE, 12, (True, True, False)),
    "molecule": (np.diag([9.0, 8.0, 9.5]), 7, (False, False, False)),
}


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_python_also_after_atoms_crossed_the_boundary(plugin, tmp_path, case, dtype, tolerance):
    cell, n_atoms, pbc = CASES[case]
    atoms = crystal(cell, n_atoms, pbc)
    write_case(tmp_path, atoms, dtype, speed=0.05)
    run(tmp_path, head(atoms) + MEASURE.format(stride=40) + "timestep 0.0005\nfix 1 all nve\nrun 120\n")

    dumped = frames(tmp_path, n_atoms)
    assert len(dumped) == 4
    assert not any(pbc) or np.any(dumped[-1][:, 5:8] != dumped[0][:, 5:8]), "no atom crossed a boundary"
    assert_toy_has_the_numbers_of_python(tmp_path, atoms, dumped, tolerance)


def test_virial_is_the_derivative_of_the_energy_by_strain(plugin, tmp_path):
    atoms = crystal(SKEWED, 5, (True, True, True))
    step, text = 1e-4, ""
    strains = [(a, b, sign) for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)) for sign in (-1, 1)]
    for number, (a, b, sign) in enumerate(strains):
        deformation = np.eye(3)
        deformation[a, b] += sign * step
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ deformation.T, scale_atoms=True)
        (tmp_path / str(number)).mkdir()
        write_case(tmp_path / str(number), strained)
        text += f"clear\n{head(atoms)}run 0\n{PRINT_ENERGY}".replace("start.data", f"{number}/start.data")
    write_case(tmp_path, atoms)
    tensor = " ".join(f"$(c_p[{k}]:%.17g)" for k in range(1, 7))
    text += f'clear\n{head(atoms)}{MEASURE.format(stride=1)}run 0\nprint "MEASURED {tensor}"\n'

    *energies, pressure = measured(run(tmp_path, text))
    virial = pressure * atoms.cell.volume / LAMMPS_BAR
    numerical = -np.diff(np.reshape(energies, (6, 2)))[:, 0] / (2 * step)
    np.testing.assert_allclose(virial, numerical, rtol=0, atol=1e-6 * np.abs(virial).max())


def test_atoms_out_of_reach_and_a_changing_number_of_atoms(plugin, tmp_path):
    positions = [[1, 1, 1], [2.2, 1, 1], [9, 9, 9], [30, 30, 30]]
    atoms = Atoms("HCPdH", positions=positions, cell=[40, 40, 40], pbc=True)
    write_case(tmp_path, atoms)
    energies = measured(run(tmp_path, head(atoms) + "run 0\n" + PRINT_ENERGY + """
group bound id 1 2
delete_atoms group bound compress no
run 0
""" + PRINT_ENERGY + "delete_atoms group all\nrun 0\n" + PRINT_ENERGY))
    model = tmp_path / "model.lammps.pt"
    together, bound = (reference(model, part)["energies"].sum() for part in (atoms, atoms[:2]))
    np.testing.assert_allclose(np.ravel(energies), [together, together - bound, 0.0], rtol=1e-10)


def test_constant_energy(plugin, tmp_path):
    atoms = crystal(WIDE, 14, (True, True, True))
    write_case(tmp_path, atoms, speed=0.01)
    deviations = []
    for timestep in (0.0004, 0.0002):
        output = run(tmp_path, f"""{head(atoms)}
timestep {timestep}
fix 1 all nve
thermo {round(0.0008 / timestep)}
thermo_style custom step etotal
thermo_modify format float %.12g
run {round(0.08 / timestep)}
""")
        energies = np.array(re.findall(r"^ +\d+ +(-?\d+\.\d+)$", output, flags=re.MULTILINE), float)
        assert len(energies) == 101
        deviations.append(np.abs(energies - energies[0]).max())
    assert deviations[0] < 0.01
    assert 3.9 < deviations[0] / deviations[1] < 4.1  # velocity Verlet: as the square of the time step


def test_restart_continues_the_run(plugin, tmp_path):
    atoms = crystal(WIDE, 14, (True, True, True))
    write_case(tmp_path, atoms, speed=0.01)
    through = "timestep 0.0005\nfix 1 all nve\n" + MEASURE.format(stride=40)
    run(tmp_path, head(atoms) + through + "run 20\nwrite_restart half.restart\nrun 20\n")
    whole = frames(tmp_path, len(atoms))[-1]
    lines = head(atoms).replace("read_data start.data", "read_restart half.restart")
    run(tmp_path, lines + through + "run 20\n")
    np.testing.assert_allclose(frames(tmp_path, len(atoms))[-1], whole, rtol=1e-9, atol=1e-9)


def test_hybrid_overlay_adds_to_another_pair_style(plugin, tmp_path):
    atoms = crystal(WIDE, 8, (True, True, True))
    write_case(tmp_path, atoms)
    overlay = head(atoms).replace("pair_style dtmd", "pair_style hybrid/overlay zbl 3.0 4.0 dtmd")
    overlay = overlay.replace("* * model", "* * dtmd model")
    for k, z in enumerate((1, 6, 46), start=1):
        overlay += f"pair_coeff {k} {k} zbl {z} {z}\n"
    (alone, zbl, total), = measured(run(tmp_path, overlay + """
compute z all pair zbl
compute d all pair dtmd
thermo_style custom step c_d c_z pe
run 0
print "MEASURED $(c_d:%.17g) $(c_z:%.17g) $(pe:%.17g)"
"""))
    assert zbl > 0
    expected = reference(tmp_path / "model.lammps.pt", atoms)["energies"].sum()
    np.testing.assert_allclose(alone, expected, rtol=1e-10)
    np.testing.assert_allclose(total, alone + zbl, rtol=1e-10)
