"""Model file → artefact for LAMMPS, checked against the model on real frames before it gets its name."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from dtmd import artefact
from dtmd.aotinductor import Graph, cannot_be_compiled, compile_graph, deviation, graphs_of, run_pieces, target
from dtmd.checkpoint import ModelFile, file_of, load_model
from dtmd.errors import DtmdError
from dtmd.files import written_whole
from dtmd.filter_tables import with_fine_filters
from dtmd.models.layered import LayeredModel
from dtmd.neighbors import Edges
from dtmd.potential import Evaluate, Potential, predict_by_edges, predict_with_virial, with_gradient

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest deviation of an artefact from its model, relative to the largest value."""

SIZES = (1, 1, 0), (1, 1, 2), (1, 4, 3), (2, 2, 1), (6, 6, 40), (6, 19, 40)
"""Own atoms, nodes and edges that compiled graphs are tried with."""


class Artefact(nn.Module):
    """A potential behind the contract of `dtmd.artefact`: one structure, no batch."""

    METHODS = ("embed", "layer", "energies")

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    @torch.jit.export
    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.potential.model.embed(species, edge_index, edge_vec)

    @torch.jit.export
    def layer(
        self, k: int, n_atoms: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        return self.potential.model.layer(k, n_atoms, species, edge_index, nodes, edges)

    @torch.jit.export
    def energies(self, species: Tensor, nodes: list[Tensor]) -> Tensor:
        return self.potential.scaled(self.potential.model.energies(nodes, torch.zeros_like(species), 1), species)


@dataclass(frozen=True)
class Exported:
    """The written artefact, its metadata and the largest relative deviations seen on the probe frames."""

    path: Path
    metadata: dict
    deviations: dict[str, float]


def export_torchscript(model_path: Path, out: Path | None = None, precision: torch.dtype | None = None) -> Exported:
    """Write `model.lammps.pt` beside the model, or `out`.

    Args:
        model_path: a model file, or a run directory that holds model.pt.
        precision: of the network in the artefact, torch.float32 or torch.float64; None leaves it as trained.

    Raises:
        DtmdError: not a model, or the artefact does not reproduce it; nothing is written then.
    """
    model, out = _model_and_place(model_path, out, ".lammps.pt", precision)
    # Freezing would fold the parameters of the model itself away, so it works on a copy.
    scripted = torch.jit.script(Artefact(copy.deepcopy(model.potential)).eval())
    scripted = torch.jit.freeze(scripted, preserved_attrs=list(Artefact.METHODS))
    metadata = _metadata(model)
    with written_whole(out) as temporary:
        artefact.save(scripted, metadata, temporary)
        energies, _ = artefact.load(temporary)
        deviations = _check(model, functools.partial(with_gradient, energies))
    return Exported(out, metadata, deviations)


def export_aotinductor(
    model_path: Path, out: Path | None = None, precision: torch.dtype | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Exported:
    """Write `model.lammps.pt2` beside the model, or `out`: machine code for the CPU.

    Args:
        model_path: a model file, or a run directory that holds model.pt.
        precision: as for `export_torchscript`.
        progress: called with the name of a graph, its number from 0 and how many there are, before it is compiled.

    Raises:
        DtmdError: as `export_torchscript`, or as `dtmd.aotinductor.compile_graph`.
    """
    model, out = _model_and_place(model_path, out, ".lammps.pt2", precision)
    graphs, counts = graphs_of(copy.deepcopy(model.potential).requires_grad_(False))
    metadata = {**_metadata(model), "compiled": {**target(), **counts}}
    with TemporaryDirectory() as folder, written_whole(out) as temporary:
        files = {}
        for k, (name, graph) in enumerate(graphs.items()):
            progress(name, k, len(graphs))
            files[name] = compile_graph(graph, cannot_be_compiled(model.potential), Path(folder) / name)
        artefact.save_compiled(files, metadata, temporary)
        compiled, _ = artefact.load_compiled(temporary)
        _check_sizes(model, graphs, compiled)
        deviations = _check(model, compiled["whole"])
        if "last" in compiled:
            in_pieces = _check(model, functools.partial(run_pieces, compiled, counts["kept_tensors"]))
            deviations = {name: max(value, in_pieces[name]) for name, value in deviations.items()}
    return Exported(out, metadata, deviations)


def destination(model_path: Path, out: Path | None, suffix: str) -> Path:
    """Where to write: `out`, or beside the model file with this suffix.

    Raises:
        DtmdError: it is the model file.
    """
    out = out or model_path.with_suffix(suffix)
    if out.resolve() == model_path.resolve():
        raise DtmdError(f"{out}: would overwrite the model; give another file with -o")
    return out


def _model_and_place(
    model_path: Path, out: Path | None, suffix: str, precision: torch.dtype | None
) -> tuple[ModelFile, Path]:
    model_path = file_of(model_path)
    model = load_model(model_path)
    model.potential.to_precision(precision or model.potential.precision)
    return with_fine_filters(model), destination(model_path, out, suffix)


def _check(model: ModelFile, evaluate: Evaluate) -> dict[str, float]:
    """Largest relative deviations from the model on its probe frames."""
    potential, probes = model.potential, model.probes
    worst = {"energy": 0.0, "forces": 0.0, "virial": 0.0}
    for k in range(probes.structures.n_graphs):
        frame = probes.frame(k)
        edges = Edges(frame.structures, potential.config.cutoff, skin=0.1).at(frame.positions)
        expected = predict_with_virial(potential, frame.structures, frame.positions, edges)
        got = predict_by_edges(evaluate, frame.structures, frame.positions, edges)
        for name in worst:
            field = {"energy": "energies", "forces": "forces", "virial": "virials"}[name]
            worst[name] = max(worst[name], _deviation(getattr(got, field), getattr(expected, field)))
    _raise_if_apart(model, worst)
    return worst


def _check_sizes(model: ModelFile, graphs: dict[str, Graph], compiled: artefact.Graphs) -> None:
    """Other numbers of atoms and edges than the probe frames have: torch's compiler assumes two or more."""
    for name, graph in graphs.items():
        for sizes in SIZES:
            apart = deviation(graph, compiled[name], sizes)
            if not apart <= 10.0 * TOLERANCE[model.potential.precision]:
                n_own, n_nodes, n_edges = sizes
                raise DtmdError(
                    f"the compiled graph {name} differs from the model with {n_own} of {n_nodes} atoms and {n_edges} "
                    f"edges: {apart:.1e} relative; it was not written. Export it with --format torchscript"
                )


def _raise_if_apart(model: ModelFile, worst: dict[str, float]) -> None:
    tolerance = TOLERANCE[model.potential.precision]
    bad = {name: value for name, value in worst.items() if not value <= tolerance}
    if bad:
        found = ", ".join(f"{name} {value:.1e}" for name, value in bad.items())
        frames = model.metadata.get("probes", "real frames")
        raise DtmdError(f"the exported potential differs from the model on {frames}: {found} relative "
                        f"(allowed {tolerance:.0e}); it was not written. Please report this with the model file")


def _deviation(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


def _metadata(model: ModelFile) -> dict:
    potential = model.potential
    return {
        "elements": potential.elements,
        "cutoff": potential.config.cutoff,
        "dtype": str(potential.precision).removeprefix("torch."),
        "per_atom_energy": potential.config.per_atom_energy,
        "exchanged": _exchanged(potential.model),
        "model": potential.config.model_dump(),
        **model.metadata,
    }


def _exchanged(model: LayeredModel) -> list[int]:
    """Numbers per atom in the nodes after each layer but the last, seen on a pair of atoms."""
    species, edge_index = torch.tensor([0, 0]), torch.tensor([[0, 1], [1, 0]])
    edge_vec = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    widths = []
    with torch.no_grad():
        nodes, edges = model.embed(species, edge_index, edge_vec)
        for k in range(model.n_layers - 1):
            nodes, edges = model.layer(k, 2, species, edge_index, nodes, edges)
            widths.append(sum(node.numel() for node in nodes) // 2)
    return widths
