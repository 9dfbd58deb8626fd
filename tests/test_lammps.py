"""Start files, and inputs/h2pd6.in as it stands in the repository."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from io import StringIO
from itertools import islice

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.io.lammpsdata import read_lammps_data
from toys import write_toy

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.lammps import held_atoms_lines, pair_coeff_lines, write_start
from dtmd.lmp import run_lammps
from dtmd.resources import embedded
from dtmd.trajectory import Trajectory

INPUT = embedded("inputs") / "h2pd6.in"


def trajectory_of(atoms: Atoms, velocities: np.ndarray | None) -> Trajectory:
    return Trajectory(
        numbers=atoms.numbers, masses=atoms.get_masses(), pbc=atoms.pbc, cells=atoms.cell.array[None],
        times=np.zeros(1), positions=atoms.positions[None], source="aimd/run_7.extxyz",
        velocities=None if velocities is None else velocities[None],
    )


@pytest.fixture
def general_cell():
    """Atoms in a cell that LAMMPS does not take as it is."""
    rng = np.random.default_rng(5)
    cell = np.array([[3.0, 4.0, 0.5], [-4.0, 5.0, 1.0], [0.3, -1.0, 7.0]])
    atoms = Atoms("PdHCHPd", scaled_positions=rng.normal(0, 1, (5, 3)), cell=cell, pbc=True)
    return atoms, rng.normal(0, 1e-2, (5, 3))


def test_start_file_is_the_frame_in_another_orientation(tmp_path, general_cell):
    atoms, velocities = general_cell
    write_start(trajectory_of(atoms, velocities), -1, tmp_path / "start.data")
    text = (tmp_path / "start.data").read_text()
    assert text.splitlines()[0] == "aimd/run_7.extxyz frame 0, 0 fs; units metal, boundary p p p"
    assert re.search(r"Masses\n\n1 1.008 # H\n2 12.011 # C\n3 106.42 # Pd\n", text)
    read = read_lammps_data(tmp_path / "start.data", atom_style="atomic", units="metal")
    assert list(read.symbols) == list(atoms.symbols)

    # all products of cell vectors, positions and velocities are those before: the same rotation for all
    section = text.partition("Velocities\n\n")[2]
    written = np.array([line.split()[1:] for line in section.splitlines()], float) / units.FS_PER_PS
    before = np.vstack([atoms.cell.array, atoms.positions, 100 * velocities])
    after = np.vstack([read.cell.array, read.positions, 100 * written])
    np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=1e-12, atol=1e-12)
    assert np.linalg.det(after[:3]) > 0


def test_start_file_refusals(tmp_path, general_cell):
    atoms, velocities = general_cell
    with pytest.raises(DtmdError, match="aimd/run_7.extxyz: no frame 3, there are 1"):
        write_start(trajectory_of(atoms, velocities), 3, tmp_path / "start.data")
    with pytest.raises(DtmdError, match="no velocities"):
        write_start(trajectory_of(atoms, None), 0, tmp_path / "start.data")
    flat = atoms.copy()
    flat.cell[2] = 0
    with pytest.raises(DtmdError, match="volume 0 Å³"):
        write_start(trajectory_of(flat, velocities), 0, tmp_path / "start.data")
    assert not list(tmp_path.iterdir())


def test_lines_that_hold_what_the_aimd_held(general_cell):
    trajectory = trajectory_of(*general_cell)
    fixed = np.zeros((5, 3), dtype=bool)
    assert held_atoms_lines(trajectory) == "" == held_atoms_lines(replace(trajectory, fixed=fixed))
    fixed[[0, 1, 4]], fixed[2, 2] = True, True
    assert held_atoms_lines(replace(trajectory, fixed=fixed)).splitlines() == [
        "group held id 1:2 5", "fix held held setforce 0.0 0.0 0.0", "# held in some directions only, and not here: 3",
    ]


def test_pair_coeff_lines():
    lines = pair_coeff_lines("runs/h2pd6/model.lammps.pt", ["H", "C", "Pd"])
    assert lines == "pair_style dtmd\npair_coeff * * runs/h2pd6/model.lammps.pt H C Pd"


@pytest.fixture
def h2pd6(tmp_path, shared_data):
    """A folder with a potential and the first frame of a real run: one that `inputs/h2pd6.in` runs in."""
    with gzip.open(shared_data / "h2pd6_gfn1" / "traj_000.extxyz.gz", "rt") as frames:
        first = "".join(islice(frames, 59))  # ASE would read all frames to find the first
    atoms = ase.io.read(StringIO(first), format="extxyz")
    write_start(trajectory_of(atoms, atoms.arrays["velocities"]), 0, tmp_path / "start.data")
    write_toy(tmp_path / "model.lammps.pt", per_atom_energy=False)
    return tmp_path, {"model": "model.lammps.pt", "dense": 6, "stride": 5, "restart_every": 10}


def read_frames(path):
    """Steps, times in ps and the columns of each frame of a dump, by name."""
    frames = []
    for block in path.read_text().split("ITEM: TIME\n")[1:]:
        lines = block.splitlines()
        columns = next(k for k, line in enumerate(lines) if line.startswith("ITEM: ATOMS"))
        rows = [line.split() for line in lines[columns + 1:columns + 58]]
        names = lines[columns].split()[2:]
        frames.append((int(lines[2]), float(lines[0]), dict(zip(names, zip(*rows), strict=True))))
    return frames


def test_h2pd6_input(plugin, h2pd6):
    folder, variables = h2pd6
    variables |= {"start": "start.data", "steps": 20, "out": "md/a/run"}
    output = run_lammps(INPUT, variables, cwd=folder)
    assert {file.name for file in (folder / "md" / "a").iterdir()} == {
        "run.log", "run.lammpstrj", "run.restart.a", "run.restart.b", "run.restart.end"}

    frames = read_frames(folder / "md" / "a" / "run.lammpstrj")
    assert [step for step, _, _ in frames] == [0, 1, 2, 3, 4, 5, 6, 10, 15, 20]
    np.testing.assert_allclose([time for _, time, _ in frames], [0.0005 * step for step, _, _ in frames])
    assert list(frames[0][2]) == "id type element mass xu yu zu vx vy vz fx fy fz v_pe_share".split()
    assert frames[0][2]["element"] == ("H",) * 2 + ("C",) * 49 + ("Pd",) * 6
    # a toy has no training data, so that the last column is not known
    rows = re.findall(r"^ *(\d+(?: +[-+.\de]+){6}) +nan *$", output, flags=re.MULTILINE)
    thermo = {int(row[0]): float(row[3]) for row in map(str.split, rows)}
    shares = {step: sum(map(float, columns["v_pe_share"])) for step, _, columns in frames}
    assert set(thermo) == {0, 20}
    for step, energy in thermo.items():
        assert shares[step] == pytest.approx(energy, rel=1e-8)
    assert len(set(shares.values())) == len(shares), "a potential energy was not computed afresh"


def test_h2pd6_input_from_a_restart(plugin, h2pd6):
    folder, variables = h2pd6
    run_lammps(INPUT, {**variables, "start": "start.data", "steps": 20, "out": "whole"}, cwd=folder)
    run_lammps(INPUT, {**variables, "restart": "whole.restart.a", "steps": 10, "out": "rest"}, cwd=folder)
    whole, rest = read_frames(folder / "whole.lammpstrj"), read_frames(folder / "rest.lammpstrj")
    assert [step for step, _, _ in rest] == [15, 20]
    for name in ("xu", "vy", "fz", "v_pe_share"):
        expected, found = (np.array(frames[-1][2][name], float) for frames in (whole, rest))
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


def test_a_failing_run_shows_what_lammps_said(plugin, h2pd6):
    folder, variables = h2pd6
    with pytest.raises(DtmdError, match="LAMMPS failed: ERROR.*gone.data"):
        run_lammps(INPUT, {**variables, "start": "gone.data"}, cwd=folder)
