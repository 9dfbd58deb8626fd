"""Forces, and their derivatives, each as one function that torch's compiler makes of thousands of operations."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from dtmd.errors import DtmdError
from dtmd.potential import Potential
from dtmd.structures import Structures


class CompiledEvaluation:
    """Evaluates potentials of one architecture with code that is compiled at the first batch.

    What is compiled is what autograd does, second derivatives too, so that results are the same but for rounding.
    Sizes are symbols, so the code serves all batches. Symbols stand for two or more: batches of a single structure
    have code of their own.

    Raises:
        DtmdError: no C++ compiler, which torch needs for it on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type == "cpu":
            require_compiler("compile", "set compile to false")
        self._compiled: dict[tuple, Callable] = {}

    def __call__(
        self, potential: Potential, structures: Structures, positions: Tensor, edges: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Energies (B,) and forces (n_atoms, 3), whose graph holds no more than the arguments.

        Raises:
            DtmdError: an architecture that cannot be traced.
        """
        return _Evaluate.apply(_Batch(self, potential, structures, edges), positions, *potential.parameters())

    def run(self, function: Callable, potential: Potential, arguments: list[Tensor]) -> tuple[Tensor, ...]:
        """`function` of the potential, its tensors by name, and the arguments."""
        names, tensors = zip(*potential.named_parameters(), *potential.named_buffers(), strict=True)
        everything = [tensor.detach() for tensor in (*tensors, *arguments)]
        key = function, *(size == 1 for argument in arguments for size in argument.shape)
        if key not in self._compiled:
            def of_tensors(*everything: Tensor) -> tuple[Tensor, ...]:
                values = dict(zip(names, everything[: len(names)], strict=True))
                return function(potential, values, *everything[len(names) :])

            positions, by_energies, _, _, edge_index = range(len(names), len(names) + 5)
            problem = f"compile: {potential.config.architecture} cannot be compiled; set compile to false"
            graph = traced(of_tensors, everything, {positions: 0, by_energies: 0, edge_index: 1}, problem)
            self._compiled[key] = torch.compile(graph, dynamic=True)
        with torch.no_grad():
            return self._compiled[key](*everything)


def require_compiler(who: str, instead: str) -> None:
    """Look for the C++ compiler that torch needs for a CPU.

    Raises:
        DtmdError: there is none; what else to do is `instead`.
    """
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise DtmdError(f"{who}: no C++ compiler is found (g++); install one, or {instead}")


def traced(
    function: Callable, arguments: Sequence[Tensor], sizes: Mapping[int, int], problem: str, closed: bool = False
) -> torch.fx.GraphModule:
    """The operations of a function on tensors, its derivatives among them, for arguments of any sizes.

    Args:
        sizes: of the argument with this number, the dimension whose size must stay free if it is not 1.
        problem: what to say first of a function that cannot be traced.
        closed: tensors that are no arguments may be there, and become constants.

    Raises:
        DtmdError: it cannot be traced, or not for any sizes.
    """
    try:
        # Without duck shapes sizes that happen to be equal in this batch have symbols of their own.
        with torch.enable_grad(), torch.fx.experimental._config.patch(use_duck_shape=False):
            graph = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=closed)(*arguments)
    except RuntimeError as error:
        raise DtmdError(problem) from error
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    for argument, dimension in sizes.items():
        size = inputs[argument].shape[dimension]
        if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is not None:
            raise DtmdError(f"{problem}: it makes a number of a size, which a later batch may not have")
    return graph


@dataclass(frozen=True)
class _Batch:
    evaluation: CompiledEvaluation
    potential: Potential
    structures: Structures
    edges: tuple[Tensor, Tensor]

    def run(self, function: Callable, positions: Tensor, by_energies: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        constants = self.structures.species, self.structures.graph_index, *self.edges
        return self.evaluation.run(function, self.potential, [positions, by_energies, *constants, *others])


class _Evaluate(Function):
    @staticmethod
    def forward(ctx, batch, positions, *parameters):
        ctx.batch = batch
        ctx.save_for_backward(positions)
        return batch.run(_forces, positions, positions.new_zeros(batch.structures.n_graphs))

    @staticmethod
    @once_differentiable
    def backward(ctx, by_energies, by_forces):
        return None, *ctx.batch.run(_pulled_back, *ctx.saved_tensors, by_energies, by_forces)


def _energies(
    potential: Potential, values: dict[str, Tensor], positions: Tensor, by_energies: Tensor,
    species: Tensor, graph_index: Tensor, edge_index: Tensor, shift: Tensor,
) -> Tensor:
    """Of the structures, whose number is the size of `by_energies`: a number or a len() would be compiled in."""
    edge_vec = positions[edge_index[0]] - positions[edge_index[1]] + shift
    arguments = species, edge_index, edge_vec, graph_index, by_energies.shape[0]
    return torch.zeros_like(by_energies).index_add(0, graph_index, functional_call(potential, values, arguments))


def _forces(potential: Potential, values: dict[str, Tensor], positions: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
    positions = positions.detach().requires_grad_()
    energies = _energies(potential, values, positions, *batch)
    (gradient,) = torch.autograd.grad(energies.sum(), positions)
    return energies.detach(), -gradient


def _pulled_back(
    potential: Potential, values: dict[str, Tensor], positions: Tensor, by_energies: Tensor, *batch: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of ⟨by_energies, E⟩ + ⟨by_forces, F⟩ by the positions and by each parameter."""
    *batch, by_forces = batch
    positions = positions.detach().requires_grad_()
    parameters = {name: values[name].detach().requires_grad_() for name, _ in potential.named_parameters()}
    energies = _energies(potential, values | parameters, positions, by_energies, *batch)
    (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=True)
    value = (by_energies * energies).sum() - (by_forces * gradient).sum()
    inputs = [positions, *parameters.values()]
    return torch.autograd.grad(value, inputs, materialize_grads=True, allow_unused=True)
