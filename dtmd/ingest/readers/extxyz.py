"""Extended XYZ: per frame the number of atoms, a comment of key=value pairs and one row of columns per atom.

ASE parses the comment. The rows are parsed here, one frame at a time: ASE's reader seeks through the whole
file first, and builds an Atoms object per frame. Plain XYZ trajectories are read too; they hold positions only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.ase_names import CHOICES, check_atoms, choose_names
from dtmd.ingest.readers.precision import written_precision
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source

_PLAIN = "species:S:1:pos:R:3"
_WIDTHS = {"species": 1, "Z": 1, "pos": 3, "forces": 3, "force": 3, "velocities": 3, "momenta": 3, "masses": 1}
_NUMBERS = ("pos", "forces", "force", "velocities", "momenta", "masses")
_TRUTH = {"T": True, "True": True, "1": True, "F": False, "False": False, "0": False}
_FOREIGN_COMMENT = re.compile(r"\s*(i\s*=|STEP\b|#\s*CELL)")  # CP2K, CPMD, i-PI


@dataclass(frozen=True)
class _Comment:
    """A comment line: its keys, the columns of the rows that follow, and the names chosen from `CHOICES`."""

    info: Mapping[str, object]
    columns: Mapping[str, slice]
    width: int
    names: Mapping[str, str | None]


@dataclass(frozen=True)
class _Snapshot:
    """A frame with what must not change from frame to frame."""

    comment: _Comment
    symbols: list[str]
    numbers: np.ndarray
    pbc: np.ndarray
    timestep: float | None
    masses: np.ndarray | None
    rows: list[list[str]]
    frame: Frame


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(candidate.path) for candidate in candidates if _recognised(candidate.head)]


def _recognised(head: str) -> bool:
    count, _, rest = head.partition("\n")
    comment, _, rest = rest.partition("\n")
    if not re.fullmatch(r"\s*\d{1,9}\s*", count):
        return False
    if "Properties=" in comment or "Lattice=" in comment:
        return True
    # Plain XYZ only where a second frame is in sight: a single structure beside a run's output is no run.
    *rows, second = rest.split("\n", int(count) + 1)[: int(count) + 1]
    return (not _FOREIGN_COMMENT.match(comment) and second.strip() == count.strip()
            and all(len(row.split()) == 4 for row in rows))


def _read(source: Source) -> RawRun:
    lines = Lines(source.main)
    try:
        first = _snapshot(lines, 0, None)
    finally:
        lines.close()
    if first is None:
        raise DtmdError(f"{source.main}: no frames in this file")
    comment = first.comment
    unread = sorted(name for name in {*comment.info, *comment.columns} - {*CHOICES["energy"]}
                    if name.lower().endswith(("_energy", "_forces")))
    return RawRun(
        code="extended XYZ", numbers=first.numbers, pbc=first.pbc, masses=first.masses, fixed=_fixed(first, source),
        timestep=first.timestep, timestep_from=comment.names["timestep"] or "",
        precision=_precision(first),
        notes=[f"{name} is not read; the labels are energy or free_energy, and forces" for name in unread],
        frames=_frames(source, first),
    )


def _frames(source: Source, first: _Snapshot) -> Iterator[Frame]:
    lines, k = source.lines(source.main), 0
    try:
        while (snapshot := _snapshot(lines, k, first)) is not None:
            yield snapshot.frame
            k += 1
    finally:
        lines.close()


def _snapshot(lines: Lines, k: int, first: _Snapshot | None) -> _Snapshot | None:
    """Frame `k`, checked against the first one; None at the end of the file."""
    n_atoms = _n_atoms(lines, k, first)
    if n_atoms is None:
        return None
    comment = _comment(lines, k, first)
    where = f"{lines.path}: line {lines.number}: frame {k}"
    pbc, cell = _pbc(comment, lines, k), np.zeros((3, 3))
    if "Lattice" in comment.info:
        cell = comment.info["Lattice"].T.astype(float)
    energy, step, timestep = (_number(comment, name, lines, k) for name in ("energy", "step", "timestep"))
    rows = _rows(lines, k, n_atoms, comment.width)
    values = {name: _values(rows, comment.columns[name], lines, k) for name in _NUMBERS if name in comment.columns}
    symbols = [row[comment.columns["species" if "species" in comment.columns else "Z"].start] for row in rows]
    numbers = first.numbers if first and symbols == first.symbols else _atomic_numbers(symbols, lines, k)
    masses = values["masses"][:, 0] if "masses" in values else None
    if first is not None:
        check_atoms(numbers, first.numbers, where)
        if not np.array_equal(pbc, first.pbc) or timestep not in (None, first.timestep):
            raise DtmdError(f"{where} has another pbc or time step than frame 0; make two files of it")
    velocities = values.get(comment.names["velocities"])
    if comment.names["velocities"] == "momenta":
        velocities = velocities / (atomic_masses[numbers] if masses is None else masses)[:, None] / units.ASE_TIME
    frame = Frame(positions=values["pos"], cell=cell, forces=values.get(comment.names["forces"]), energy=energy,
                  velocities=velocities, step=None if step is None else int(step))
    return _Snapshot(comment, symbols, numbers, pbc, timestep, masses, rows, frame)


def _n_atoms(lines: Lines, k: int, first: _Snapshot | None) -> int | None:
    """From the first line of frame `k`; None at the end of the file, which may have empty lines."""
    line = next(lines, None)
    while line is not None and not line.strip():
        line = next(lines, None)
    if line is None:
        if lines.cut:
            raise CutShort(f"{lines.path}: ends inside frame {k}, in the middle of line {lines.number + 1}")
        return None
    if not re.fullmatch(r"\s*0*[1-9]\d{0,8}\s*", line):
        raise lines.error(f"frame {k}: expected the number of atoms, found {line.strip()[:60]!r}; "
                          "rows are missing or too many here")
    if first is not None and int(line) != len(first.numbers):
        raise lines.error(f"frame {k} has {int(line)} atoms, frame 0 {len(first.numbers)}; "
                          "a trajectory keeps its atoms")
    return int(line)


def _comment(lines: Lines, k: int, first: _Snapshot | None) -> _Comment:
    text = lines.need(f"frame {k}")
    try:
        info = key_val_str_to_dict(text) if "Properties=" in text or "Lattice=" in text else {}
        columns, width = _layout(str(info.get("Properties", _PLAIN)))
    except (ValueError, KeyError, IndexError) as error:
        raise lines.error(f"frame {k}: the comment cannot be read ({error})") from error
    names = choose_names(info.keys() | columns.keys(), first and first.comment.names,
                         f"{lines.path}: line {lines.number}: frame {k}")
    return _Comment(info, columns, width, names)


@lru_cache(maxsize=16)
def _layout(properties: str) -> tuple[dict[str, slice], int]:
    """Columns by name and the number of columns, from Properties=name:type:width:name:…"""
    fields, columns, width = properties.split(":"), {}, 0
    for name, kind, size in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        if int(size) < 1 or kind not in "RISL" or _WIDTHS.get(name, int(size)) != int(size):
            raise ValueError(f"Properties has {name}:{kind}:{size}")
        columns[name] = slice(width, width + int(size))
        width += int(size)
    if "pos" not in columns or not {"species", "Z"} & columns.keys():
        raise ValueError("Properties has no species or no pos")
    return columns, width


def _pbc(comment: _Comment, lines: Lines, k: int) -> np.ndarray:
    """As ASE has it: where the comment does not say, a Lattice is periodic in all directions."""
    pbc = np.atleast_1d(comment.info.get("pbc", "Lattice" in comment.info))
    if pbc.dtype.kind not in "bi" or pbc.shape not in ((1,), (3,)):
        raise lines.error(f"frame {k}: pbc={comment.info['pbc']} is not three of T and F")
    return np.broadcast_to(pbc.astype(bool), 3)


def _number(comment: _Comment, quantity: str, lines: Lines, k: int) -> float | None:
    name = comment.names[quantity]
    if name not in comment.info:
        return None
    value = comment.info[name]
    if not isinstance(value, np.number) or (quantity == "step" and not float(value).is_integer()):
        raise lines.error(f"frame {k}: {name}={value} is not {'a whole' if quantity == 'step' else 'one'} number")
    return float(value)


def _rows(lines: Lines, k: int, n_atoms: int, width: int) -> list[list[str]]:
    rows = []
    for _ in range(n_atoms):
        fields = lines.need(f"frame {k}").split()
        if len(fields) != width:
            raise lines.error(f"frame {k}: {len(fields)} values where Properties has {width} columns: "
                              f"{' '.join(fields)[:60]!r}")
        rows.append(fields)
    return rows


def _values(rows: list[list[str]], columns: slice, lines: Lines, k: int) -> np.ndarray:
    try:
        return np.array([row[columns] for row in rows], dtype=float)
    except ValueError:
        for i, row in enumerate(rows):
            try:
                np.array(row[columns], dtype=float)
            except ValueError:
                found = " ".join(row[columns])[:60]
                raise _row_error(lines, k, len(rows) - i, f"expected numbers, found {found!r}") from None
        raise


def _atomic_numbers(symbols: list[str], lines: Lines, k: int) -> np.ndarray:
    numbers = [int(s) if s.isdecimal() and len(s) < 4 else atomic_numbers.get(s.capitalize(), 0) for s in symbols]
    for i, number in enumerate(numbers):
        if not 0 < number < len(atomic_masses):
            raise _row_error(lines, k, len(symbols) - i, f"{symbols[i]!r} is no element")
    return np.array(numbers)


def _row_error(lines: Lines, k: int, rows_from_end: int, problem: str) -> DtmdError:
    """For a row of a frame whose last row has just been read."""
    return DtmdError(f"{lines.path}: line {lines.number - rows_from_end + 1}: frame {k}: {problem}; correct the row "
                     "or remove the frame")


def _precision(first: _Snapshot) -> float | None:
    positions, others = ([token for name in names if name in first.comment.columns for row in first.rows
                          for token in row[first.comment.columns[name]]] for names in (_NUMBERS[:1], _NUMBERS[1:]))
    return written_precision(positions, others)


def _fixed(first: _Snapshot, source: Source) -> np.ndarray | None:
    """From the column move_mask, which ASE writes for FixAtoms and FixCartesian."""
    columns = first.comment.columns.get("move_mask")
    if columns is None:
        return None
    try:
        moving = np.array([[_TRUTH[token] for token in row[columns]] for row in first.rows])
        return ~np.broadcast_to(moving, (len(first.rows), 3))
    except (KeyError, ValueError) as error:
        raise DtmdError(f"{source.main}: frame 0: move_mask is not one or three of T and F per atom") from error


FORMAT = Format(name="extended XYZ", find=_find, read=_read)
