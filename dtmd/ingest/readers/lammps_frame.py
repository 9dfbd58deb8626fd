"""Frames of a LAMMPS text dump (`dump custom`), in LAMMPS's own units: columns, boxes, and one frame with care."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.readers.precision import written_precision
from dtmd.ingest.source import CutShort

VELOCITIES = ("vx", "vy", "vz")
FORCES = ("fx", "fy", "fz")
_ENERGY_SHARES = ("v_pe_share", "c_pe")

_WHAT_TO_DUMP = ("write `compute pe all pe/atom`, `dump 1 all custom 1 run.lammpstrj id element xu yu zu vx vy vz "
                 "fx fy fz c_pe` and `dump_modify 1 element H C … units yes time yes format float %.12g`")
_ROWS_FOR_PRECISION = 500  # enough to see how numbers are written; looking at each digit is slow


class _Coordinates(NamedTuple):
    columns: tuple[str, str, str]
    scaled: bool
    wrapped: bool


# LAMMPS's four ways to write positions.
_COORDINATES = (
    _Coordinates(("xu", "yu", "zu"), scaled=False, wrapped=False),
    _Coordinates(("xsu", "ysu", "zsu"), scaled=True, wrapped=False),
    _Coordinates(("x", "y", "z"), scaled=False, wrapped=True),
    _Coordinates(("xs", "ys", "zs"), scaled=True, wrapped=True),
)
_NUMERIC = {"id", "mass", *VELOCITIES, *FORCES, *_ENERGY_SHARES}.union(*(kind.columns for kind in _COORDINATES))


@dataclass(frozen=True)
class DumpFrames:
    """Consecutive frames of one dump, atoms in the order of their ids; T frames, N atoms.

    Attributes:
        steps: numbers of the MD steps, (T,).
        times: in LAMMPS's unit, (T,); None where they were not dumped.
        units: as in the command `units`; None where not dumped, and after the first frame.
        cells: rows are the cell vectors, (T, 3, 3).
        origins: lower corners of the box, (T, 3).
        pbc: periodic directions.
        values: the numeric columns by name, (T, N) each.
        elements: chemical symbols, (N,).
        precision: last digit of the positions as written, of the first frame only.
    """

    steps: np.ndarray
    times: np.ndarray | None
    units: str | None
    cells: np.ndarray
    origins: np.ndarray
    pbc: tuple[bool, bool, bool]
    values: dict[str, np.ndarray]
    elements: tuple[str, ...]
    precision: float | None = None

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def ids(self) -> np.ndarray:
        """Of the atoms, (N,)."""
        return self.values["id"][0]

    def vectors(self, columns: tuple[str, str, str]) -> np.ndarray | None:
        """Three columns, (T, N, 3); None where they were not dumped."""
        if not set(columns) <= set(self.values):
            return None
        return np.stack([self.values[name] for name in columns], axis=-1)

    @property
    def wrapped(self) -> bool:
        """The positions were folded back into the box."""
        return _coordinates(self.values).wrapped

    def positions(self) -> np.ndarray:
        """Relative to the origin of LAMMPS's coordinates, (T, N, 3)."""
        kind = _coordinates(self.values)
        values = self.vectors(kind.columns)
        return values @ self.cells + self.origins[:, None] if kind.scaled else values

    def energies(self) -> np.ndarray | None:
        """Potential energies, sums of the atoms' shares, (T,); None where they were not dumped."""
        name = next((name for name in _ENERGY_SHARES if name in self.values), None)
        return None if name is None else self.values[name].sum(axis=1)

    def masses(self) -> np.ndarray | None:
        """u, (N,); None where they were not dumped."""
        return self.values["mass"][0] if "mass" in self.values else None

    def numbers(self, path: Path) -> np.ndarray:
        """Atomic numbers, (N,).

        Raises:
            DtmdError: a label that is no element.
        """
        for element in self.elements:
            if element not in atomic_numbers:
                raise DtmdError(f"{path}: {element!r} is not an element; write `dump_modify … element H C …`")
        return np.array([atomic_numbers[element] for element in self.elements])


def joined(frames: list[DumpFrames]) -> DumpFrames:
    """Consecutive frames of one dump as one."""
    first = frames[0]
    steps, cells, origins = (np.concatenate([getattr(part, name) for part in frames])
                             for name in ("steps", "cells", "origins"))
    return replace(
        first, steps=steps, cells=cells, origins=origins,
        times=None if first.times is None else np.concatenate([part.times for part in frames]),
        values={name: np.concatenate([part.values[name] for part in frames]) for name in first.values},
    )


def read_frame(lines: Iterator[str], path: Path, index: int, first: DumpFrames | None) -> DumpFrames | None:
    """The next frame, read with care and slowly; None at the end of the lines.

    Args:
        lines: of the dump, those that were written to their end.
        path, index: of the file and the frame, for messages.
        first: frame 0, whose atoms and columns all others must have; None if this is it.

    Raises:
        CutShort: the lines end inside the frame.
        DtmdError: a damaged frame, a number that is not finite, missing columns, a changed set of atoms.
    """
    header: dict[str, list[str]] = {}
    line = next(lines, None)
    if line is None:
        return None
    try:
        while not line.startswith("ITEM: ATOMS"):
            if not line.startswith("ITEM: "):
                raise ValueError(f"expected a line starting with 'ITEM: ', found {line.strip()[:60]!r}")
            name, *words = line[len("ITEM: "):].split()
            rows = [_need(lines, path, index) for _ in range(3 if name == "BOX" else 1)]
            header[name] = [*words, *rows] if name == "BOX" else rows
            line = _need(lines, path, index)
        for name in ("TIMESTEP", "NUMBER", "BOX"):
            if name not in header:
                raise ValueError(f"no 'ITEM: {name}' before its atoms")
        where = f"{path}: frame {index} (step {header['TIMESTEP'][0].strip()})"
        rows = _rows(lines, path, index, _n_atoms(header, first, where))
        columns = line.split()[2:]
        _check_columns(columns, where)
        frame = _parse(header, columns, rows, with_precision=first is None)
    except (ValueError, IndexError) as error:
        step = header["TIMESTEP"][0].strip() if "TIMESTEP" in header else "unknown"
        raise DtmdError(f"{path}: frame {index} (step {step}) is damaged: {error}; "
                        "cut the file before this frame or write the dump again") from error
    return _checked(frame, first, where)


def _need(lines: Iterator[str], path: Path, index: int) -> str:
    line = next(lines, None)
    if line is None:
        raise CutShort(f"{path}: ends inside frame {index}")
    return line


def _n_atoms(header: dict[str, list[str]], first: DumpFrames | None, where: str) -> int:
    n_atoms = int(header["NUMBER"][0])
    if n_atoms < 1:
        raise ValueError(f"{n_atoms} atoms")
    if first is not None and n_atoms != len(first.ids):
        raise _other_atoms(n_atoms, first, where)
    return n_atoms


def _rows(lines: Iterator[str], path: Path, index: int, n_atoms: int) -> list[str]:
    rows = []
    for k in range(n_atoms):
        rows.append(_need(lines, path, index))
        if rows[k].startswith("ITEM:"):
            raise ValueError(f"{rows[k].strip()[:60]!r} after {k} of {n_atoms} atoms")
    return rows


def _check_columns(columns: list[str], where: str) -> None:
    missing = [repr(name) for name in ("id", "element") if name not in columns]
    if _coordinates(columns) is None:
        missing.append("positions such as xu yu zu")
    if missing:
        raise DtmdError(f"{where} has the columns {' '.join(columns)}, and no {' and no '.join(missing)}; "
                        f"{_WHAT_TO_DUMP}")


def is_numeric(column: str) -> bool:
    """Whether a column is read as numbers."""
    return column in _NUMERIC


def _coordinates(columns: Collection[str]) -> _Coordinates | None:
    return next((kind for kind in _COORDINATES if set(kind.columns) <= set(columns)), None)


def _parse(header: dict[str, list[str]], columns: list[str], rows: list[str], with_precision: bool) -> DumpFrames:
    fields = [row.split() for row in rows]
    odd = next((values for values in fields if len(values) != len(columns)), None)
    if odd is not None:
        raise ValueError(f"{len(odd)} values for {len(columns)} columns in the row {' '.join(odd)[:90]!r}")
    wanted = [name for name in columns if is_numeric(name)]
    table = np.loadtxt(rows, usecols=[columns.index(name) for name in wanted], comments=None, ndmin=2)
    order = np.argsort(table[:, wanted.index("id")], kind="stable")
    if not np.diff(table[order, wanted.index("id")]).all():
        raise ValueError("two atoms with the same id")
    cells, origins, pbc = boxes(header["BOX"][:-3], [line.split() for line in header["BOX"][-3:]])
    return DumpFrames(
        steps=np.array([int(header["TIMESTEP"][0])]),
        times=np.array([float(header["TIME"][0])]) if "TIME" in header else None,
        units=header["UNITS"][0].strip() if "UNITS" in header else None, cells=cells, origins=origins, pbc=pbc,
        values={name: column[None] for name, column in zip(wanted, table[order].T, strict=True)},
        elements=tuple(fields[k][columns.index("element")] for k in order),
        precision=_precision(columns, fields[:_ROWS_FOR_PRECISION], cells[0]) if with_precision else None,
    )


def _precision(columns: list[str], fields: list[list[str]], cell: np.ndarray) -> float | None:
    kind = _coordinates(columns)
    lengths, others = ([row[k] for k, name in enumerate(columns) if name in names for row in fields]
                       for names in (kind.columns, _NUMERIC.difference(kind.columns, ("id",))))
    return written_precision(lengths, others, float(np.linalg.norm(cell, axis=1).max()) if kind.scaled else 1.0)


def boxes(words: list[str], bounds: list) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    """Cell vectors (rows), (T, 3, 3), origins, (T, 3), and periodicity from `BOX BOUNDS`.

    LAMMPS writes the bounding box of a tilted cell, so xlo = xlo_bound − min(0, xy, xz, xy + xz) and so
    on (LAMMPS manual, "Triclinic simulation boxes").

    Args:
        words: all in the line of `ITEM: BOX BOUNDS` from the second word on.
        bounds: the three rows of each of T frames, as text or numbers, in any nesting.

    Raises:
        ValueError: no numbers, too few, or a box without volume.
    """
    kind, pbc = words[1:], tuple(flag == "pp" for flag in words[-3:])
    if len(kind) < 3:
        raise ValueError("no boundary flags such as 'pp pp pp' after 'ITEM: BOX BOUNDS'")
    general, tilted = kind[:2] == ["abc", "origin"], kind[0] == "xy"
    rows = np.array(bounds, dtype=float).reshape(-1, 3, 4 if general else 3 if tilted else 2)
    if general:
        return rows[:, :, :3], rows[:, :, 3], pbc
    xy, xz, yz = rows[:, :, 2].T if tilted else np.zeros((3, len(rows)))
    zero = np.zeros(len(rows))
    low = rows[:, :, 0] - np.stack([np.min([zero, xy, xz, xy + xz], axis=0), np.minimum(zero, yz), zero], axis=1)
    high = rows[:, :, 1] - np.stack([np.max([zero, xy, xz, xy + xz], axis=0), np.maximum(zero, yz), zero], axis=1)
    length = high - low
    if not (length > 0).all():
        raise ValueError(f"box lengths {length[(length <= 0).any(axis=1) | np.isnan(length).any(axis=1)][0]}")
    cells = np.zeros((len(rows), 3, 3))
    cells[:, range(3), range(3)], cells[:, 1, 0], cells[:, 2, 0], cells[:, 2, 1] = length, xy, xz, yz
    return cells, low, pbc


def _checked(frame: DumpFrames, first: DumpFrames | None, where: str) -> DumpFrames:
    """The frame, if it is finite and has the columns and atoms of the first one."""
    for name, values in frame.values.items():
        if not np.isfinite(values).all():
            k = int(np.flatnonzero(~np.isfinite(values[0]))[0])
            raise DtmdError(f"{where}: {name} of atom {frame.ids[k]:.0f} is {values[0, k]}; the run has failed here, "
                            "cut the dump before this frame")
    first = first or frame
    if tuple(frame.values) != tuple(first.values):
        raise DtmdError(f"{where}: columns {' '.join(frame.values)} differ from {' '.join(first.values)} of frame "
                        "0; give files written by one dump command each")
    if not np.array_equal(frame.ids, first.ids):
        raise _other_atoms(len(frame.ids), first, where)
    if frame.elements != first.elements:
        raise DtmdError(f"{where}: atoms have other elements than in frame 0; write one file for each system")
    if frame.units not in (None, first.units) or (frame.times is None) != (first.times is None):
        raise DtmdError(f"{where} differs from frame 0 in its units or in having a time; these are two dumps in one "
                        "file, split it")
    if frame.pbc != first.pbc:
        raise DtmdError(f"{where} is periodic in other directions than frame 0; give a run with the same boundaries "
                        "throughout")
    return replace(frame, elements=first.elements)


def _other_atoms(n_atoms: int, first: DumpFrames, where: str) -> DtmdError:
    return DtmdError(f"{where}: {n_atoms} atoms, not the {len(first.ids)} of frame 0 with the same ids; the dump "
                     "must hold all atoms in each frame, and no atom may be lost")
