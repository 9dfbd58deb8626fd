"""Training from the command line: files, resumption after kill −9, bad input."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.neighborlist import neighbor_list
from rich.console import Console
from small import AIMD, small_potential

from dtmd.checkpoint import ModelFile, load_model, load_tensors, save_model
from dtmd.config import load_config
from dtmd.display import TrainingDisplay
from dtmd.errors import DtmdError
from dtmd.files import sha256
from dtmd.potential import Potential
from dtmd.subsequences import Subsequences, split
from dtmd.train import train
from dtmd.training_data import closest_pairs, fit_reference_energies, load_training_data
from dtmd.validation import validate

CONFIG = {
    "name": "tiny", "seed": 3, "threads": 1, "checkpoint_minutes": 1e-4,
    "data": {
        "train": [str(AIMD / "train" / f"h2pd6_{name}.extxyz.xz") for name in ("007_from_000", "001_from_000")],
        "validation": [str(AIMD / "validation")], "stride": 20, "validation_points": 2,
    },
    "model": {"architecture": "egnn", "cutoff": 3.0, "width": 8, "n_layers": 1, "n_frequencies": 4},
    "curriculum": {"lengths": [1, 2, 3], "max_epochs": [3, 2, 1], "validation_length": 5},
    "optimizer": {"batch_size": 4, "ema_decay": 0.9},
}


OPTIONS = {
    "loss": {"kind": "mse", "species_weights": {"H": 2.0}, "first_weight": 5.0, "step_decay": 0.9, "energy": "all"},
    "rollout": {"bptt": 2, "neighbors": "aimd", "neighbors_every": 2},
    "optimizer": {"batch_size": 4, "accumulate": 3},
}


def write_config(folder: Path, **changes) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG | changes))
    return path


def dtmd(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dtmd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The run folder of an undisturbed training."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = dtmd("train", write_config(folder), "-o", folder / "run")
    assert result.returncode == 0, result.stderr + result.stdout
    return folder / "run"


def test_a_run_writes_what_is_promised(finished):
    names = {p.name for p in finished.iterdir()}
    assert {"model.pt", "best_S1.pt", "best_S2.pt", "best_S3.pt", "metrics.jsonl", "config.yaml", "checkpoint.pt",
            "train.log", "about.json", "learning_curves.png", "learning_curves.svg", "summary.html"} <= names
    assert "tensorboard" not in names
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == list(range(6))
    assert [r["S"] for r in records] == [1, 1, 1, 2, 2, 3]
    assert all(r["validation"]["mepa"] > 0 for r in records)
    assert [r["stage"] for r in records] == [1, 1, 1, 2, 2, 3] and [r["updates"] for r in records][:3] == [8, 16, 24]
    assert [r["ends"] for r in records] == [None, None, "stage", None, "stage", "training"]
    assert all(r["gradient_norm"] > 0 and r["seconds"] * r["updates_per_second"] > 8 for r in records)
    best = min(records, key=lambda r: r["validation"]["mepa"])
    metadata = load_model(finished / "model.pt").metadata
    assert metadata["validation"]["mepa"] == best["validation"]["mepa"]
    assert 0.5 < metadata["closest_pairs"]["H-H"] < 0.9 and 1.2 < metadata["closest_pairs"]["C-C"] < 1.5  # Å
    assert len(metadata["data_sha256"]) == 64 and metadata["versions"]["torch"] == torch.__version__
    assert load_config(finished / "config.yaml").curriculum.lengths == [1, 2, 3]


def test_the_errors_of_each_step_are_those_of_the_means(finished):
    for line in (finished / "metrics.jsonl").read_text().splitlines():
        validation = json.loads(line)["validation"]
        steps = validation["by_step"]
        assert list(steps) == ["sum", "H", "C", "Pd"] and all(len(values) == 5 for values in steps.values())
        assert np.mean(steps["sum"][1:]) == pytest.approx(validation["mepa"], rel=1e-3)
        assert np.mean(steps["Pd"][1:]) == pytest.approx(validation["by_species"]["Pd"], rel=1e-3)
        assert steps["sum"][0] == pytest.approx(validation["first_frame"], rel=1e-3)


def test_tensorboard_that_is_missing_is_said_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("dtmd.training_report.tensorboard.find_spec", lambda name: None)
    with pytest.raises(DtmdError, match="pip install tensorboard"):
        train_here(tmp_path, tensorboard=True)
    assert not list(tmp_path.glob("run_*"))


def test_the_best_model_reproduces_its_validation(finished):
    config = load_config(finished / "config.yaml")
    model = load_model(finished / "model.pt")
    points = load_training_data(config).validation_points(model.potential, config)
    validation = validate(model.potential, points, points.spread(2), 5, 2, 0.5)
    assert math.isclose(validation.mepa, model.metadata["validation"]["mepa"], rel_tol=1e-6)


def test_averaged_weights_are_saved_and_do_not_change_the_updates(tmp_path):
    curriculum = CONFIG["curriculum"] | {"lengths": [1], "max_epochs": 1}
    saved, losses = [], []
    for decay in (None, 0.9):
        run = tmp_path / f"run_{decay}"
        config = write_config(tmp_path, curriculum=curriculum, optimizer={"batch_size": 4, "ema_decay": decay})
        assert dtmd("train", config, "-o", run).returncode == 0
        saved.append(load_tensors(run / "model.pt")["weights"]["model.embedding.weight"])
        losses.append(json.loads((run / "metrics.jsonl").read_text())["loss"])
    assert losses[0] == losses[1]
    assert not torch.equal(*saved)


def test_kill_9_and_the_same_command_again_gives_the_same_weights(finished, tmp_path):
    run = tmp_path / "run"
    kill_and_go_on(write_config(tmp_path), run, (2, 9, 17))  # in the middle of the first, second and third epoch
    assert_same_run(finished, run, ("model.pt", "best_S1.pt", "best_S2.pt", "best_S3.pt"))


def test_kill_9_with_everything_that_is_not_default(finished, tmp_path):
    start = tmp_path / "start.pt"
    shutil.copy(finished / "best_S1.pt", start)
    curriculum = {"lengths": [3, 3], "max_epochs": 2, "validation_length": 5, "epoch_points": 20, "max_updates": 18}
    config = write_config(tmp_path, **OPTIONS, start_from=str(start), curriculum=curriculum)
    assert dtmd("train", config, "-o", tmp_path / "undisturbed").returncode == 0
    run = tmp_path / "run"
    kill_and_go_on(config, run, (3, 12), meanwhile=lambda: start.unlink(missing_ok=True))
    assert_same_run(tmp_path / "undisturbed", run, ("model.pt", "best_S3.pt"))


def kill_and_go_on(config, run, numbers_of_batches, meanwhile=lambda: None):
    for kill_after in numbers_of_batches:
        process = subprocess.Popen([sys.executable, "-m", "dtmd", "train", config, "-o", run],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not _has_reached(run / "checkpoint.pt", kill_after):
            assert process.poll() is None, "the training ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        meanwhile()
    result = dtmd("train", config, "-o", run)
    assert result.returncode == 0, result.stderr
    assert "continuing" in (run / "train.log").read_text()


def assert_same_run(one, other, names):
    for name in names:
        expected, got = (load_tensors(folder / name)["weights"] for folder in (one, other))
        assert all(torch.equal(expected[key], got[key]) for key in expected), name
    assert epochs_without_times(one) == epochs_without_times(other)


def epochs_without_times(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: r[key] for key in r if key not in ("seconds", "updates_per_second")} for r in records]


SHORT = {
    "precision": "float64", "curriculum": CONFIG["curriculum"] | {"lengths": [8], "max_epochs": 1},
    "data": CONFIG["data"] | {"stride": 55, "validation_points": 1},
}


def train_here(folder, run=None, **changes):
    """Train on 12 subsequences in this process; returns the records of the epochs and the final weights."""
    config = load_config(write_config(folder, **(SHORT | changes)))
    run = run or folder / f"run_{sum(1 for _ in folder.iterdir())}"
    train(config, run, TrainingDisplay(Console(quiet=True), config.curriculum))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return records, load_tensors(run / "checkpoint.pt")["weights"]


def test_a_batch_in_parts_changes_nothing(tmp_path):
    """Not even where a batch is not a multiple of the parts, or smaller than their number."""
    whole, parts = (train_here(tmp_path, optimizer={"batch_size": 5, "accumulate": n}) for n in (1, 3))
    assert [r["loss"] for r in parts[0]] == pytest.approx([r["loss"] for r in whole[0]], rel=1e-9)
    assert [r["loss"] for r in parts[0]] != [r["loss"] for r in whole[0]]  # they were worked off apart
    assert all(torch.allclose(whole[1][name], parts[1][name], rtol=1e-6, atol=1e-9) for name in whole[1])


def test_large_batches_are_worked_off_in_parts_on_a_cpu(tmp_path, monkeypatch):
    """Unless the config says otherwise: 5 structures of 57 atoms in parts of at most 150 are two in each."""
    sizes, batch = [], Subsequences.batch
    monkeypatch.setattr("dtmd.train.PART_ATOMS", 150)
    monkeypatch.setattr(Subsequences, "batch", lambda self, indices, device: (
        sizes.append(len(indices)), batch(self, indices, device))[1])
    in_parts = train_here(tmp_path, optimizer={"batch_size": 5})
    assert "3, 2, 3, 2" in str(sizes)
    whole = train_here(tmp_path, optimizer={"batch_size": 5, "accumulate": 1})
    assert [r["loss"] for r in in_parts[0]] == pytest.approx([r["loss"] for r in whole[0]], rel=1e-9)



@pytest.fixture(scope="module")
def by_default(tmp_path_factory):
    return train_here(tmp_path_factory.mktemp("default"))[1]


@pytest.mark.parametrize("changes", [
    {"loss": {"kind": "mae"}}, {"loss": {"species_weights": {"H": 3.0}}}, {"loss": {"step_decay": 0.5}},
    {"loss": {"energy": "all"}}, {"rollout": {"bptt": "none"}}, {"rollout": {"bptt": 2}},
    {"rollout": {"neighbors": "aimd", "neighbors_every": 8}},
], ids=str)
def test_each_option_reaches_the_training(by_default, tmp_path, changes):
    changed = train_here(tmp_path, **changes)[1]
    assert not torch.equal(by_default["model.embedding.weight"], changed["model.embedding.weight"])


def test_a_weight_for_an_element_that_the_data_do_not_hold(tmp_path):
    with pytest.raises(DtmdError, match="loss.species_weights: O is not among the elements H, C, Pd"):
        train_here(tmp_path, loss={"species_weights": {"O": 2.0}})


def test_a_warm_start_goes_on_from_the_model(finished, tmp_path):
    start = finished / "best_S2.pt"
    still = dict.fromkeys(("learning_rate", "reset_learning_rate", "minimum_learning_rate"), 1e-15)
    records, weights = train_here(tmp_path, start_from=str(start), curriculum=SHORT["curriculum"] | still,
                                  data=CONFIG["data"], precision="float32")
    model = load_model(start)
    assert records[0]["validation"]["mepa"] == pytest.approx(model.metadata["validation"]["mepa"], rel=1e-6)
    assert all(torch.allclose(weights[name], value) for name, value in model.potential.state_dict().items())
    metadata = load_model(next(tmp_path.glob("run_*")) / "model.pt").metadata
    assert metadata["start_from"] == {"path": str(start), "sha256": sha256([start])}
    assert "start_from" not in model.metadata


def test_a_model_to_start_from_that_does_not_fit_is_refused(finished, tmp_path):
    model = str(finished / "model.pt")
    with pytest.raises(DtmdError, match="model.pt does not fit this config: model.width 8 there, 9 here"):
        train_here(tmp_path, start_from=model, model=CONFIG["model"] | {"width": 9})
    with pytest.raises(DtmdError, match=r"config.yaml: not a file that dtmd train wrote"):
        train_here(tmp_path, start_from=str(finished / "config.yaml"))
    other = small_potential(cutoff=3.0, width=8, n_layers=1, n_frequencies=4)
    hydrogen = Potential(["H", "C"], other.config, other.reference_energies[:2])
    save_model(ModelFile(hydrogen, load_model(finished / "model.pt").probes, {}), tmp_path / "h.pt")
    with pytest.raises(DtmdError, match="it knows H, C, the data hold Pd too"):
        train_here(tmp_path, start_from=str(tmp_path / "h.pt"))


def test_a_model_of_another_level_of_theory_to_start_from_is_told(finished, tmp_path, caplog):
    model = load_model(finished / "model.pt")
    model.potential.reference_energies -= 3.0
    save_model(model, tmp_path / "other.pt")
    with caplog.at_level("WARNING", "dtmd"):
        train_here(tmp_path, start_from=str(finished / "model.pt"))
        assert not caplog.messages
        train_here(tmp_path, start_from=str(tmp_path / "other.pt"), seed=4)
    assert re.search(r"\+(2.9|3.0)\d eV/atom off", caplog.text) and "loss.energy_weight: 0" in caplog.text


def _has_reached(checkpoint: Path, n_batches: int) -> bool:
    if not checkpoint.exists():
        return False
    return load_tensors(checkpoint)["updates"] >= n_batches


def test_a_finished_run_is_left_as_it_is(finished):
    before = (finished / "model.pt").read_bytes()
    result = dtmd("train", finished / "config.yaml", "-o", finished)
    assert result.returncode == 0 and (finished / "model.pt").read_bytes() == before


def test_another_config_in_the_same_folder_is_refused(finished, tmp_path):
    result = dtmd("train", write_config(tmp_path, seed=4), "-o", finished)
    assert result.returncode == 2
    assert "seed: 4 (was 3)" in result.stderr and "Traceback" not in result.stderr


def test_unknown_key_gives_exit_code_2_and_no_folder(tmp_path):
    result = dtmd("train", write_config(tmp_path, modle={}), "-o", tmp_path / "run")
    assert result.returncode == 2 and "unknown key modle; did you mean model?" in result.stderr
    assert not (tmp_path / "run").exists()


def test_one_trajectory_in_both_sets_is_refused(tmp_path):
    data = CONFIG["data"] | {"validation": CONFIG["data"]["train"][:1]}
    result = dtmd("train", write_config(tmp_path, data=data), "-o", tmp_path / "run")
    assert result.returncode == 2 and "is in data.train and in data.validation" in result.stderr


def test_too_short_trajectories_are_named(tmp_path):
    curriculum = CONFIG["curriculum"] | {"validation_length": 400}
    result = dtmd("train", write_config(tmp_path, curriculum=curriculum), "-o", tmp_path / "run")
    assert result.returncode == 2 and "320 frames, subsequences of 400 are asked for" in result.stderr


def test_a_mended_config_may_use_the_folder_of_one_that_could_not_start(tmp_path):
    missing = CONFIG["data"] | {"train": ["nowhere"]}
    assert dtmd("train", write_config(tmp_path, data=missing), "-o", tmp_path / "run").returncode == 2
    curriculum = {"lengths": [1], "max_epochs": 1, "validation_length": 2}
    result = dtmd("train", write_config(tmp_path, curriculum=curriculum), "-o", tmp_path / "run")
    assert result.returncode == 0, result.stderr


def test_loss_that_breaks_down_stops_and_keeps_the_last_model(tmp_path):
    curriculum = CONFIG["curriculum"] | {"learning_rate": 1e30}
    result = dtmd("train", write_config(tmp_path, curriculum=curriculum), "-o", tmp_path / "run")
    assert result.returncode == 2
    assert "training broke down at S = 1" in result.stderr and "frame" in result.stderr


def test_whole_trajectories_are_split():
    trajectories = load_training_data(load_config(None)).training
    training, validation = split(trajectories, 0.3, seed=1)
    assert len(training) == 5 and len(validation) == 2
    assert not {t.source for t in training} & {t.source for t in validation}
    assert [t.source for t in split(trajectories, 0.3, seed=1)[1]] == [t.source for t in validation]
    with pytest.raises(DtmdError, match="a single trajectory"):
        split(trajectories[:1], 0.3, seed=1)


def test_reference_energies_reproduce_the_mean_energy():
    trajectories = load_training_data(load_config(None)).training
    energies = fit_reference_energies(trajectories, ["H", "C", "Pd"]).values
    mean = np.mean([t.energies.mean() for t in trajectories])
    assert abs(energies @ [2, 49, 6] - mean) < 1e-6


def test_closest_pairs_are_those_of_all_frames():
    short = [trajectory.window(0, 60) for trajectory in load_training_data(load_config(None)).training[:2]]
    cutoff = 2.6  # Å: H is never so near to Pd here
    expected: dict[str, float] = {}
    for trajectory in short:
        for positions, cell in zip(trajectory.positions, trajectory.cells, strict=True):
            atoms = Atoms(trajectory.numbers, positions, cell=cell, pbc=True)
            first, second, distances = neighbor_list("ijd", atoms, cutoff)
            for i, j, distance in zip(first, second, distances, strict=True):
                if atoms.numbers[i] <= atoms.numbers[j]:
                    pair = f"{atoms.symbols[i]}-{atoms.symbols[j]}"
                    expected[pair] = min(distance, expected.get(pair, cutoff))
    found = closest_pairs(short, ["H", "C", "Pd"], cutoff)
    assert found == pytest.approx(expected, rel=1e-12) and len(found) < 6
    assert set(closest_pairs(short, ["Pd", "O", "C", "H"], cutoff)) >= {"Pd-Pd", "Pd-C", "C-C", "H-H"}


def test_subsequences_hold_consecutive_frames_of_one_trajectory():
    potential = small_potential()
    trajectories = load_training_data(load_config(None)).training[:2]
    points = Subsequences(trajectories, potential, length=100, stride=60)
    assert len(points) == 8
    batch = points.batch([5, 2], torch.device("cpu"))
    assert batch.names == [f"{trajectories[1].source} frame 60", f"{trajectories[0].source} frame 120"]
    assert np.array_equal(batch.forces[:57, 99].numpy(), trajectories[1].forces[159])
    assert batch.start.structures.atom_ranges == [(0, 57), (57, 114)]


def test_integrating_the_reference_forces_gives_the_aimd_positions():
    """Units, time step and frame order of a training point."""
    potential = small_potential()
    trajectory = load_training_data(load_config(None)).training[0]
    points = Subsequences([trajectory], potential, 20, stride=50).batch([1], torch.device("cpu"))
    start = points.start
    positions, velocities = start.positions, start.velocities
    dt, inverse_mass = start.atom_timesteps, start.inverse_masses
    for k in range(19):
        a, b = inverse_mass * points.forces[:, k], inverse_mass * points.forces[:, k + 1]
        positions = positions + dt * velocities + 0.5 * dt**2 * a
        velocities = velocities + 0.5 * dt * (a + b)
    assert np.abs(positions.numpy() - trajectory.positions[69]).max() < 1e-6
