"""Calculators for the tests of crash tests, by name as a user names them; loaded by each run."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

STIFFNESS = 5.0  # eV/Å²


class Wells(Calculator):
    """Each atom in a well at its first place, E = ½ k Σ r²; a negative k drives it away."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, stiffness: float = STIFFNESS, fails_at: int | None = None) -> None:
        super().__init__()
        self.stiffness, self.fails_at, self.calls, self.places = stiffness, fails_at, 0, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.places = atoms.positions.copy() if self.places is None else self.places
        if self.calls == self.fails_at:
            raise ValueError("no neighbours left\nsecond line")
        self.calls += 1
        away = atoms.positions - self.places
        self.results = {"energy": 0.5 * self.stiffness * np.sum(away**2), "forces": -self.stiffness * away}


class Held(Wells):
    """Waits at its tenth call as long as there is a file `hold` beside the folder of the crash test."""

    def calculate(self, *arguments, **named):
        super().calculate(*arguments, **named)
        while self.calls == 10 and Path("../../../../hold").exists():
            time.sleep(0.05)


def wells() -> Wells:
    return Wells()


def stiff(stiffness: float) -> Wells:
    return Wells(stiffness)


def held() -> Held:
    return Held()


def exploding() -> Wells:
    return Wells(-50.0)


def failing() -> Wells:
    return Wells(fails_at=15)


def unable() -> Wells:
    return Wells(fails_at=0)
