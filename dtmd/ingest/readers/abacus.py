"""Reader of ABACUS's MD_dump, with the energies of running_md.log, the time step of INPUT and the masses of STRU.

MD_dump lies in OUT.<suffix>, INPUT and STRU in the folder above. Up to version 3.1.3 MD_dump has the lattice constant
in bohr and positions in units of it; later versions name Angstrom and write positions in it. The log of old versions
puts the step number after the energy, and only for dumped steps; later ones put it before, for all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source, candidate
from dtmd.units import BOHR

_STEP = re.compile(r"MDSTEP: *(\d{1,15}) *$")
_COLUMN = re.compile(r"(POSITION|FORCE|VELOCITY)S?(?: *\(([^)]*)\))?")
_UNITS = {"POSITION": ("Angstrom", None), "FORCE": ("eV/Angstrom",), "VELOCITY": ("Angstrom/fs",)}
_LOG_STEP = re.compile(r"STEP OF MOLECULAR DYNAMICS *: *(\d{1,15})")
_LOG_ENERGY = ("final etot is", "#TOTAL ENERGY#")
_VERSION = re.compile(r"ABACUS (v[\w.-]+)")
_KEPT = ("esolver_type", "basis_type", "dft_functional", "ecutwfc", "smearing_method", "smearing_sigma", "md_type",
         "md_thermostat", "md_tfirst", "md_tlast", "md_dumpfreq")
_MODELS = ("dp", "lj", "nep")
"""Values of esolver_type that are no electronic structure."""
_DEFAULT_TIME_STEP = 1.0


def _find(candidates: list[Candidate]) -> list[Source]:
    dumps = [c for c in candidates if c.head.startswith("MDSTEP:") and "LATTICE_CONSTANT" in c.head]
    logs = [c for c in candidates if c.name.startswith("running_md") and "ABACUS" in c.head]
    if not dumps:
        return [Source(log.path) for log in logs]
    around = candidates + _above(dumps[0].path.parent)
    companions = {
        "log": next((c.path for c in logs), None),
        "INPUT": next((c.path for c in around if c.head.lstrip().startswith("INPUT_PARAMETERS")), None),
        "STRU": next((c.path for c in around if "ATOMIC_SPECIES" in c.head and "ATOMIC_POSITIONS" in c.head), None),
    }
    return [Source(dump.path, {role: path for role, path in companions.items() if path}) for dump in dumps]


def _above(folder: Path) -> list[Candidate]:
    """INPUT and STRU of the folder that ABACUS ran in, if `folder` is its OUT.<suffix>."""
    folder = folder if folder.name else folder.resolve()
    if not folder.name.startswith("OUT."):
        return []
    inputs = candidate(folder.parent / "INPUT")
    settings = _settings(inputs.head.splitlines())
    if settings.get("suffix", "ABACUS") != folder.name.removeprefix("OUT."):
        return []
    return [inputs, candidate(folder.parent / settings.get("stru_file", "STRU"))]


def _read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    first = lines.need("the first step")
    if not first.startswith("MDSTEP:"):
        raise DtmdError(f"{source.main}: ABACUS writes the positions of an MD run only to MD_dump, which is not in "
                        "this folder; put MD_dump (from OUT.<suffix>) beside this log")
    dump = _read_step(lines, first, labels=None)
    settings = _settings(source.lines(source.companions["INPUT"])) if "INPUT" in source.companions else {}
    ab_initio = settings.get("esolver_type", "ksdft").lower() not in _MODELS
    notes = [] if ab_initio else [f"esolver_type {settings['esolver_type']} is no ab initio method"]
    log = source.companions.get("log")
    return RawRun(
        code="ABACUS", version=_version(log), numbers=_numbers(lines, dump.labels),
        masses=_masses(source, dump.labels), pbc=np.ones(3, dtype=bool),
        frames=_frames(lines, dump, log and source.lines(log), ab_initio, notes),
        timestep=_time_step(source, settings) if "INPUT" in source.companions else None,
        timestep_from="md_dt" if "md_dt" in settings else "md_dt, which INPUT leaves at its default",
        settings={key: settings[key] for key in _KEPT if key in settings}, notes=notes,
    )


@dataclass
class _Step:
    """One block of MD_dump."""

    number: int
    labels: list[str]
    cell: np.ndarray
    columns: dict[str, np.ndarray]


def _frames(lines: Lines, first: _Step, log: Lines | None, ab_initio: bool, notes: list[str]) -> Iterator[Frame]:
    energies = _energies(log) if log else iter(())
    latest = next(energies, None)
    if log and latest is None:
        notes.append(f"{log.path.name} has no energies of MD steps")
    for step in _steps(lines, first):
        energy = None
        if latest is not None:
            latest = next((following for following in itertools.chain([latest], energies)
                           if following[0] >= step.number), None)
            energy = _energy(log, step.number, latest)
        yield Frame(step.columns["POSITION"], step.cell, step.columns.get("FORCE"), energy,
                    step.columns.get("VELOCITY"), step.number, ab_initio=ab_initio)


def _energy(log: Lines, step: int, found: tuple[int, float | None] | None) -> float:
    if found is None:
        raise CutShort(f"{log.path}: ends before the energy of MD step {step}")
    if found[0] > step or found[1] is None:
        problem = "no energy" if found[0] > step else "no self-consistent energy"
        raise log.error(f"{problem} of MD step {step}, which is in MD_dump; leave only steps with an energy there")
    return found[1]


def _steps(lines: Lines, first: _Step) -> Iterator[_Step]:
    yield first
    for line in lines:
        if line.strip():
            yield _read_step(lines, line, first.labels)
    if lines.cut:
        raise CutShort(f"{lines.path}: ends inside line {lines.number + 1}")


def _read_step(lines: Lines, line: str, labels: list[str] | None) -> _Step:
    found = _STEP.match(line)
    if not found:
        raise lines.error(f"expected 'MDSTEP: <number>', found {line.strip()[:60]!r}; the file is damaged here, or "
                          "holds another number of atoms than before")
    number, what = int(found[1]), f"MD step {found[1]}"
    constant_line = lines.need(what)
    constant = lines.number_after(constant_line, "LATTICE_CONSTANT:", what)
    in_angstrom = "Angstrom" in constant_line
    constant *= 1.0 if in_angstrom else BOHR
    if lines.need(what).strip() != "LATTICE_VECTORS":
        raise lines.error(f"{what}: no LATTICE_VECTORS where they belong; the file is damaged here")
    cell = constant * lines.table(3, (0, 1, 2), what)
    line = lines.need(what)
    if line.startswith("VIRIAL"):
        lines.table(3, (0, 1, 2), what)
        line = lines.need(what)
    names = _columns(lines, line)
    found_labels, table = _atoms(lines, len(labels) if labels else None, 3 * len(names), what)
    if labels is not None and found_labels != labels:
        raise lines.error(f"{what}: atoms {' '.join(found_labels)[:40]} are not those of the first step; give the "
                          "file of one run")
    columns = {name: table[:, 3 * k:3 * k + 3] for k, name in enumerate(names)}
    columns["POSITION"] = columns["POSITION"] * (1.0 if in_angstrom else constant)
    return _Step(number, found_labels, cell, columns)


def _columns(lines: Lines, title: str) -> list[str]:
    found = _COLUMN.findall(title)
    for name, unit in found:
        if (unit or None) not in _UNITS[name]:
            raise lines.error(f"{name} in {unit or 'no unit'}, expected {_UNITS[name][0]}; dtmd does not know this "
                              "version of MD_dump")
    if not title.startswith("INDEX") or "POSITION" not in [name for name, _ in found]:
        raise lines.error(f"expected the titles 'INDEX LABEL POSITION …', found {title.strip()[:60]!r}; the file is "
                          "damaged here")
    return [name for name, _ in found]


def _atoms(lines: Lines, n_atoms: int | None, n_columns: int, what: str) -> tuple[list[str], np.ndarray]:
    """Labels and numbers of the rows; without `n_atoms` up to the blank line that ends the block."""
    labels, rows = [], []
    while n_atoms is None or len(rows) < n_atoms:
        fields = lines.need(what).split()
        if not fields and n_atoms is None and rows:
            break
        try:
            rows.append([float(field) for field in fields[2:]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != n_columns:
            raise lines.error(f"{what}: expected index, label and {n_columns} numbers, found "
                              f"{' '.join(fields)[:60]!r}")
        labels.append(fields[1])
    return labels, np.array(rows)


def _energies(log: Lines) -> Iterator[tuple[int, float | None]]:
    """Step numbers with their energies, eV, None where the self-consistency was not reached."""
    step, energy, done = None, None, False
    for line in log:
        if found := _LOG_STEP.search(line):
            step = int(found[1])
        elif key := next((key for key in _LOG_ENERGY if key in line), None):
            energy, done = log.number_after(line, key, "total energy"), True
        elif "convergence has not been achieved" in line.lower():
            energy, done = None, True
        if step is not None and done:
            yield step, energy
            step, energy, done = None, None, False


def _settings(lines: Lines | list[str]) -> dict[str, str]:
    """Keys and values of INPUT."""
    rows = (re.split(r"#|//", line)[0].split() for line in lines)
    return {row[0].lower(): row[1] for row in rows if len(row) > 1}


def _time_step(source: Source, settings: dict[str, str]) -> float:
    try:
        return float(settings.get("md_dt", _DEFAULT_TIME_STEP))
    except ValueError:
        raise DtmdError(f"{source.companions['INPUT']}: md_dt is {settings['md_dt']!r}, not a number of fs") from None


def _version(log: Path | None) -> str:
    found = log and _VERSION.search(candidate(log).head)
    return found[1] if found else ""


def _numbers(lines: Lines, labels: list[str]) -> np.ndarray:
    """Labels are chemical symbols, with a number or more after them where a species comes in several kinds."""
    symbols = {label: re.match(r"[A-Z]?[a-z]?", label)[0] for label in labels}
    wrong = [label for label, symbol in symbols.items() if symbol not in atomic_numbers or not symbol]
    if wrong:
        raise lines.error(f"label {wrong[0]!r} does not start with a chemical symbol; name the species so in STRU")
    return np.array([atomic_numbers[symbols[label]] for label in labels])


def _masses(source: Source, labels: list[str]) -> np.ndarray | None:
    if "STRU" not in source.companions:
        return None
    lines = source.lines(source.companions["STRU"])
    masses: dict[str, float] = {}
    inside = False
    for line in lines:
        fields = line.partition("//")[0].split()
        if len(fields) == 1 and fields[0].isupper() and "_" in fields[0]:
            inside = fields[0] == "ATOMIC_SPECIES"
        elif inside and len(fields) > 1:
            masses[fields[0]] = lines.number_after(line, fields[0], "mass in ATOMIC_SPECIES")
    return np.array([masses[label] for label in labels]) if masses.keys() >= set(labels) else None


FORMAT = Format("ABACUS MD_dump", _find, _read)
"""Format of ABACUS's MD_dump and running_md.log."""
