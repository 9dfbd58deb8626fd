"""Reader of FHI-aims's text output of molecular dynamics.

A step's forces come before its positions and velocities, which are written once the step is over ("as used in the
preceding time step"). The forces are those of the electronic free energy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import FS_PER_PS

_TIME_STEP = "Molecular dynamics time step"
_STEP = re.compile(r"^ *\| Time step number *: *(\d{1,15}) *$")
_STRUCTURE = re.compile(r"^ *(Final a|A)tomic structure.* as used in the preceding time step")
_SPECIES = re.compile(r"^ *Reading configuration options for species (\S+)")
_SITE = re.compile(r"^ *\| *\d+: Species (\S+)(.*)")
_FIXED = re.compile(r"Found relaxation constraint for atom *(\d+): (\w+) coordinates? fixed")
_SETTINGS = {
    "XC": re.compile(r"^ *XC: *(.*)"),
    "k grid": re.compile(r"^ *Found k-point grid: *(.*)"),
    "MD": re.compile(r"^ *Running Born-Oppenheimer *molecular dynamics in *(.*)"),
}
_VERSION = re.compile(r"^ *(?:FHI-aims version *:|Version) *(\S+)")


@dataclass
class _Preamble:
    """What comes before the first self-consistency loop.

    Attributes:
        charges, masses: nuclear charge and mass, u, of each species.
        sites: species of each atom.
        cell: Å, (3, 3), zeros for a cluster.
        fixed: atom and its fixed direction, "All", "x", "y" or "z".
    """

    charges: dict[str, float] = field(default_factory=dict)
    masses: dict[str, float] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    fixed: list[tuple[int, str]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    timestep: float | None = None
    version: str = ""


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates if "Invoking FHI-aims" in c.head and _runs_md(c)]


def _runs_md(candidate: Candidate) -> bool:
    """Whether control.in asks for MD, which may come after long basis sets; a damaged file is left to `_read`."""
    try:
        for line in Lines(candidate.path):
            if _TIME_STEP in line:
                return True
            if "Reading geometry description" in line:
                return False
    except DtmdError:
        return True
    return False


def _read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    head = _preamble(lines)
    unknown = [name for name in head.sites if not 0.5 < head.charges.get(name, 0.0) < 118.5]
    if unknown:
        raise DtmdError(f"{source.main}: no nuclear charge of species {unknown[0]!r} (\"Found nuclear charge\"); "
                        "give the whole output file of a run without ghost atoms")
    masses = [head.masses.get(name) for name in head.sites]
    return RawRun(
        code="FHI-aims", version=head.version, numbers=np.array([round(head.charges[name]) for name in head.sites]),
        masses=None if None in masses else np.array(masses), pbc=np.full(3, head.cell.any()),
        frames=_frames(lines, head), timestep=head.timestep, timestep_from="MD_time_step",
        fixed=_fixed(head, lines), settings=head.settings,
    )


def _preamble(lines: Lines) -> _Preamble:
    head, species = _Preamble(), ""
    for line in lines:
        if "Begin self-consistency loop" in line:
            break
        if found := _SPECIES.match(line):
            species = found[1]
        elif "| Found nuclear charge" in line:
            head.charges[species] = lines.number_after(line, ":", f"charge of {species}")
        elif "| Found atomic mass" in line:
            head.masses[species] = lines.number_after(line, ":", f"mass of {species}")
        elif _TIME_STEP in line:
            head.timestep = lines.number_after(line, "=", "time step") * FS_PER_PS
        elif line.strip() == "| Unit cell:":
            head.cell = lines.table(3, (1, 2, 3), "the unit cell")
        elif found := _SITE.match(line):
            head.sites.append(found[1])
        elif found := _FIXED.search(line):
            head.fixed.append((int(found[1]), found[2]))
        elif not head.version and (found := _VERSION.match(line)):
            head.version = found[1]
        else:
            head.settings.update({name: found[1].strip() for name, pattern in _SETTINGS.items()
                                  if (found := pattern.match(line))})
    if not head.sites:
        raise DtmdError(f"{lines.path}: no atoms under \"Input geometry\" up to line {lines.number}; the run ended "
                        "before its first step, or this is not the whole output")
    return head


def _fixed(head: _Preamble, lines: Lines) -> np.ndarray | None:
    if not head.fixed:
        return None
    fixed = np.zeros((len(head.sites), 3), dtype=bool)
    for atom, direction in head.fixed:
        if not 1 <= atom <= len(fixed) or direction not in ("All", "x", "y", "z"):
            raise DtmdError(f"{lines.path}: constraint \"atom {atom}: {direction} coordinates fixed\" for "
                            f"{len(fixed)} atoms; give the output of one run")
        fixed[atom - 1, slice(None) if direction == "All" else "xyz".index(direction)] = True
    return fixed


def _frames(lines: Lines, head: _Preamble) -> Iterator[Frame]:
    forces, step, energy, begun = None, None, None, True
    for line in lines:
        if "Begin self-consistency loop" in line:
            begun = True
        elif "Total atomic forces" in line:
            forces = np.array([lines.vector(lines.need("the forces").rpartition("|")[2].split()[1:4], "forces")
                               for _ in head.sites])
        elif found := _STEP.match(line):
            step = int(found[1])
        elif "| Electronic free energy  " in line and step is not None:
            energy = lines.number_after(line, ":", "free energy")
        elif _STRUCTURE.match(line):
            if step is None or forces is None:
                missing = "time step number" if step is None else "atomic forces"
                raise lines.error(f"no {missing} before the positions of this step; the file is damaged above this")
            positions, velocities, cell = _structure(lines, head)
            yield Frame(positions, cell, forces, energy, velocities, step)
            forces, step, energy, begun = None, None, None, False
    if begun:
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside a time step")


def _structure(lines: Lines, head: _Preamble) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Positions, velocities (Å/fs) and cell, up to the rule that closes the block."""
    rows: dict[str, list[np.ndarray]] = {"atom": [], "velocity": [], "lattice_vector": []}
    sites = []
    while not (line := lines.need("the atomic structure")).startswith("-----"):
        word, *fields = line.split() or [""]
        if word in rows:
            rows[word].append(lines.vector(fields[:3], word))
        if word == "atom":
            sites.append(fields[-1])
    if sites != head.sites:
        raise lines.error(f"{len(sites)} atoms {' '.join(sites)[:40]}, not the {len(head.sites)} atoms "
                          f"{' '.join(head.sites)[:40]} of the input geometry; give the output of one run")
    if len(rows["velocity"]) not in (0, len(sites)) or len(rows["lattice_vector"]) not in (0, 3):
        raise lines.error(f"{len(rows['velocity'])} velocities and {len(rows['lattice_vector'])} lattice vectors for "
                          f"{len(sites)} atoms; lines are missing in this step")
    return (np.array(rows["atom"]), np.array(rows["velocity"]) / FS_PER_PS if rows["velocity"] else None,
            np.array(rows["lattice_vector"]) if rows["lattice_vector"] else head.cell)


FORMAT = Format("FHI-aims output", _find, _read)
"""Format of FHI-aims's main output file."""
