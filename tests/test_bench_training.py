"""What the benchmark of the training compares with is the same method: equal loss, equal gradient."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import CPU, real_points, small_potential

from dtmd.config import LossConfig
from dtmd.losses import RolloutLoss
from dtmd.neighbors import Edges
from dtmd.rollout import accumulate_gradient

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from bench_training_baseline import StraightforwardEGNN  # noqa: E402


@pytest.mark.parametrize("length", [1, 3])
def test_the_straightforward_training_has_the_loss_and_the_gradient_of_dtmd(length):
    potential = small_potential(n_knots=0)
    points = real_points(potential, 2, length)
    structures, rollout_loss = points.start.structures, RolloutLoss.of(LossConfig(), potential.elements, CPU)

    def loss(predictions):
        return rollout_loss(structures, predictions, points.energies, points.forces)

    value = accumulate_gradient(potential, points.start, Edges(structures, 4.0, 0.3), length, loss)
    plain = StraightforwardEGNN(potential)
    assert torch.isclose(plain.add_gradient(points.start, length, loss), value, rtol=1e-12)
    for parameter, gradient in zip(potential.parameters(), plain.gradients_like(potential), strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_the_quick_benchmark_writes_its_figures(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "bench_training.py", "--quick", "--json", tmp_path / "f.json"],
                   check=True)
    figures = json.loads((tmp_path / "f.json").read_text())
    assert all(row["ratio"] > 1.0 for row in figures["update"] if row["baseline_ms"])
    assert figures["memory"]["growth"] < 1.5
