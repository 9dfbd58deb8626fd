"""PWmat MOVEMENT. Its block named Force holds minus the force, and its velocities are in bohr/fs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import BOHR

_START = re.compile(r"\s*(\d+)\s+atoms,\s*Iteration\b")
_HEADER = re.compile(
    r"\s*(\d+)\s+atoms,\s*Iteration \(fs\)\s*=\s*([^,\s]+)\s*,\s*Etot,Ep,Ek \(eV\)\s*=\s*\S+\s+([^,\s]+)"
)
_NEEDED = ("Lattice vector", "Position", "Force")
_SECTIONS = (*_NEEDED, "Velocity")


@dataclass(frozen=True)
class _Block:
    """One frame as written.

    Attributes:
        time: fs.
        energy: Ep, eV.
        tables: the numbers of each section; all but the lattice start with the atomic number.
        method: of the dynamics, empty where the file does not say.
        last: the file ends without the ruler that ends a frame.
    """

    time: float
    energy: float
    tables: dict[str, np.ndarray]
    method: str
    last: bool


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(candidate.path) for candidate in candidates if _START.match(candidate.head)]


def _read(source: Source) -> RawRun:
    with closing(source.lines(source.main)) as lines:
        first = next(_blocks(lines), None)
        if first is None or not first.method:
            raise lines.error("no MD_INFO in the first frame, so this is a relaxation or a converted file, not a "
                              "molecular dynamics run of PWmat; give the MOVEMENT of a run with JOB = MD")
    atoms = first.tables["Position"]
    if not len(atoms) or not np.isin(atoms[:, 0], np.arange(1, len(atomic_masses))).all():
        raise lines.error("the first column of the atoms above must be the atomic number")
    fixed = atoms[:, 4:] == 0
    return RawRun(
        code="PWmat", numbers=atoms[:, 0].astype(int), pbc=np.ones(3, bool), frames=_frames(source),
        fixed=fixed if fixed.any() else None, settings={"MD method": first.method},
    )


def _frames(source: Source) -> Iterator[Frame]:
    with closing(source.lines(source.main)) as lines:
        for block in _blocks(lines):
            cell = block.tables["Lattice vector"]
            velocities = block.tables.get("Velocity")
            yield Frame(
                positions=block.tables["Position"][:, 1:4] @ cell, cell=cell, forces=-block.tables["Force"][:, 1:],
                energy=block.energy, velocities=None if velocities is None else BOHR * velocities[:, 1:],
                time=block.time,
            )


def _blocks(lines: Lines) -> Iterator[_Block]:
    """The frames, which all have the sections and elements of the first."""
    first = block = None
    n_frames = 0
    for line in lines:
        if not line.strip():
            continue
        what = f"frame {n_frames}"
        block = _block(lines, line, what, set(_NEEDED) if first is None else set(first.tables))
        first = first or block
        numbers = first.tables["Position"][:, 0]
        for section in block.tables.keys() - {"Lattice vector"}:
            if not np.array_equal(block.tables[section][:, 0], numbers):
                raise lines.error(f"the elements of {section!r} in {what} are not those of the first frame; "
                                  "a run keeps its atoms in one order")
        yield block
        n_frames += 1
    if lines.cut and not (block and block.last):
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside frame {n_frames}")


def _block(lines: Lines, header: str, what: str, needed: set[str]) -> _Block:
    n_atoms, time, energy = _parse_header(lines, header, what)
    tables: dict[str, np.ndarray] = {}
    method = ""
    while (line := next(lines, None)) is not None and "--------" not in line:
        title = line.strip()
        section = next((name for name in _SECTIONS if title.startswith(name)), None)
        if _START.match(line):
            raise lines.error(f"the next frame starts inside {what}; the file is damaged, copy it again")
        if title.startswith("MD_INFO"):
            method = _method(title, lines.need(what))
        elif section == "Lattice vector":
            tables[section] = lines.table(3, (0, 1, 2), f"{what}, {section}")
        elif section:
            columns = tuple(range(7 if "move_x" in title else 4))
            tables[section] = lines.table(n_atoms, columns, f"{what}, {section}")
    missing = needed - tables.keys()
    if missing and line is None:
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside {what}")
    if missing:
        raise lines.error(f"{what} has no section {' or '.join(sorted(missing))!r}; every frame must have the same "
                          "sections")
    return _Block(time, energy, tables, method, last=line is None)


def _parse_header(lines: Lines, header: str, what: str) -> tuple[int, float, float]:
    """Number of atoms, time in fs and potential energy in eV."""
    match = _HEADER.match(header)
    if match is None:
        raise lines.error(f"{what}: expected '… atoms,Iteration (fs) = …, Etot,Ep,Ek (eV) = …' as molecular dynamics "
                          f"of PWmat writes it, found {header.strip()[:70]!r}")
    try:
        return int(match[1]), float(match[2]), float(match[3])
    except ValueError:
        raise lines.error(f"{what}: no number for the time or Ep in {header.strip()[:120]!r}") from None


def _method(names: str, values: str) -> str:
    """Name of the dynamics from `METHOD(1-VV,2-NH,…)` and the line below it, which starts with the number."""
    number = (values.split() or [""])[0]
    return dict(re.findall(r"(\d+)-(\w+)", names)).get(number, f"METHOD {number}")


FORMAT = Format(name="PWmat", find=_find, read=_read)
"""MOVEMENT of a molecular dynamics run."""
