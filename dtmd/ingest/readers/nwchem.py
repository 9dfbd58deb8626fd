"""NWChem outputs of QMD. They hold gradients, not forces, and no velocities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
from ase.data import atomic_masses

from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import ATOMIC_TIME, BOHR, HARTREE

_GRADIENT = re.compile(r"\s*(\S+) ENERGY GRADIENTS\s*$")
_ENERGY = {"DFT": "Total DFT energy =", "RHF": "Total SCF energy =", "UHF": "Total SCF energy =",
           "ROHF": "Total SCF energy ="}
_STEP = re.compile(r"\s*Pot\. energy \(a\.u\.\):\s+(\d{1,9})\s+(\S+)\s*$")


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(candidate.path) for candidate in candidates
            if "(NWChem)" in candidate.head and re.search(r"\bqmd\b", candidate.head, re.I)]


def _read(source: Source) -> RawRun:
    tags: list[str] = []
    numbers: list[int] = []
    masses: dict[str, float] = {}
    version, timestep, settings = "", None, {}
    with closing(source.lines(source.main)) as lines:
        for line in lines:
            fields = line.split()
            if "(NWChem)" in line and not version:
                version = fields[-1]
            elif fields[:3] == ["No.", "Tag", "Charge"]:
                lines.need("geometry")
                tags, numbers = _geometry(lines)
            elif line.strip() == "Atomic Mass":
                lines.need("masses")
                lines.need("masses")
                masses = _masses(lines)
            elif "Nuclear time step:" in line:
                timestep = lines.number_after(line, "Nuclear time step:", "time step") * ATOMIC_TIME
            elif line.strip().startswith(("Thermostat:", "Target temp. (K):", "Nuclear integrator:")):
                name, _, value = line.strip().partition(":")
                settings[name] = value.strip()
            elif timestep is not None and _GRADIENT.match(line):
                break
        if not tags or timestep is None:
            raise lines.error("no geometry or no 'QMD Run Parameters' above; give the output of a `task … qmd` that "
                              "has done at least one step")
    known = [masses.get(tag) for tag in tags]
    return RawRun(
        code="NWChem", version=version, numbers=np.array(numbers), masses=None if None in known else np.array(known),
        pbc=np.zeros(3, bool), timestep=timestep, timestep_from="Nuclear time step", precision=1e-6 * BOHR,
        frames=_frames(source, tags), settings=settings,
    )


def _geometry(lines: Lines) -> tuple[list[str], list[int]]:
    tags, numbers = [], []
    while (line := lines.need("geometry")).strip():
        fields = line.split()
        try:
            charge = float(fields[2])
            if charge not in range(1, len(atomic_masses)):
                raise ValueError
        except (ValueError, IndexError):
            raise lines.error(f"expected number, tag and nuclear charge of an atom, found {line.strip()[:60]!r}"
                              ) from None
        tags.append(fields[1])
        numbers.append(int(charge))
    return tags, numbers


def _masses(lines: Lines) -> dict[str, float]:
    masses = {}
    while (line := lines.need("masses")).strip():
        try:
            tag, mass = line.split()
            masses[tag] = float(mass)
        except ValueError:
            raise lines.error(f"expected the mass of an element, found {line.strip()[:60]!r}") from None
    return masses


def _frames(source: Source, tags: list[str]) -> Iterator[Frame]:
    """The frames; a gradient gets its step number from the table after it, the first one from that of the second."""
    energies: dict[str, float] = {}
    waiting: list[Frame] = []
    with closing(source.lines(source.main)) as lines:
        for line in lines:
            name = next((name for name in _ENERGY.values() if name in line), None)
            if name:
                energies[name] = lines.number_after(line, name, "energy") * HARTREE
            elif "NWChem QMD Module" in line:
                waiting = []
            elif match := _GRADIENT.match(line):
                waiting.append(_gradient(lines, match[1], energies, tags))
                energies = {}
            elif line.strip().startswith("Pot. energy (a.u.):"):
                match = _STEP.match(line)
                if match is None or not 1 <= len(waiting) <= 2:
                    raise lines.error(f"{len(waiting)} gradients before this table of a QMD step; the output is "
                                      "damaged, copy it again")
                first = int(match[1]) - len(waiting) + 1
                for k, frame in enumerate(waiting):
                    yield replace(frame, step=first + k)
                waiting = []
    if waiting:
        raise CutShort(f"{source.main}: ends after line {lines.number} inside a step")


def _gradient(lines: Lines, method: str, energies: dict[str, float], tags: list[str]) -> Frame:
    if method not in _ENERGY:
        raise lines.error(f"gradients of {method}; only {', '.join(_ENERGY)} are read from NWChem")
    for _ in range(3):
        lines.need("gradients")
    rows = []
    for k, tag in enumerate(tags):
        line = lines.need("gradients")
        fields = line.split()
        try:
            if fields[:2] != [str(k + 1), tag]:
                raise ValueError
            rows.append([float(value) for value in fields[2:8]])
            if len(fields) != 8:
                raise ValueError
        except ValueError:
            raise lines.error(f"expected '{k + 1} {tag} x y z dx dy dz', found {line.strip()[:60]!r}") from None
    table = np.array(rows)
    return Frame(positions=table[:, :3] * BOHR, cell=np.zeros((3, 3)), forces=-table[:, 3:] * HARTREE / BOHR,
                 energy=energies.get(_ENERGY[method]))


FORMAT = Format(name="NWChem", find=_find, read=_read)
"""Output of `task dft qmd` or `task scf qmd`."""
