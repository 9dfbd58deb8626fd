"""Guards of pair_style dtmd during MD: absurd forces, pairs nearer than in the training data, committees."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from lammps_cases import MEASURE, WIDE, frames, head, measured, run, write_case
from model_cases import potential_of
from small import example
from test_lammps_agreement import exported
from toys import CUTOFF, ELEMENTS, crystal, write_toy

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.lammps import write_start
from dtmd.md import read_dump

PERIODIC = (True, True, True)
COLLISION = Atoms("PdCH", positions=[[9, 9, 9], [1, 1, 1], [1, 1, 4.5]], cell=[12, 12, 12], pbc=True)
SHOT = "group h id 3\nvelocity h set 0 0 -100\nfix 1 all nve\ntimestep 0.001\n"
RANKS = pytest.mark.parametrize("ranks", [1, 2])


def collision(folder: Path, options: str, **toy) -> str:
    """An input in which a hydrogen is shot at a carbon, every step dumped."""
    write_case(folder, COLLISION, **toy)
    return (head(COLLISION).replace("device cpu", "device cpu " + options) + SHOT
            + MEASURE.format(stride=1) + "dump_modify d flush yes\nrun 100\n")


def stopped(folder: Path, text: str, ranks: int = 1) -> str:
    with pytest.raises(DtmdError) as stop:
        run(folder, text, ranks)
    return " ".join(str(stop.value).split())


@RANKS
def test_an_absurd_force_stops_the_run_and_leaves_the_last_good_frame(plugin, tmp_path, ranks):
    message = stopped(tmp_path, collision(tmp_path, "max_force 5"), ranks)
    found = re.search(r"step (\d+): the force of atom ([23]) \(([CH])\) is (\S+) eV/Angstrom, above max_force 5\. The "
                      r"last good frame, step (\d+), is in dtmd.last_good.lammpstrj\.", message)
    assert found, message
    step, atom, element, force, last = found.groups()
    assert int(last) == int(step) - 1 and (atom, element) in (("2", "C"), ("3", "H")) and 5 < float(force) < 100
    kept = read_dump(tmp_path / "dtmd.last_good.lammpstrj")
    dumped = frames(tmp_path, 3)
    assert len(dumped) == int(step), "all steps before are in the dump, and no other"
    np.testing.assert_allclose(kept.positions[0], dumped[-1][:, 2:5], atol=1e-10)
    np.testing.assert_allclose(kept.forces[0], dumped[-1][:, 8:11], atol=1e-10)
    # velocity Verlet: the velocities are those at the end of the step
    expected = (dumped[-1] - dumped[-2])[:, 2:5] + 0.5 * units.ACCELERATION * dumped[-1][:, 8:11] / kept.masses[:, None]
    np.testing.assert_allclose(kept.velocities[0], expected, rtol=1e-6, atol=1e-9)  # Å/fs, as a step is 1 fs
    assert list(kept.numbers) == [46, 6, 1] and np.abs(kept.forces).max() < 5
    assert not list(tmp_path.glob("*.part"))


def test_a_run_goes_on_from_the_last_good_frame(plugin, tmp_path):
    text = collision(tmp_path, "max_force 5 last_good kept.lammpstrj")
    step = int(re.search(r"frame, step (\d+), is in kept", stopped(tmp_path, text))[1])
    expected = read_dump(tmp_path / "kept.lammpstrj").forces[0]
    run(tmp_path, head(COLLISION) + f"read_dump kept.lammpstrj {step} x y z vx vy vz\n" + MEASURE.format(stride=1)
        + "run 0\n")
    np.testing.assert_allclose(frames(tmp_path, 3)[0][:, 8:11], expected, atol=1e-10)


@RANKS
def test_not_a_number_leaves_the_last_good_frame(plugin, tmp_path, ranks):
    message = stopped(tmp_path, collision(tmp_path, "max_force 1e9", poison=2.0), ranks)
    step, last = re.search(r"step (\d+): the energy or force of atom [23] \([CH]\) is not a finite number\. The last "
                           r"good frame, step (\d+), is in dtmd", message).groups()
    assert int(last) == int(step) - 1
    assert np.isfinite(read_dump(tmp_path / "dtmd.last_good.lammpstrj").forces).all()


def test_a_bad_start_and_a_folder_that_is_not_there_are_said(plugin, tmp_path):
    near = COLLISION.copy()
    near.positions[2, 2] = 1.5
    write_case(tmp_path, near)
    text = head(near).replace("device cpu", "max_force 5") + "run 0\n"
    assert re.search(r"step 0: the force of atom .* There is no good frame before it\.", stopped(tmp_path, text))
    message = stopped(tmp_path, collision(tmp_path, "max_force 5 last_good gone/kept.lammpstrj"))
    assert "above max_force 5. The last good frame could not be written to gone/kept.lammpstrj: No such file" in message


def test_a_minimisation_may_begin_anywhere(plugin, tmp_path):
    near = COLLISION.copy()
    near.positions[2, 2] = 1.5
    write_case(tmp_path, near)
    run(tmp_path, head(near).replace("device cpu", "max_force 5") + "minimize 0 1e-4 50 100\nrun 0\n")


CLOSEST = {"H-H": 2.2, "H-C": 2.0, "C-Pd": 2.6, "Pd-Pd": 1.0}  # never a C near a C, or H near Pd
WATCH = """
compute watch all pair dtmd
thermo_style custom step c_watch[1] c_watch[2] c_watch[3] c_watch[4]
"""
PRINT_WATCH = 'print "MEASURED $(c_watch[1]) $(c_watch[2]) $(c_watch[3]:%.17g) $(c_watch[4]:%.17g)"\n'


def n_too_close(atoms: Atoms) -> int:
    first, second, distances = neighbor_list("ijd", atoms, CUTOFF)
    count = 0
    for i, j, distance in zip(first, second, distances, strict=True):
        pair = sorted((atoms.symbols[i], atoms.symbols[j]), key=ELEMENTS.index)
        count += distance < CLOSEST.get("-".join(pair), CUTOFF)
    return count // 2


@RANKS
def test_pairs_nearer_than_in_the_training_data_are_counted_and_said_once(plugin, tmp_path, ranks):
    atoms = crystal(WIDE, 12, PERIODIC)
    write_case(tmp_path, atoms, closest=CLOSEST, speed=0.02)
    output = run(tmp_path, head(atoms) + WATCH + "fix 1 all nve\nrun 20\n" + PRINT_WATCH + "run 0\n" + PRINT_WATCH
                 + "write_dump all custom last.lammpstrj id element xu yu zu modify element H C Pd\n", ranks)
    (number, steps, *deviation), (again, one, *_) = measured(output)
    last = read_dump(tmp_path / "last.lammpstrj", timestep=1.0)
    expected = n_too_close(Atoms(last.numbers, last.positions[0], cell=last.cells[0], pbc=True))
    assert number == again == expected > 3 and (steps, one) == (21, 1)
    assert np.isnan(deviation).all()
    warnings = [line for line in output.splitlines() if "extrapolates" in line]
    assert len(warnings) == 2, "one in each run"
    assert re.search(r"step 0: atom \d+ \((\w+)\) has a neighbour (\w+) at \S+ Angstrom, but (no \1 and \2 of the "
                     r"training data are closer than \S+|the training data have no \1 and \2 within the cutoff):",
                     warnings[0])


def test_nothing_is_said_within_the_training_data_or_without_knowing_them(plugin, tmp_path):
    atoms = crystal(WIDE, 12, PERIODIC)
    pairs = ["H-H", "H-C", "H-Pd", "C-C", "C-Pd", "Pd-Pd"]
    write_case(tmp_path, atoms, closest=dict.fromkeys(pairs, 1.0))
    text = head(atoms) + WATCH + "run 0\n" + PRINT_WATCH
    output = run(tmp_path, text.replace("device cpu", "extrapolation yes"))
    assert measured(output)[0][:2].tolist() == [0, 0] and "extrapolat" not in output.partition("run 0")[2]
    output = run(tmp_path, text.replace("device cpu", "extrapolation no"))
    assert np.isnan(measured(output)[0][:2]).all() and "not counted" not in output
    write_toy(tmp_path / "model.lammps.pt")
    output = run(tmp_path, text)
    assert np.isnan(measured(output)[0][:2]).all()
    assert "does not hold the closest distances of its training data, so pairs that are closer are not" in output


def committee(folder: Path, atoms: Atoms, files: list[str]) -> str:
    return head(atoms).replace("model.lammps.pt", " ".join(files)) + MEASURE.format(stride=1)


DEVIATION = "fix deviation all pair 1 dtmd deviation 0\n" + WATCH
DUMP_DEVIATION = "write_dump all custom deviation.txt id f_deviation modify sort id format float %.17g\n"


def checked_committee(folder: Path, atoms: Atoms, files: list[str], ranks: int) -> None:
    """A committee against runs of its members, one by one."""
    alone = []
    for file in files:
        run(folder, committee(folder, atoms, [file]) + "run 0\n")
        alone.append(frames(folder, len(atoms))[0][:, 8:])
    output = run(folder, committee(folder, atoms, files) + DEVIATION + "run 0\n" + PRINT_WATCH + DUMP_DEVIATION, ranks)
    mean, forces = np.mean(alone, axis=0), np.array(alone)[:, :, :3]
    np.testing.assert_allclose(frames(folder, len(atoms))[0][:, 8:], mean, rtol=1e-9, atol=1e-9 * np.abs(mean).max())
    deviations = np.sqrt(np.mean(np.sum((forces - mean[:, :3]) ** 2, axis=2), axis=0))
    assert deviations.min() > 1e-3
    got = np.loadtxt(folder / "deviation.txt", skiprows=9)[:, 1]
    np.testing.assert_allclose(got, deviations, rtol=1e-8)
    np.testing.assert_allclose(measured(output)[0][2:], [deviations.max(), deviations.mean()], rtol=1e-8)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_committee_gives_the_mean_of_its_members_and_their_deviation(plugin, tmp_path, ranks):
    atoms = crystal(WIDE, 12, PERIODIC)
    write_case(tmp_path, atoms)
    files = ["a.lammps.pt", "b.lammps.pt", "./c.lammps.pt"]
    for seed, file in enumerate(files):
        write_toy(tmp_path / file, seed=seed)
    checked_committee(tmp_path, atoms, files, ranks)


@RANKS
def test_architectures_may_differ_in_a_committee(plugin, tmp_path, ranks):
    trajectory = example()[0]
    write_start(trajectory, 100, tmp_path / "start.data")
    for name in ("egnn", "painn"):
        (tmp_path / name).mkdir()
        exported(potential_of(name, torch.float64), tmp_path / name)
    atoms = Atoms(trajectory.numbers, trajectory.positions[100], cell=trajectory.cells[100], pbc=True)
    checked_committee(tmp_path, atoms, ["egnn/model.lammps.pt", "painn/model.lammps.pt"], ranks)


def test_a_trajectory_of_a_committee_is_the_same_on_two_ranks(plugin, tmp_path):
    atoms = crystal(WIDE, 12, PERIODIC)
    write_case(tmp_path, atoms, speed=0.1)
    write_toy(tmp_path / "b.lammps.pt", seed=1)
    text = committee(tmp_path, atoms, ["model.lammps.pt", "b.lammps.pt"]) + DEVIATION + "fix 1 all nve\n"
    text += "timestep 0.0005\nrun 40\n" + PRINT_WATCH + DUMP_DEVIATION
    results = []
    for ranks in (1, 2):
        output = run(tmp_path, text, ranks)
        deviations = np.loadtxt(tmp_path / "deviation.txt", skiprows=9)
        results.append((frames(tmp_path, 12)[-1], deviations, measured(output)[0]))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-7)


def test_the_member_that_has_seen_least_decides_what_is_too_close(plugin, tmp_path):
    atoms = Atoms("HCPd", positions=[[1, 1, 1], [2.5, 1, 1], [6, 6, 6]], cell=[9, 9, 9], pbc=True)
    write_case(tmp_path, atoms, closest={"H-C": 1.0})
    write_toy(tmp_path / "b.lammps.pt", seed=1, closest={"H-C": 1.6})
    write_toy(tmp_path / "c.lammps.pt", seed=2)
    for files, number in ((["model"], 0), (["model", "b"], 1), (["b", "model"], 1), (["b", "c"], np.nan)):
        text = committee(tmp_path, atoms, [f"{file}.lammps.pt" for file in files])
        output = run(tmp_path, text + WATCH + "run 0\n" + PRINT_WATCH)
        np.testing.assert_equal(measured(output)[0][0], number)


def test_one_potential_has_no_deviation(plugin, tmp_path):
    atoms = crystal(WIDE, 3, PERIODIC)
    write_case(tmp_path, atoms)
    assert "cannot extract property deviation" in stopped(tmp_path, head(atoms) + DEVIATION + "run 0\n")


def test_a_repeated_pair_style_takes_another_potential(plugin, tmp_path):
    atoms = crystal(WIDE, 6, PERIODIC)
    write_case(tmp_path, atoms)
    write_toy(tmp_path / "b.lammps.pt", seed=1)
    style = "pair_style dtmd\n"
    text = head(atoms) + 'run 0\nprint "MEASURED $(pe:%.17g)"\n' + style
    output = run(tmp_path, text + "pair_coeff * * b.lammps.pt H C Pd\nrun 0\n" + 'print "MEASURED $(pe:%.17g)"\n')
    first, second = measured(output)
    assert abs(first - second) > 1e-3
    assert "not set" in stopped(tmp_path, text + "run 0\n")
