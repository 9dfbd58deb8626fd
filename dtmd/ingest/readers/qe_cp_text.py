"""Input and output of cp.x: elements, masses, cell and time step, which its trajectory files lack."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Lines
from dtmd.units import ATOMIC_TIME, BOHR, ELECTRON_MASS

_ENTRY = re.compile(r"([A-Za-z]\w*(?:\(\s*\d+\s*\))?)\s*=\s*('[^']*'|\"[^\"]*\"|[^\s,]+)")
_CARD = re.compile(r"([A-Za-z_]{6,})\s*[({]?\s*(\w*)")
_SETTINGS = {"ecutwfc": "cutoff (Ry)", "input_dft": "functional", "ion_temperature": "thermostat",
             "electron_dynamics": "electron dynamics", "emass": "emass (a.u.)"}


@dataclass
class CpText:
    """What the text files of a run say.

    Attributes:
        species: mass in u by label, in the order of ATOMIC_SPECIES; None where only the label is known.
        input_labels: of the atoms, in the order of the input.
        printed_step, printed_labels, printed_positions: first positions in the output, in bohr.
        counted_masses: number of atoms and mass in u of each species in the output.
        cell: Å, (3, 3).
        cell_moves: the run is one with variable cell.
        timestep: fs.
        fixed: (N, 3), bool, in the order of the input.
        car_parrinello: the electrons move by Newton's equations, too.
    """

    version: str = ""
    species: dict[str, float | None] = field(default_factory=dict)
    input_labels: list[str] = field(default_factory=list)
    printed_step: int | None = None
    printed_labels: list[str] = field(default_factory=list)
    printed_positions: np.ndarray | None = None
    counted_masses: list[tuple[int, float]] = field(default_factory=list)
    cell: np.ndarray | None = None
    cell_moves: bool = False
    timestep: float | None = None
    fixed: np.ndarray | None = None
    settings: dict[str, str | float] = field(default_factory=dict)
    car_parrinello: bool = False

    def sorted_by_species(self, labels: list[str]) -> bool:
        """Whether the atoms come in the order of ATOMIC_SPECIES, which all versions keep."""
        in_order = [label for k, label in enumerate(labels) if k == 0 or label != labels[k - 1]]
        return in_order == [label for label in self.species if label in in_order]

    def masses(self, labels: list[str], numbers: np.ndarray) -> np.ndarray | None:
        """u, (N,), by label from the input, else from the output, which counts its species without naming them."""
        by_label: dict[str, float] = {}
        for label, number in zip(labels, numbers, strict=True):
            if label not in by_label:
                counted = [mass for n_atoms, mass in self.counted_masses if n_atoms == labels.count(label)]
                given = self.species.get(label)
                if given is None and not counted:
                    return None
                usual = atomic_masses[number]
                by_label[label] = given if given is not None else min(counted, key=lambda m: abs(m - usual))
        return np.array([by_label[label] for label in labels])


def element(label: str, path: Path) -> int:
    """Atomic number of a species such as "Fe1".

    Raises:
        DtmdError: it is not named after an element.
    """
    name = re.match(r"[A-Z]?[a-z]?", label)[0]
    number = atomic_numbers.get(name) or atomic_numbers.get(name[:1])
    if not number:
        raise DtmdError(f"{path}: species {label!r} is no element; name it after one in ATOMIC_SPECIES")
    return number


def read_input(lines: Lines, text: CpText) -> None:
    """Add what the input of cp.x says.

    Raises:
        DtmdError: a number cannot be read.
    """
    entries: dict[str, str] = {}
    cards: dict[str, tuple[str, list[list[str]]]] = {}
    card = ""
    in_namelist = False
    for raw in lines:
        line = raw.partition("!")[0].partition("#")[0].strip()
        if line.startswith("&"):
            in_namelist = True
        elif line == "/":
            in_namelist = False
        elif in_namelist:
            entries.update({key.lower().replace(" ", ""): value.strip("'\" ") for key, value in _ENTRY.findall(line)})
        elif match := _CARD.match(line):
            card = match[1].upper()
            cards[card] = match[2].lower(), []
        elif line and card:
            cards[card][1].append(line.split())
    _use_entries(lines, entries, text)
    for fields in cards.get("ATOMIC_SPECIES", ("", []))[1]:
        text.species[fields[0]] = _number(lines, fields[1] if len(fields) > 1 else "", "mass in ATOMIC_SPECIES")
    atoms = cards.get("ATOMIC_POSITIONS", ("", []))[1]
    text.input_labels = [fields[0] for fields in atoms]
    fixed = np.array([[flag == "0" for flag in fields[4:7]] if len(fields) >= 7 else [False] * 3 for fields in atoms])
    text.fixed = fixed if fixed.any() else None
    text.cell = _cell(lines, entries, cards.get("CELL_PARAMETERS"))


def read_output(lines: Lines, text: CpText) -> None:
    """Add what the output of cp.x says, up to the first positions; what the input said stays.

    Raises:
        DtmdError: a number cannot be read.
    """
    step, cell, masses = None, [], []
    for line in lines:
        fields = line.split()
        if "Program CP" in line:
            text.version = line.partition("v.")[2].split(" ")[0]
        elif "MD Simulation time step" in line and text.timestep is None:
            text.timestep = lines.number_after(line, "step", "time step") * ATOMIC_TIME
        elif "fictitious mass (emass)" in line and "emass (a.u.)" not in text.settings:
            text.settings["emass (a.u.)"] = lines.number_after(line, "(emass)", "emass")
        elif "Electron dynamics with newton" in line or re.search("(?i)rule.* electron_dynamics +verlet", line):
            text.car_parrinello = True
        elif re.match(r"\s*a[123]\s+=", line) and len(cell) < 3:
            cell.append([_number(lines, word, "cell vector") for word in fields[2:5]])
        elif match := re.match(r"\s*Species\s+\d+ atoms =\s*(\d+) mass =\s*(\S+)\s+\(a\.u\.\)", line):
            masses.append((int(match[1]), _number(lines, match[2], "mass") * ELECTRON_MASS))
        elif "Physical Quantities at step" in line:
            step = int(fields[-1]) if fields[-1].isdigit() else None
        elif line.strip() == "ATOMIC_POSITIONS":
            _read_positions(lines, step, text)
            break
    text.counted_masses = masses
    if text.cell is None and [len(row) for row in cell] == [3, 3, 3]:
        text.cell = np.array(cell) * BOHR


def _read_positions(lines: Lines, step: int | None, text: CpText) -> None:
    labels, rows = [], []
    for line in lines:
        fields = line.split()
        if len(fields) != 4:
            break
        labels.append(fields[0])
        rows.append([_number(lines, word, "position") for word in fields[1:]])
    text.printed_step, text.printed_labels, text.printed_positions = step, labels, np.array(rows)
    for label in labels:
        text.species.setdefault(label, None)


def _use_entries(lines: Lines, entries: dict[str, str], text: CpText) -> None:
    if "dt" in entries:
        text.timestep = _number(lines, entries["dt"], "dt") * ATOMIC_TIME
    text.cell_moves = entries.get("calculation", "").startswith("vc")
    text.settings.update({name: entries[key] for key, name in _SETTINGS.items() if key in entries})
    text.car_parrinello = entries.get("electron_dynamics") == "verlet"


def _cell(lines: Lines, entries: dict[str, str], card: tuple[str, list[list[str]]] | None) -> np.ndarray | None:
    """Å, (3, 3); None for the kinds of lattice that cp.x writes out better itself."""
    celldm = [_number(lines, entries.get(f"celldm({k})", "0"), "celldm") for k in (1, 2, 3)]
    a, b, c = (_number(lines, entries.get(key, "0"), key) for key in "abc")
    alat = celldm[0] * BOHR or a
    kind = entries.get("ibrav", "")
    if kind == "1":
        return alat * np.eye(3)
    if kind == "8":
        return np.diag([alat, celldm[1] * alat or b, celldm[2] * alat or c])
    if kind != "0" or card is None or len(card[1]) < 3:
        return None
    rows = np.array([[_number(lines, word, "CELL_PARAMETERS") for word in fields[:3]] for fields in card[1][:3]])
    return rows * {"angstrom": 1.0, "bohr": BOHR}.get(card[0], alat or BOHR)


def _number(lines: Lines, word: str, what: str) -> float:
    try:
        return float(word.lower().replace("d", "e"))
    except ValueError:
        raise lines.error(f"{what}: expected a number in this file, found {word!r}") from None
