"""From AIMD files to training and validation subsequences, and what the potential takes from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dtmd.checkpoint import ProbeFrames
from dtmd.config import TrainConfig
from dtmd.errors import DtmdError
from dtmd.files import sha256
from dtmd.ingest import find_aimd, read_aimd
from dtmd.potential import Potential
from dtmd.subsequences import Subsequences, split
from dtmd.trajectory import Trajectory

N_PROBES = 4


@dataclass(frozen=True)
class TrainingData:
    """Whole trajectories for training and for validation, and a hash over their files."""

    training: list[Trajectory]
    validation: list[Trajectory]
    digest: str

    @property
    def elements(self) -> list[str]:
        """Chemical symbols in the data, by atomic number."""
        numbers = {z: symbol for t in self.training for z, symbol in zip(t.numbers, t.symbols, strict=True)}
        return [numbers[z] for z in sorted(numbers)]

    def new_potential(self, config: TrainConfig) -> Potential:
        """A fresh potential with reference energies and energy scale from the training data."""
        torch.manual_seed(config.seed)
        reference = reference_energies(self.training, self.elements)
        scale = float(np.sqrt(np.mean([np.mean(t.forces**2) for t in self.training])))
        potential = Potential(self.elements, config.model, torch.from_numpy(reference), scale)
        return potential.to_precision(getattr(torch, config.precision))

    def training_points(self, potential: Potential, config: TrainConfig) -> Subsequences:
        """Subsequences of the longest length, so that every stage sees the same starts."""
        return Subsequences(self.training, potential, max(config.curriculum.lengths), config.data.stride)

    def validation_points(self, potential: Potential, config: TrainConfig) -> Subsequences:
        """Subsequences of S_val frames."""
        return Subsequences(self.validation, potential, config.curriculum.validation_length, stride=1)

    def probes(self, potential: Potential) -> ProbeFrames:
        """A few frames of the validation trajectories."""
        points = Subsequences(self.validation, potential, length=1, stride=1)
        start = points.batch(points.spread(N_PROBES), torch.device("cpu")).start
        return ProbeFrames(start.structures, start.positions)


def load_training_data(config: TrainConfig) -> TrainingData:
    """Read, check and split the AIMD that the config names.

    Raises:
        DtmdError: bad files; a trajectory in both sets; an element only in the validation set.
    """
    data = config.data
    files = find_aimd(data.train)
    trajectories = read_aimd(files, data.timestep)
    if data.validation is None:
        training, validation = split(trajectories, data.validation_share, config.seed)
    else:
        held_out = find_aimd(data.validation)
        both = {p.resolve() for p in files} & {p.resolve() for p in held_out}
        if both:
            raise DtmdError(f"{min(both)}: is in data.train and in data.validation; "
                            "validation needs unseen trajectories")
        training, validation = trajectories, read_aimd(held_out, data.timestep)
        files = files + held_out
    return TrainingData(training, validation, sha256(files))


def reference_energies(trajectories: list[Trajectory], elements: list[str]) -> np.ndarray:
    """Energy per atom of each element, eV, by least squares (of smallest norm where compositions are alike)."""
    counts = np.array([[t.symbols.count(element) for element in elements] for t in trajectories], dtype=float)
    means = np.array([t.energies.mean() for t in trajectories])
    return np.linalg.lstsq(counts, means, rcond=None)[0]
