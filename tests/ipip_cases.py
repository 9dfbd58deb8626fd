"""A small iterative pretraining: a cluster of copper, whose reference is EMT with softer forces and other energies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from ase import units as ase_units
from ase.cluster import Octahedron
from ase.md.verlet import VelocityVerlet
from ipip_factories import Changed

from dtmd.store import write_store
from dtmd.trajectory import Origin, Trajectory

HERE = Path(__file__).parent
SOFTER, OFFSET = 0.95, -3.0
"""Of the reference against EMT: factor on energy and forces, and eV per atom."""


def md(seed: int, n_frames: int, symbols: str = "Cu") -> Trajectory:
    """NVE by the reference from a warm Cu6, 1 fs from frame to frame."""
    atoms = Octahedron(symbols, 2)
    atoms.calc = Changed(energy=SOFTER, forces=SOFTER, offset=OFFSET)
    rng = np.random.default_rng(seed)
    atoms.rattle(0.03, rng=rng)
    velocities = rng.standard_normal((len(atoms), 3)) * np.sqrt(400 * ase_units.kB / atoms.get_masses())[:, None]
    atoms.set_velocities(velocities - velocities.mean(axis=0))
    frames, dynamics = [], VelocityVerlet(atoms, 1.0 * ase_units.fs)
    for step in range(n_frames):
        if step:
            dynamics.run(1)
        frames.append((atoms.positions.copy(), atoms.get_velocities() * ase_units.fs, atoms.get_forces(),
                       atoms.get_potential_energy()))
    positions, velocities, forces, energies = map(np.array, zip(*frames, strict=True))
    return Trajectory(
        numbers=atoms.numbers, masses=atoms.get_masses(), pbc=np.zeros(3, dtype=bool),
        cells=np.zeros((n_frames, 3, 3)), times=np.arange(n_frames, dtype=float), positions=positions,
        velocities=velocities, forces=forces, energies=energies, source=f"run{seed}", origin=Origin(run=f"run{seed}"),
    )


def write_reference(folder: Path) -> None:
    """train.h5, validation.h5 and test.h5."""
    for part, (seeds, n_frames) in {"train": (range(3), 8), "validation": (range(3, 5), 8), "test": (range(5, 7), 16)
                                    }.items():
        write_store(folder / f"{part}.h5", [md(seed, n_frames) for seed in seeds])


CONFIG = {
    "name": "copper", "seed": 2, "rounds": 2,
    "reference": {"level": "soft EMT", "train": ["train.h5"], "validation": ["validation.h5"], "test": ["test.h5"]},
    "teacher": {"calculator": "ase.calculators.emt:EMT", "level": "EMT", "frames_per_task": 40},
    "md": {"starts": 2, "temperatures": [300, 600], "time": "40fs", "timestep": 1.0, "stride": 2,
           "thermostat": "langevin"},
    "student": {"architecture": "painn", "width": 8, "n_layers": 1, "n_rbf": 6, "cutoff": 4.0},
    "pretrain": {"threads": 1, "curriculum": {"max_epochs": 4}, "optimizer": {"batch_size": 8}},
    "finetune": {"threads": 1, "curriculum": {"max_epochs": 2, "learning_rate": 3e-4}, "optimizer": {"batch_size": 8}},
    "renew": {"frames": 10, "last": 2},
    "assess": {"steps": 10, "starts": 4},
}


def write_config(folder: Path, **changes) -> Path:
    """ipip.yaml with sections changed: {"md": {...}} changes keys of md."""
    content = {key: {**value, **changes.get(key, {})} if isinstance(value, dict) else changes.get(key, value)
               for key, value in CONFIG.items()}
    path = folder / "ipip.yaml"
    path.write_text(yaml.safe_dump({**content, **{key: value for key, value in changes.items() if key not in CONFIG}}))
    return path


def command(folder: Path, *options: str, **changes) -> list[str]:
    """`dtmd ipip` in folder/run."""
    return [sys.executable, "-m", "dtmd", "ipip", str(write_config(folder, **changes)), "-o", str(folder / "run"),
            "--jobs", "2", *options]


def environment() -> dict[str, str]:
    """In which the factories of the tests are found."""
    return {**os.environ, "PYTHONPATH": f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"}


def ipip(folder: Path, *options: str, **changes) -> subprocess.CompletedProcess:
    """Run it."""
    return subprocess.run(command(folder, *options, **changes), capture_output=True, text=True, timeout=500, cwd=HERE,
                          env=environment())
