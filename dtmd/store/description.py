"""What a store holds, for people."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.store.layout import VERSION, in_slices
from dtmd.store.reading import read_store
from dtmd.trajectory import Trajectory


def describe_store(path: Path) -> dict:
    """Plain values for each trajectory and for all; goes through the data once, in pieces.

    Raises:
        DtmdError: as `read_store`.
    """
    trajectories = read_store(path)
    elements = {element for t in trajectories for element in t.elements}
    return {
        "version": VERSION,
        "runs": len({t.origin.run or t.source for t in trajectories}),
        "trajectories": len(trajectories),
        "frames": sum(len(t) for t in trajectories),
        "elements": sorted(elements, key=atomic_numbers.__getitem__),
        "contents": {t.source.removeprefix(f"{path}:"): _describe(t) for t in trajectories},
    }


def _describe(trajectory: Trajectory) -> dict:
    origin, symbols = trajectory.origin, trajectory.symbols
    found: dict = {
        "run": origin.run, "code": f"{origin.code} {origin.version}".strip(),
        "atoms": {element: symbols.count(element) for element in trajectory.elements},
        "frames": len(trajectory), "timestep_fs": None, "timestep_from": origin.timestep_from,
        "duration_fs": float(trajectory.times[-1] - trajectory.times[0]),
    }
    with suppress(DtmdError):  # uneven, or a single frame
        found["timestep_fs"] = trajectory.timestep
    if trajectory.velocities is not None:
        found["mean_temperature_K"] = round(_mean_temperature(trajectory), 1)
    if trajectory.energies is not None:
        found["mean_energy_eV_per_atom"] = round(float(trajectory.energies.mean()) / len(symbols), 6)
    if trajectory.forces is not None:
        found["largest_force_eV_per_A"] = round(_largest(trajectory.forces), 3)
    if origin.labels:
        found["labels"] = origin.labels
    found["checks"] = {c.name: f"{c.verdict}: {c.text}" for c in origin.checks if c.verdict != "ok"} or "ok"
    return found | {"notes": list(trajectory.notes), "sha256": origin.digest[:12]}


def _mean_temperature(trajectory: Trajectory) -> float:
    n_rows = len(next(in_slices(trajectory.positions)))
    pieces = (trajectory.window(first, first + n_rows) for first in range(0, len(trajectory), n_rows))
    return float(np.mean(np.concatenate([piece.temperatures() for piece in pieces])))


def _largest(vectors: np.ndarray) -> float:
    return max(float(np.square(piece, dtype=float).sum(axis=-1).max()) for piece in in_slices(vectors)) ** 0.5
