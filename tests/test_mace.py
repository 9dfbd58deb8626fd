"""MACE against mace-torch's own model, and its files; tests/test_model_contract.py has the rest."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from model_cases import evaluate, real_frame
from pydantic import ValidationError
from small import example
from test_train import SHORT, train_here, write_config

from dtmd.checkpoint import load_model
from dtmd.config import load_config
from dtmd.errors import DtmdError
from dtmd.evaluation.comparison import EvaluationSettings, load_models
from dtmd.evaluation.comparison import evaluate as evaluate_models
from dtmd.export import export_torchscript
from dtmd.files import sha256
from dtmd.mace_file import read_mace_file
from dtmd.models.mace import MACE, MACEConfig, _float64_by_default, _known_warnings_ignored, _library
from dtmd.neighbors import Edges
from dtmd.potential import Potential
from dtmd.run_folder import with_its_model
from dtmd.training_data import load_training_data

NUMBERS = [1, 6, 46]
MP0 = {"interaction_cls_first": "RealAgnosticResidualInteractionBlock"}
MPA0 = {
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "pair_repulsion": True, "distance_transform": "Agnesi",
}


def whole_model(kind: str = "ScaleShiftMACE", **settings) -> torch.nn.Module:
    """A small model as mace_run_train makes it, in float64, its random weights fixed."""
    library = _library()
    settings = {
        "r_max": 4.0, "num_bessel": 6, "num_polynomial_cutoff": 5, "max_ell": 2,
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "interaction_cls": "RealAgnosticResidualInteractionBlock", "num_interactions": 2, "num_elements": 3,
        "hidden_irreps": library.Irreps("8x0e+8x1o"), "MLP_irreps": library.Irreps("4x0e"),
        "atomic_energies": np.array([-13.6, -9.2, -3.5]), "avg_num_neighbors": 9.7, "atomic_numbers": NUMBERS,
        "correlation": 2, "gate": torch.nn.functional.silu, "radial_MLP": [16, 16],
    } | settings
    for name in ("interaction_cls", "interaction_cls_first"):
        settings[name] = library.modules.interaction_classes[settings[name]]
    if kind == "ScaleShiftMACE":
        settings |= {"atomic_inter_scale": 0.8, "atomic_inter_shift": 0.13} | settings
    torch.manual_seed(0)
    with _float64_by_default(), _known_warnings_ignored():
        return getattr(library.modules, kind)(**settings)


def saved(folder, model: torch.nn.Module):
    """The file that mace_run_train would write."""
    torch.save(model, folder / "mace.model")
    return folder / "mace.model"


def by_mace(model: torch.nn.Module) -> tuple[float, torch.Tensor]:
    """Energy and forces of the real frame from mace-torch's own forward pass, in its own layout of the data."""
    structures, positions = real_frame()
    edge_index, shift = Edges(structures, 4.0, 0.1).at(positions)
    data = {
        "positions": positions.clone(), "edge_index": edge_index, "shifts": -shift, "cell": structures.cells[0],
        "unit_shifts": torch.zeros_like(shift), "batch": structures.graph_index, "ptr": torch.tensor([0, 57]),
        "node_attrs": torch.nn.functional.one_hot(structures.species, 3).double(), "head": torch.tensor([0]),
    }
    with _float64_by_default():
        result = model(data)
    return result["energy"].item(), result["forces"]


@pytest.mark.parametrize("kind, settings", [
    ("MACE", {}), ("ScaleShiftMACE", {}), ("ScaleShiftMACE", MP0), ("ScaleShiftMACE", MPA0),
    ("ScaleShiftMACE", {"num_interactions": 1}),
    ("ScaleShiftMACE", {"num_interactions": 3, "distance_transform": "Soft", "correlation": 3}),
], ids=["MACE", "ScaleShiftMACE", "as MP-0", "as MPA-0", "one layer", "three layers"])
def test_a_file_of_mace_torch_gives_its_energy_and_forces(tmp_path, kind, settings):
    model = whole_model(kind, **settings)
    energy, forces = by_mace(model)
    potential = load_model(saved(tmp_path, model)).potential
    assert potential.elements == ["H", "C", "Pd"] and potential.precision == torch.float64
    got = evaluate(potential, *real_frame())
    # mace-torch rounds the prefactors of the pair repulsion to torch's default precision.
    tolerance = 1e-8 if settings.get("pair_repulsion") else 1e-10
    assert forces.abs().max() > 0.01
    assert got.energies.item() == pytest.approx(energy, abs=tolerance)
    assert (got.forces - forces).abs().max() < tolerance


def test_a_file_in_float32_stays_in_float32(tmp_path):
    path = saved(tmp_path, whole_model().float())
    assert read_mace_file(path).precision == torch.float32


@pytest.mark.parametrize("settings, reason", [
    ({"interaction_cls": "RealAgnosticResidualNonLinearInteractionBlock"}, "RealAgnosticResidualNonLinearInteraction"),
    ({"use_last_readout_only": True}, "was made with use_last_readout_only True"),
    ({"radial_type": "gaussian"}, "mace.modules.radial.GaussianBasis"),
    ({"gate": torch.tanh}, "torch._C._VariableFunctionsClass"),
    ({"gate": None}, "a readout without activation"),
    ({"heads": ["pbe", "r2scan"], "atomic_energies": np.zeros((2, 3)), "atomic_inter_scale": [1.0, 1.0],
      "atomic_inter_shift": [0.0, 0.0]}, r"has 2 heads \(pbe, r2scan\), .* mace_select_head"),
])
def test_a_model_that_cannot_be_represented_is_refused_with_what_it_has(tmp_path, settings, reason):
    with pytest.raises(DtmdError, match=f"mace.model: .*{reason}"):
        load_model(saved(tmp_path, whole_model(**settings)))


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    model = whole_model()
    harmless = saved(tmp_path, model)
    model.trap = Trap()
    torch.save(model, tmp_path / "trap.model")
    with pytest.raises(DtmdError, match="trap.model: holds posix.mkdir, which dtmd cannot represent"):
        load_model(tmp_path / "trap.model")
    assert not (tmp_path / "sprung").exists()
    # The Python and TorchScript code that every such file carries:
    monkeypatch.setattr("torch.fx.graph_module.reduce_graph_module", None)
    monkeypatch.setattr("torch.jit.load", None)
    assert read_mace_file(harmless).elements == ["H", "C", "Pd"]


def test_a_damaged_file(tmp_path):
    path = saved(tmp_path, whole_model())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DtmdError, match="mace.model: not a file that dtmd train wrote, or cut off"):
        load_model(path)
    model = whole_model()
    del model.radial_embedding.cutoff_fn._buffers["p"]
    with pytest.raises(DtmdError, match="mace.model: not laid out as mace-torch does today"):
        load_model(saved(tmp_path, model))


def test_a_file_is_exported_and_evaluated_as_it_is(tmp_path, capsys):
    path = saved(tmp_path, whole_model(**MPA0))
    exported = export_torchscript(path)
    assert exported.path == tmp_path / "mace.lammps.pt" and exported.metadata["elements"] == ["H", "C", "Pd"]
    assert max(exported.deviations.values()) < 1e-10
    assert exported.metadata["probes"] == "made-up structures" and exported.metadata["sha256"] == sha256([path])
    settings = EvaluationSettings(steps=2, starts=2, seed=0, batch_size=2)
    result = evaluate_models(load_models([path]), example(), settings)
    assert np.isfinite(result.models[0].mepa.value)


def test_training_goes_on_from_a_file_with_rollouts(tmp_path):
    path = saved(tmp_path, whole_model())
    records, weights = train_here(tmp_path, precision="float32", start_from=str(path), model={"architecture": "mace"},
                                  curriculum=SHORT["curriculum"] | {"lengths": [2]})
    assert np.isfinite(records[0]["validation"]["mepa"])
    begun = load_model(path).potential.state_dict()
    name = "model.interactions.1.linear_up.weight"
    change = (weights[name] - begun[name]).abs().max()
    assert 0 < change < 0.1
    trained = load_model(next(tmp_path.glob("run_*")) / "model.pt")
    assert trained.potential.config == load_model(path).potential.config
    assert trained.metadata["config"]["model"] == trained.potential.config.model_dump()


def test_keys_of_the_model_section_must_agree_with_the_file(tmp_path):
    path = saved(tmp_path, whole_model())

    def config(**model):
        return load_config(write_config(tmp_path, start_from=str(path), model=model))

    resolved = with_its_model(config(architecture="mace", channels=8), tmp_path)
    assert resolved.model == load_model(path).potential.config and resolved.model.avg_num_neighbors == 9.7
    with pytest.raises(DtmdError, match="model.channels 8 there, 9 here.*Leave the model section out"):
        with_its_model(config(architecture="mace", channels=9), tmp_path)
    with pytest.raises(DtmdError, match="model.architecture mace there, egnn here; model.width None there, 128 here"):
        with_its_model(config(width=128), tmp_path)


def test_the_mean_number_of_neighbours_comes_from_the_data(tmp_path):
    model = {"architecture": "mace", "channels": 2, "max_ell": 1, "cutoff": 4.0}
    config = load_config(write_config(tmp_path, model=model))
    data = load_training_data(config)
    potential = data.new_potential(config)
    structures, positions = real_frame()
    in_one_frame = Edges(structures, 4.0, 0.1).at(positions)[0].shape[1] / 57
    assert potential.config.avg_num_neighbors == pytest.approx(in_one_frame, rel=0.05)
    assert potential.model.interactions[0].avg_num_neighbors == potential.config.avg_num_neighbors
    with pytest.raises(ValueError, match="avg_num_neighbors must be a number"):
        Potential(["H"], MACEConfig(), torch.zeros(1))


def test_the_default_size():
    assert sum(p.numel() for p in MACE(["H", "C", "Pd"], MACEConfig(avg_num_neighbors=1.0)).parameters()) == 751_888


def test_degrees_that_do_not_fit():
    with pytest.raises(ValidationError, match="max_L: 3 is above max_ell 2"):
        MACEConfig(max_L=3, max_ell=2)


LIGHT = """
import os, sys, torch
import dtmd.cli, dtmd.train, dtmd.export
assert not {"mace", "e3nn"} & set(sys.modules)
from dtmd.models.mace import MACE, MACEConfig
MACE(["H"], MACEConfig(channels=1, max_L=0, max_ell=1, correlation=1, avg_num_neighbors=1.0))
assert "mace" in sys.modules
assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ and torch.get_default_dtype() == torch.float32
"""


def test_the_library_is_imported_when_it_is_needed_and_leaves_no_trace():
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout + done.stderr == "", done.stderr
