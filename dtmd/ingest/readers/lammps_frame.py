"""One frame of a LAMMPS text dump (`dump custom`), in LAMMPS's own units."""

from __future__ import annotations

from collections.abc import Iterator
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
class DumpFrame:
    """One frame, atoms in the order of their ids; N atoms.

    Attributes:
        step: number of the MD step.
        time: in LAMMPS's unit, None where it was not dumped.
        units: as in the command `units`; None where not dumped, and after the first frame.
        cell: rows are the cell vectors, (3, 3).
        origin: lower corner of the box, (3,).
        pbc: periodic directions.
        columns, table: names of the numeric columns and their values, (N, n_columns).
        elements: chemical symbols.
        precision: last digit of the positions as written, of the first frame only.
    """

    step: int
    time: float | None
    units: str | None
    cell: np.ndarray
    origin: np.ndarray
    pbc: tuple[bool, bool, bool]
    columns: tuple[str, ...]
    table: np.ndarray
    elements: tuple[str, ...]
    precision: float | None

    def column(self, name: str) -> np.ndarray:
        """The values of one column, (N,)."""
        return self.table[:, self.columns.index(name)]

    def vectors(self, columns: tuple[str, str, str]) -> np.ndarray | None:
        """Three columns, (N, 3); None where they were not dumped."""
        if not set(columns) <= set(self.columns):
            return None
        return self.table[:, [self.columns.index(name) for name in columns]]

    @property
    def wrapped(self) -> bool:
        """The positions were folded back into the box."""
        return _coordinates(self.columns).wrapped

    def positions(self) -> np.ndarray:
        """Relative to the origin of LAMMPS's coordinates, (N, 3)."""
        kind = _coordinates(self.columns)
        values = self.vectors(kind.columns)
        return values @ self.cell + self.origin if kind.scaled else values

    def energy(self) -> float | None:
        """Potential energy, the sum of the atoms' shares; None where they were not dumped."""
        name = next((name for name in _ENERGY_SHARES if name in self.columns), None)
        return None if name is None else float(self.column(name).sum())

    def numbers(self, path: Path) -> np.ndarray:
        """Atomic numbers, (N,).

        Raises:
            DtmdError: a label that is no element.
        """
        for element in self.elements:
            if element not in atomic_numbers:
                raise DtmdError(f"{path}: {element!r} is not an element; write `dump_modify … element H C …`")
        return np.array([atomic_numbers[element] for element in self.elements])


def read_frame(lines: Iterator[str], path: Path, index: int, first: DumpFrame | None) -> DumpFrame | None:
    """The next frame, or None at the end of the file.

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


def _n_atoms(header: dict[str, list[str]], first: DumpFrame | None, where: str) -> int:
    n_atoms = int(header["NUMBER"][0])
    if n_atoms < 1:
        raise ValueError(f"{n_atoms} atoms")
    if first is not None and n_atoms != len(first.table):
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


def _coordinates(columns: tuple[str, ...] | list[str]) -> _Coordinates | None:
    return next((kind for kind in _COORDINATES if set(kind.columns) <= set(columns)), None)


def _parse(header: dict[str, list[str]], columns: list[str], rows: list[str], with_precision: bool) -> DumpFrame:
    fields = [row.split() for row in rows]
    odd = next((values for values in fields if len(values) != len(columns)), None)
    if odd is not None:
        raise ValueError(f"{len(odd)} values for {len(columns)} columns in the row {' '.join(odd)[:90]!r}")
    wanted = [name for name in columns if name in _NUMERIC]
    table = np.loadtxt(rows, usecols=[columns.index(name) for name in wanted], comments=None, ndmin=2)
    order = np.argsort(table[:, wanted.index("id")], kind="stable")
    if not np.diff(table[order, wanted.index("id")]).all():
        raise ValueError("two atoms with the same id")
    cell, origin, pbc = _box(header["BOX"])
    return DumpFrame(
        step=int(header["TIMESTEP"][0]), time=float(header["TIME"][0]) if "TIME" in header else None,
        units=header["UNITS"][0].strip() if "UNITS" in header else None, cell=cell, origin=origin, pbc=pbc,
        columns=tuple(wanted), table=table[order], elements=tuple(fields[k][columns.index("element")] for k in order),
        precision=_precision(columns, fields, cell) if with_precision else None,
    )


def _precision(columns: list[str], fields: list[list[str]], cell: np.ndarray) -> float | None:
    kind = _coordinates(columns)
    lengths, others = ([row[k] for k, name in enumerate(columns) if name in names for row in fields]
                       for names in (kind.columns, _NUMERIC.difference(kind.columns, ("id",))))
    return written_precision(lengths, others, float(np.linalg.norm(cell, axis=1).max()) if kind.scaled else 1.0)


def _box(lines: list[str]) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    """Cell vectors (rows), origin and periodicity from `BOX BOUNDS`.

    LAMMPS writes the bounding box of a tilted cell, so xlo = xlo_bound − min(0, xy, xz, xy + xz) and so
    on (LAMMPS manual, "Triclinic simulation boxes").
    """
    words, rows = lines[1:-3], np.array([line.split() for line in lines[-3:]], dtype=float)
    pbc = tuple(flag == "pp" for flag in words[-3:])
    if len(pbc) < 3:
        raise ValueError("no boundary flags such as 'pp pp pp' after 'ITEM: BOX BOUNDS'")
    if words[:2] == ["abc", "origin"]:
        return rows[:, :3], rows[:, 3], pbc
    xy, xz, yz = rows[:, 2] if words[0] == "xy" else (0.0, 0.0, 0.0)
    low = rows[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = rows[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    length = high - low
    if not (length > 0).all():
        raise ValueError(f"box lengths {length}")
    return np.array([[length[0], 0.0, 0.0], [xy, length[1], 0.0], [xz, yz, length[2]]]), low, pbc


def _checked(frame: DumpFrame, first: DumpFrame | None, where: str) -> DumpFrame:
    """The frame, if it is finite and has the columns and atoms of the first one."""
    if not np.isfinite(frame.table).all():
        row, k = np.argwhere(~np.isfinite(frame.table))[0]
        atom, value = frame.column("id")[row], frame.table[row, k]
        raise DtmdError(f"{where}: {frame.columns[k]} of atom {atom:.0f} is {value}; the run has failed here, cut "
                        "the dump before this frame")
    first = first or frame
    if frame.columns != first.columns:
        raise DtmdError(f"{where}: columns {' '.join(frame.columns)} differ from {' '.join(first.columns)} of frame "
                        "0; give files written by one dump command each")
    if not np.array_equal(frame.column("id"), first.column("id")):
        raise _other_atoms(len(frame.table), first, where)
    if frame.elements != first.elements:
        raise DtmdError(f"{where}: atoms have other elements than in frame 0; write one file for each system")
    return replace(frame, elements=first.elements)


def _other_atoms(n_atoms: int, first: DumpFrame, where: str) -> DtmdError:
    return DtmdError(f"{where}: {n_atoms} atoms, not the {len(first.table)} of frame 0 with the same ids; the dump "
                     "must hold all atoms in each frame, and no atom may be lost")
