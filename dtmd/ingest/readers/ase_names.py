"""Names of quantities in ASE's own file formats, and what must be the same in every frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from ase.symbols import Symbols

from dtmd.errors import DtmdError

CHOICES: Mapping[str, tuple[str, ...]] = {
    "energy": ("free_energy", "energy"),
    "forces": ("forces", "force"),
    "velocities": ("velocities", "momenta"),
    "step": ("step", "md_step"),
    "timestep": ("timestep_fs", "dt_fs"),
}
"""The names that a quantity may have, the better one first."""


def choose_names(given: Collection[str], first: Mapping[str, str | None] | None, where: str) -> dict[str, str | None]:
    """The name under which a frame gives each quantity: those of the first frame, so that kinds are never mixed.

    Args:
        given: all names in the frame.
        first: what was chosen for the first frame; None if this is the first.
        where: beginning of a message, such as "run.xyz: line 5: frame 2".

    Raises:
        DtmdError: a quantity of the first frame is missing (but for the time step, which may be said once), or
            one that it did not have turns up.
    """
    best = {quantity: next((name for name in names if name in given), None) for quantity, names in CHOICES.items()}
    for quantity, name in (first or {}).items():
        if name is None and best[quantity] is not None:
            raise DtmdError(f"{where} has {best[quantity]}, frame 0 has none; write the same for every frame")
        if name is not None and name not in given and quantity != "timestep":
            raise DtmdError(f"{where} has no {name}, frame 0 has; write the same for every frame")
    return dict(first or best)


def check_atoms(numbers: np.ndarray, first: np.ndarray, where: str) -> None:
    """Raises DtmdError where the atoms are not those of the first frame."""
    if not np.array_equal(numbers, first):
        raise DtmdError(f"{where} has the atoms {Symbols(numbers)}, frame 0 {Symbols(first)}; "
                        "a trajectory keeps its atoms in one order")
