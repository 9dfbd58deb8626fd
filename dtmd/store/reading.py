"""Trajectories from a store, as views of the file."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from ase.data import chemical_symbols

from dtmd.errors import DtmdError
from dtmd.store.layout import LAYOUT, REQUIRED, VERSION, is_store
from dtmd.trajectory import Check, Origin, Trajectory

IN_MEMORY = ("numbers", "masses", "pbc", "fixed", "times")
"""Small arrays, which are copied; energies are as well."""


def read_store(path: Path) -> list[Trajectory]:
    """The trajectories of a store; positions, velocities, forces and cells are read-only memory maps.

    Velocities and forces are in single precision. `source` is "FILE:NAME". Any number of processes may
    read at once, and go on with what they have read when the store is added to.

    Raises:
        DtmdError: no such file, no store, one of a newer version, or a damaged one.
    """
    if not path.is_file():
        raise DtmdError(f"{path}: no such file")
    if not is_store(path):
        raise DtmdError(f"{path}: is no trajectory store; dtmd ingest makes one from AIMD output")
    try:
        # One handle for both, so that headers and data are of one file even when another takes its name.
        with open(path, "rb") as handle, h5py.File(handle, "r") as file:
            if int(file.attrs["version"]) > VERSION:
                raise DtmdError(f"{path}: has version {file.attrs['version']}, this dtmd reads up to {VERSION}; "
                                "install a newer dtmd")
            # One map for all: the number of maps of a process is limited.
            raw = np.memmap(handle, np.uint8, mode="r")
            groups = file["trajectories"]
            return [_read(path, groups[key], raw) for key in sorted(groups)]
    except DtmdError:
        raise
    except Exception as error:  # h5py meets damaged headers with exceptions of many kinds
        detail = (str(error).strip("'") or repr(error)).splitlines()[0]
        raise DtmdError(f"{path}: cannot be read ({detail}); the store is cut off, damaged or was rewritten by "
                        "another program, copy it again or make it anew") from error


def _read(path: Path, group: h5py.Group, raw: np.ndarray) -> Trajectory:
    name, notes, origin = (json.loads(group.attrs[key]) for key in ("name", "notes", "origin"))
    arrays = {key: _array(group, key, raw) for key in LAYOUT if key in group or key in REQUIRED}
    arrays |= {key: np.array(arrays[key]) for key in IN_MEMORY if key in arrays}
    if not ((arrays["numbers"] >= 0) & (arrays["numbers"] < len(chemical_symbols))).all():
        raise ValueError(f"{group.name}/numbers are no atomic numbers")
    if len(arrays["cells"]) == 1:
        arrays["cells"] = np.broadcast_to(arrays["cells"], (len(arrays["times"]), 3, 3))
    if "energies" in arrays:
        arrays["energies"] = float(group.attrs["energy_offset"]) + np.array(arrays["energies"], dtype=float)
    return Trajectory(**arrays, source=f"{path}:{name}", notes=tuple(notes), origin=_origin(origin))


def _origin(plain: dict) -> Origin:
    checks = tuple(Check(**check) for check in plain["checks"])
    return Origin(**{**plain, "files": tuple(plain["files"]), "checks": checks})


def _array(group: h5py.Group, key: str, raw: np.ndarray) -> np.ndarray:
    """A dataset as a view of the file."""
    dataset, dtype = group[key], np.dtype(LAYOUT[key][0])
    offset = dataset.id.get_offset()
    if dataset.dtype != dtype or dataset.chunks is not None or offset is None:
        raise ValueError(f"{dataset.name} is no contiguous array of type {dtype}")
    stop = offset + dataset.size * dtype.itemsize
    if stop > len(raw):
        raise ValueError(f"{dataset.name} reaches beyond the end of the file")
    return raw[offset:stop].view(dtype).reshape(dataset.shape)
