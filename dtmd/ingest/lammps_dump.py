"""Reader of LAMMPS text dumps (`dump custom` in `units metal`), plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from dtmd.errors import DtmdError
from dtmd.trajectory import Trajectory, unwrap
from dtmd.units import FS_PER_PS

_VELOCITIES = ("vx", "vy", "vz")
_FORCES = ("fx", "fy", "fz")
_ENERGY_SHARES = ("v_pe_share", "c_pe")
_NUMERIC = {"id", "mass", *_VELOCITIES, *_FORCES, *_ENERGY_SHARES}


@dataclass(frozen=True)
class _Coordinates:
    """One of LAMMPS's four ways to write positions."""

    columns: tuple[str, str, str]
    scaled: bool
    wrapped: bool


_COORDINATES = (
    _Coordinates(("xu", "yu", "zu"), scaled=False, wrapped=False),
    _Coordinates(("xsu", "ysu", "zsu"), scaled=True, wrapped=False),
    _Coordinates(("x", "y", "z"), scaled=False, wrapped=True),
    _Coordinates(("xs", "ys", "zs"), scaled=True, wrapped=True),
)


@dataclass(frozen=True)
class _Frame:
    """One frame as written: the numeric columns (N, n_columns), atoms in the order of their ids."""

    step: int
    time_ps: float | None
    units: str | None
    cell: np.ndarray
    origin: np.ndarray
    pbc: tuple[bool, bool, bool]
    columns: tuple[str, ...]
    table: np.ndarray
    elements: tuple[str, ...] | None

    def column(self, name: str) -> np.ndarray:
        return self.table[:, self.columns.index(name)]


class _CutShort(Exception):
    """The file ends inside a frame."""


def read_dump(path: Path | str, timestep: float | None = None) -> Trajectory:
    """Read a LAMMPS dump with the columns id, element and positions; velocities and forces if present.

    Positions come in any of `x y z`, `xu yu zu`, `xs ys zs`, `xsu ysu zsu`, in any column order, and
    are returned unwrapped and relative to the box origin of the first frame. Atoms are sorted by id.
    The potential energy is the sum over the atoms of the column `v_pe_share` or `c_pe`. A last frame
    that is cut short (run killed or still writing) is left out, which `notes` says.

    Args:
        path: text dump, or the same ending in `.gz`.
        timestep: fs per MD step; needed where the dump has no `ITEM: TIME`.

    Raises:
        DtmdError: a damaged frame, a number that is not finite, missing columns, a changed set of
            atoms, units other than metal, or no way to know the time of the frames.
    """
    path = Path(path)
    frames, notes = _read_frames(path)
    first = frames[0]
    if first.units not in (None, "metal"):
        raise DtmdError(f"{path}: written in `units {first.units}`; dtmd reads dumps of `units metal` runs")
    if first.units is None:
        notes.append("the dump does not name its units; read as metal")
    cells = np.stack([frame.cell for frame in frames])
    pbc = np.array(first.pbc)
    return Trajectory(
        numbers=_numbers(first, path), masses=_masses(first, path), pbc=pbc, cells=cells,
        times=_times(frames, timestep, path), positions=_positions(frames, cells, pbc, path),
        velocities=_vectors(frames, _VELOCITIES, 1.0 / FS_PER_PS), forces=_vectors(frames, _FORCES, 1.0),
        energies=_energies(frames), source=str(path), notes=tuple(notes),
    )


def _read_frames(path: Path) -> tuple[list[_Frame], list[str]]:
    frames: list[_Frame] = []
    notes: list[str] = []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as stream:
            lines = _complete_lines(stream)
            while (frame := _read_frame(lines, path, frames)) is not None:
                frames.append(frame)
    except _CutShort:
        notes.append(f"frame {len(frames)} is cut short and was left out; {len(frames)} frames used")
    except (gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise DtmdError(f"{path}: not a readable text dump after frame {len(frames) - 1}: {error}") from error
    except OSError as error:
        raise DtmdError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not frames:
        raise DtmdError(f"{path}: no complete frame of a LAMMPS text dump (`ITEM: TIMESTEP` …) in it")
    return frames, notes


def _complete_lines(stream) -> Iterator[str]:
    """The lines up to where writing stopped: a last line without its end may lack digits."""
    try:
        for line in stream:
            if not line.endswith("\n"):
                return
            yield line
    except EOFError:
        return


def _next_line(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise _CutShort
    return line


def _read_frame(lines: Iterator[str], path: Path, before: list[_Frame]) -> _Frame | None:
    """The next frame, or None at the end of the file."""
    header: dict[str, list[str]] = {}
    line = next(lines, None)
    if line is None:
        return None
    try:
        while not line.startswith("ITEM: ATOMS"):
            if not line.startswith("ITEM: "):
                raise ValueError(f"expected a line starting with 'ITEM: ', found {line.strip()[:60]!r}")
            name, *words = line[len("ITEM: "):].split()
            rows = [_next_line(lines) for _ in range(3 if name == "BOX" else 1)]
            header[name] = [*words, *rows] if name == "BOX" else rows
            line = _next_line(lines)
        for name in ("TIMESTEP", "NUMBER", "BOX"):
            if name not in header:
                raise ValueError(f"no 'ITEM: {name}' before its atoms")
        rows = [_next_line(lines) for _ in range(int(header["NUMBER"][0]))]
        frame = _parse_frame(header, line.split()[2:], rows, with_elements=not before)
    except ValueError as error:
        step = header["TIMESTEP"][0].strip() if "TIMESTEP" in header else "unknown"
        raise DtmdError(
            f"{path}: frame {len(before)} (step {step}) is damaged: {error}; "
            "cut the file before this frame or write the dump again"
        ) from error
    _check_frame(frame, before[0] if before else None, f"{path}: frame {len(before)} (step {frame.step})")
    return frame


def _parse_frame(
    header: dict[str, list[str]], columns: list[str], rows: list[str], with_elements: bool
) -> _Frame:
    for needed in ("id", "element"):
        if needed not in columns:
            raise ValueError(f"no column {needed!r} among {' '.join(columns)} (dump custom … id element …)")
    for row in rows:
        n_values = len(row.split())
        if n_values != len(columns):
            raise ValueError(f"{n_values} values for {len(columns)} columns in the row {row.strip()!r}")
    coordinates = {name for kind in _COORDINATES for name in kind.columns}
    wanted = [name for name in columns if name in _NUMERIC | coordinates]
    table = np.loadtxt(rows, usecols=[columns.index(name) for name in wanted], comments=None, ndmin=2)
    order = np.argsort(table[:, wanted.index("id")], kind="stable")
    elements = None
    if with_elements:
        elements = tuple(rows[k].split()[columns.index("element")] for k in order)
    cell, origin, pbc = _box(header["BOX"])
    return _Frame(
        step=int(header["TIMESTEP"][0]), time_ps=float(header["TIME"][0]) if "TIME" in header else None,
        units=header["UNITS"][0].strip() if "UNITS" in header else None, cell=cell, origin=origin, pbc=pbc,
        columns=tuple(wanted), table=table[order], elements=elements,
    )


def _box(lines: list[str]) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    """Cell vectors (rows, Å), origin and periodicity from `BOX BOUNDS`.

    LAMMPS writes the bounding box of a tilted cell, so xlo = xlo_bound − min(0, xy, xz, xy + xz) and so
    on (LAMMPS manual, "Triclinic simulation boxes").
    """
    words, rows = lines[1:-3], np.array([line.split() for line in lines[-3:]], dtype=float)
    if len(words) < 3:
        raise ValueError("no boundary flags such as 'pp pp pp' after 'ITEM: BOX BOUNDS'")
    pbc = tuple(flag == "pp" for flag in words[-3:])
    if words[:2] == ["abc", "origin"]:
        return rows[:, :3], rows[:, 3], pbc
    low, high = rows[:, 0].copy(), rows[:, 1].copy()
    xy, xz, yz = rows[:, 2] if words[0] == "xy" else (0.0, 0.0, 0.0)
    low -= [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high -= [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    length = high - low
    if not np.all(length > 0):
        raise ValueError(f"box lengths {length}")
    return np.array([[length[0], 0.0, 0.0], [xy, length[1], 0.0], [xz, yz, length[2]]]), low, pbc


def _check_frame(frame: _Frame, first: _Frame | None, where: str) -> None:
    if not np.isfinite(frame.table).all():
        row, k = np.argwhere(~np.isfinite(frame.table))[0]
        raise DtmdError(
            f"{where}: {frame.columns[k]} of atom {frame.column('id')[row]:.0f} is {frame.table[row, k]}; "
            "the run has failed here, cut the dump before this frame"
        )
    if first is None:
        return
    if frame.columns != first.columns:
        raise DtmdError(
            f"{where}: columns {' '.join(frame.columns)} differ from {' '.join(first.columns)} of frame 0; "
            "compare files written by one dump command each"
        )
    if not np.array_equal(frame.column("id"), first.column("id")):
        raise DtmdError(
            f"{where}: {len(frame.table)} atoms, not the {len(first.table)} of frame 0 with the same ids; "
            "the dump must hold all atoms in each frame, and no atom may be lost"
        )


def _numbers(first: _Frame, path: Path) -> np.ndarray:
    for element in first.elements:
        if element not in atomic_numbers:
            raise DtmdError(f"{path}: {element!r} is not an element; write `dump_modify … element H C …`")
    return np.array([atomic_numbers[element] for element in first.elements])


def _masses(first: _Frame, path: Path) -> np.ndarray:
    return first.column("mass") if "mass" in first.columns else atomic_masses[_numbers(first, path)]


def _times(frames: list[_Frame], timestep: float | None, path: Path) -> np.ndarray:
    """Time of each frame, fs."""
    if all(frame.time_ps is not None for frame in frames):
        return np.array([frame.time_ps for frame in frames]) * FS_PER_PS
    if timestep is None:
        raise DtmdError(
            f"{path}: the dump does not hold the time of its frames; give the time step with --timestep "
            "(in fs), or write the dump with `dump_modify … time yes`"
        )
    return np.array([frame.step for frame in frames]) * timestep


def _positions(frames: list[_Frame], cells: np.ndarray, pbc: np.ndarray, path: Path) -> np.ndarray:
    kind = next((k for k in _COORDINATES if set(k.columns) <= set(frames[0].columns)), None)
    if kind is None:
        raise DtmdError(f"{path}: no positions; dump the columns x y z or xu yu zu")
    positions = _vectors(frames, kind.columns, 1.0)
    origins = np.stack([frame.origin for frame in frames])
    if kind.scaled:
        positions = positions @ cells + origins[:, None]
    positions = positions - origins[0]
    return unwrap(positions, cells, pbc) if kind.wrapped else positions


def _vectors(frames: list[_Frame], columns: tuple[str, str, str], unit: float) -> np.ndarray | None:
    """Three columns of all frames, shape (T, N, 3), times `unit`; None where they were not written."""
    if not set(columns) <= set(frames[0].columns):
        return None
    chosen = [frames[0].columns.index(name) for name in columns]
    return unit * np.stack([frame.table[:, chosen] for frame in frames])


def _energies(frames: list[_Frame]) -> np.ndarray | None:
    """Potential energy of each frame, eV: the sum of the atoms' shares."""
    name = next((name for name in _ENERGY_SHARES if name in frames[0].columns), None)
    return None if name is None else np.array([frame.column(name).sum() for frame in frames])
