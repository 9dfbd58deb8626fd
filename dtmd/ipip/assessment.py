"""How good a potential is on reference frames that nothing was trained on or chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dtmd.calculator import DtmdCalculator
from dtmd.evaluation.comparison import EvaluationSettings, RunBootstrap, evaluate, load_models
from dtmd.ipip.config import AssessConfig
from dtmd.ipip.pseudo_labels import atoms_of_frame
from dtmd.observables.statistics import Estimate
from dtmd.subsequences import by_run
from dtmd.trajectory import Trajectory


@dataclass(frozen=True)
class FrameErrors:
    """Mean absolute errors over frames, with 95 % intervals by resampling runs.

    Attributes:
        energy: eV/atom.
        force: of a component of all atoms, eV/Å.
        species: of the atoms of each element, eV/Å.
    """

    energy: Estimate
    force: Estimate
    species: dict[str, Estimate]

    def as_dict(self) -> dict:
        """Plain values."""
        return asdict(self)


def frame_errors(predicted: Sequence[Trajectory], reference: Sequence[Trajectory], seed: int) -> FrameErrors:
    """Of labels against those of the reference, one trajectory for one, frame for frame."""
    run_of = {t.source: name for name, pieces in by_run(reference).items() for t in pieces}
    bootstrap = RunBootstrap([run_of[t.source] for t in reference for _ in range(len(t))], seed)
    elements = sorted({element for t in reference for element in t.elements})
    energy, force, species = [], [], {element: [] for element in elements}
    for own, true in zip(predicted, reference, strict=True):
        error = np.abs(np.asarray(own.forces, dtype=float) - np.asarray(true.forces, dtype=float)).mean(axis=2)
        energy.append(np.abs(np.asarray(own.energies) - np.asarray(true.energies)) / len(true.numbers))
        force.append(error.mean(axis=1))
        symbols = np.array(true.symbols)
        for element in elements:
            atoms = error[:, symbols == element]
            species[element].append(atoms.mean(axis=1) if atoms.size else np.full(len(true), np.nan))

    def mean(parts: list[np.ndarray]) -> Estimate:
        return bootstrap.mean(np.concatenate(parts))

    return FrameErrors(mean(energy), mean(force), {element: mean(parts) for element, parts in species.items()})


def predictions(model: Path, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The frames with the labels of a model file, energies in eV and forces in eV/Å."""
    calculator, found = DtmdCalculator(model), []
    for t in trajectories:
        energies, forces = np.empty(len(t)), np.empty(t.positions.shape)
        for k in range(len(t)):
            part = calculator.evaluate_many(atoms_of_frame(t, k), np.array(t.positions[k : k + 1], dtype=float))
            energies[k], forces[k] = part[0][0], part[1][0]
        found.append(replace(t, energies=energies, forces=forces))
    return found


def rollout_error(model: Path, trajectories: Sequence[Trajectory], config: AssessConfig, seed: int) -> Estimate | None:
    """MEPA, eV/Å (article of dynamic training, eq. 13); None where every rollout diverged."""
    settings = EvaluationSettings(config.steps, config.starts, seed)
    (result,) = evaluate(load_models([model]), trajectories, settings).models
    return result.mepa
