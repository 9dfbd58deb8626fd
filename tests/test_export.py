"""Export: the artefact is the model, or it is refused; foreign files are told apart."""

import shutil

import pytest
import torch
from small import saved, small_potential

import dtmd.export
from dtmd import artefact
from dtmd.checkpoint import load_model
from dtmd.errors import DtmdError
from dtmd.export import export_torchscript
from dtmd.info import describe


@pytest.fixture
def model(tmp_path):
    """A model file in a run folder."""
    return saved(small_potential(precision=torch.float32), tmp_path / "run" / "model.pt", data_sha256="abc")


def test_model_file_round_trip(model):
    potential = small_potential(precision=torch.float32)
    loaded = load_model(model)
    assert loaded.potential.config == potential.config and loaded.potential.precision == torch.float32
    for name, value in potential.state_dict().items():
        assert torch.equal(loaded.potential.state_dict()[name], value)


def test_a_run_folder_exports_beside_the_model(model):
    exported = export_torchscript(model.parent)
    assert exported.path == model.parent / "model.lammps.pt"
    assert exported.metadata["elements"] == ["H", "C", "Pd"] and exported.metadata["data_sha256"] == "abc"
    assert all(value < 1e-5 for value in exported.deviations.values())
    assert artefact.read_metadata(exported.path) == exported.metadata
    assert "data_sha256: abc" in describe(exported.path) and "dtmd export" in describe(model)


def test_a_float32_model_exports_in_float64(model):
    exported = export_torchscript(model, precision=torch.float64)
    assert exported.metadata["dtype"] == "float64"
    assert all(value < 1e-10 for value in exported.deviations.values())


def test_an_artefact_that_differs_is_refused_and_not_written(model, monkeypatch):
    class Wrong(dtmd.export.Artefact):
        @torch.jit.export
        def embed(
            self, species: torch.Tensor, edge_index: torch.Tensor, edge_vec: torch.Tensor
        ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
            return self.potential.model.embed(species, edge_index, 1.001 * edge_vec)

    monkeypatch.setattr(dtmd.export, "Artefact", Wrong)
    with pytest.raises(DtmdError, match="differs from the model on real frames: .*forces"):
        export_torchscript(model)
    assert [p.name for p in model.parent.iterdir()] == ["model.pt"]


def test_the_model_is_not_overwritten(model):
    with pytest.raises(DtmdError, match="would overwrite the model"):
        export_torchscript(model, model)


def test_foreign_truncated_and_missing_models(model, tmp_path):
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(model.read_bytes()[:5000])
    text = tmp_path / "text.pt"
    text.write_text("not a model")
    pickled = tmp_path / "pickled.pt"
    torch.save(torch.nn.Linear(2, 2), pickled)  # a whole module: would run code
    for path in (truncated, text, pickled):
        with pytest.raises(DtmdError, match=f"{path.name}: not a file that dtmd train wrote"):
            load_model(path)
    torch.save({"weights": torch.zeros(2)}, text)
    with pytest.raises(DtmdError, match="not a model that dtmd train wrote"):
        load_model(text)
    with pytest.raises(DtmdError, match="no such file; train a model first"):
        load_model(tmp_path / "nothing.pt")


def test_an_artefact_is_no_model_and_says_so(model):
    exported = export_torchscript(model).path
    copy = shutil.copy(exported, exported.with_name("other.pt"))
    with pytest.raises(DtmdError, match="other.pt: an exported potential, not a trained model"):
        export_torchscript(exported.with_name("other.pt"))
    assert artefact.read_metadata(copy)["elements"] == ["H", "C", "Pd"]
