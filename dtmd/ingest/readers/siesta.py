"""Reader of SIESTA's main output of molecular dynamics.

A step is: its number, coordinates, cell, self-consistency, forces. Coordinates come in the unit that their title
names. The forces are those of the free energy, which only the lines of the self-consistency give. SIESTA moves the
atoms as if 1 u were the mass of a proton; the masses given here are those that the run really had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import ACCELERATION, BOHR

_FOVERMP = 0.009579038
"""Å/fs² of 1 eV/(Å·u) in SIESTA's integrators; 0.7 % below the right value."""

_DYNAMICS = "redata: Dynamics option"
_STEP = re.compile(r"^ *Begin MD step = *(\d{1,15}) *$")
_COORDINATES = re.compile(r"^outcoor: Atomic coordinates \((\w+)\)")
_LENGTHS = {"Ang": 1.0, "Bohr": BOHR, "fractional": None}
_SPECIES = re.compile(r"^ *Species number: *\d+")
_MASS = re.compile(r"^(\S+) +Z= *-?\d+ +Mass= *(\S+)")
_VERSION = re.compile(r"^ *(?:Siesta Version|Version) *: *(?:siesta-)?(\S+)")
_CYCLE = re.compile(r"^( *(?:siesta:|scf:) +\d+ +\S+ +\S+) ")
_SETTINGS = {
    "dynamics": re.compile(rf"^{_DYNAMICS} *= *(.*)"),
    "mesh cutoff": re.compile(r"^redata: Mesh Cutoff *= *(.*)"),
    "electronic temperature": re.compile(r"^redata: Electronic Temperature *= *(.*)"),
    "initial temperature": re.compile(r"^redata: Initial Temperature of MD run *= *(.*)"),
    "XC": re.compile(r"^xc_check: ([A-Z]{3,} .*)"),
}


@dataclass
class _Head:
    """What comes before the first step: per species label the atomic number and mass, u."""

    numbers: dict[str, int] = field(default_factory=dict)
    masses: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    timestep: float | None = None
    version: str = ""


@dataclass
class _Step:
    """A step that is being read; `positions` in units of `length`, Å, or fractional."""

    number: int
    positions: np.ndarray | None = None
    length: float | None = None
    cell: np.ndarray | None = None
    energy: float | None = None


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates if "WELCOME TO SIESTA" in c.head and _runs_md(c)]


def _runs_md(candidate: Candidate) -> bool:
    """Whether the input, echoed after the basis sets, asks for MD; a damaged file is left to `_read`."""
    try:
        for line in Lines(candidate.path):
            if line.startswith(_DYNAMICS):
                return "MD" in line
    except DtmdError:
        return True
    return False


def _read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    head, step = _read_head(lines)
    labels, rows = [], []
    while (fields := lines.need("the first coordinates").split())[4:] and fields[4] == str(len(rows) + 1):
        rows.append(lines.vector(fields[:3], "the first coordinates"))
        labels.append(fields[-1])
    wrong = [label for label in labels if not 1 <= head.numbers.get(label, 0) <= 118]
    if wrong or not rows:
        problem = f"species {wrong[0]!r} is no element" if wrong else "no atoms"
        raise lines.error(f"{problem} in the first coordinates; dtmd reads runs whose atoms are all listed under "
                          "\"Species number\", without ghosts")
    step.positions = np.array(rows)
    masses = [head.masses.get(label) for label in labels]
    unit = ACCELERATION / _FOVERMP
    return RawRun(
        code="SIESTA", version=head.version, numbers=np.array([head.numbers[label] for label in labels]),
        masses=None if None in masses else np.array(masses) * unit, pbc=np.ones(3, dtype=bool),
        frames=_frames(lines, step, labels), timestep=head.timestep, timestep_from="MD.LengthTimeStep",
        settings=head.settings,
        notes=[f"masses times {unit:.5f}, because SIESTA takes the mass of a proton for 1 u when it moves the atoms"],
    )


def _read_head(lines: Lines) -> tuple[_Head, _Step]:
    """Reads up to the title of the first coordinates; also gives the step that they belong to."""
    head, step = _Head(), None
    for line in lines:
        if found := _STEP.match(line):
            step = _Step(int(found[1]))
        elif step is not None and (found := _COORDINATES.match(line)):
            step.length = _length(lines, found[1])
            return head, step
        elif _SPECIES.match(line):
            label = re.search(r"Label: *(\S+)", line)
            number = re.search(r"Atomic number: *(-?\d{1,3})\b", line)
            if not label or not number:
                raise lines.error(f"no label or atomic number in {line.strip()[:60]!r}; the file is damaged here")
            head.numbers[label[1]] = int(number[1])
        elif found := _MASS.match(line):
            head.masses[found[1]] = lines.number_after(line, "Mass=", f"mass of {found[1]}")
        elif line.startswith("redata: Length of MD time step"):
            head.timestep = lines.number_after(line, "time step", "time step")
        elif not head.version and (found := _VERSION.match(line)):
            head.version = found[1]
        else:
            head.settings.update({name: found[1].strip() for name, pattern in _SETTINGS.items()
                                  if (found := pattern.match(line))})
    if step is not None:
        raise DtmdError(f"{lines.path}: no coordinates in the first MD step; SIESTA writes them with WriteCoorStep T")
    raise CutShort(f"{lines.path}: ends after line {lines.number} before its first MD step")


def _frames(lines: Lines, step: _Step | None, labels: list[str]) -> Iterator[Frame]:
    in_cycle = False
    for line in lines:
        if found := _STEP.match(line):
            step, in_cycle = _Step(int(found[1])), False
        elif step is None:
            continue
        elif found := _COORDINATES.match(line):
            step.length, step.positions = _length(lines, found[1]), _coordinates(lines, labels)
        elif line.startswith("outcell: Unit cell vectors (Ang)"):
            step.cell = lines.table(3, (0, 1, 2), "the unit cell")
        elif "iscf" in line and "FreeEng" in line:
            in_cycle = True
        elif line.startswith("siesta: E_KS(eV)"):
            in_cycle = False
        elif in_cycle and (found := _CYCLE.match(line)):
            step.energy = lines.number_after(line, found[1], "free energy")
        elif line.startswith("siesta: Atomic forces (eV/Ang)"):
            yield _frame(lines, step, _forces(lines, len(labels)))
            step = None
    if step is not None:
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside MD step {step.number}")


def _frame(lines: Lines, step: _Step, forces: np.ndarray | None) -> Frame:
    if step.positions is None or step.cell is None:
        missing = "unit cell (outcell)" if step.cell is None else "coordinates (WriteCoorStep T writes them)"
        raise lines.error(f"MD step {step.number} has no {missing}")
    positions = step.positions @ step.cell if step.length is None else step.positions * step.length
    return Frame(positions, step.cell, forces, step.energy, None, step.number)


def _length(lines: Lines, unit: str) -> float | None:
    if unit not in _LENGTHS:
        raise lines.error(f"coordinates are ({unit}), dtmd reads ({'), ('.join(_LENGTHS)}); run with "
                          "AtomCoorFormatOut Ang")
    return _LENGTHS[unit]


def _coordinates(lines: Lines, labels: list[str]) -> np.ndarray:
    rows = []
    for label in labels:
        fields = lines.need("the coordinates").split()
        if fields[-1:] != [label]:
            raise lines.error(f"expected the coordinates of atom {len(rows) + 1}, {label}, found "
                              f"{' '.join(fields)[:60]!r}; the file is damaged here, or of several runs")
        rows.append(lines.vector(fields[:3], "the coordinates"))
    return np.array(rows)


def _forces(lines: Lines, n_atoms: int) -> np.ndarray | None:
    """Forces, eV/Å; None where SIESTA wrote only their sum and size (WriteForces F)."""
    rows = []
    while not (line := lines.need("the forces")).startswith("---"):
        rows.append(lines.vector(line.split()[1:4], "the forces"))
    if len(rows) not in (0, n_atoms):
        raise lines.error(f"{len(rows)} forces for {n_atoms} atoms; the file is damaged here")
    return np.array(rows) if rows else None


FORMAT = Format("SIESTA output", _find, _read)
"""Format of SIESTA's main output."""
