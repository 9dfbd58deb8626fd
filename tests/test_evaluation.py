"""Evaluation of models side by side: against a plain loop, failures told, intervals, files, bad input."""

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small import AIMD, example, small_potential
from torch import nn

from dtmd import units
from dtmd.checkpoint import ModelFile, ProbeFrames, save_model
from dtmd.errors import DtmdError
from dtmd.evaluation.comparison import EvaluationSettings, Model, RunBootstrap, evaluate, load_models
from dtmd.evaluation.report import evaluation_csv, evaluation_json, evaluation_notes, evaluation_table, write_evaluation
from dtmd.neighbors import Edges
from dtmd.observables.force_error import force_error_by_species
from dtmd.observables.statistics import resamples
from dtmd.potential import predict
from dtmd.subsequences import Subsequences
from dtmd.training_data import digest_of

SETTINGS = EvaluationSettings(steps=5, starts=7, batch_size=4)


def model(label: str, seed: int = 0, metadata: dict | None = None) -> Model:
    return wrapped(label, small_potential(seed, width=8, n_layers=1), metadata)


def wrapped(label: str, potential, metadata: dict | None = None) -> Model:
    points = Subsequences(example(), potential, 1, 1).batch([0], torch.device("cpu")).start
    return Model(label, Path(f"{label}.pt"), ModelFile(potential, ProbeFrames(points.structures, points.positions),
                                                       metadata or {}))


def trajectories(n_frames: int = 12) -> list:
    """Two runs of the example; the second with every other frame, so with twice the time step."""
    first, second = example()
    per_frame = ("cells", "times", "positions", "velocities", "forces", "energies")
    return [first.window(0, n_frames), replace(second, **{name: getattr(second, name)[: 2 * n_frames : 2]
                                                          for name in per_frame})]


def plain_errors(potential, trajectory, frame: int, steps: int) -> np.ndarray:
    """L_force of each species at the steps 0 … T of one rollout, by velocity Verlet as in a textbook."""
    structures = Subsequences([trajectory], potential, 1, 1).batch([frame], torch.device("cpu")).start.structures
    dt, inverse_mass = trajectory.timestep, units.ACCELERATION / trajectory.masses[:, None]

    def forces_at(positions: np.ndarray) -> np.ndarray:
        pairs = Edges(structures, potential.config.cutoff, 1e-6).at(torch.from_numpy(positions))
        return predict(potential, structures, torch.from_numpy(positions), pairs).forces.numpy()

    positions, velocities = trajectory.positions[frame], trajectory.velocities[frame]
    predicted = [forces_at(positions)]
    for _ in range(steps):
        half_way = velocities + 0.5 * dt * inverse_mass * predicted[-1]
        positions = positions + dt * half_way
        predicted.append(forces_at(positions))
        velocities = half_way + 0.5 * dt * inverse_mass * predicted[-1]
    reference = trajectory.forces[frame : frame + steps + 1]
    return force_error_by_species(np.array(predicted), reference, trajectory.numbers)


def test_equals_a_plain_loop_over_structures():
    aimd, models = trajectories(), [model("a", 0), model("b", 1)]
    evaluation = evaluate(models, aimd, SETTINGS)
    places = [(t, frame) for t in aimd for frame in range(len(t) - SETTINGS.steps)]
    chosen = [places[round(k)] for k in np.linspace(0, len(places) - 1, SETTINGS.starts)]
    assert [(s.source, s.frame) for s in evaluation.starts] == [(t.source, frame) for t, frame in chosen]
    assert evaluation.timesteps == [0.5, 1.0] and evaluation.n_runs == 2
    mepas = []
    for one, result in zip(models, evaluation.models, strict=True):
        errors = np.array([plain_errors(one.file.potential, t, frame, SETTINGS.steps) for t, frame in chosen])
        rollouts = errors[:, 1:].sum(axis=2).mean(axis=1)
        mepas.append(rollouts.mean())
        np.testing.assert_allclose(result.rollouts, rollouts, rtol=1e-10)
        np.testing.assert_allclose(result.mepa.value, rollouts.mean(), rtol=1e-10)
        np.testing.assert_allclose([s.value for s in result.species], errors[:, 1:].mean(axis=(0, 1)), rtol=1e-10)
        np.testing.assert_allclose([s.value for s in result.by_step], errors.sum(axis=2).mean(axis=0), rtol=1e-10)
        single_frame = errors[:, 0].sum(axis=1).mean()
        np.testing.assert_allclose(result.start_error.value, single_frame, rtol=1e-10)
        np.testing.assert_allclose(result.ratio.value, rollouts.mean() / single_frame, rtol=1e-10)
    difference, = evaluation.differences
    np.testing.assert_allclose(difference.value.value, mepas[1] - mepas[0], rtol=1e-8)
    assert difference.n_starts == SETTINGS.starts and difference.value.low < difference.value.high
    without = [force_error_by_species(np.zeros_like(t.forces), t.forces, t.numbers)[f + 1 : f + 6] for t, f in chosen]
    np.testing.assert_allclose(evaluation.reference_force, np.sum(without, axis=-1).mean(), rtol=1e-10)


def test_the_batch_size_changes_nothing():
    results = [evaluate([model("a")], trajectories(), replace(SETTINGS, batch_size=n)).models[0] for n in (1, 100)]
    np.testing.assert_allclose(results[0].rollouts, results[1].rollouts, rtol=1e-12)


class Poisoned(nn.Module):
    """A model whose forces are NaN where two atoms are nearer than 0.5 Å."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, species, edge_index, edge_vec, graph_index, n_graphs):
        energy = self.inner(species, edge_index, edge_vec, graph_index, n_graphs)
        nearness = 0.0 * (edge_vec.norm(dim=1) - 0.5).sqrt().to(energy.dtype)
        return energy.index_add(0, edge_index[1], nearness)


def colliding(trajectory):
    """The H atoms fly at each other, 0.1 Å/fs each."""
    pair = np.flatnonzero(trajectory.numbers == 1)[:2]
    apart = trajectory.positions[:, pair[1]] - trajectory.positions[:, pair[0]]
    velocities = trajectory.velocities.copy()
    velocities[:, pair[0]] = 0.1 * apart / np.linalg.norm(apart, axis=1, keepdims=True)
    velocities[:, pair[1]] = -velocities[:, pair[0]]
    return replace(trajectory, velocities=velocities)


def test_rollouts_that_fail_are_named_and_the_others_counted():
    potential = small_potential(width=8, n_layers=1)
    potential.model = Poisoned(potential.model)
    aimd, progress = trajectories(), []
    aimd = [colliding(aimd[0]), replace(aimd[1], velocities=np.zeros_like(aimd[1].velocities))]
    evaluation = evaluate([wrapped("bad", potential), model("good")], aimd, SETTINGS,
                          lambda label, n, total: progress.append((n, total)))
    bad, good = evaluation.models
    in_first = [start for start in evaluation.starts if start.source == aimd[0].source]
    assert [d.start for d in bad.diverged] == in_first and not good.diverged
    hydrogen = aimd[0].positions[:, np.flatnonzero(aimd[0].numbers == 1)[:2]]
    bonds = np.linalg.norm(hydrogen[:, 1] - hydrogen[:, 0], axis=1)
    # Each step of 0.5 fs brings the pair 0.1 Å closer; the forces of fresh weights change little.
    assert [d.step for d in bad.diverged] == [int(np.ceil((bonds[d.start.frame] - 0.5) / 0.1)) for d in bad.diverged]
    np.testing.assert_allclose(bad.mepa.value, good.rollouts[len(in_first):].mean(), rtol=1e-10)
    assert bad.mepa.low is None and good.mepa.low is not None
    assert evaluation.differences[0].n_starts == SETTINGS.starts - len(in_first)
    assert sum(n for n, _ in progress) == progress[0][1] == 2 * SETTINGS.starts * (SETTINGS.steps + 1)
    assert f"{in_first[0].source} frame 0 at step {bad.diverged[0].step}" in "\n".join(evaluation_notes(evaluation))
    assert evaluation_table(evaluation)[1][0][-1] == f"{len(in_first)}/{SETTINGS.starts}"


def test_a_model_that_always_fails_has_no_numbers(tmp_path):
    potential = small_potential(width=8, n_layers=1)
    potential.model = Poisoned(potential.model)
    models = [replace(one, path=tmp_path / one.path) for one in (wrapped("bad", potential), model("good"))]
    for one in models:
        one.path.touch()
    evaluation = evaluate(models, [colliding(t) for t in trajectories()], SETTINGS)
    assert evaluation.models[0].mepa is None and evaluation.differences[0].value is None
    content = json.loads(evaluation_json(evaluation, models))
    assert content["models"][0]["mepa"] is None and content["models"][0]["rollouts"] == [None] * SETTINGS.starts
    assert evaluation_csv(evaluation).splitlines()[1] == "bad,0,," + "," * 11
    assert len(write_evaluation(evaluation, models, tmp_path / "out")) == 4


def test_windows_stay_within_segments_and_short_ones_are_left_out():
    run = example()[0]
    cuts = [(0, 8), (8, 12), (12, 20)]
    pieces = [replace(run.window(*cut), source=f"{run.source}:{k}", origin=replace(run.origin, run="one run"))
              for k, cut in enumerate(cuts)]
    evaluation = evaluate([model("a")], pieces, replace(SETTINGS, starts=50))
    assert [(s.source[-1], s.frame) for s in evaluation.starts] == [(k, f) for k in "02" for f in range(3)]
    notes = "\n".join(evaluation_notes(evaluation))
    assert "only 6 of 50 starts" in notes and f"left out, shorter than 6 frames: {run.source}:1 (4)" in notes
    assert evaluation.models[0].mepa.low is None and "a single run: no interval" in notes


def test_a_species_counts_where_it_is():
    whole, other = trajectories()
    keep = other.numbers != 46
    cut = {name: getattr(other, name)[:, keep] for name in ("positions", "velocities", "forces")}
    without = replace(other, **cut, numbers=other.numbers[keep], masses=other.masses[keep])
    one = model("a")
    evaluation = evaluate([one], [whole, without], SETTINGS)
    frames = [start.frame for start in evaluation.starts if start.source == whole.source]
    assert 0 < len(frames) < SETTINGS.starts
    result = evaluation.models[0]
    palladium = [plain_errors(one.file.potential, whole, frame, SETTINGS.steps)[1:, 2].mean() for frame in frames]
    np.testing.assert_allclose(result.species[2].value, np.mean(palladium), rtol=1e-10)
    assert result.species[2].low is None and result.species[0].low is not None
    np.testing.assert_allclose(result.rollouts[len(frames):].mean(), np.mean(
        [plain_errors(one.file.potential, without, s.frame, SETTINGS.steps)[1:].sum(axis=1).mean()
         for s in evaluation.starts[len(frames):]]), rtol=1e-10)


def test_the_bootstrap_resamples_runs():
    values, base = np.array([1.0, 2.0, 6.0, 5.0]), np.array([1.0, 1.0, 2.0, 2.0])
    bootstrap = RunBootstrap(["a", "a", "b", "c"], seed=5)
    counts = resamples(3, 5)
    replicas = counts @ [3.0, 6.0, 5.0] / (counts @ [2.0, 1.0, 1.0])
    estimate = bootstrap.mean(values)
    assert estimate.value == 3.5 and np.isclose(estimate.high - estimate.value, 1.959964 * replicas.std(), rtol=1e-6)
    assert bootstrap.ratio(values, base).value == 14.0 / 6.0
    assert bootstrap.mean(np.array([1.0, 2.0, np.nan, np.nan])).low is None
    assert bootstrap.mean(np.array([1.0, 2.0, 6.0, np.nan])).low is not None
    assert bootstrap.mean(np.full(4, np.nan)) is None
    same = bootstrap.mean(values - values, -np.inf)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_warns_of_trajectories_that_the_model_knows():
    config = {"seed": 0, "data": {"train": [str(AIMD / "test" / "h2pd6_009_from_480.extxyz.xz")],
                                  "validation": [str(AIMD / "test" / "h2pd6_014_from_060.extxyz.xz")]}}
    aimd = example()
    models = [
        model("sure", 0, {"config": config, "data_sha256": digest_of(aimd)}),
        model("changed", 1, {"config": config, "data_sha256": "0"}),
        model("moved", 2, {"config": config | {"data": {"train": ["/nowhere/aimd"]}}}),
        model("silent", 3),
    ]
    evaluation = evaluate(models, aimd, replace(SETTINGS, starts=2, steps=1))
    sure, changed, moved, silent = (result.seen for result in evaluation.models)
    assert sure.training == [aimd[0].source] and sure.validation == [aimd[1].source] and not sure.doubt
    assert changed.training == sure.training and "have changed" in changed.doubt
    assert "/nowhere/aimd: no such file or folder" in moved.doubt and "does not name" in silent.doubt
    notes = "\n".join(evaluation_notes(evaluation))
    assert "warning: sure was trained on 1 of these trajectories" in notes


def test_bad_input():
    with pytest.raises(DtmdError, match=r"has 12 frames, rollouts of 12 steps need 13; give --steps 11 at most"):
        evaluate([model("a")], trajectories(12), replace(SETTINGS, steps=12))
    potential = small_potential()
    potential.elements = ["H", "C", "Pt"]
    stranger = replace(model("a"), file=replace(model("a").file, potential=potential))
    with pytest.raises(DtmdError, match="does not know Pd"):
        evaluate([stranger], trajectories(), SETTINGS)


def save(path: Path, seed: int) -> Path:
    save_model(model("any", seed).file, path)
    return path


def test_models_have_short_names_of_their_own(tmp_path):
    files = [save(tmp_path / run / "model.pt", 0) for run in ("one", "two")]
    best = save(tmp_path / "one" / "best_S1.pt", 0)
    assert [m.label for m in load_models([tmp_path / "one", files[1], best])] == ["one", "two", "best_S1"]
    deeper = save(tmp_path / "deep" / "one" / "model.pt", 0)
    assert [m.label for m in load_models([files[0], deeper])] == [str(files[0]), str(deeper)]
    with pytest.raises(DtmdError, match="is given twice"):
        load_models([tmp_path / "one", files[0]])


@pytest.fixture
def run(dtmd_here):
    return partial(dtmd_here, "evaluate")


def test_the_command(run, tmp_path):
    save(tmp_path / "single.pt", 0), save(tmp_path / "run" / "model.pt", 1)
    code, shown, errors = run("single.pt", "run", AIMD / "test", "--steps", 4, "--starts", 4, "-o", "out")
    assert code == 0, errors
    assert "MEPA of run less that of single:" in shown and "by bootstrap over 2 runs" in shown
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [m["label"] for m in content["models"]] == ["single", "run"]
    assert all(len(m["sha256"]) == 64 for m in content["models"] + content["aimd"])
    rows = list(csv.DictReader((tmp_path / "out" / "evaluation.csv").open()))
    assert [(r["model"], r["step"], r["time_fs"]) for r in rows[4:6]] == [("single", "4", "2"), ("run", "0", "0")]
    mean = np.mean([float(row["sum"]) for row in rows[1:5]])
    assert np.isclose(mean, content["models"][0]["mepa"]["value"], rtol=1e-5)
    assert (tmp_path / "out" / "evaluation.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "out" / "evaluation.svg").read_text()


@pytest.mark.parametrize(("arguments", "message"), [
    (["single.pt"], "give at least one model and, last, the AIMD"),
    (["nowhere.pt", AIMD / "test"], "nowhere.pt: no such file"),
    (["single.pt", AIMD / "test", "--steps", 400], "give --steps 319 at most"),
])
def test_one_message_and_exit_code_2(run, tmp_path, arguments, message):
    save(tmp_path / "single.pt", 0)
    code, _, errors = run(*arguments)
    assert code == 2 and errors.startswith("dtmd: ") and message in errors
    assert not (tmp_path / "evaluation").exists()
