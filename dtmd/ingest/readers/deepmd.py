"""DeePMD npy: type.raw, type_map.raw and set.*/{coord,box,force,energy}.npy; no time step and no velocities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, Format, Frame, RawRun, Source

_ARRAYS = ("coord", "box", "force", "energy")


def _find(candidates: list[Candidate]) -> list[Source]:
    by_name = {candidate.path.name: candidate for candidate in candidates}
    types = by_name.get("type.raw")
    if types is None or not re.fullmatch(r"[\d\s]+", types.head):
        return []
    companions = {name: by_name[name].path for name in ("type_map.raw", "nopbc") if name in by_name}
    for folder in sorted(types.path.parent.glob("set.*")):
        companions |= {f"{folder.name}/{name}": path for name in (*_ARRAYS, "real_atom_types")
                       if (path := folder / f"{name}.npy").is_file()}
    return [Source(types.path, companions)] if any(role.endswith("/coord") for role in companions) else []


def _read(source: Source) -> RawRun:
    mixed = next((path for role, path in source.companions.items() if role.endswith("/real_atom_types")), None)
    if mixed:
        raise DtmdError(f"{mixed}: the mixed-type format, whose frames have different atoms and so are no trajectory")
    if "type_map.raw" not in source.companions:
        raise DtmdError(f"{source.main}: no type_map.raw beside it, so the elements are not known; write one with "
                        "the element of each type, one per line")
    names = _words(source, source.companions["type_map.raw"])
    elements = {str(kind): atomic_numbers.get(name) for kind, name in enumerate(names)}
    types = _words(source, source.main)
    unknown = [kind for kind in types if elements.get(kind) is None]
    if unknown:
        raise DtmdError(f"{source.main}: type {unknown[0][:20]!r} is no element of type_map.raw, whose entries "
                        f"{' '.join(names)[:60]!r} are counted from 0; correct one")
    numbers = np.array([elements[kind] for kind in types])
    return RawRun(
        code="DeePMD npy", numbers=numbers, pbc=np.full(3, "nopbc" not in source.companions),
        frames=_frames(source, len(numbers)),
        notes=["DeePMD npy stores no step numbers; the frames were taken as consecutive, in the order of the sets"],
    )


def _words(source: Source, path: Path) -> list[str]:
    with source.open(path) as file:
        return file.read().decode("latin-1").split()


def _frames(source: Source, n_atoms: int) -> Iterator[Frame]:
    sets = list(dict.fromkeys(role.partition("/")[0] for role in source.companions if "/" in role))
    names = _names(source, sets)
    for name in sets:
        arrays = {array: _load(source, f"{name}/{array}", n_atoms) for array in names}
        lengths = {array: len(values) for array, values in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DtmdError(f"{source.main.parent / name}: "
                            + ", ".join(f"{n} frames in {array}.npy" for array, n in lengths.items())
                            + "; all must have the same number, write the set again")
        for k in range(lengths["coord"]):
            row = {array: np.array(values[k], float) for array, values in arrays.items()}
            source.watch(sum(values[k].nbytes for values in arrays.values()))
            yield Frame(
                positions=row["coord"].reshape(n_atoms, 3),
                cell=row["box"].reshape(3, 3) if "box" in row else np.zeros((3, 3)),
                forces=row["force"].reshape(n_atoms, 3) if "force" in row else None,
                energy=float(row["energy"]) if "energy" in row else None,
            )


def _names(source: Source, sets: list[str]) -> list[str]:
    """The arrays to read, which all sets must have."""
    present = {array: [name for name in sets if f"{name}/{array}" in source.companions] for array in _ARRAYS}
    for array, holders in present.items():
        if len(holders) not in (0, len(sets)):
            lacking = next(name for name in sets if name not in holders)
            raise DtmdError(f"{source.main.parent / lacking}: no {array}.npy, other sets have one; add it or remove "
                            "the set")
    if "nopbc" in source.companions:
        present["box"] = []
    elif not present["box"]:
        raise DtmdError(f"{source.main.parent}: no box.npy in the sets; add it, or an empty file `nopbc` for a "
                        "molecule")
    return [array for array in _ARRAYS if present[array]]


def _load(source: Source, role: str, n_atoms: int) -> np.ndarray:
    """An array on disk with one row for each frame; energies (T,)."""
    path = source.companions[role]
    width = {"coord": 3 * n_atoms, "force": 3 * n_atoms, "box": 9, "energy": 1}[role.partition("/")[2]]
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parser of the header raises errors of all kinds where that is damaged.
        raise DtmdError(f"{path}: cannot be read as npy ({error}); the file is damaged or cut off, copy it again"
                        ) from None
    if not isinstance(values, np.ndarray) or values.ndim == 0 or values.dtype.kind not in "fiu":
        raise DtmdError(f"{path}: not an array of numbers with one row for each frame")
    if values.size != len(values) * width:
        raise DtmdError(f"{path}: shape {values.shape}, where each frame must have {width} numbers for the {n_atoms} "
                        "atoms of type.raw; the files are not of one run")
    return values.reshape(len(values), width) if width > 1 else values.reshape(len(values))


FORMAT = Format(name="DeePMD npy", find=_find, read=_read)
"""A folder with type.raw and set.* folders of arrays."""
