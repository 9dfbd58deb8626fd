"""A potential in machine code gives the numbers of Python in LAMMPS, or is refused with the command that mends it."""

from __future__ import annotations

import platform
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_cases import (
    MEASURE, PRINT_ENERGY, WIDE, assert_the_real_frame_has_the_numbers_of_python, close, frames, head, measured, run,
    start_from,
)
from model_cases import potential_of, real_frame
from small import example, saved, small_potential
from toys import crystal
from typer.testing import CliRunner

import dtmd.export
from dtmd import artefact, cli
from dtmd.aotinductor import graphs_of, run_pieces
from dtmd.checkpoint import load_model
from dtmd.compilation import traced
from dtmd.errors import DtmdError
from dtmd.export import export_aotinductor, export_torchscript
from dtmd.info import describe
from dtmd.lammps import write_start
from dtmd.neighbors import Edges

PERIODIC = (True, True, True)
REAL = Atoms("HCPd", pbc=True)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The folder of a model, exported both ways; compiling takes most of the time of this file."""
    folder = tmp_path_factory.mktemp("compiled")
    model = saved(small_potential(), folder / "model.pt")
    export_torchscript(model)
    export_aotinductor(model)
    return folder


def head_of(folder: Path, atoms: Atoms, suffix: str = "pt2") -> str:
    return head(atoms).replace("model.lammps.pt", str(folder / f"model.lammps.{suffix}"))


def test_forces_energies_and_stresses_of_atoms_are_those_of_python(plugin, compiled, tmp_path):
    assert_the_real_frame_has_the_numbers_of_python(tmp_path, small_potential(), head_of(compiled, REAL), 1e-9)


RUNS = {
    "nve": "fix 1 all nve\ntimestep 0.0005\nrun 40\n",
    "npt": "velocity all create 300 1\nfix 1 all npt temp 300 300 0.05 aniso 0 0 0.5\ntimestep 0.0005\nrun 30\n",
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_trajectory_is_that_of_torchscript(plugin, compiled, tmp_path, kind):
    atoms = crystal(WIDE, 12, PERIODIC)
    start_from(tmp_path, atoms, speed=0.15)
    found = []
    for suffix, ranks in (("pt", 1), ("pt2", 1), ("pt2", 2)):
        run(tmp_path, head_of(compiled, atoms, suffix) + MEASURE.format(stride=10) + RUNS[kind], ranks)
        found.append(frames(tmp_path, 12))
    expected, *others = found
    assert len({(np.linalg.norm(frame[:, None, 2:5] - frame[:, 2:5], axis=2) < 4.0).sum() for frame in expected}) > 1
    for got in others:
        close(got, expected)


FEW = {
    "one atom alone": Atoms("Pd", cell=[20, 20, 20], pbc=True),
    "one atom and its images": Atoms("C", cell=[3, 9, 9], pbc=True),
    "two atoms out of reach": Atoms("HPd", positions=[[0, 0, 0], [9, 9, 9]], cell=[20, 20, 20], pbc=True),
    "a pair": Atoms("HC", positions=[[0, 0, 0], [1.1, 0.3, 0]], cell=[20, 20, 20], pbc=True),
    "a lonely atom on the second rank": Atoms(
        "HCPd", positions=[[1, 1, 1], [2, 1, 1], [1, 1, 15]], cell=[20, 20, 20], pbc=True),
}


@pytest.mark.parametrize("case", FEW)
def test_few_atoms_and_few_edges(plugin, compiled, tmp_path, case):
    atoms = FEW[case]
    start_from(tmp_path, atoms)
    found = []
    for suffix, ranks in (("pt", 1), ("pt2", 1), ("pt2", 2)):
        text = head_of(compiled, atoms, suffix).replace("read_data", "processors 1 1 *\nread_data")
        run(tmp_path, text + MEASURE.format(stride=1) + "run 0\n", ranks)
        found.append(frames(tmp_path, len(atoms)))
    close(found[1], found[0])
    close(found[2], found[0])


def test_graphs_serve_any_numbers_of_atoms_and_edges(compiled):
    graphs, _ = artefact.load_compiled(compiled / "model.lammps.pt2")
    energies, _ = artefact.load(compiled / "model.lammps.pt")
    random = torch.Generator().manual_seed(0)
    for n_atoms in (1, 2, 3, 8):
        for n_edges in (0, 1, 2, 17):
            species = torch.randint(3, (n_atoms,), generator=random)
            edge_index = torch.randint(n_atoms, (2, n_edges), generator=random)
            edge_vec = (torch.rand(n_edges, 3, generator=random, dtype=torch.float64) + 0.5).requires_grad_()
            expected = energies(species, edge_index, edge_vec)
            (gradient,) = torch.autograd.grad(expected.sum(), edge_vec, materialize_grads=True, allow_unused=True)
            got = graphs["whole"](species, edge_index, edge_vec.detach())
            assert torch.allclose(got[0], expected, rtol=1e-12) and got[1].shape == (n_edges, 3)
            assert torch.allclose(got[1], gradient, rtol=1e-9, atol=1e-12)


SLOW_TO_TRACE = [pytest.param(name, marks=pytest.mark.slow) for name in ("painn", "visnet")]


@pytest.mark.parametrize("name", ["egnn", *SLOW_TO_TRACE])
def test_pieces_and_the_whole_are_traced_for_any_sizes(name):
    potential = small_potential(n_layers=3) if name == "egnn" else potential_of(name)
    graphs, counts = graphs_of(potential.requires_grad_(False))
    operations = {key: traced(graph.function, graph.arguments, {}, "", closed=True) for key, graph in graphs.items()}
    random = torch.Generator().manual_seed(0)
    species, edge_index = torch.randint(3, (8,), generator=random), torch.randint(8, (2, 20), generator=random)
    edge_vec = torch.rand(20, 3, generator=random, dtype=torch.float64) + 0.5
    in_pieces = run_pieces(operations, counts["kept_tensors"], species, edge_index, edge_vec)
    edge_vec.requires_grad_()
    expected = potential(species, edge_index, edge_vec, torch.zeros_like(species), 1)
    (gradient,) = torch.autograd.grad(expected.sum(), edge_vec)
    for energies, by_edges in (operations["whole"](species, edge_index, edge_vec.detach()), in_pieces):
        assert torch.allclose(energies, expected, rtol=1e-12)
        assert torch.allclose(by_edges, gradient, rtol=1e-8, atol=1e-10 * gradient.abs().max())


def relabelled(compiled: Path, folder: Path, label: str, value: str) -> Path:
    """A copy whose label says something else, and whose code is not to be run: it is no code."""
    path = folder / "other.lammps.pt2"
    with zipfile.ZipFile(compiled / "model.lammps.pt2") as whole, zipfile.ZipFile(path, "w") as copy:
        for item in whole.infolist():
            content = whole.read(item)
            if item.filename.endswith(f"/extra/dtmd/{label}"):
                content = value.encode()
            elif item.filename.endswith(".so"):
                content = b"no code"
            copy.writestr(item.filename, content)
    return path


LABELS = {
    "torch": ("2.1.0", "compiled for torch 2.1.0, this plugin is built with torch"),
    "machine": ("aarch64", "compiled for aarch64, this machine is"),
    "instructions": ("fma avx1024", "compiled for processors with avx1024, which this one lacks"),
    "elements": ("H C Pd", "cannot be loaded"),
}


@pytest.mark.parametrize("label", LABELS)
def test_what_this_machine_cannot_run_is_refused_before_it_is_loaded(plugin, compiled, tmp_path, label):
    value, message = LABELS[label]
    model = relabelled(compiled, tmp_path, label, value)
    atoms = crystal(WIDE, 3, PERIODIC)
    start_from(tmp_path, atoms)
    with pytest.raises(DtmdError) as refusal:
        run(tmp_path, head(atoms).replace("model.lammps.pt", str(model)) + "run 0\n")
    text = " ".join(str(refusal.value).split())
    assert message in text and "dtmd export model.pt --format" in text


def test_python_refuses_another_torch(compiled, tmp_path):
    path = relabelled(compiled, tmp_path, "torch", "2.1.0")
    with pytest.raises(DtmdError, match="compiled for torch 2.1.0, this is torch"):
        artefact.load_compiled(path)


def test_the_file_says_what_it_is(compiled):
    path = compiled / "model.lammps.pt2"
    metadata = artefact.read_metadata(path)
    assert metadata["elements"] == ["H", "C", "Pd"] and metadata["compiled"]["node_tensors"] == [1]
    assert metadata["filters"]["largest_force_change_eV_per_A"] < 1e-4
    assert "exported potential (AOTInductor)" in describe(path) and "avx2" in describe(path)
    with pytest.raises(DtmdError, match="an exported potential, not a trained model"):
        load_model(path)


def test_without_a_compiler_or_for_another_machine_it_is_refused(tmp_path, monkeypatch):
    model = saved(small_potential(), tmp_path / "model.pt")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(DtmdError, match="no C\\+\\+ compiler is found .*--format torchscript"):
            export_aotinductor(model)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(DtmdError, match="this machine is riscv64.*export it with --format torchscript"):
        export_aotinductor(model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_the_command_line_knows_the_formats(tmp_path):
    result = CliRunner().invoke(cli.app, ["export", str(tmp_path), "--format", "onnx"])
    assert "the formats are: torchscript, aotinductor" in str(result.exception)


@pytest.mark.slow
def test_what_cannot_be_traced_is_refused(tmp_path):
    model = saved(potential_of("mace"), tmp_path / "model.pt")
    with pytest.raises(DtmdError, match="mace cannot be compiled; export it with --format torchscript"):
        export_aotinductor(model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("precision, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", ["egnn", "painn", "visnet"])
def test_every_architecture_in_machine_code(plugin, tmp_path, name, precision, tolerance):
    potential = potential_of(name, precision)
    export_aotinductor(saved(potential, tmp_path / "model.pt"))
    assert_the_real_frame_has_the_numbers_of_python(tmp_path, potential, head_of(tmp_path, REAL), tolerance)


@pytest.mark.slow
def test_a_pooled_readout_has_the_energy_of_python(plugin, tmp_path):
    potential = small_potential(readout="pooled")
    model = export_aotinductor(saved(potential, tmp_path / "model.pt"))
    structures, positions = real_frame()
    write_start(example()[0], 100, tmp_path / "start.data")
    output = run(tmp_path, head_of(tmp_path, REAL) + "run 0\n" + PRINT_ENERGY)
    edges = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    expected = dtmd.export.predict_with_virial(potential, structures, positions, edges).energies
    np.testing.assert_allclose(measured(output)[0], expected, rtol=1e-10)
    assert model.metadata["compiled"]["node_tensors"] == []
