"""CP2K's input: time step, cell, kinds, units and what else its trajectory files do not say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from dtmd.errors import DtmdError
from dtmd.ingest.readers.cp2k_sections import Section, parse
from dtmd.ingest.source import Lines
from dtmd.units import ATOMIC_TIME, BOHR, FS_PER_PS, HARTREE, RYDBERG

_UNITS = {
    "angstrom": 1.0, "bohr": BOHR, "au_l": BOHR, "nm": 10.0, "pm": 0.01, "fs": 1.0, "ps": FS_PER_PS,
    "au_t": ATOMIC_TIME, "hartree": HARTREE, "au_e": HARTREE, "ry": RYDBERG, "ev": 1.0, "k": 1.0, "deg": 1.0,
}
DEFAULT_UNITS = {"TRAJECTORY": "angstrom", "VELOCITIES": "bohr*au_t^-1", "FORCES": "hartree*bohr^-1"}


@dataclass(frozen=True)
class Kind:
    """`&KIND`: element, empty where it is that of the name, and mass in u, None for the standard one."""

    element: str
    mass: float | None


@dataclass
class Input:
    """What the input says of a run.

    Attributes:
        timestep: fs.
        cell: rows are the cell vectors, Å.
        pbc: periodic directions.
        units: of positions, velocities and forces (the names of the print sections), in dtmd's.
        kinds: by name in capitals.
        prints_kinds: the trajectory names the kinds, not the elements.
        atom_kinds: of the atoms, where the coordinates are in the input.
        fixed: first and last of a range of atoms, from 1, and their components such as "XYZ".
        ensemble: in capitals.
        plumed: name of PLUMED's input; None where it is off.
    """

    timestep: float | None = None
    cell: tuple[tuple[float, ...], ...] | None = None
    pbc: tuple[bool, bool, bool] = (True, True, True)
    units: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    prints_kinds: bool = False
    atom_kinds: list[str] = field(default_factory=list, compare=False)
    fixed: list[tuple[int, int, str]] = field(default_factory=list)
    ensemble: str = ""
    plumed: str | None = field(default=None, compare=False)
    settings: dict[str, str | float] = field(default_factory=dict, compare=False)
    notes: list[str] = field(default_factory=list, compare=False)


def read_input(path: Path, open_lines: Callable[[Path], Lines]) -> Input:
    """What a CP2K input says.

    Raises:
        DtmdError: a value or construct that cannot be read.
    """
    root = parse(path, open_lines)
    given = Input(ensemble=(root.get("MOTION", "MD", "ENSEMBLE") or "").upper())
    timestep = root.get("MOTION", "MD", "TIMESTEP")
    if timestep:
        given.timestep = _quantity(path, timestep, "fs", "TIMESTEP")[0]
    for name, default in DEFAULT_UNITS.items():
        given.units[name] = unit(path, root.get("MOTION", "PRINT", name, "UNIT") or default, name)
    given.prints_kinds = root.on("MOTION", "PRINT", "TRAJECTORY", "PRINT_ATOM_KIND")
    for subsys in root.all("FORCE_EVAL", "SUBSYS")[:1]:
        given.cell, given.pbc = _cell(path, subsys)
        _read_kinds(path, subsys, given)
    _read_constraints(path, root, given)
    _read_settings(root, given)
    return given


def unit(path: Path, text: str, what: str) -> float:
    """A product of units such as "bohr*au_t^-1" in dtmd's."""
    factor = 1.0
    for part in text.strip("[] ").lower().split("*"):
        name, _, power = part.partition("^")
        if name not in _UNITS or not re.fullmatch(r"[-+]?\d{1,2}|", power):
            raise DtmdError(f"{path}: unit {text!r} of {what} is not known to dtmd; it knows {', '.join(_UNITS)}")
        factor *= _UNITS[name] ** int(power or 1)
    return factor


def _quantity(path: Path, text: str, usual: str, what: str) -> list[float]:
    """The numbers of a keyword in dtmd's units; in `usual` units where the text names none."""
    match = re.match(r"\s*(?:\[([^]]*)\])?(.*)", text)
    try:
        numbers = [float(word.lower().replace("d", "e")) for word in match[2].split()]
    except ValueError:
        numbers = []
    if not numbers:
        raise DtmdError(f"{path}: {what}: expected numbers, found {text[:60]!r}")
    factor = unit(path, match[1] or usual, what)
    return [number * factor for number in numbers]


def _cell(path: Path, subsys: Section) -> tuple[tuple[tuple[float, ...], ...] | None, tuple[bool, bool, bool]]:
    periodic = (subsys.get("CELL", "PERIODIC") or "XYZ").upper()
    pbc = tuple(axis in periodic.replace("NONE", "") for axis in "XYZ")
    vectors = [subsys.get("CELL", axis) for axis in "ABC"]
    lengths = subsys.get("CELL", "ABC")
    if None not in vectors:
        rows = [_quantity(path, vector, "angstrom", "&CELL") for vector in vectors]
    elif lengths is not None:
        angles = subsys.get("CELL", "ALPHA_BETA_GAMMA") or "90 90 90"
        rows = [_quantity(path, lengths, "angstrom", "ABC"), _quantity(path, angles, "deg", "ALPHA_BETA_GAMMA")]
    else:
        return None, pbc
    repeats = _quantity(path, subsys.get("CELL", "MULTIPLE_UNIT_CELL") or "1 1 1", "k", "MULTIPLE_UNIT_CELL")
    try:
        cell = np.array(rows) if len(rows) == 3 else cellpar_to_cell(np.reshape(rows, 6))
        cell = cell.reshape(3, 3) * np.reshape(repeats, (3, 1))
    except (ValueError, AssertionError):
        raise DtmdError(f"{path}: &CELL: expected three numbers each in A, B, C or in ABC and ALPHA_BETA_GAMMA, "
                        f"found {rows}") from None
    return tuple(map(tuple, cell.tolist())), pbc


def _read_kinds(path: Path, subsys: Section, given: Input) -> None:
    basis = []
    for section in subsys.all("KIND"):
        mass = section.get("MASS") or section.get("ATOMIC_MASS") or section.get("WEIGHT")
        given.kinds[section.parameter.upper()] = Kind(
            (section.get("ELEMENT") or section.get("ELEMENT_SYMBOL") or "").capitalize(),
            None if mass is None else _quantity(path, mass.replace("[amu]", ""), "k", "MASS")[0],
        )
        basis.append(f"{section.parameter} {section.get('BASIS_SET') or ''}".strip())
    if basis:
        given.settings["basis"] = ", ".join(basis)
    given.atom_kinds = [kind for section in subsys.all("COORD") for kind, _ in section.keywords
                        if kind not in ("UNIT", "SCALED")]


def _read_constraints(path: Path, root: Section, given: Input) -> None:
    for section in root.all("MOTION", "CONSTRAINT"):
        others = sorted({inner.name for inner in section.sections} - {"FIXED_ATOMS", "CONSTRAINT_INFO"})
        if others:
            given.notes.append(f"constraints {', '.join(others)}: the atoms do not follow from the forces alone")
    for section in root.all("MOTION", "CONSTRAINT", "FIXED_ATOMS"):
        components = (section.get("COMPONENTS_TO_FIX") or "XYZ").upper()
        lists = [value for key, value in section.keywords if key == "LIST"]
        if not lists:
            given.notes.append("FIXED_ATOMS without a LIST: dtmd does not know which atoms are fixed")
        for word in " ".join(lists).split():
            match = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", word)
            if match is None:
                raise DtmdError(f"{path}: FIXED_ATOMS: expected atoms such as 1..8, found {word!r}")
            given.fixed.append((int(match[1]), int(match[2] or match[1]), components))


def _read_settings(root: Section, given: Input) -> None:
    method = root.get("FORCE_EVAL", "METHOD") or "QUICKSTEP"
    functionals = root.all("FORCE_EVAL", "DFT", "XC", "XC_FUNCTIONAL")
    names = [name for section in functionals
             for name in [section.parameter, *(inner.name for inner in section.sections)] if name]
    pair = root.get("FORCE_EVAL", "DFT", "XC", "VDW_POTENTIAL", "PAIR_POTENTIAL", "TYPE")
    thermostats = root.all("MOTION", "MD", "THERMOSTAT")
    values = {
        "method": method.upper(), "functional": " ".join(names), "dispersion": pair,
        "cutoff (Ry)": root.get("FORCE_EVAL", "DFT", "MGRID", "CUTOFF"), "ensemble": given.ensemble,
        "thermostat": (thermostats[0].get("TYPE") or "NOSE").upper() if thermostats else None,
        "temperature (K)": root.get("MOTION", "MD", "TEMPERATURE"),
    }
    given.settings = {**{key: value for key, value in values.items() if value}, **given.settings}
    biased = root.all("MOTION", "FREE_ENERGY", "METADYN")
    if biased and biased[0].on("USE_PLUMED"):
        given.plumed = (biased[0].get("PLUMED_INPUT_FILE") or "plumed.dat").strip("'\"")
    elif biased and biased[0].all("METAVAR"):
        given.settings["bias"] = "metadynamics"
        given.notes.append("metadynamics: the forces hold its bias, the energies may not")
