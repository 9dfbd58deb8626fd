"""What is inside a model file, an exported potential or a trajectory store, as text."""

from __future__ import annotations

from pathlib import Path

import yaml

from dtmd import artefact
from dtmd.checkpoint import load_model
from dtmd.store import describe_store, is_store


def describe(path: Path) -> str:
    """YAML text on a model file, an exported potential or a store; no code from the file is run.

    Raises:
        DtmdError: none of them, or damaged.
    """
    if is_store(path):
        content = {"file": str(path), "kind": "trajectory store", **describe_store(path)}
    else:
        content = _describe_artefact(path) if artefact.is_exported(path) else _describe_model(path)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _describe_artefact(path: Path) -> dict:
    form = "TorchScript" if artefact.is_torchscript(path) else "for pair_style mliap"
    return {"file": str(path), "kind": f"exported potential ({form})", **artefact.read_metadata(path)}


def _describe_model(path: Path) -> dict:
    model = load_model(path)
    potential = model.potential
    return {
        "file": str(path),
        "kind": "trained model; for LAMMPS run: dtmd export",
        "elements": potential.elements,
        "reference_energies_eV": dict(zip(potential.elements, potential.reference_energies.tolist(), strict=True)),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "precision": str(potential.precision).removeprefix("torch."),
        "model": potential.config.model_dump(),
        **model.metadata,
    }
