"""Small potentials and batches of real frames for the tests of the Python side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dtmd.checkpoint import ModelFile, ProbeFrames, save_model
from dtmd.ingest import read_aimd
from dtmd.models.egnn import EGNNConfig
from dtmd.potential import Potential
from dtmd.structures import Structures
from dtmd.subsequences import Points, Subsequences
from dtmd.trajectory import Trajectory

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"
CPU = torch.device("cpu")


def small_potential(seed: int = 0, precision: torch.dtype = torch.float64, **config) -> Potential:
    """A narrow EGNN for H, C, Pd with fresh weights."""
    torch.manual_seed(seed)
    settings = EGNNConfig(**{"cutoff": 4.0, "width": 16, "n_layers": 2, "n_frequencies": 8, **config})
    return Potential(["H", "C", "Pd"], settings, torch.tensor([-14.0, -60.0, -20.0])).to_precision(precision)


def example(kind: str = "test") -> list[Trajectory]:
    """The embedded trajectories of one kind: train, validation or test."""
    return read_aimd([AIMD / kind])


def real_points(potential: Potential, n_points: int, length: int) -> Points:
    """Subsequences of the embedded test trajectories."""
    points = Subsequences(example(), potential, length, stride=7)
    return points.batch(points.spread(n_points), CPU)


def model_file(potential: Potential, **metadata) -> ModelFile:
    """The potential with two embedded frames to check it on."""
    start = real_points(potential, 2, 1).start
    return ModelFile(potential, ProbeFrames(start.structures, start.positions), metadata)


def saved(potential: Potential, path: Path, **metadata) -> Path:
    """Write the model file; returns its path."""
    save_model(model_file(potential, **metadata), path)
    return path


def structures_of(species: list[int], cell: np.ndarray, pbc: tuple[bool, bool, bool]) -> Structures:
    """One structure of the given species."""
    n_atoms = len(species)
    masses = torch.tensor([1.008, 12.011, 106.42], dtype=torch.float64)
    return Structures(
        torch.tensor(species), masses[torch.tensor(species)], torch.zeros(n_atoms, dtype=torch.int64),
        torch.as_tensor(np.asarray(cell, dtype=float)).unsqueeze(0), torch.tensor([pbc]),
    )
