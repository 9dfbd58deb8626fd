"""Tables of filters keep the forces, or are made finer until they do."""

from __future__ import annotations

import pytest
from model_cases import potential_of
from small import model_file, small_potential

import dtmd.filter_tables
from dtmd import artefact
from dtmd.checkpoint import save_model
from dtmd.errors import DtmdError
from dtmd.export import export_torchscript
from dtmd.filter_tables import with_fine_filters
from dtmd.potential import predict
from dtmd.neighbors import Edges


def forces(model):
    structures, positions = model.probes.structures, model.probes.positions
    edges = Edges(structures, model.potential.config.cutoff, 0.1).at(positions)
    return predict(model.potential, structures, positions, edges).forces


def test_fine_tables_stay_as_they_are():
    model = model_file(small_potential(n_knots=512))
    fine = with_fine_filters(model)
    assert fine.potential.config.n_knots == 512
    assert 0.0 < fine.metadata["filters"]["largest_force_change_eV_per_A"] < 1e-4


def test_coarse_tables_are_refined_until_the_forces_hold(tmp_path):
    model = model_file(small_potential(n_knots=20, frequency_std=4.0))
    exact = model_file(small_potential(n_knots=0, frequency_std=4.0))
    assert (forces(model) - forces(exact)).abs().max() > 1e-3
    fine = with_fine_filters(model)
    n_knots = fine.potential.config.n_knots
    assert n_knots > 20 and n_knots % 20 == 0
    change = (forces(fine) - forces(exact)).abs().max().item()
    assert fine.metadata["filters"] == {"n_knots": n_knots, "largest_force_change_eV_per_A": change} and change < 1e-4
    save_model(model, tmp_path / "model.pt")
    exported = export_torchscript(tmp_path / "model.pt")  # compared with the refined model
    assert exported.metadata["model"]["n_knots"] == n_knots
    assert artefact.read_metadata(exported.path)["filters"] == fine.metadata["filters"]


def test_tables_that_cannot_be_made_fine_enough_are_refused(monkeypatch):
    monkeypatch.setattr(dtmd.filter_tables, "MOST_KNOTS", 50)
    with pytest.raises(DtmdError, match="with 40 knots still .allowed 1e-04.; train with a smaller"):
        with_fine_filters(model_file(small_potential(n_knots=20, frequency_std=4.0)))


@pytest.mark.parametrize("potential", [small_potential(n_knots=0), potential_of("painn")], ids=["exact", "painn"])
def test_without_tables_there_is_nothing_to_check(potential):
    model = model_file(potential)
    assert with_fine_filters(model) is model
