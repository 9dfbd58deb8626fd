"""The file between export and LAMMPS: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

import zipfile

import pytest
import torch
from toys import Toy, write_toy

from dtmd import artefact
from dtmd.errors import DtmdError
from dtmd.info import describe

METADATA = {
    "elements": ["H", "C", "Pd"], "cutoff": 4.25, "dtype": "float32", "per_atom_energy": False, "exchanged": [5],
    "stages": [1, 2, 4], "validation": {"force": 0.125},
}


def test_round_trip(tmp_path):
    path = tmp_path / "toy.lammps.pt"
    module = torch.jit.script(Toy())
    artefact.save(module, METADATA, path)
    energies, metadata = artefact.load(path)
    assert metadata == METADATA == artefact.read_metadata(path)
    species, edge_index = torch.tensor([0, 2]), torch.tensor([[0, 1], [1, 0]])
    edge_vec = torch.eye(3, dtype=torch.float64)[:2]
    nodes, edges = module.embed(species, edge_index, edge_vec)
    for k in range(2):
        nodes, edges = module.layer(k, 2, species, edge_index, nodes, edges)
    assert torch.equal(energies(species, edge_index, edge_vec), module.energies(species, nodes))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_masses_for_lammps(tmp_path):
    with zipfile.ZipFile(write_toy(tmp_path / "toy.pt")) as archive:
        masses = next(archive.read(name) for name in archive.namelist() if name.endswith("dtmd/masses"))
    assert masses.decode() == "1.0080 12.0110 106.4200"


def test_closest_pairs_for_lammps_in_the_order_of_the_elements(tmp_path):
    path = write_toy(tmp_path / "toy.pt", closest={"H-H": 0.5, "C-Pd": 1.9})
    with zipfile.ZipFile(path) as archive:
        closest = next(archive.read(name) for name in archive.namelist() if name.endswith("dtmd/closest"))
    assert closest.decode() == "0.5 4.0 4.0 4.0 1.9 4.0"
    assert artefact.read_metadata(path)["closest_pairs"] == {"H-H": 0.5, "C-Pd": 1.9}
    assert "H-H: 0.5" in describe(path)


def test_trained_model_that_was_not_exported(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(DtmdError, match=f"not written by `dtmd export`.* run: dtmd export {path}"):
        artefact.read_metadata(path)


def test_truncated_foreign_and_missing_files(tmp_path):
    whole = write_toy(tmp_path / "toy.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "notes.txt").write_text("not a potential")
    for name in ("half.pt", "notes.txt"):
        with pytest.raises(DtmdError, match=f"{name}: cut short, or not a potential"):
            artefact.load(tmp_path / name)
    with pytest.raises(DtmdError, match="no such file; write it with: dtmd export"):
        artefact.load(tmp_path / "gone.pt")


def test_a_changed_byte(tmp_path):
    path = write_toy(tmp_path / "toy.pt")
    numbers = Toy().mix.numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(numbers, b"\0" + numbers[1:]))
    with pytest.raises(DtmdError, match="toy.pt: damaged: .* does not have its checksum; write it again with"):
        artefact.load(path)


def test_another_format_version(tmp_path, monkeypatch):
    monkeypatch.setattr(artefact, "FORMAT", "0")
    path = write_toy(tmp_path / "old.pt")
    monkeypatch.undo()
    with pytest.raises(DtmdError, match="format 0, this dtmd reads format 3; export the model again"):
        artefact.read_metadata(path)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "toy.pt").mkdir()
    with pytest.raises(DtmdError, match="toy.pt: cannot be written"):
        write_toy(tmp_path / "toy.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["toy.pt"]
