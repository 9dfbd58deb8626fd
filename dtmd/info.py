"""What is inside a model file or an exported potential, as text."""

from __future__ import annotations

from pathlib import Path

import yaml

from dtmd import artefact
from dtmd.checkpoint import load_model


def describe(path: Path) -> str:
    """YAML text on a model file or an exported potential; no code from the file is run.

    Raises:
        DtmdError: neither of them, or damaged.
    """
    content = _describe_artefact(path) if artefact.is_torchscript(path) else _describe_model(path)
    return yaml.safe_dump(content, sort_keys=False)


def _describe_artefact(path: Path) -> dict:
    return {"file": str(path), "kind": "exported potential (TorchScript)", **artefact.read_metadata(path)}


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
