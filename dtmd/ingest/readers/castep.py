"""Reader of CASTEP's .castep file of molecular dynamics.

A step is: cell, where it changes, fractional positions, self-consistency, forces, and "MD Data" with time and
potential energy. That energy is E − TS with the correction for the finite basis set, so the forces are its gradient
and it goes smoothly with the cell. Velocities are written at most for the very first frame, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import FS_PER_PS

_BANNER = re.compile(r"CASTEP version +([\w.]+)")
_MD = re.compile(r"type of calculation +: molecular dynamics")
_PARAMETER = re.compile(r"^ (\S.*?) +: +(\S.*?) *$")
_UNITS = {"output         length unit": "A", "output         energy unit": "eV", "output          force unit": "eV/A",
          "output           time unit": "ps"}
_SETTINGS = ("using functional", "plane wave basis set cut-off", "smearing scheme", "smearing width", "ensemble",
             "temperature")
_FORCES = re.compile(r"^ \*+ ([\w ]*)Forces \*+ *$")
_ITERATION = re.compile(r"^ Starting MD iteration +(\d{1,15}) ")


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates if _BANNER.search(c.head) and _MD.search(c.head)]


@dataclass
class _State:
    """What was read of a step so far."""

    step: int = 0
    cell: np.ndarray | None = None
    labels: list[str] = field(default_factory=list)
    fractions: np.ndarray | None = None
    forces: np.ndarray | None = None


def _read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    parameters: dict[str, str] = {}
    state, masses, version = _State(), {}, ""
    for line in lines:
        if found := _BANNER.search(line):
            version = found[1]
        elif "Mass of species in AMU" in line:
            masses = _masses(lines)
            break
        elif found := _PARAMETER.match(line):
            parameters.setdefault(found[1], found[2])
        else:
            _read_structure(lines, line, state)
    if state.fractions is None or not masses:
        raise CutShort(f"{source.main}: ends after line {lines.number} before cell contents and masses")
    for name, unit in _UNITS.items():
        if parameters.get(name, unit) != unit:
            raise DtmdError(f"{source.main}: {' '.join(name.split())} is {parameters[name]}, dtmd reads {unit}; run "
                            "with CASTEP's default units of output")
    return RawRun(
        code="CASTEP", version=version, numbers=_numbers(lines, state.labels),
        masses=np.array([masses[label] for label in state.labels]) if masses.keys() >= set(state.labels) else None,
        pbc=np.ones(3, dtype=bool), timestep_from="md_delta_t",
        frames=_frames(lines, state, state.labels, parameters.get("ensemble", "NVE") in ("NVE", "NVT")),
        timestep=_in_ps(lines, parameters["time step"]) if "time step" in parameters else None,
        precision=None if state.cell is None else float(1e-6 * np.linalg.norm(state.cell, axis=1).max()),
        settings={name: parameters[name] for name in _SETTINGS if name in parameters},
    )


def _frames(lines: Lines, state: _State, labels: list[str], fixed_cell: bool) -> Iterator[Frame]:
    begun = True
    for line in lines:
        if found := _ITERATION.match(line):
            begun = True
            state = _State(int(found[1]), state.cell if fixed_cell else None)
        elif _BANNER.search(line):
            raise lines.error("a second run begins here, which CASTEP appended to the file; split the file before "
                              "this banner and give both parts")
        elif found := _FORCES.match(line):
            forces = _forces(lines, labels)
            state.forces = forces if state.forces is None or found[1].startswith("Unconstrained") else state.forces
        elif "MD Data:" in line:
            if not begun:
                raise lines.error("MD data without \"Starting MD iteration\" before it; the file is damaged here")
            energy = _energy(lines)
            yield _frame(lines, state, labels, energy)
            begun = False
        else:
            _read_structure(lines, line, state)
    if begun:
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside MD iteration {state.step}")


def _frame(lines: Lines, state: _State, labels: list[str], energy: float) -> Frame:
    for what in ("cell", "fractions", "forces"):
        if getattr(state, what) is None:
            name = {"cell": "unit cell", "fractions": "fractional coordinates"}.get(what, what)
            raise lines.error(f"no {name} of MD iteration {state.step} before this line; the file is damaged")
    if state.labels != labels:
        raise lines.error(f"MD iteration {state.step} has the atoms {' '.join(state.labels)[:40]}, not those of the "
                          "first; give the file of one run")
    return Frame(state.fractions @ state.cell, state.cell, state.forces, energy, None, state.step)


def _read_structure(lines: Lines, line: str, state: _State) -> None:
    """Takes up the block that `line` is the title of, if it is one of cell or positions."""
    if "Real Lattice(A)" in line:
        state.cell = lines.table(3, (0, 1, 2), "the unit cell")
    elif "Fractional coordinates of atoms" in line:
        lines.need("the fractional coordinates")
        lines.need("the fractional coordinates")
        labels, rows = [], []
        while "xxxx" not in (line := lines.need("the fractional coordinates")):
            fields = line.split()[1:-1]
            labels.append(fields[0] if fields else "")
            rows.append(lines.vector(fields[2:], "the fractional coordinates"))
        state.labels, state.fractions = labels, np.array(rows).reshape(-1, 3)


def _forces(lines: Lines, labels: list[str]) -> np.ndarray:
    """Rows between the title and the rule of stars; "(cons'd)" marks components that are held."""
    rows = []
    while (line := lines.need("the forces").strip()).strip("*"):
        fields = line.replace("(cons'd)", " ").strip("*").split()
        if fields[:1] == ["Cartesian"] and "(eV/A)" not in fields:
            raise lines.error(f"forces in other units than eV/A: {line[:60]!r}; run with CASTEP's default units")
        if len(fields) > 3:
            rows.append(lines.vector(fields[2:], "the forces"))
    if len(rows) != len(labels):
        raise lines.error(f"{len(rows)} forces for {len(labels)} atoms; the file is damaged above this line")
    return np.array(rows)


def _energy(lines: Lines) -> float:
    energy = None
    while "xxxx" not in (line := lines.need("the MD data")):
        if "Potential Energy:" in line:
            energy = lines.number_after(line, "Potential Energy:", "potential energy")
    if energy is None:
        raise lines.error("no potential energy in the MD data above this line; the file is damaged")
    return energy


def _masses(lines: Lines) -> dict[str, float]:
    masses = {}
    while (fields := lines.need("the masses of the species").split()):
        masses[fields[0]] = lines.number_after(" ".join(fields), fields[0], f"mass of {fields[0]}")
    return masses


def _numbers(lines: Lines, labels: list[str]) -> np.ndarray:
    """A label is a chemical symbol, with ":" and a name where an element comes in several kinds."""
    wrong = [label for label in labels if atomic_numbers.get(label.partition(":")[0], 0) < 1]
    if wrong or not labels:
        raise lines.error(f"{f'{wrong[0]!r} is no element' if wrong else 'no atoms'} in the cell contents")
    return np.array([atomic_numbers[label.partition(":")[0]] for label in labels])


def _in_ps(lines: Lines, text: str) -> float:
    value, _, unit = text.partition(" ")
    try:
        if unit.strip() != "ps":
            raise ValueError
        return float(value) * FS_PER_PS
    except ValueError:
        raise DtmdError(f"{lines.path}: time step {text!r}, expected a number of ps") from None


FORMAT = Format("CASTEP output", _find, _read)
"""Format of CASTEP's .castep file."""
