"""Compiled forces and derivatives are those of autograd, for batches of all sizes."""

import shutil

import pytest
import torch
from model_cases import NAMES, evaluate, loss_on, potential_of
from small import CPU, real_points, small_potential

from dtmd.compilation import CompiledEvaluation
from dtmd.errors import DtmdError
from dtmd.neighbors import Edges
from dtmd.rollout import accumulate_gradient


@pytest.fixture
def only_traced(monkeypatch):
    """The functions are traced, which takes seconds, but run without torch's compiler, which takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)


def gradient(potential, points, length):
    potential.zero_grad()
    start = points.start
    edges = Edges(start.structures, potential.config.cutoff, 0.3)
    value = accumulate_gradient(potential, start, edges, length, loss_on(points))
    return [value, *(parameter.grad.clone() for parameter in potential.parameters())]


def assert_compiled_equals_autograd(potential, n_points, length, evaluation):
    points = real_points(potential, n_points, length)
    expected = gradient(potential, points, length)
    potential.compiled = evaluation
    got = gradient(potential, points, length)
    potential.compiled = None
    largest = max(tensor.abs().max() for tensor in expected[1:])
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12 * largest)


def test_gradient_through_rollouts_of_batches_of_all_sizes_while_the_weights_change(only_traced):
    potential = small_potential(width=8, n_layers=1)
    evaluation = CompiledEvaluation(CPU)
    for n_points, length in ((2, 3), (5, 1), (1, 2)):
        assert_compiled_equals_autograd(potential, n_points, length, evaluation)
        torch._foreach_mul_([parameter.data for parameter in potential.parameters()], 1.1)
    assert len(evaluation._compiled) == 4  # two functions, for one structure and for more


def test_without_a_graph_there_is_none(only_traced):
    potential = small_potential(width=8, n_layers=1)
    potential.compiled = CompiledEvaluation(CPU)
    start = real_points(potential, 2, 1).start
    assert not evaluate(potential, start.structures, start.positions).forces.requires_grad


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DtmdError, match="install one, or set compile to false"):
        CompiledEvaluation(CPU)


@pytest.mark.slow
def test_what_cannot_be_traced_is_refused():
    potential = potential_of("mace")
    potential.compiled = CompiledEvaluation(CPU)
    start = real_points(potential, 2, 1).start
    with pytest.raises(DtmdError, match="mace cannot be compiled; set compile to false"):
        evaluate(potential, start.structures, start.positions)


def test_code_for_one_size_of_batch_alone_is_refused(only_traced):
    potential = small_potential(width=8, n_layers=1)
    potential.compiled = CompiledEvaluation(CPU)
    potential.model.register_forward_pre_hook(lambda module, inputs: len(inputs[2]) and None)  # counts the edges
    start = real_points(potential, 2, 1).start
    with pytest.raises(DtmdError, match="makes a number of a size"):
        evaluate(potential, start.structures, start.positions)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "mace"])
def test_compiled_gradients_of_every_architecture(name):
    evaluation = CompiledEvaluation(CPU)
    for n_points in (2, 3):
        assert_compiled_equals_autograd(potential_of(name), n_points, 2, evaluation)
