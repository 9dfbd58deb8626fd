"""The potential behind pair_style mliap unified with a stand-in for LAMMPS; test_mliap_lammps.py runs the real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_cases import SKEWED, WIDE, head, run, write_case
from mliap_stand_in import Data, KokkosData, Lammps
from model_cases import CUTOFF, potential_of, real_frame
from test_lammps_agreement import exported
from toys import crystal, reference, write_toy

from dtmd import artefact
from dtmd.checkpoint import load_model
from dtmd.errors import DtmdError
from dtmd.export_mliap import export_mliap
from dtmd.info import describe
from dtmd.mliap import MLIAPPotential, input_lines
from dtmd.neighbors import Edges
from dtmd.potential import predict_with_virial

PERIODIC = (True, True, True)
FLAVOURS = {"plain": Data, "Kokkos": KokkosData}
CASES = {
    "smaller than the cutoff": crystal(SKEWED, 5, PERIODIC),
    "slab": crystal(WIDE, 12, (True, True, False)),
    "atoms out of reach": Atoms("HCPd", positions=[[1, 1, 1], [2.2, 1, 1], [9, 9, 9]], cell=[20, 20, 20], pbc=True),
    "no pairs": Atoms("HC", positions=[[1, 1, 1], [9, 9, 9]], cell=[20, 20, 20], pbc=True),
}


def loaded(path: Path, lammps: Lammps) -> MLIAPPotential:
    return MLIAPPotential(path.read_bytes(), artefact.read_metadata(path), lammps)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_energies_forces_and_virial_are_those_of_the_artefact(tmp_path, flavour, case, dtype, tolerance):
    path, atoms = write_toy(tmp_path / "toy.pt", dtype), CASES[case]
    data = FLAVOURS[flavour](atoms)
    loaded(path, Lammps(data)).compute_forces(data)
    expected = reference(path, atoms)
    np.testing.assert_allclose(data.energy, expected["energies"].sum(), rtol=tolerance)
    for got, name in ((data.energies, "energies"), (data.forces, "forces"), (data.virial, "virial")):
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got, expected[name], rtol=0, atol=tolerance * max(scale, 1e-300))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", ["egnn", "painn", "visnet"])
def test_architectures_give_what_python_gives(tmp_path, name, flavour):
    potential = potential_of(name)
    path = exported(potential, tmp_path)
    structures, positions = real_frame()
    expected = predict_with_virial(potential, structures, positions, Edges(structures, CUTOFF, 0.1).at(positions))
    symbols = [potential.elements[k] for k in structures.species]
    data = FLAVOURS[flavour](Atoms(symbols, positions=positions.numpy(), cell=structures.cells[0].numpy(), pbc=True))
    loaded(path, Lammps(data)).compute_forces(data)
    np.testing.assert_allclose(data.energy, expected.energies.item(), rtol=1e-12)
    for got, wanted in ((data.forces, expected.forces.numpy()), (data.virial, expected.virials[0].numpy())):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


def test_a_rank_without_atoms_takes_part_in_each_exchange(tmp_path):
    path, widths = write_toy(tmp_path / "toy.pt"), []
    data = KokkosData(CASES["slab"])
    data.nlocal = data.nlistatoms = data.npairs = 0
    data.forward_exchange = lambda given, result, width: widths.append(width)
    data.reverse_exchange = lambda given, result, width: widths.append(-width)
    loaded(path, Lammps(data, n_ranks=2)).compute_forces(data)
    assert widths == [3, 2, -3, -2] and data.energy == 0  # five numbers for each atom, in parts


REFUSALS = {
    "units": ({"units": "real"}, {}, "this run has `units real`; write: units metal"),
    "old exchange": ({"version": 20250722}, {}, "LAMMPS 20250722, in which forward_exchange .* wrong .* take 20260211"),
    "no ids": ({"has_ids": False}, {}, "they have none; write: atom_modify id yes"),
    "wrong order": ({"mass": {"H": 12.011, "C": 1.008, "Pd": 106.4}}, {}, "mass 12.011 u, but pair_coeff says it is H"),
    "NULL": ({}, {"elems": np.array([0, -1, 1] * 4)}, "leaves out some atoms .*; name an element for each atom type"),
    "hybrid": ({}, {"nlistatoms": 3}, "use hybrid/overlay"),
    "not finite": ({}, {"rij": np.full((1000, 3), np.nan)}, r"step 12: the energy or force of atom \d+ \((H|C|Pd)\)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_and_says_what_to_do(tmp_path, case):
    of_lammps, of_data, message = REFUSALS[case]
    data = (KokkosData if case == "old exchange" else Data)(CASES["slab"])
    for name, value in of_data.items():
        setattr(data, name, value[:data.npairs] if name == "rij" else value)
    with pytest.raises(DtmdError, match=message):
        loaded(write_toy(tmp_path / "toy.pt"), Lammps(data, **of_lammps)).compute_forces(data)


def test_pooled_readout_has_no_energy_per_atom_and_one_rank(tmp_path):
    path = write_toy(tmp_path / "toy.pt", per_atom_energy=False)
    data = Data(CASES["slab"], eflag=3)
    with pytest.raises(DtmdError, match="remove compute pe/atom"):
        loaded(path, Lammps(data)).compute_forces(data)
    with pytest.raises(DtmdError, match="2 MPI ranks here; run `lmp -in FILE` without mpirun"):
        loaded(path, Lammps(data, n_ranks=2))


def test_several_ranks_need_kokkos_and_the_rank_ends_with_a_message(tmp_path):
    """With an exception LAMMPS would wait for ever for ranks that have none."""
    write_toy(tmp_path / "toy.pt")
    script = """
from pathlib import Path
from mliap_stand_in import Data, Lammps
from test_mliap import CASES, loaded
data = Data(CASES["slab"])
loaded(Path("toy.pt"), Lammps(data, n_ranks=2)).compute_forces(data)
"""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{script}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1 and "on 2 MPI ranks the layers of this potential need forward_exchange" in ended.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model file for H, C, Pd."""
    folder = tmp_path_factory.mktemp("model")
    exported(potential_of("egnn"), folder)
    return folder / "model.pt"


def test_the_file_says_what_it_is_and_loads_in_lammps_only(model):
    written = export_mliap(model)
    assert written.path == model.with_name("model.mliap.pt")
    assert artefact.read_metadata(written.path) == written.metadata
    assert "kind: exported potential (ML-IAP)" in describe(written.path)
    with pytest.raises(DtmdError, match="write before the pair style:\npython connect_dtmd input 1 SELF"):
        torch.load(written.path, weights_only=False)
    with pytest.raises(DtmdError, match="an exported potential, not a trained model"):
        load_model(written.path)


def test_names_that_lammps_could_not_read_or_that_are_taken_are_refused(model, tmp_path):
    with pytest.raises(DtmdError, match="LAMMPS reads a potential for pair_style mliap as .pt"):
        export_mliap(model, tmp_path / "potential.mliap")
    with pytest.raises(DtmdError, match="would overwrite the model"):
        export_mliap(model, model)


def test_pair_style_dtmd_names_the_format_it_wants(plugin, model, tmp_path):
    atoms = crystal(WIDE, 6, PERIODIC)
    write_case(tmp_path, atoms)
    export_mliap(model, tmp_path / "model.mliap.pt")
    with pytest.raises(DtmdError, match="format mliap 1, this plugin reads format 3"):
        run(tmp_path, head(atoms).replace("model.lammps.pt", "model.mliap.pt") + "run 0\n")


def test_the_command_writes_it_and_the_lines_that_use_it(model):
    def dtmd(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dtmd", "export", str(model), *arguments]
        return subprocess.run(command, cwd=model.parent, capture_output=True, text=True)

    done = dtmd("--format", "mliap", "-o", "served.pt")
    assert done.returncode == 0 and input_lines("served.pt", ["H", "C", "Pd"]) in done.stdout, done.stderr
    unknown = dtmd("--format", "onnx")
    assert unknown.returncode == 2 and "the formats are: torchscript, aotinductor, mliap" in unknown.stderr

