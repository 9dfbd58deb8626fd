"""What users name as a model becomes an ASE calculator, whatever kind of file or function it is."""

import sys
import zipfile

import numpy as np
import pytest
import torch
from analysis_cases import Springs, called
from ase import Atoms
from small import example
from test_calculator import skewed, write_model
from toys import CUTOFF, crystal, reference, write_toy

from dtmd.calculator import DtmdCalculator
from dtmd.errors import DtmdError
from dtmd.export import export_aotinductor, export_torchscript
from dtmd.named_calculators import named_calculators

MODULE = """
from analysis_cases import Springs

def spring():
    return Springs(30.0, {(0, 1): 0.74})

def number():
    return 1.0

def broken():
    raise ValueError("no licence")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory, whose modules are forgotten again."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_an_exported_potential_is_a_calculator(tmp_path):
    path = write_toy(tmp_path / "toy.pt", closest={"H-Pd": 1.5})
    atoms = crystal(np.diag([9.0, 8.0, 7.0]), 12, (True, True, False))
    atoms.calc = DtmdCalculator(path)
    expected = reference(path, atoms)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-10)
    np.testing.assert_allclose(atoms.get_potential_energies(), expected["energies"], atol=1e-10)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), -expected["virial"] / atoms.get_volume(), atol=1e-10)
    unseen = dict.fromkeys(("H-H", "H-C", "C-C", "C-Pd", "Pd-Pd"), CUTOFF)
    assert atoms.calc.closest_pairs == {"H-Pd": 1.5} | unseen
    assert DtmdCalculator(write_toy(tmp_path / "other.pt")).closest_pairs is None
    with pytest.raises(DtmdError, match="does not know Au, only H, C, Pd"):
        atoms.calc.get_potential_energy(Atoms("Au"))


@pytest.mark.parametrize("readout", ["per_atom", "pooled"])
def test_model_and_export_agree_and_many_at_once_equal_one_by_one(tmp_path, readout):
    write_model(tmp_path, readout=readout)
    atoms = skewed()
    places = atoms.positions + np.random.default_rng(0).normal(scale=0.1, size=(90, *atoms.positions.shape))
    model, exported = DtmdCalculator(tmp_path), DtmdCalculator(export_torchscript(tmp_path).path)
    energies, forces = model.evaluate_many(atoms, places)
    for calculator in (model, exported):
        some, others = calculator.evaluate_many(atoms, places[60:])
        np.testing.assert_allclose(some, energies[60:], rtol=1e-10)
        np.testing.assert_allclose(others, forces[60:], atol=1e-9)
    atoms.calc = exported
    for k in (0, 89):
        atoms.positions = places[k]
        assert np.isclose(atoms.get_potential_energy(), energies[k], rtol=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), forces[k], atol=1e-9)


@pytest.mark.slow
def test_machine_code_is_a_calculator(tmp_path):
    write_model(tmp_path)
    model, exported = DtmdCalculator(tmp_path), DtmdCalculator(export_aotinductor(tmp_path).path)
    atoms = skewed()
    np.testing.assert_allclose(exported.get_forces(atoms), model.get_forces(atoms), atol=1e-9)


def test_names_labels_and_folders(here):
    for name in ("a", "b"):
        (here / name).mkdir()
        write_model(here / name)
    exported = export_torchscript(here / "a").path
    (here / "mine.py").write_text(MODULE)
    models = named_calculators(["a", "b/model.pt", f"fast={exported}", "mine:spring"])
    assert [model.label for model in models] == ["a", "b", "fast", "mine:spring"]
    assert models[0].file.name == "model.pt" and models[3].file is None and models[3].slug == "mine_spring"
    assert isinstance(models[3].calculator, Springs)
    assert models[0].calculator is not models[1].calculator
    assert [m.label for m in named_calculators(["a/model.pt", str(exported)])] == ["a", "model.lammps"]
    as_trained, rounded = named_calculators(["a"])[0].calculator, named_calculators(["a"], torch.float32)[0].calculator
    assert as_trained.get_potential_energy(skewed()) != rounded.get_potential_energy(skewed())
    with pytest.raises(DtmdError, match="given twice"):
        named_calculators(["a", "a"])
    with pytest.raises(DtmdError, match="x: is given twice"):
        named_calculators(["x=a", "x=b"])


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere/model.pt", "nowhere/model.pt: no such file"),
    ("nowhere:spring", "nowhere:spring: no module nowhere in "),
    ("needy:spring", "needy:spring: no module no_such_package in "),
    ("wrong:spring", "wrong:spring: the module wrong cannot be imported .SyntaxError: "),
    ("mine:springs", "mine:springs: .*mine.py has no function springs"),
    ("mine:number", r"mine:number: number\(\) gave a float, not an ASE calculator"),
    ("mine:broken", r"mine:broken: broken\(\) failed \(ValueError: no licence\)"),
])
def test_names_that_lead_nowhere(here, name, message):
    (here / "mine.py").write_text(MODULE)
    (here / "needy.py").write_text("import no_such_package\n")
    (here / "wrong.py").write_text("def spring(:\n")
    with pytest.raises(DtmdError, match=message):
        named_calculators([name])
    assert str(here) not in sys.path


def test_a_file_for_ml_iap_is_refused(tmp_path):
    path = tmp_path / "model.mliap.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/extra/dtmd/format", "mliap 1")
    with pytest.raises(DtmdError, match="is for pair_style mliap of LAMMPS and runs there alone"):
        DtmdCalculator(path)


def test_failures_of_a_calculator_name_it():
    atoms = Atoms("HH", positions=[[0, 0, 0], [0, 0, 0.8]])
    with pytest.raises(DtmdError, match="no spring: the calculator no spring failed .IndexError"):
        called("no spring", Springs(1.0, {(0, 5): 1.0})).evaluate_many(atoms, atoms.positions[None])
    at_once = atoms.positions[None] * [[[1.0]], [[0.0]]]
    with np.errstate(invalid="ignore"), pytest.raises(DtmdError, match="not finite in structure 1 of 2"):
        called("touching", Springs(1.0, {(0, 1): 0.8})).evaluate_many(atoms, at_once)


def test_the_model_sees_the_frame_as_training_does(tmp_path):
    trajectory = example()[0]
    atoms = Atoms(trajectory.symbols, trajectory.positions[3], cell=trajectory.cells[3], pbc=True)
    model = DtmdCalculator(write_model(tmp_path))
    _, forces = model.evaluate_many(atoms, trajectory.positions[:20])
    np.testing.assert_allclose(forces[3], model.get_forces(atoms), atol=1e-10)
