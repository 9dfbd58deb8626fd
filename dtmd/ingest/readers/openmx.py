"""OpenMX .md: five decimals, and velocities of half a step before the positions, which are therefore left out."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import closing

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, Format, Frame, Lines, RawRun, Source
from dtmd.units import BOHR, HARTREE

_START = re.compile(r"\s*\d+\s*\n\s*time=\s*\S+ \(fs\)\s+Energy=\s*\S+ \(Hartree\)")
_HEADER = re.compile(r"\s*time=\s*(\S+) \(fs\)\s+Energy=\s*(\S+) \(Hartree\).*?Cell_Vectors=\s*(.*)")
_SETTINGS = ("MD.Type", "scf.XcType", "scf.energycutoff", "scf.ElectronicTemperature")
_DYNAMICS = ("NVE", "NVT", "NPT")


def _find(candidates: list[Candidate]) -> list[Source]:
    inputs = {}
    for candidate in candidates:
        name = re.search(r"^\s*System\.Name\s+(\S+)", candidate.head, re.M | re.I)
        if name and re.search(r"^\s*MD\.Type\b", candidate.head, re.M | re.I):
            inputs.setdefault(name[1], candidate.path)
    sources = []
    for candidate in candidates:
        if _START.match(candidate.head):
            name = candidate.name.removesuffix(".md")
            sources.append(Source(candidate.path, {"input": inputs[name]} if name in inputs else {}))
    return sources


def _read(source: Source) -> RawRun:
    with closing(source.lines(source.main)) as lines:
        first = next(_blocks(lines), None)
    if first is None:
        raise DtmdError(f"{source.main}: no frames in this file")
    elements = first[0]
    wrong = [element for element in elements if element not in atomic_numbers]
    if wrong:
        raise lines.error(f"{wrong[0]!r} is not an element; remove empty atoms from the run")
    run = {
        "code": "OpenMX", "numbers": np.array([atomic_numbers[element] for element in elements]),
        "pbc": np.ones(3, bool), "precision": 1e-5,
        "notes": ["OpenMX writes velocities of half a step before the positions; they were left out"],
    }
    if "input" not in source.companions:
        return RawRun(**run, frames=_frames(source, None))
    keywords, blocks = _parse_input(source)
    kind = keywords.get("md.type", "").upper()
    if not kind.startswith(_DYNAMICS):
        raise DtmdError(f"{source.companions['input']}: MD.Type {kind}, which is no molecular dynamics; "
                        f"give a run with MD.Type {', '.join(_DYNAMICS)} …")
    try:
        timestep = float(keywords["md.timestep"]) if "md.timestep" in keywords else None
        if timestep is not None and not 0.0 < timestep < np.inf:
            raise ValueError(f"MD.TimeStep {timestep}")
        masses, fixed = _masses(blocks, run["numbers"]), _fixed(blocks, len(elements))
    except (ValueError, IndexError, KeyError) as error:
        raise DtmdError(f"{source.companions['input']}: MD.TimeStep, the species or MD.Fixed.XYZ do not fit the "
                        f"{len(elements)} atoms of {source.main.name} ({error}); give the input of this run"
                        ) from None
    settings = {name: keywords[name.lower()] for name in _SETTINGS if name.lower() in keywords}
    return RawRun(**run, frames=_frames(source, timestep), timestep=timestep, masses=masses, fixed=fixed,
                  timestep_from="MD.TimeStep" if timestep else "", settings=settings)


def _frames(source: Source, timestep: float | None) -> Iterator[Frame]:
    """Frames with step numbers where the time step is known: the times are rounded to 0.001 fs."""
    first = None
    with closing(source.lines(source.main)) as lines:
        for elements, time, energy, cell, table in _blocks(lines):
            first = first or elements
            if elements != first:
                raise lines.error("the atoms above are not those of the first frame; a run keeps its atoms")
            step = round(time / timestep) if timestep and np.isfinite(time / timestep) else None
            if step is not None and abs(step * timestep - time) > 0.001:
                raise lines.error(f"a frame at {time} fs, which is no multiple of the {timestep:g} fs of "
                                  f"{source.companions['input'].name}; give the input of this run")
            yield Frame(positions=table[:, :3], cell=cell, forces=table[:, 3:] * HARTREE / BOHR,
                        energy=energy * HARTREE, step=step, time=time if step is None else None)


def _blocks(lines: Lines) -> Iterator[tuple[tuple[str, ...], float, float, np.ndarray, np.ndarray]]:
    """Elements, time in fs, energy in Hartree, cell in Å, and positions and forces, (N, 6), of each frame."""
    for n_frames, line in enumerate(lines):
        what = f"frame {n_frames}"
        if not re.fullmatch(r"\s*[1-9]\d{0,8}\s*", line):
            raise lines.error(f"{what}: expected the number of atoms, found {line.strip()[:60]!r}")
        header = _HEADER.match(lines.need(what))
        if header is None:
            raise lines.error(f"{what}: expected 'time= … Energy= … Cell_Vectors= …' (OpenMX 3.8 or newer)")
        try:
            time, energy = float(header[1]), float(header[2])
            cell = np.array([float(field) for field in header[3].split()[:9]]).reshape(3, 3)
        except ValueError:
            raise lines.error(f"{what}: no numbers for time, energy and nine cell components") from None
        elements, rows = [], []
        for _ in range(int(line)):
            fields = lines.need(what).split()
            try:
                rows.append([float(fields[k]) for k in range(1, 7)])
            except (ValueError, IndexError):
                raise lines.error(f"{what}: expected element, position and force, found "
                                  f"{' '.join(fields)[:60]!r}") from None
            elements.append(fields[0])
        yield tuple(elements), time, energy, cell, np.array(rows).reshape(-1, 6)


def _parse_input(source: Source) -> tuple[dict[str, str], dict[str, list[list[str]]]]:
    """Keywords in lower case with their first value, and the fields of the lines of each block."""
    keywords: dict[str, str] = {}
    blocks: dict[str, list[list[str]]] = {}
    block = None
    with io.TextIOWrapper(source.open(source.companions["input"]), encoding="latin-1") as lines:
        for line in lines:
            fields = line.partition("#")[0].split()
            if not fields:
                continue
            if fields[0].startswith("<"):
                block = blocks.setdefault(fields[0][1:].lower(), [])
            elif fields[0].endswith(">"):
                block = None
            elif block is not None:
                block.append(fields)
            elif len(fields) > 1:
                keywords.setdefault(fields[0].lower(), fields[1])
    return keywords, blocks


def _masses(blocks: dict[str, list[list[str]]], numbers: np.ndarray) -> np.ndarray | None:
    """The masses, where the input gives any as the fourth column of the species."""
    given = {fields[0]: float(fields[3]) for fields in blocks["definition.of.atomic.species"] if len(fields) > 3}
    species = [fields[1] for fields in blocks["atoms.speciesandcoordinates"]]
    if len(species) != len(numbers):
        raise ValueError(f"{len(species)} atoms in the input")
    if not given:
        return None
    return np.array([given.get(name, atomic_masses[number]) for name, number in zip(species, numbers)])


def _fixed(blocks: dict[str, list[list[str]]], n_atoms: int) -> np.ndarray | None:
    fixed = np.zeros((n_atoms, 3), bool)
    for fields in blocks.get("md.fixed.xyz", []):
        fixed[int(fields[0]) - 1] = [field == "1" for field in fields[1:4]]
    return fixed if fixed.any() else None


FORMAT = Format(name="OpenMX", find=_find, read=_read)
"""The .md file of a molecular dynamics run, with its input for the time step."""
