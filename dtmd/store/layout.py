"""The format of a store, version 1.

/ has the attributes `format` and `version`; /trajectories/000000, 000001 … have the datasets of `LAYOUT`, each
with its `unit`, and the attributes `energy_offset`, and `name`, `origin` and `notes` as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

FORMAT, VERSION = b"dtmd trajectories", 1

MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of any HDF5 file."""

# Second differences of the positions, of the order of 1e-4 Å per step, are what the forces are checked
# against. Single precision resolves 1e-6 Å at 10 Å and would drown them; labels are not differenced.
LAYOUT = {
    "numbers": ("<i8", ""), "masses": ("<f8", "u"), "pbc": ("?", ""), "fixed": ("?", ""),
    "cells": ("<f8", "Å"), "times": ("<f8", "fs"), "positions": ("<f8", "Å"),
    "velocities": ("<f4", "Å/fs"), "forces": ("<f4", "eV/Å"), "energies": ("<f4", "eV"),
}
"""Type and unit of each dataset. `energies` are relative to `energy_offset`; a cell that never changes is
stored once, as (1, 3, 3)."""

REQUIRED = ("numbers", "masses", "pbc", "cells", "times", "positions")

SLICE_BYTES = 1 << 26
"""So much of an array is in memory at a time."""


def is_store(path: Path) -> bool:
    """Whether a file is a store, whole or damaged, by its content; never raises."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
        if not head.startswith(MAGIC):
            return False
        if FORMAT in head:
            return True
        with h5py.File(path, "r", locking=False) as file:
            return file.attrs.get("format") == FORMAT
    except Exception:  # h5py meets damaged headers with exceptions of many kinds
        return False


def in_slices(array: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive rows of an array, at most SLICE_BYTES or one row at a time (views)."""
    n_rows = max(1, SLICE_BYTES // max(array[:1].nbytes, 1))
    return (array[first : first + n_rows] for first in range(0, len(array), n_rows))
