"""The study of energy conservation on short runs: real LAMMPS, a figure, and runs that are not repeated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import AIMD, example, saved, small_potential

from dtmd.ensemble.starts import choose_starts
from dtmd.export import export_torchscript

TOOL = Path(__file__).parents[1] / "tools" / "study_drift.py"
sys.path.insert(0, str(TOOL.parent))

import study_drift  # noqa: E402


def write_model(path: Path, **config) -> Path:
    return saved(small_potential(precision=torch.float32, cutoff=4.0, **config), path)


def study(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, TOOL, *arguments, "--starts", AIMD / "test", "-n", "1", "--ps", "0.4", "-o", "out"]
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.fixture
def models(tmp_path):
    return write_model(tmp_path / "run" / "model.pt").parent, write_model(tmp_path / "hard.pt", envelope="none")


def test_a_run_gives_its_energies_and_is_not_repeated(plugin, models, tmp_path):
    variant = study_drift.Variant("float64", tmp_path / "model.lammps.pt", tmp_path / "float64")
    export_torchscript(models[0], variant.artefact, torch.float64)
    starts = choose_starts(example(), "spread", 1, seed=0, follow=0)
    written = []
    for _ in range(2):
        assert study_drift.run_in_lammps(variant, 0.5, 0.2, starts, jobs=1) == []
        (state,) = variant.runs(0.5).glob("*/state.json")
        written.append(state.stat().st_mtime_ns)
    assert written[0] == written[1]
    (run,) = study_drift.results(variant, 0.5)
    assert run.times.tolist() == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert run.change[0] == 0 and 0 < run.energy.largest < 1.0 and 200 < run.temperature < 500
    report = study_drift.summary({0.5: [run], 1.0: [run]})
    assert report["power"] == pytest.approx(0.0, abs=1e-9)
    assert report["timesteps"]["0.5"]["fluctuation"] == pytest.approx(run.energy.fluctuation)
    assert run.fluctuation == run.energy.fluctuation  # it is shorter than what is looked at


@pytest.mark.slow
def test_smooth_models_fluctuate_as_the_square_of_the_time_step(plugin, models, tmp_path):
    smooth, hard = models
    arguments = (smooth, "--hard", hard, "--timesteps", 0.5, 1.0)
    done = study(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    variants = report["variants"]
    assert list(variants) == ["float32", "float64", "hard cutoff"] and report["failed"] == []
    assert 1.5 < variants["float64"]["power"] < 2.5
    at_half = {name: variant["timesteps"]["0.5"] for name, variant in variants.items()}
    assert at_half["hard cutoff"]["fluctuation"] > 3 * at_half["float64"]["fluctuation"]
    assert at_half["float32"]["fluctuation"] == pytest.approx(at_half["float64"]["fluctuation"], rel=0.2)
    assert (out / "figure.png").exists() and (out / "figure.svg").exists()

    states = sorted(out.glob("*/*/*/state.json"))
    written = [path.stat().st_mtime_ns for path in states]
    assert len(states) == 6
    assert study(tmp_path, *arguments).returncode == 0
    assert [path.stat().st_mtime_ns for path in states] == written
    assert json.loads((out / "report.json").read_text()) == report


def test_runs_of_another_model_are_not_mixed_in(models, tmp_path, monkeypatch):
    monkeypatch.setattr(study_drift, "export_aotinductor", export_torchscript)  # in seconds
    smooth, hard = models
    study_drift.prepared(smooth, hard, tmp_path / "out")
    assert len(study_drift.prepared(smooth, hard, tmp_path / "out")) == 3
    write_model(smooth / "model.pt", n_layers=1)
    with pytest.raises(SystemExit, match="holds runs of another model"):
        study_drift.prepared(smooth, hard, tmp_path / "out")


def test_without_its_config_a_model_needs_one_with_a_hard_cutoff(models, tmp_path):
    refused = study(tmp_path, models[0])
    assert refused.returncode == 1 and "give one with --hard" in refused.stderr
    assert not (tmp_path / "out").exists()
