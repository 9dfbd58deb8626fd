"""Model file → artefact for LAMMPS, checked against the model on real frames before it gets its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dtmd import artefact
from dtmd.checkpoint import ModelFile, load_model
from dtmd.errors import DtmdError
from dtmd.files import written_whole
from dtmd.models.layered import LayeredModel
from dtmd.neighbors import Edges
from dtmd.potential import Potential, Prediction, gather_edge_gradient, predict_with_virial

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest deviation of an artefact from its model, relative to the largest value."""


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


def export_torchscript(
    model_path: Path, out: Path | None = None, precision: torch.dtype | None = None
) -> Exported:
    """Write `model.lammps.pt` beside the model, or `out`.

    Args:
        model_path: a model file, or a run directory that holds model.pt.
        precision: of the network in the artefact, torch.float32 or torch.float64; None leaves it as trained.

    Raises:
        DtmdError: not a model, or the artefact does not reproduce it; nothing is written then.
    """
    if model_path.is_dir():
        model_path = model_path / "model.pt"
    model = _load(model_path, precision)
    out = out or model_path.with_suffix(".lammps.pt")
    if out.resolve() == model_path.resolve():
        raise DtmdError(f"{out}: would overwrite the model; give another file with -o")
    metadata = _metadata(model)
    # Freezing would fold the parameters of the model itself away, so it works on a copy from the file.
    scripted = torch.jit.script(Artefact(_load(model_path, precision).potential).eval())
    scripted = torch.jit.freeze(scripted, preserved_attrs=list(Artefact.METHODS))
    with written_whole(out) as temporary:
        artefact.save(scripted, metadata, temporary)
        deviations = _check(model, temporary)
    return Exported(out, metadata, deviations)


def evaluate_artefact(
    energies: Callable[[Tensor, Tensor, Tensor], Tensor], species: Tensor, positions: Tensor,
    edges: tuple[Tensor, Tensor],
) -> Prediction:
    """Energy (1,), forces and virial (1, 3, 3) of one structure, from what `dtmd.artefact.load` gives."""
    edge_index, shift = edges
    edge_vec = (positions[edge_index[0]] - positions[edge_index[1]] + shift).requires_grad_()
    energy = energies(species, edge_index, edge_vec).sum()
    (gradient,) = torch.autograd.grad(energy, edge_vec)
    graph_index = torch.zeros_like(species)
    forces, virials = gather_edge_gradient(edge_index, edge_vec.detach(), gradient, graph_index, 1)
    return Prediction(energy.detach().unsqueeze(0), forces, virials)


def _load(path: Path, precision: torch.dtype | None) -> ModelFile:
    model = load_model(path)
    model.potential.to_precision(precision or model.potential.precision)
    return model


def _check(model: ModelFile, path: Path) -> dict[str, float]:
    energies, _ = artefact.load(path)
    potential, probes = model.potential, model.probes
    tolerance = TOLERANCE[potential.precision]
    worst = {"energy": 0.0, "forces": 0.0, "virial": 0.0}
    for k in range(probes.structures.n_graphs):
        frame = probes.frame(k)
        edges = Edges(frame.structures, potential.config.cutoff, skin=0.1).at(frame.positions)
        expected = predict_with_virial(potential, frame.structures, frame.positions, edges)
        got = evaluate_artefact(energies, frame.structures.species, frame.positions, edges)
        for name in worst:
            field = {"energy": "energies", "forces": "forces", "virial": "virials"}[name]
            worst[name] = max(worst[name], _deviation(getattr(got, field), getattr(expected, field)))
    bad = {name: value for name, value in worst.items() if not value <= tolerance}
    if bad:
        found = ", ".join(f"{name} {value:.1e}" for name, value in bad.items())
        frames = model.metadata.get("probes", "real frames")
        raise DtmdError(f"the exported potential differs from the model on {frames}: {found} relative "
                        f"(allowed {tolerance:.0e}); it was not written. Please report this with the model file")
    return worst


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
