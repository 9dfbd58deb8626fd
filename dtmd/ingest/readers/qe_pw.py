"""Text output of Quantum ESPRESSO's pw.x with `calculation='md'`.

Energy and forces stand before the positions that follow from them, so those of step 0 belong to the positions in
the head, which are in units of alat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import ATOMIC_TIME, BOHR, RYDBERG

_FORCE = RYDBERG / BOHR
_TIME = 2.0 * ATOMIC_TIME
_POSITIONS_IN_ALAT = "positions (alat units)"
_SPECIES = re.compile(r"\s*(\S+)\s+\S+\s+(\d\S*)\s+([A-Za-z]+)\s*\(")
_REFUSED = {
    "BFGS Geometry Optimization": "a relaxation",
    "Damped Dynamics": "a relaxation by damped dynamics",
    "Over-damped Langevin": "over-damped Langevin dynamics, which has no velocities",
    "Entering Dynamics;": "variable-cell MD, which dtmd reads from pw.x's prefix.xml",
}
_SETTINGS = {
    "Exchange-correlation": "functional",
    "kinetic-energy cutoff": "cutoff",
    "temperature is controlled by": "thermostat",
}


@dataclass
class _Head:
    """What stands before the first step.

    Attributes:
        alat: Å.
        cell: Å, (3, 3).
        species: element and mass in u by label.
        labels: of the atoms.
        precision: Å, last digit of the positions in the head.
        timestep: fs; None in a continued run, which does not repeat it.
        fixed: (N, 3), bool.
    """

    version: str = ""
    n_atoms: int = 0
    n_species: int = 0
    alat: float = 0.0
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    species: dict[str, tuple[int, float]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    precision: float = 0.0
    timestep: float | None = None
    fixed: np.ndarray | None = None
    settings: dict[str, str | float] = field(default_factory=dict)


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates
            if "Program PWSCF" in c.head and re.search(r"^\s*nstep\s*=", c.head, re.MULTILINE)]


def _read(source: Source) -> RawRun:
    with closing(source.lines(source.main)) as lines:
        head = _read_head(lines)
    unknown = sorted(set(head.labels) - set(head.species))
    if unknown or not head.labels:
        missing = f"atomic species {unknown}" if unknown else "positions"
        raise DtmdError(f"{source.main}: no {missing} in the head; the file is damaged, copy it again")
    species = [head.species[label] for label in head.labels]
    notes = ["velocities are not in the text output of pw.x"]
    if head.timestep is None:
        notes.append("a continued run: pw.x writes the time step only into the output of the first part")
    return RawRun(
        code="Quantum ESPRESSO pw.x", version=head.version, numbers=np.array([number for number, _ in species]),
        masses=np.array([mass for _, mass in species]), pbc=np.ones(3, bool), frames=_frames(source, head),
        timestep=head.timestep, timestep_from="" if head.timestep is None else "Time step",
        precision=head.precision if head.precision > 1e-7 else None, fixed=head.fixed, settings=head.settings,
        notes=notes,
    )


def _read_head(lines: Lines) -> _Head:
    """Everything up to the first positions of the dynamics."""
    head = _Head()
    entered = False
    for line in lines:
        for words, kind in _REFUSED.items():
            if words in line:
                raise lines.error(f"this pw.x output is of {kind}; dtmd reads the output of calculation='md'")
        if line.startswith("ATOMIC_POSITIONS") and entered:
            _positions(lines, line, head)
            return head
        entered = entered or "Entering Dynamics:" in line
        _read_head_line(lines, line, head)
    if lines.cut or entered or head.timestep is not None:
        raise CutShort(f"{lines.path}: ends after line {lines.number}, before the first MD step is complete")
    raise DtmdError(f"{lines.path}: no MD step in this pw.x output; it stopped early or is no run with "
                    "calculation='md'")


def _read_head_line(lines: Lines, line: str, head: _Head) -> None:
    what = "head of the pw.x output"
    if "Program PWSCF" in line:
        head.version = line.partition("v.")[2].split(" ")[0]
    elif "number of atoms/cell" in line:
        head.n_atoms = _count(lines, line, "number of atoms/cell")
    elif "number of atomic types" in line:
        head.n_species = _count(lines, line, "number of atomic types")
    elif "celldm(1)=" in line:
        head.alat = lines.number_after(line, "celldm(1)=", what) * BOHR
    elif match := re.match(r"\s*a\(([123])\) = \((.*)\)", line):
        head.cell[int(match[1]) - 1] = np.array(_numbers(lines, match[2].split(), 3, what)) * head.alat
    elif "atomic species   valence" in line:
        _read_species(lines, head)
    elif _POSITIONS_IN_ALAT in line:
        head.labels, _ = _positions_in_alat(lines, head)
    elif "Time step  " in line:
        head.timestep = lines.number_after(line, "Time step", what) * _TIME
    else:
        for words, name in _SETTINGS.items():
            if words in line and name not in head.settings:
                head.settings[name] = line.partition(words)[2].replace("=", " ", 1).strip()


def _read_species(lines: Lines, head: _Head) -> None:
    for _ in range(head.n_species):
        line = lines.need("the table of atomic species")
        match = _SPECIES.match(line)
        if match is None:
            raise lines.error(f"expected an atomic species with valence, mass and pseudopotential, found "
                              f"{line.strip()[:60]!r}")
        label = re.match(r"[A-Z]?[a-z]?", match[1])[0]
        element = next((name for name in (match[3], label, label[:1]) if name in atomic_numbers), None)
        if element is None:
            raise lines.error(f"species {match[1]!r} is no element; name it after one in ATOMIC_SPECIES")
        head.species[match[1]] = atomic_numbers[element], _numbers(lines, [match[2]], 1, "mass")[0]


def _positions_in_alat(lines: Lines, head: _Head) -> tuple[list[str], np.ndarray]:
    """Labels and positions in Å, from the table in the head."""
    if head.n_atoms < 1 or head.alat <= 0.0 or not head.cell.any():
        raise lines.error("positions before the number of atoms, celldm(1) and the crystal axes; lines are missing, "
                          "copy the file again")
    labels, rows = [], []
    for _ in range(head.n_atoms):
        line = lines.need("the positions of the head")
        fields, numbers = line.split(), line.rpartition("(")[2].rstrip(") ").split()
        rows.append(_numbers(lines, numbers, 3, "position of an atom"))
        labels.append(fields[1])
        head.precision = 10.0 ** -len(numbers[0].partition(".")[2]) * head.alat
    return labels, np.array(rows) * head.alat


def _positions(lines: Lines, title: str, head: _Head) -> np.ndarray:
    """Positions in Å from ATOMIC_POSITIONS, whose flags tell the fixed components."""
    unit = re.search(r"[({]\s*(\w+)", title)
    scale = {"alat": head.alat, "bohr": BOHR, "angstrom": 1.0, "crystal": head.cell}.get(unit[1] if unit else "alat")
    if len(head.labels) != head.n_atoms:
        raise lines.error(f"positions of the dynamics, but {len(head.labels)} of {head.n_atoms} atoms in the head; "
                          "lines are missing, copy the file again")
    if scale is None:
        raise lines.error(f"unknown unit of positions in {title.strip()!r}; dtmd reads alat, bohr, angstrom, crystal")
    rows, free = [], np.ones((head.n_atoms, 3), bool)
    for k in range(head.n_atoms):
        fields = lines.need("ATOMIC_POSITIONS").split()
        if len(fields) < 4 or fields[0] != head.labels[k]:
            raise lines.error(f"expected {head.labels[k]} with its position as atom {k + 1}, found "
                              f"{' '.join(fields)[:60]!r}")
        rows.append(_numbers(lines, fields[1:4], 3, "position of an atom"))
        if len(fields) >= 7:
            free[k] = [flag != "0" for flag in fields[4:7]]
    if not free.all() and head.fixed is None:
        head.fixed = ~free
    return np.array(rows) @ scale if unit and unit[1] == "crystal" else np.array(rows) * scale


def _frames(source: Source, head: _Head) -> Iterator[Frame]:
    positions = forces = energy = None
    step, ended = 0, False
    with closing(source.lines(source.main)) as lines:
        for line in lines:
            if line.startswith("!"):
                energy = lines.number_after(line, "total energy", f"MD step {step}") * RYDBERG
            elif "Forces acting on atoms" in line:
                forces = _forces(lines, head.n_atoms, f"forces of MD step {step}")
            elif "Entering Dynamics:" in line:
                entered = _count(lines, line, "iteration")
                if positions is None or forces is None or energy is None:
                    raise lines.error(f"MD step {entered} starts without positions, '!' total energy and forces "
                                      "before it; the SCF did not converge, or lines are missing; cut the file there")
                yield Frame(positions, head.cell, forces, energy, step=entered - 1)
                positions, forces, energy, step, ended = None, None, None, entered, False
            elif line.startswith("ATOMIC_POSITIONS"):
                positions = _positions(lines, line, head)
            elif _POSITIONS_IN_ALAT in line:
                labels, positions = _positions_in_alat(lines, head)
                if labels != head.labels:
                    raise lines.error("a continued run with other atoms; split the file there")
            elif "JOB DONE" in line:
                ended = True
        if positions is not None and forces is not None and energy is not None:
            yield Frame(positions, head.cell, forces, energy, step=step)
        if not ended:
            raise CutShort(f"{lines.path}: ends after line {lines.number} inside MD step {step}, without JOB DONE")


def _forces(lines: Lines, n_atoms: int, what: str) -> np.ndarray:
    """eV/Å, (N, 3)."""
    rows = []
    while len(rows) < n_atoms:
        line = lines.need(what)
        if line.strip() or rows:
            atom = re.match(r"\s*atom\s+(\d+)", line)
            if atom and int(atom[1]) != len(rows) + 1:
                raise lines.error(f"{what}: atom {atom[1]} where atom {len(rows) + 1} must come; copy the file again")
            rows.append(_numbers(lines, line.partition("force =")[2].split(), 3, what))
    return np.array(rows) * _FORCE


def _numbers(lines: Lines, fields: list[str], n_numbers: int, what: str) -> list[float]:
    try:
        numbers = [float(word) for word in fields]
    except ValueError:
        numbers = []
    if len(numbers) != n_numbers:
        raise lines.error(f"{what}: expected {n_numbers} numbers, found {' '.join(fields)[:60]!r}")
    return numbers


def _count(lines: Lines, line: str, key: str) -> int:
    number = lines.number_after(line, key, "head or step of pw.x")
    if not (number.is_integer() and 0 < number < 1e12):
        raise lines.error(f"{key} is {number:g}, expected a positive whole number")
    return int(number)


FORMAT = Format("Quantum ESPRESSO pw.x", _find, _read)
