"""The model file: weights, config and provenance, readable without running code from it."""

from __future__ import annotations

import pickle
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers
from pydantic import TypeAdapter
from torch import Tensor

from dtmd.artefact import kind_of
from dtmd.errors import DtmdError
from dtmd.files import sha256, torch_writing, written_whole
from dtmd.mace_file import is_mace_file, read_mace_file
from dtmd.models import ModelConfig
from dtmd.potential import Potential
from dtmd.structures import Structures

MODEL = "model.pt"
"""The model file of a run, in its folder."""

FORMAT = "dtmd model"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ProbeFrames:
    """Frames that travel with a model, so that what is made from it can be checked anywhere: real ones of its training.

    Attributes:
        structures: K frames as a batch.
        positions: Å, float64 (n_atoms, 3).
    """

    structures: Structures
    positions: Tensor

    def frame(self, k: int) -> ProbeFrames:
        """The k-th frame alone."""
        first, last = self.structures.atom_ranges[k]
        batch = self.structures
        alone = Structures(
            batch.species[first:last], batch.masses[first:last], torch.zeros_like(batch.species[first:last]),
            batch.cells[k : k + 1], batch.pbc[k : k + 1],
        )
        return ProbeFrames(alone, self.positions[first:last])


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds; `metadata` is plain JSON-like data."""

    potential: Potential
    probes: ProbeFrames
    metadata: dict


def file_of(place: Path) -> Path:
    """The model file that a user names by itself or by its run folder."""
    return place / MODEL if place.is_dir() else place


def save_model(model: ModelFile, path: Path) -> None:
    """Write a model file whole; raises as `written_whole`."""
    potential = model.potential
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "elements": potential.elements,
        "model": potential.config.model_dump(),
        "precision": str(potential.precision).removeprefix("torch."),
        "weights": {name: value.detach().cpu() for name, value in potential.state_dict().items()},
        "probes": {
            "positions": model.probes.positions.cpu(),
            **{name: value.cpu() for name, value in vars(model.probes.structures).items()},
        },
        "metadata": model.metadata,
    }
    save_tensors(content, path)


def save_tensors(content: dict, path: Path) -> None:
    """torch.save of tensors and plain data, whole; raises as `written_whole`."""
    with written_whole(path) as temporary, torch_writing():
        torch.save(content, temporary)


def load_tensors(path: Path) -> dict:
    """Read what `save_tensors` wrote; only tensors and plain data are unpickled.

    Raises:
        DtmdError: the file is missing, damaged or not one of ours.
    """
    if kind_of(path):  # torch.load would hand it to torch.jit.load, which loads its code
        raise DtmdError(f"{path}: an exported potential, not a trained model; give RUN_DIR/model.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DtmdError(f"{path}: no such file; train a model first (dtmd train)") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise DtmdError(f"{path}: not a file that dtmd train wrote, or cut off "
                        f"({str(error).splitlines()[0][:120]}); give RUN_DIR/model.pt") from error
    if not isinstance(content, dict):
        raise DtmdError(f"{path}: not a file that dtmd train wrote (holds a {type(content).__name__})")
    return content


def load_model(path: Path) -> ModelFile:
    """Read a model file.

    One that mace-torch wrote is taken for what it is; it holds no frames, so it gets some that are made up.

    Raises:
        DtmdError: the file is missing, damaged, foreign or of another format version.
    """
    if is_mace_file(path):
        potential = read_mace_file(path)
        metadata = {"origin": "mace-torch", "probes": "made-up structures", "sha256": sha256([path])}
        return ModelFile(potential, _made_up_frames(potential.elements), metadata)
    content = load_tensors(path)
    if content.get("format") != FORMAT:
        raise DtmdError(f"{path}: not a model that dtmd train wrote; give RUN_DIR/model.pt or RUN_DIR/best_S<k>.pt")
    if content["version"] != FORMAT_VERSION:
        raise DtmdError(f"{path}: model format {content['version']}, this dtmd reads {FORMAT_VERSION}; "
                        "use the dtmd version that wrote it")
    config = TypeAdapter(ModelConfig).validate_python(content["model"])
    weights = content["weights"]
    potential = Potential(content["elements"], config, weights["reference_energies"])
    potential.to_precision(getattr(torch, content["precision"]))
    potential.load_state_dict(weights)
    probes = dict(content["probes"])
    positions = probes.pop("positions")
    return ModelFile(potential, ProbeFrames(Structures(**probes), positions), content["metadata"])


def _made_up_frames(elements: list[str], n_frames: int = 4) -> ProbeFrames:
    """Periodic boxes of 27 atoms of random elements, displaced from a simple cubic lattice."""
    spacing, n_atoms = 2.4, 27
    random = np.random.default_rng(0)
    lattice = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(1, n_atoms, 3)
    positions = spacing * (lattice + random.uniform(-0.15, 0.15, (n_frames, n_atoms, 3)))
    species = random.integers(len(elements), size=n_frames * n_atoms)
    masses = np.array([atomic_masses[atomic_numbers[element]] for element in elements])[species]
    structures = Structures(
        torch.from_numpy(species), torch.from_numpy(masses), torch.arange(n_frames).repeat_interleave(n_atoms),
        (3 * spacing * torch.eye(3, dtype=torch.float64)).repeat(n_frames, 1, 1),
        torch.ones(n_frames, 3, dtype=torch.bool),
    )
    return ProbeFrames(structures, torch.from_numpy(positions.reshape(-1, 3)))


def provenance() -> dict[str, str]:
    """Versions of the software, and the git revision in a checkout."""
    versions = {name: version(name) for name in ("dtmd", "torch", "torch-geometric", "mace-torch", "numpy", "ase")}
    checkout = Path(__file__).parent.parent
    if not (checkout / ".git").exists():
        return versions
    command = ["git", "describe", "--always", "--dirty"]
    git = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    return versions | ({"git": git.stdout.strip()} if git.returncode == 0 else {})
