"""What may be wrong with a teacher or with the reference is told before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ipip_cases import OFFSET, SOFTER, md
from ipip_factories import Changed

from dtmd.errors import DtmdError
from dtmd.ipip import teacher as teachers
from dtmd.ipip.config import TeacherConfig
from dtmd.ipip.teacher import Teacher, check_level, find_teacher, shift_to_reference
from dtmd.trajectory import Trajectory


def teacher(level="EMT", **config) -> Teacher:
    return Teacher(TeacherConfig(calculator="x:y", level=level, **config), "0" * 64)


def labelled(trajectory: Trajectory, **changes) -> Trajectory:
    """By EMT with changes."""
    energies, forces = [], []
    for positions in trajectory.positions:
        atoms = Atoms(trajectory.numbers, positions)
        atoms.calc = Changed(**changes)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return replace(trajectory, energies=np.array(energies), forces=np.array(forces))


@pytest.fixture(scope="module")
def reference() -> list[Trajectory]:
    return [md(0, 6), md(1, 6)]


def test_the_shift_brings_energies_to_the_level_of_the_reference(reference):
    its = [labelled(t) for t in reference]
    shift = shift_to_reference(teacher(), its, reference, "soft EMT")
    expected = np.mean([(t.energies - own.energies).mean() for t, own in zip(reference, its, strict=True)]) / 6
    assert shift == {"Cu": pytest.approx(expected)} and abs(expected - OFFSET) < 0.2


def test_one_level_needs_no_shift_and_says_so_if_it_does(reference):
    same = [labelled(t, energy=SOFTER, forces=SOFTER, offset=OFFSET) for t in reference]
    assert shift_to_reference(teacher("soft EMT"), same, reference, "soft EMT") == {}
    with pytest.raises(DtmdError, match=r"teacher.level and reference.level are both soft EMT, but the energies of "
                                        r"run. are -3\.\d+ eV/atom off"):
        shift_to_reference(teacher("soft EMT"), [labelled(t) for t in reference], reference, "soft EMT")


def test_a_reference_of_two_levels_is_found(reference):
    mixed = [reference[0], replace(reference[1], energies=reference[1].energies + 6 * 2.0)]
    with pytest.raises(DtmdError, match="after a shift for each element the energy of run. is still .*not of one l"):
        shift_to_reference(teacher(), [labelled(t) for t in reference], mixed, "soft EMT")
    check_level(reference, reference, "soft EMT")
    with pytest.raises(DtmdError, match="reference.test: the energy of run1 is .2 eV/atom off"):
        check_level(reference, mixed, "soft EMT")


@pytest.mark.parametrize(("factor", "unit"), [
    (1 / 0.0433641, "kcal/mol/Å"), (1 / 51.4221, "Hartree/bohr"), (-1.0, None)])
def test_forces_in_another_unit_are_found_against_the_reference(reference, factor, unit):
    its = [labelled(t, energy=factor, forces=factor) for t in reference]
    with pytest.raises(DtmdError, match="the reference's forces are .* times its own") as told:
        shift_to_reference(teacher(), its, reference, "soft EMT")
    assert unit is None or f"about that of eV/Å and {unit}" in str(told.value)


@pytest.mark.parametrize(("changes", "message"), [
    ({}, None),
    ({"energy": 1 / 0.0433641}, "by 23.1 times what the forces say, about that of eV/Å and kcal/mol/Å"),
    ({"forces": -1.0}, "the energy changes by -1 times"),
    ({"forces": 1.2}, "the energy changes by 0.83. times"),
])
def test_forces_that_are_no_derivatives_of_the_energy_are_found(changes, message):
    rng = np.random.default_rng(0)
    displaced = [teachers._displaced(md(seed, 1), rng) for seed in (3, 4)]
    pairs = [teachers._work(directions, labelled(frames, **changes)) for frames, directions in displaced]
    if message is None:
        teachers._check_work(teacher(), *np.concatenate(pairs, axis=1))
    else:
        with pytest.raises(DtmdError, match=message):
            teachers._check_work(teacher(), *np.concatenate(pairs, axis=1))


@pytest.mark.parametrize(("config", "message"), [
    ({"calculator": "nowhere_to_be_found:emt"}, "no module nowhere_to_be_found in .*install it, or correct the name"),
    ({"calculator": "model.pt"}, "model.pt: no such file, and not of the form module:factory"),
    ({"calculator": "model.pt", "arguments": {"a": 1}}, "arguments: are for a module:factory, model.pt is a file"),
])
def test_a_teacher_that_is_not_there(config, message):
    with pytest.raises(DtmdError, match=message):
        find_teacher(TeacherConfig(level="EMT", **config))


def test_a_teacher_is_known_by_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def emt(**arguments): ...\n")
    first = find_teacher(TeacherConfig(calculator="mine:emt", level="EMT"))
    assert first.name.startswith("teacher EMT ") and len(first.name.split()[-1]) == 12
    with_arguments = find_teacher(TeacherConfig(calculator="mine:emt", level="EMT", arguments={"a": 1}))
    (tmp_path / "mine.py").write_text("def emt(**arguments): pass\n")
    assert len({first.digest, with_arguments.digest, find_teacher(first.config).digest}) == 3
