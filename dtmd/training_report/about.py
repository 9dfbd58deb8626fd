"""What a run trains on and with, beside its config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ase.formula import Formula

from dtmd.checkpoint import provenance
from dtmd.errors import DtmdError
from dtmd.files import write_text
from dtmd.potential import Potential
from dtmd.subsequences import Subsequences, by_run
from dtmd.training_data import TrainingData
from dtmd.trajectory import Trajectory

ABOUT = "about.json"


def describe(
    data: TrainingData, potential: Potential, points: Subsequences, rollouts: Sequence[int], device: str
) -> dict:
    """Facts for `about.json`: sizes of the data, what the potential took from them, versions.

    Args:
        points: the training subsequences.
        rollouts: the starts of the validation.
        device: the name of what computes.
    """
    everything = data.training + data.validation
    return {
        "training": _size(data.training) | {"subsequences": len(points)},
        "validation": _size(data.validation) | {"rollouts": len(rollouts)},
        "systems": sorted({Formula.from_list(t.symbols).format("hill") for t in everything}),
        "timesteps_fs": sorted({round(t.timestep, 6) for t in data.in_time if len(t) > 1}),
        "reference_energies_eV": {element: round(value, 6) for element, value in zip(
            potential.elements, potential.reference_energies.tolist(), strict=True)},
        "parameters": sum(p.numel() for p in potential.parameters()),
        "device": device,
        "data_sha256": data.digest,
        "versions": provenance(),
    }


def write_about(about: dict, run_dir: Path) -> None:
    """Write `about.json`; raises as `write_text`."""
    write_text(run_dir / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def read_about(run_dir: Path) -> dict:
    """What `write_about` wrote.

    Raises:
        DtmdError: it is not there, or is not JSON.
    """
    path = run_dir / ABOUT
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DtmdError(f"{path}: cannot be read ({error}); repeat the dtmd train command, which writes it") from error


def _size(trajectories: list[Trajectory]) -> dict:
    return {"runs": list(by_run(trajectories)), "frames": sum(map(len, trajectories))}
