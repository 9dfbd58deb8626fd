"""Gaussian logs of ADMP and BOMD. Velocities are mass-weighted, and the masses those of the commonest isotopes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import numpy as np
from ase.data import atomic_masses_common

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import BOHR, HARTREE

_SECOND = 1e15  # fs
_ROUNDING = 5e-6  # Å; the tables of coordinates have six decimals
_SUMMARY = re.compile(r"\s*Summary information for step\s+(\d{1,9})\s*$")
_VECTOR = re.compile(r"I=\s*\d+\s+X=\s*(\S+)\s+Y=\s*(\S+)\s+Z=\s*(\S+)")


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(candidate.path) for candidate in candidates
            if "Gaussian, Inc." in candidate.head and re.search(r"\b(ADMP|BOMD)\b", _route(candidate.head), re.I)]


def _route(head: str) -> str:
    """The route section, which Gaussian breaks into lines anywhere."""
    section = re.search(r"\n -{4,}\s*\n( #.*?)\n -{4,}", head, re.S)
    return "".join(line[1:] for line in section[1].split("\n")) if section else ""


def _read(source: Source) -> RawRun:
    timestep, head = None, []
    with closing(source.lines(source.main)) as lines:
        for line in lines:
            head.append(line)
            if line.strip().startswith("Time Step ") and "femtosec" in line:
                timestep = lines.number_after(line, "Time Step", "time step")
            elif _is_geometry(line):
                numbers = _geometry(lines)[:, 0]
                break
        else:
            raise DtmdError(f"{source.main}: no geometry in this log; the run has failed before its first step")
    if not np.isin(numbers, np.arange(1, len(atomic_masses_common))).all():
        raise lines.error("an atomic number above is none (translation vectors have -2, and only molecules are read "
                          "from Gaussian)")
    numbers = numbers.astype(int)
    text = "\n".join(head)
    version = re.search(r"Gaussian \d+:\s+(\S+)", text)
    masses = atomic_masses_common[numbers]
    return RawRun(
        code="Gaussian", version=version[1] if version else "", numbers=numbers, masses=masses,
        pbc=np.zeros(3, bool), frames=_frames(source, numbers, masses, counted=timestep is not None),
        timestep=timestep, timestep_from="" if timestep is None else "Time Step", settings={"route": _route(text)},
    )


def _frames(source: Source, numbers: np.ndarray, masses: np.ndarray, counted: bool) -> Iterator[Frame]:
    """Frames with step numbers where the log gives the time step, else with their times."""
    geometry = forces = None
    with closing(source.lines(source.main)) as lines:
        for line in lines:
            if _is_geometry(line):
                geometry = _geometry(lines)
                if not np.array_equal(geometry[:, 0], numbers):
                    raise lines.error("the atoms above are not those of the first geometry; give the log of one run")
            elif "Forces (Hartrees/Bohr)" in line and "Atomic" in line:
                lines.need("forces")
                lines.need("forces")
                forces = lines.table(len(numbers), (2, 3, 4), "forces") * HARTREE / BOHR
            elif line.strip().startswith("Summary information for step"):
                if geometry is None or forces is None:
                    raise lines.error("a step without 'Input orientation' and 'Forces (Hartrees/Bohr)' before it; "
                                      "the log is damaged, or was printed with #T: run with #P")
                yield _summary(lines, line, geometry[:, 1:], forces, masses, counted)
                forces = None
    if forces is not None:
        raise CutShort(f"{source.main}: ends after line {lines.number} inside a step")


def _is_geometry(line: str) -> bool:
    # The standard orientation is rotated against the one that forces and velocities are in.
    return line.strip() in ("Input orientation:", "Z-Matrix orientation:")


def _geometry(lines: Lines) -> np.ndarray:
    """Atomic numbers and coordinates in Å, (N, 4)."""
    for _ in range(4):
        lines.need("coordinates")
    rows = []
    while not (line := lines.need("coordinates")).strip().startswith("----"):
        fields = line.split()
        try:
            rows.append([int(fields[1]), *(float(field) for field in fields[3:6])])
        except (ValueError, IndexError):
            raise lines.error(f"coordinates: expected number, atomic number, type, x, y, z, found "
                              f"{line.strip()[:60]!r}") from None
    if not rows or len({len(row) for row in rows}) > 1:
        raise lines.error("no table of coordinates with x, y, z for each atom above this line")
    return np.array(rows)


def _summary(
    lines: Lines, title: str, geometry: np.ndarray, forces: np.ndarray, masses: np.ndarray, counted: bool
) -> Frame:
    match = _SUMMARY.match(title)
    if match is None:
        raise lines.error(f"no step number in {title.strip()[:60]!r}")
    step = int(match[1])
    what = f"summary of step {step}"
    time = lines.number_after(lines.need(what), "Time (fs)", what)
    energy = None
    while not (line := lines.need(what)).strip().startswith("Cartesian coordinates:"):
        if line.strip().startswith("TRJ-TRJ"):
            raise lines.error(f"{what}: no 'Cartesian coordinates:' above; the log is damaged, copy it again")
        if "EPot" in line:
            energy = lines.number_after(line.replace(";", " "), "EPot", what) * HARTREE
    positions = _vectors(lines, len(masses), f"{what}, coordinates") * BOHR
    if not lines.need(what).strip().lower().startswith("mw cartesian velocity:"):
        raise lines.error(f"{what}: expected 'MW cartesian velocity:'")
    velocities = _vectors(lines, len(masses), f"{what}, velocities") * BOHR / _SECOND / np.sqrt(masses)[:, None]
    # The summary is relative to the centre of mass, the first geometry is not.
    apart = geometry - positions
    apart = np.abs(apart - apart.mean(axis=0)).max()
    if apart > _ROUNDING:
        raise lines.error(f"step {step}: the forces before it belong to a geometry that is {apart:.1e} Å off the one "
                          "of the step (BOMD with predictor and corrector); run ADMP with FullSCF, or BOMD that "
                          "evaluates the gradient at its steps")
    return Frame(positions=positions, cell=np.zeros((3, 3)), forces=forces, energy=energy, velocities=velocities,
                 step=step if counted else None, time=None if counted else time)


def _vectors(lines: Lines, n_atoms: int, what: str) -> np.ndarray:
    rows = []
    for _ in range(n_atoms):
        line = lines.need(what)
        match = _VECTOR.search(line)
        try:
            rows.append([float(field.replace("D", "E")) for field in match.groups()])
        except (AttributeError, ValueError):
            raise lines.error(f"{what}: expected 'I= … X= … Y= … Z= …', found {line.strip()[:60]!r}") from None
    return np.array(rows)


FORMAT = Format(name="Gaussian", find=_find, read=_read)
"""Log of an ADMP or BOMD run of a molecule."""
