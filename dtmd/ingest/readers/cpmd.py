"""CPMD: the output, with TRAJECTORY or FTRAJECTORY (only this one has forces) and ENERGIES in atomic units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, Format, Frame, Lines, RawRun, Source
from dtmd.units import ATOMIC_TIME, BOHR, HARTREE

_KIND = re.compile(r"^ *([A-Z-]+) MOLECULAR DYNAMICS *$", re.M)
_COLUMNS = {"TRAJECTORY": 7, "FTRAJECTORY": 10}
_ENERGY_COLUMN = {8: 3, 6: 2}
"""Column of the Kohn–Sham energy in ENERGIES by the number of columns: with and without EKINC and EHAM."""
_RESTART = "NEW DATA"


@dataclass(frozen=True)
class _Output:
    """What the output says of the run; the time step in fs, the cell in Å."""

    kind: str
    version: str
    elements: tuple[str, ...]
    masses: dict[str, float]
    timestep: float
    cell: np.ndarray
    isolated: bool


def _find(candidates: list[Candidate]) -> list[Source]:
    outputs = [candidate for candidate in candidates
               if "PROGRAM CPMD STARTED" in candidate.head and _KIND.search(candidate.head)]
    if not outputs:
        return []
    data = {candidate.name: candidate.path for candidate in candidates
            if candidate.name in (*_COLUMNS, "ENERGIES") and _is_numeric(candidate.head)}
    further = {f"output {k}": candidate.path for k, candidate in enumerate(outputs[1:], start=2)}
    return [Source(outputs[0].path, {**data, **further})]


def _is_numeric(head: str) -> bool:
    return re.match(rf"\s*(<+ *{_RESTART} *>+\s*)?\d+(\s+[-+.\dEe]+){{5,}}", head) is not None


def _read(source: Source) -> RawRun:
    output = _read_output(source, source.main)
    for role, path in source.companions.items():
        if role.startswith("output"):
            other = _read_output(source, path)
            if (other.elements, other.timestep) != (output.elements, output.timestep):
                raise DtmdError(f"{source.main} and {path} are outputs of different runs but share one TRAJECTORY; "
                                "put each run into its own folder")
    name = next((name for name in reversed(_COLUMNS) if name in source.companions), None)
    if name is None:
        raise DtmdError(f"{source.main}: no TRAJECTORY or FTRAJECTORY beside this output, so its positions and "
                        "velocities are not known; put it there")
    missing = [element for element in set(output.elements) if element not in atomic_numbers]
    if missing:
        raise DtmdError(f"{source.main}: {missing[0]!r} is not an element")
    notes: list[str] = []
    if output.kind == "CAR-PARRINELLO":
        notes.append("Car–Parrinello dynamics: the electrons have a mass and are not quite in their ground state, "
                     "so energies and forces are slightly off the Born–Oppenheimer surface")
    if name == "TRAJECTORY":
        notes.append("TRAJECTORY holds no forces; run with `TRAJECTORY FORCES`, which writes FTRAJECTORY")
    masses = [output.masses.get(element, np.nan) for element in output.elements]
    return RawRun(
        code="CPMD", version=output.version, masses=np.array(masses) if np.isfinite(masses).all() else None,
        numbers=np.array([atomic_numbers[element] for element in output.elements]),
        pbc=np.full(3, not output.isolated), timestep=output.timestep, timestep_from="TIME STEP FOR IONS",
        frames=_frames(source, name, output, notes), settings={"dynamics": output.kind}, notes=notes,
    )


def _read_output(source: Source, path: Path) -> _Output:
    found: dict[str, str] = {}
    elements: list[str] = []
    masses: dict[str, float] = {}
    cell = []
    with closing(source.lines(path)) as lines:
        for line in lines:
            fields = line.split()
            if line.strip().startswith(("VERSION", "TIME STEP FOR IONS:", "SYMMETRY:")):
                found.setdefault(fields[0], line.partition(":")[2].strip() or " ".join(fields[1:]))
            elif line.strip().startswith("PARRINELLO-RAHMAN"):
                raise lines.error("a run with a changing cell, which is not read from CPMD; run at constant volume")
            elif match := _KIND.match(line):
                found.setdefault("kind", match[1])
            elif fields[:3] == ["NR", "TYPE", "X(BOHR)"]:
                elements = [row[1] for row in _rows(lines)]
            elif fields[1:4] == ["ATOM", "MASS", "RAGGIO"]:
                masses = {row[1]: row[2] for row in _rows(lines)}
            elif line.strip().startswith("LATTICE VECTOR A"):
                cell.append(line.partition(":")[2].split())
            elif "INITIALIZATION TIME" in line:
                break
        try:
            if not elements:
                raise KeyError("atoms")
            return _Output(
                found["kind"], found.get("VERSION", ""), tuple(elements),
                {element: float(mass) for element, mass in masses.items()},
                float(found["TIME"]) * ATOMIC_TIME, np.array(cell, float).reshape(3, 3) * BOHR,
                "ISOLATED" in found.get("SYMMETRY", ""),
            )
        except (KeyError, ValueError):
            raise lines.error("kind of dynamics, atoms, time step or cell are missing above; give the whole output "
                              "of CPMD") from None


def _rows(lines: Lines) -> Iterator[list[str]]:
    """The fields of a table's rows up to its frame of asterisks."""
    while not (line := lines.need("a table")).strip().startswith("***"):
        fields = line.split()
        if len(fields) < 3:
            raise lines.error(f"a table row with {len(fields)} columns")
        yield fields


def _frames(source: Source, name: str, output: _Output, notes: list[str]) -> Iterator[Frame]:
    n_atoms, n_columns = len(output.elements), _COLUMNS[name]
    energies = _energies(source)
    latest = next(energies, None)
    with closing(source.lines(source.companions[name])) as lines:
        for line in lines:
            if _RESTART in line:
                notes.append(f"{name} was continued by a restart at line {lines.number}")
                continue
            table = np.array([_numbers(lines, line, n_columns)] + [
                _numbers(lines, lines.need(f"a frame of {n_atoms} atoms"), n_columns) for _ in range(n_atoms - 1)])
            step = table[0, 0]
            if step % 1 != 0 or not np.array_equal(table[:, 0], np.full(n_atoms, step)):
                raise lines.error(f"the {n_atoms} atoms above do not have one step number; {name} and "
                                  f"{source.main.name} are not of one run")
            while latest and latest[0] < step:
                latest = next(energies, None)
            yield Frame(
                positions=table[:, 1:4] * BOHR, cell=output.cell, step=int(step),
                velocities=table[:, 4:7] * BOHR / ATOMIC_TIME,
                forces=table[:, 7:] * HARTREE / BOHR if name == "FTRAJECTORY" else None,
                energy=latest[1] * HARTREE if latest and latest[0] == step else None,
            )


def _energies(source: Source) -> Iterator[tuple[float, float]]:
    """Step and Kohn–Sham energy in Hartree."""
    if "ENERGIES" not in source.companions:
        return
    with closing(source.lines(source.companions["ENERGIES"])) as lines:
        for line in lines:
            if _RESTART not in line:
                n_columns = len(line.split())
                if n_columns not in _ENERGY_COLUMN:
                    raise lines.error(f"{n_columns} columns; 8 are expected (6 for dynamics with diagonalisation)")
                row = _numbers(lines, line, n_columns)
                yield row[0], row[_ENERGY_COLUMN[n_columns]]


def _numbers(lines: Lines, line: str, n_columns: int) -> list[float]:
    try:
        row = [float(value) for value in line.split()]
        if len(row) == n_columns:
            return row
    except ValueError:
        pass
    raise lines.error(f"expected {n_columns} numbers, found {line.strip()[:60]!r}")


FORMAT = Format(name="CPMD", find=_find, read=_read)
"""Output of a molecular dynamics run with the files it wrote."""
