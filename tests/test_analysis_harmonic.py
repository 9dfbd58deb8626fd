"""Harmonic modes against analytic frequencies and ASE's own, rigid motions, models mode by mode, the command."""

import csv
import json
from functools import partial

import ase.io
import numpy as np
import pytest
from analysis_cases import (
    MORSE, Springs, Trap, called, morse, morse_stiffness, springs_of, train_on_h2, wavenumber,
)
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.vibrations import Vibrations

from dtmd import cli
from dtmd.analysis.harmonic import harmonic_modes, match, rigid_motions
from dtmd.analysis.harmonic_report import Harmonic, harmonic_notes, mode_table
from dtmd.analysis.structures import RelaxationSettings, atoms_of, held_components, read_structure
from dtmd.calculator import DtmdCalculator
from dtmd.errors import DtmdError
from dtmd.export import export_torchscript
from dtmd.named_calculators import NamedCalculator

H2 = Atoms("HH", positions=[[0.0, 0.0, 0.0], [0.1, 0.2, 0.75]])
CARBON_DIOXIDE = Atoms("OCO", positions=[[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]])


def free(atoms):
    return np.zeros((len(atoms), 3), dtype=bool)


def holding(atoms, *components):
    held = free(atoms)
    for component in components:
        held[component] = True
    return held


def as_they_are(atoms, calculator, held=None, **settings):
    return harmonic_modes(called("x", calculator), atoms, free(atoms) if held is None else held, relaxation=None,
                          **settings)


def test_a_dimer_on_a_spring_has_its_analytic_frequency():
    modes = harmonic_modes(called("spring", Springs(30.0, {(0, 1): 0.74})), H2, free(H2), delta=1e-4,
                           relaxation=RelaxationSettings(fmax=1e-7))
    expected = wavenumber(30.0, H2.get_masses()[0] / 2)
    np.testing.assert_allclose(modes.wavenumbers, [expected], rtol=1e-6)
    assert np.isclose(modes.zero_point_energy, 0.5 * expected * units.invcm, rtol=1e-6)
    assert np.isclose(modes.atoms.get_distance(0, 1), 0.74, atol=1e-6)
    assert len(modes.rigid) == 5 and np.abs(modes.rigid).max() < 2.0
    np.testing.assert_allclose(modes.displacements[0, 0], -modes.displacements[0, 1], atol=1e-9)


def test_a_slab_on_held_layers_has_the_frequencies_of_ase(tmp_path):
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.rattle(0.05, seed=1)
    below = [atom.index for atom in slab if atom.tag > 1]
    slab.set_constraint(FixAtoms(below))
    modes = as_they_are(slab, EMT(), held_components(slab))
    slab.calc = EMT()
    theirs = Vibrations(slab, indices=sorted(set(range(12)) - set(below)), name=str(tmp_path / "vib"), delta=0.01)
    theirs.run()
    values = theirs.get_frequencies()
    expected = np.sort(values.real - values.imag)
    assert len(modes.rigid) == 0 and len(expected) == 12
    np.testing.assert_allclose(modes.wavenumbers, expected, atol=1e-3)
    np.testing.assert_allclose(modes.vectors[:, below], 0.0)
    flat = modes.vectors.reshape(12, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(12), atol=1e-10)
    assert modes.asymmetry < 0.1


def test_a_lennard_jones_crystal_has_the_frequencies_of_ase_but_for_translations(tmp_path):
    crystal = bulk("Ar", cubic=True, a=5.2) * (2, 1, 1)
    calculator = LennardJones(epsilon=0.01, sigma=3.4, rc=9.0, smooth=True)
    modes = as_they_are(crystal, calculator)
    crystal.calc = calculator
    theirs = Vibrations(crystal, name=str(tmp_path / "vib"), delta=0.01)
    theirs.run()
    values = theirs.get_frequencies()
    expected = np.sort(values.real - values.imag)
    expected = np.sort(expected[np.argsort(np.abs(expected))[3:]])  # ASE keeps the translations, near zero
    np.testing.assert_allclose(modes.wavenumbers, expected, atol=0.01)
    assert len(modes.rigid) == 3 and np.abs(modes.rigid).max() < 0.5


@pytest.mark.parametrize(("atoms", "held", "n_rigid"), [
    (Atoms("H"), [], 3),
    (H2, [], 5),
    (CARBON_DIOXIDE, [], 5),
    (molecule("H2O"), [], 6),
    (molecule("H2O"), [0], 3),  # turns about the held atom
    (molecule("H2O"), [0, 1], 1),  # about the line through both
    (molecule("H2O"), [(slice(None), 0)], 3),  # within the plane that the atoms stay in
    (CARBON_DIOXIDE, [0, 1], 0),
    (bulk("Cu", cubic=True), [], 3),
    (fcc111("Cu", (2, 2, 2), vacuum=5.0), [], 3),  # periodic in two directions
    (Atoms("CCC", positions=[[0, 0, 0], [0, 0.7, 1], [0.2, 0, 2]], cell=[0, 0, 3], pbc=(0, 0, 1)), [], 4),  # a wire
    (Atoms("CC", positions=[[0, 0, 0], [0, 0, 1.3]], cell=[0, 0, 2.6], pbc=(0, 0, 1)), [], 3),
])
def test_rigid_motions_by_periodicity_and_held_components(atoms, held, n_rigid):
    motions = rigid_motions(atoms, holding(atoms, *held))
    assert motions.shape[1] == n_rigid
    np.testing.assert_allclose(motions.T @ motions, np.eye(n_rigid), atol=1e-10)


@pytest.mark.parametrize("held", [[], [0], [0, 1], [(slice(None), 0)]])
def test_rigid_motions_cost_no_energy_and_the_rest_of_the_spectrum_is_untouched(held):
    water = molecule("H2O")
    modes = as_they_are(water, springs_of(water), holding(water, *held), delta=1e-4)
    assert np.abs(modes.rigid).max(initial=0.0) < 2.0
    assert len(modes.rigid) + len(modes.wavenumbers) == int((~holding(water, *held)).sum())
    assert modes.wavenumbers.min() > 100.0


def test_held_components_of_an_atom():
    atoms = Atoms("HC")
    modes = as_they_are(atoms, Trap((1.0, 2.0, 3.0)), holding(atoms, 0, (1, 1)))
    mass = atoms.get_masses()[1]
    np.testing.assert_allclose(modes.wavenumbers, [wavenumber(1.0, mass), wavenumber(3.0, mass)], rtol=1e-6)


def test_imaginary_modes_are_marked_and_have_no_zero_point_energy():
    atoms = Atoms("HC")
    modes = as_they_are(atoms, Trap((-1.0, 2.0, 3.0)), holding(atoms, 0))
    single = [wavenumber(k, atoms.get_masses()[1]) for k in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(modes.wavenumbers, [-single[0], *single[1:]], rtol=1e-6)
    assert np.isclose(modes.zero_point_energy, 0.5 * sum(single[1:]) * units.invcm, rtol=1e-6)
    result = Harmonic([modes], [])
    assert mode_table(result)[1][0] == ["1", f"{single[0]:.1f}i"]
    assert any("x: 1 imaginary" in note for note in harmonic_notes(result, 0.001))


def test_modes_are_matched_by_overlap_not_by_order():
    atoms = Atoms("HC")
    held = holding(atoms, 0)
    first, second = (as_they_are(atoms, Trap(k), held) for k in ((1.0, 2.0, 3.0), (2.5, 1.5, 4.0)))
    paired = match(first, second, held)
    assert paired.partners.tolist() == [1, 0, 2] and paired.rmsd == 0.0
    np.testing.assert_allclose(paired.overlaps, 1.0, atol=1e-10)
    mass = atoms.get_masses()[1]
    apart = [wavenumber(a, mass) - wavenumber(b, mass) for a, b in ((2.5, 1.0), (1.5, 2.0), (4.0, 3.0))]
    np.testing.assert_allclose(Harmonic([first, second], [paired]).differences(0), apart, rtol=1e-6)


def test_turned_molecules_and_degenerate_modes_match():
    cluster = Atoms("Ar4", positions=[[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    turned = cluster.copy()
    turned.rotate(70, (1, 2, 3))
    turned.translate([1, 2, 3])
    first, second = (as_they_are(atoms, springs_of(cluster), delta=1e-3) for atoms in (cluster, turned))
    paired = match(first, second, free(cluster))
    np.testing.assert_allclose(paired.overlaps, 1.0, atol=1e-4)
    np.testing.assert_allclose(second.wavenumbers, first.wavenumbers, atol=0.01)
    assert paired.rmsd < 1e-10


def test_a_bent_model_of_a_straight_molecule_has_a_mode_less():
    straight = as_they_are(CARBON_DIOXIDE, springs_of(CARBON_DIOXIDE))
    bent = CARBON_DIOXIDE.copy()
    bent.positions[1, 0] = 0.3
    other = as_they_are(bent, springs_of(bent))
    result = Harmonic([straight, other], [match(straight, other, free(bent))])
    assert len(straight.wavenumbers) == 4 and len(other.wavenumbers) == 3
    assert (result.matches[0].partners == -1).sum() == 1 and np.isnan(result.differences(0)).sum() == 1
    assert sum(row[2:] == ["–"] * 3 for row in mode_table(result)[1]) == 1


@pytest.fixture(scope="module")
def hydrogen(tmp_path_factory):
    """The model file of a network trained on H2."""
    return train_on_h2(tmp_path_factory.mktemp("h2") / "model.pt")


def test_h2_of_a_trained_model(hydrogen):
    """Its relaxed frequency is that of its own energy curve, and near that of the curve that it learned."""
    calculator = DtmdCalculator(hydrogen)
    modes = harmonic_modes(NamedCalculator("h2", str(hydrogen), calculator), H2, free(H2), delta=0.001,
                           relaxation=RelaxationSettings(fmax=1e-6))
    length, step = modes.atoms.get_distance(0, 1), 1e-3
    places = np.zeros((3, 2, 3))
    places[:, 1, 2] = length + np.array([-step, 0.0, step])
    left, middle, right = calculator.evaluate_many(H2, places)[0]
    reduced = H2.get_masses()[0] / 2
    curvature = (left - 2 * middle + right) / step**2
    np.testing.assert_allclose(modes.wavenumbers, [wavenumber(curvature, reduced)], rtol=1e-3)
    assert abs(length - MORSE["length"]) < 0.02
    np.testing.assert_allclose(modes.wavenumbers, [wavenumber(morse_stiffness(), reduced)], rtol=0.1)
    assert np.isclose((morse(0.741) - 2 * morse(0.74) + morse(0.739)) / 1e-6, morse_stiffness(), rtol=1e-3)


def test_a_relaxation_that_does_not_converge_says_how_far_it_came():
    settings = RelaxationSettings(fmax=1e-8, max_steps=1)
    with pytest.raises(DtmdError, match="spring: not relaxed after 1 steps of bfgs: the largest force is .* eV/Å, "
                                        "wanted 1e-08; give more --max-steps"):
        harmonic_modes(called("spring", Springs(30.0, {(0, 1): 0.5})), H2, free(H2), relaxation=settings)


def test_forces_that_are_not_finite_are_told():
    atoms = Atoms("HC", positions=[[0, 0, 0], [0.3, 0, 0]])
    with pytest.raises(DtmdError, match=r"trap: energy or forces are not finite in step \d of the relaxation"):
        harmonic_modes(called("trap", Trap((-5.0, 1.0, 1.0), poison=0.4)), atoms, holding(atoms, 0))
    with pytest.raises(DtmdError, match="x: energy or forces are not finite in structure"):
        as_they_are(Atoms("HC"), Trap((5.0, 1.0, 1.0), poison=0.005), holding(atoms, 0))


def test_nothing_to_vibrate():
    with pytest.raises(DtmdError, match="all atoms are held"):
        as_they_are(H2, EMT(), holding(H2, 0, 1))
    with pytest.raises(DtmdError, match="a single atom that nothing holds has no vibrations"):
        as_they_are(Atoms("H"), EMT())


def test_fire_relaxes_too():
    settings = RelaxationSettings(fmax=1e-3, optimizer="fire")
    modes = harmonic_modes(called("spring", Springs(30.0, {(0, 1): 0.74})), H2, free(H2), relaxation=settings)
    assert np.isclose(modes.atoms.get_distance(0, 1), 0.74, atol=1e-4)
    with pytest.raises(DtmdError, match="--optimizer newton: unknown; there are: bfgs, fire"):
        RelaxationSettings(optimizer="newton")


def test_structures_their_frames_and_what_they_hold(tmp_path):
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.set_constraint(FixAtoms([2]))
    ase.io.write(tmp_path / "POSCAR", slab)
    read = read_structure(str(tmp_path / "POSCAR"))
    assert held_components(read).tolist() == [[False] * 3, [False] * 3, [True] * 3]
    read.set_constraint([*read.constraints, FixCartesian([1], (False, False, True))])
    assert held_components(read).sum() == 4 and held_components(read, "1").sum() == 7
    ase.io.write(tmp_path / "two.xyz", [H2, CARBON_DIOXIDE])
    assert len(read_structure(f"{tmp_path}/two.xyz")) == 2 and len(read_structure(f"{tmp_path}/two.xyz@-1")) == 3
    bonded = H2.copy()
    bonded.set_constraint(FixBondLength(0, 1))
    with pytest.raises(DtmdError, match="has a constraint FixBondLengths"):
        held_components(bonded)
    (tmp_path / "notes.txt").write_text("no structure\n")
    for place, message in (("two.xyz@5", "has no frame 5"), ("notes.txt", "ASE cannot read it"),
                           ("nothing.xyz", "no such file")):
        with pytest.raises(DtmdError, match=message):
            read_structure(f"{tmp_path}/{place}")


def test_groups_of_atoms():
    symbols = ["H", "H", "C", "Pd", "Pd"]
    assert atoms_of("Pd,1", symbols, "--move").tolist() == [0, 3, 4]
    assert atoms_of("2-4,3", symbols, "--move").tolist() == [1, 2, 3]
    for text, message in (("0-1", "the atoms are 1 to 5"), ("4-6", "the atoms are 1 to 5"), ("Au", "no Au, the"),
                          ("1,,2", "neither an element nor"), ("first", "neither an element nor")):
        with pytest.raises(DtmdError, match=message):
            atoms_of(text, symbols, "--move")


@pytest.fixture
def run(dtmd_here):
    return partial(dtmd_here, "analyze", "harmonic")


def test_the_command(run, tmp_path, hydrogen):
    exported = export_torchscript(hydrogen, tmp_path / "h2.lammps.pt").path
    ase.io.write(tmp_path / "h2.xyz", H2)
    code, shown, errors = run(f"net={hydrogen}", f"fast={exported}", "--reference", "spring=analysis_cases:dimer",
                              "--structure", "h2.xyz", "--fmax", 1e-5, "-o", "out")
    assert code in (0, None), errors
    assert "net" in shown and "fast" in shown and "overlap" in shown
    found = json.loads((tmp_path / "out" / "harmonic.json").read_text())
    assert [model["label"] for model in found["models"]] == ["spring", "net", "fast"]
    assert found["reference"] == "spring" and found["models"][0]["sha256"] is None and found["models"][1]["sha256"]
    values = [model["wavenumbers"][0] for model in found["models"]]
    assert np.isclose(values[0], wavenumber(30.0, H2.get_masses()[0] / 2), rtol=1e-3)
    assert np.isclose(values[1], values[2], rtol=1e-4)
    rows = list(csv.DictReader((tmp_path / "out" / "harmonic.csv").open()))
    assert np.isclose(float(rows[1]["difference_cm-1"]), values[1] - values[0], rtol=1e-5)
    assert float(rows[1]["overlap"]) > 0.999
    assert (tmp_path / "out" / "harmonic.png").exists() and (tmp_path / "out" / "harmonic.svg").exists()
    frames = ase.io.read(tmp_path / "out" / "modes_net" / "mode_001.extxyz", index=":")
    stretch = [frame.get_distance(0, 1) for frame in frames]
    assert len(frames) == 20 and np.isclose(np.ptp(stretch), 4 * 0.3, atol=1e-6)
    relaxed = ase.io.read(tmp_path / "out" / "modes_net" / "structure.extxyz")
    assert np.isclose(relaxed.get_distance(0, 1), np.mean(stretch), atol=1e-6)


def test_the_command_refuses(run, tmp_path, hydrogen):
    ase.io.write(tmp_path / "h2.xyz", H2)
    for arguments, message in (
        (["nowhere:made", "--structure", "h2.xyz"], "no module nowhere"),
        ([hydrogen, "--structure", "h2.xyz", "--fixed", "H"], "all atoms are held"),
        ([hydrogen, "--structure", "h2.xyz", "--max-steps", 1], "not relaxed after 1 steps"),
    ):
        code, _, errors = run(*arguments)
        assert code == 2 and message in errors
    assert not (tmp_path / "harmonic").exists()


def test_tables_show_whole_numbers_and_labels_however_wide_they_are(capsys):
    label, titles = "runs/[old]/" + 40 * "x", [f"energy of model {k} (eV)" for k in range(9)]
    cli._print_table(["model", label, *titles], [["runs/[b]", "1.0", *("−3583.7112" for _ in titles)]])
    shown = capsys.readouterr().out
    assert shown.count("−3583.7112") == len(titles) and "runs/[b]" in shown and label in shown
    assert len({len(line) for line in shown.splitlines()}) == 1
