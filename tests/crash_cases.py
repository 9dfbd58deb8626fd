"""Starts and models for the tests of crash tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from observable_cases import trajectory

from dtmd.crashtest.models import CrashModel
from dtmd.ensemble.starts import Start

HERE = Path(__file__).parent


def aimd(n_frames: int = 3, **others):
    """A molecule of six atoms, two of them light, that hardly moves."""
    places = np.array([[0, 0, 0], [1.4, 0, 0], [2.1, 1.2, 0], [0, 1.4, 0.3], [0.2, -0.8, 0.7], [2.0, -0.9, 0.1]]) + 2.0
    positions = places + 0.01 * np.random.default_rng(1).normal(size=(n_frames, 6, 3))
    masses = np.array([12.011] * 4 + [1.008] * 2)
    return trajectory(positions, [6, 6, 6, 6, 1, 1], masses=masses, source="aimd", **others)


def starts(n: int = 2, run=None) -> list[Start]:
    run = aimd() if run is None else run
    return [Start(f"aimd@{frame}", run, frame) for frame in range(n)]


def calculator(folder: Path, name: str, **arguments: object) -> CrashModel:
    """A factory of crash_factories."""
    return CrashModel(name, folder.resolve() / name, factory=f"crash_factories:{name}", arguments=arguments)
