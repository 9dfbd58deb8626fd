"""A potential as machine code: energies and their gradient as graphs without Python, compiled by torch's AOTInductor.

The graphs, and what they take and give, are described in `dtmd.artefact`. They hold for any numbers of atoms and
edges. Weights are constants in them, and so is what follows from weights alone, such as tables of filters.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx
from torch._inductor.constant_folding import ConstantFolder, replace_node_with_constant

from dtmd.artefact import Graphs
from dtmd.compilation import require_compiler, traced
from dtmd.errors import DtmdError
from dtmd.pieces import gradients, leaves
from dtmd.potential import Potential

_INSTEAD = "export it with --format torchscript"

_V3 = ["avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"]
_V4 = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]
_LEVELS = {"x86-64-v4": (512, _V3 + _V4), "x86-64-v3": (256, _V3)}
"""What the compiler may assume of a processor, best first: the bits of its vectors, and the instructions as
/proc/cpuinfo calls them, which the loading side looks for."""

_OPTIONS = {
    "aot_inductor.package": True,
    # Loops over edges stay on one core: shared sums would cost more than they gain. Matrix products use all threads.
    "cpp.threads": 1, "cpp.dynamic_threads": False,
}


_EXAMPLE_SIZES = 5, 7, 11
"""Of own atoms, nodes and edges, in the arguments that graphs are traced by; told apart by them."""


@dataclass(frozen=True)
class Graph:
    """A function of tensors, with arguments to trace it by.

    The first dimension of each argument has any size, and the second of edge_index, the argument of that number.
    """

    function: Callable[..., list[Tensor]]
    arguments: list[Tensor]
    edge_index: int


def compile_graph(graph: Graph, problem: str, folder: Path) -> list[str]:
    """Compile for the CPU, in about ten seconds.

    Args:
        graph: what to compile.
        problem: what to say first if it cannot be.
        folder: where to write.

    Returns:
        The files, all in the folder.

    Raises:
        DtmdError: no C++ compiler, another kind of processor, or a function that cannot be traced.
    """
    level = _level()
    require_compiler("--format aotinductor", _INSTEAD)
    arguments = tuple(graph.arguments)
    free = {k: 1 if k == graph.edge_index else 0 for k in range(len(arguments))}
    operations = traced(graph.function, arguments, free, problem, closed=True)
    shapes = tuple({dimension: torch.export.Dim.DYNAMIC} for dimension in free.values())
    options = {
        **_OPTIONS, "aot_inductor.output_path": str(folder), "cpp.march": level, "cpp.simdlen": _LEVELS[level][0],
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, of names of its own
            module = torch.export.export(operations, arguments, dynamic_shapes=shapes).module(check_guards=False)
            _fold(module)
            return torch._inductor.aot_compile(module, arguments, options=options)
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if "error" in line.lower()), repr(error))[:300]
        raise DtmdError(f"{problem}, or install g++ 11 or later. What failed: {reason}") from error


def deviation(graph: Graph, compiled: Callable[..., Sequence[Tensor]], sizes: tuple[int, int, int]) -> float:
    """Of what is compiled from its function, relative to the largest value, for random arguments.

    Args:
        sizes: numbers of own atoms, of nodes (at least as many) and of edges.
    """
    random = torch.Generator().manual_seed(0)
    size_of = dict(zip(_EXAMPLE_SIZES, sizes, strict=True))
    arguments = []
    for k, example in enumerate(graph.arguments):
        if k == graph.edge_index:  # before it are the species of the nodes, and first of all those of the own atoms
            ends = [torch.randint(size_of[len(graph.arguments[j])], (sizes[2],), generator=random) for j in (k - 1, 0)]
            arguments.append(torch.stack(ends))
        elif example.is_floating_point():
            shape = size_of[len(example)], *example.shape[1:]
            arguments.append(torch.rand(shape, generator=random, dtype=example.dtype) + 0.5)
        else:  # species: of the first of the nodes
            arguments.append(torch.arange(size_of[len(example)]) % (int(graph.arguments[0].max()) + 1))
    expected, got = graph.function(*arguments), compiled(*arguments)
    apart = [0.0]
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if b.numel():
            apart.append(((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item())
    return max(apart)


def target() -> dict[str, object]:
    """What a program must have to run what is compiled here: the version of torch, machine and instructions."""
    version = torch.__version__.partition("+")[0]
    return {"torch": version, "machine": platform.machine(), "instructions": _LEVELS[_level()][1]}


def graphs_of(potential: Potential) -> tuple[dict[str, Graph], dict[str, list[int]]]:
    """The graphs by name, and `node_tensors` and `kept_tensors` of `dtmd.artefact`.

    Energies that are not those of single atoms come from one rank alone, so that there are no pieces.

    Args:
        potential: on the CPU; its parameters must not require gradients.

    Raises:
        DtmdError: a layer that cannot be traced.
    """
    own, species, edge_index, edge_vec = _example(len(potential.elements))
    whole = _last(potential, 0, 0)
    graphs = {"whole": Graph(
        lambda species, edge_index, edge_vec: whole(species, species, edge_index, edge_vec),
        [own, edge_index, edge_vec], edge_index=1,
    )}
    counts: dict[str, list[int]] = {"node_tensors": [], "kept_tensors": []}
    if not potential.config.per_atom_energy:
        return graphs, counts
    nodes, edges = [], [edge_vec]
    for k in range(potential.model.n_layers - 1):
        before = [own, species, edge_index, *nodes, *edges]
        own_nodes, edges_after = _layer(potential, k, own, species, edge_index, nodes, edges)
        # A layer may give the edges as it got them; two arguments that are one tensor would be traced as one.
        by_after = [tensor.clone() for tensor in (*own_nodes, *edges_after)]
        forward, backward = _halves(_step(potential, k, len(nodes), len(nodes + edges)), before, by_after,
                                    cannot_be_compiled(potential))
        kept = forward(*before)[len(by_after):]
        graphs[f"forward_{k}"] = Graph(forward, before, edge_index=2)
        graphs[f"backward_{k}"] = Graph(backward, [*before, *kept, *by_after], edge_index=2)
        nodes, edges = [torch.cat([node, node[: len(species) - len(own)]]) for node in own_nodes], edges_after
        counts["node_tensors"].append(len(nodes))
        counts["kept_tensors"].append(len(kept))
    last = _last(potential, potential.model.n_layers - 1, len(nodes))
    graphs["last"] = Graph(last, [own, species, edge_index, *nodes, *edges], edge_index=2)
    return graphs, counts


def run_pieces(
    graphs: Graphs, kept_tensors: Sequence[int], species: Tensor, edge_index: Tensor, edge_vec: Tensor
) -> tuple[Tensor, Tensor]:
    """Energies and their gradient by edge_vec piece by piece, as LAMMPS does it on several ranks, here on one."""
    before, inputs = [edge_vec], []
    for k, n_kept in enumerate(kept_tensors):
        after = graphs[f"forward_{k}"](species, species, edge_index, *before)
        n_after = len(after) - n_kept
        inputs.append([*before, *after[n_after:]])
        before = after[:n_after]
    energies, *gradients = graphs["last"](species, species, edge_index, *before)
    for k in reversed(range(len(kept_tensors))):
        gradients = graphs[f"backward_{k}"](species, species, edge_index, *inputs[k], *gradients)
    return energies, gradients[0]


def cannot_be_compiled(potential: Potential) -> str:
    """What a message begins with."""
    return f"--format aotinductor: {potential.config.architecture} cannot be compiled; {_INSTEAD}"


def _level() -> str:
    """The best that this processor has, of `_LEVELS`."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    here = next((line.split() for line in lines if line.startswith("flags")), [])
    for level, (_, instructions) in _LEVELS.items():
        if platform.machine() == "x86_64" and set(instructions) <= set(here):
            return level
    raise DtmdError("--format aotinductor: it compiles on Linux for x86_64 with AVX2, and this machine is "
                    f"{platform.machine()}{' without AVX2' if here else ''}; {_INSTEAD}")


def _fold(module: torch.fx.GraphModule) -> None:
    """Replace what does not depend on the arguments by its value; torch's own function leaves out aranges."""
    folder = ConstantFolder(module)
    folder.run()
    for node, value in folder.node_replacements.items():
        replace_node_with_constant(module, node, value)
    module.graph.eliminate_dead_code()
    module.recompile()


def _example(n_species: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Species of own atoms and of all nodes, edge_index and edge_vec, of different numbers."""
    n_own, n_nodes, n_edges = _EXAMPLE_SIZES
    random = torch.Generator().manual_seed(0)
    species = torch.arange(n_nodes) % n_species
    edge_index = torch.randint(n_own, (2, n_edges), generator=random)
    edge_vec = torch.rand(n_edges, 3, generator=random, dtype=torch.float64) + 0.5
    return species[:n_own].clone(), species, edge_index, edge_vec


def _layer(
    potential: Potential, k: int, own: Tensor, species: Tensor, edge_index: Tensor, nodes: list[Tensor],
    edges: list[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Layer k, the first with the embedding, for which the edges are the edge vectors."""
    if k == 0:
        nodes, edges = potential.model.embed(species, edge_index, edges[0])
    return potential.model.layer(k, own.shape[0], species, edge_index, nodes, edges)


def _step(potential: Potential, k: int, n_nodes: int, n_before: int) -> Callable[..., list[Tensor]]:
    """Layer k and back: what it gives, and gradients by what it reads from those by what it gives."""

    def step(own: Tensor, species: Tensor, edge_index: Tensor, *tensors: Tensor) -> list[Tensor]:
        before = leaves(tensors[:n_before])
        nodes, edges = _layer(potential, k, own, species, edge_index, before[:n_nodes], before[n_nodes:])
        after = [*nodes, *edges]
        return [*(tensor.detach() for tensor in after), *gradients(after, tensors[n_before:], before)]

    return step


_COSTLY = {
    torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default,
    torch.ops.aten.index_add.default,
}
"""Operations whose results are worth keeping for the way back. Others are done again there: that takes less time than
to write and read a number for each edge and feature."""


def _halves(
    step: Callable[..., list[Tensor]], before: list[Tensor], by_after: list[Tensor], problem: str
) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
    """The way there, `before` -> after and what is kept; the way back, `before`, kept, `by_after` -> gradients."""
    module = traced(step, [*before, *by_after], {}, problem, closed=True)
    *nodes, output = module.graph.nodes
    inputs = [node for node in nodes if node.op == "placeholder"]
    after, gradients = output.args[0][: len(by_after)], output.args[0][len(by_after):]
    there = _between(inputs[: len(before)], after, nodes)
    costly = [node for node in there if node.target in _COSTLY and _has_rows(node)]
    back = _between([*inputs, *costly], gradients, nodes)
    kept = [node for node in costly if any(user in back for user in node.users)]
    return (
        _function(module, inputs[: len(before)], there, [*after, *kept]),
        _function(module, [*inputs[: len(before)], *kept, *inputs[len(before):]], back, gradients),
    )


def _has_rows(node: fx.Node) -> bool:
    """Whether the first dimension counts nodes or edges: one size, not a multiple, and none of the others is free."""
    first, *others = node.meta["val"].shape
    return isinstance(first, torch.SymInt) and first.node.expr.is_Symbol and all(isinstance(n, int) for n in others)


def _between(inputs: Iterable[fx.Node], outputs: Iterable[fx.Node], nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the nodes that lead from the inputs to the outputs, in their order."""
    given, needed = set(inputs), set(outputs)
    for node in reversed(nodes):
        if node in needed and node not in given:
            needed.update(node.all_input_nodes)
    return [node for node in nodes if node in needed - given]


def _function(
    module: fx.GraphModule, inputs: Iterable[fx.Node], nodes: Iterable[fx.Node], outputs: Iterable[fx.Node]
) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in outputs])
    return fx.GraphModule(module, graph)


def _last(potential: Potential, first: int, n_nodes: int) -> Callable[..., list[Tensor]]:
    """From layer `first` to the energies, and back."""

    def last(own: Tensor, species: Tensor, edge_index: Tensor, *before: Tensor) -> list[Tensor]:
        before = leaves(before)
        nodes, edges = before[:n_nodes], before[n_nodes:]
        for k in range(first, potential.model.n_layers):
            nodes, edges = _layer(potential, k, own, species, edge_index, nodes, edges)
        energies = potential.scaled(potential.model.energies(nodes, torch.zeros_like(own), 1), own)
        return [energies.detach(), *gradients([energies], [torch.ones_like(energies)], before)]

    return last
