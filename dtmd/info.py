"""What is inside a model file or an exported potential, as text."""

from __future__ import annotations

import zipfile
from pathlib import Path

import yaml

from dtmd import artefact
from dtmd.checkpoint import load_model


def describe(path: Path) -> str:
    """YAML text on a model file or an exported potential; no code from the file is run.

    Raises:
        DtmdError: neither of them, or damaged.
    """
    return yaml.safe_dump(_describe_artefact(path) if _is_artefact(path) else _describe_model(path), sort_keys=False)


def _is_artefact(path: Path) -> bool:
    """TorchScript archives hold a code folder, model files do not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


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
