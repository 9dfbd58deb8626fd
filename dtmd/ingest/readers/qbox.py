"""Qbox output. Read line by line, since the XML of an unfinished run is not closed; masses are per species (D₂O!)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_masses

from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import ATOMIC_TIME, BOHR, HARTREE

_SET = re.compile(r"<cmd>\s*set\s+(\w+)\s+(.*?)\s*</cmd>")
_TAG = re.compile(r"<(atomic_number|mass|etotal|position|velocity|force)>(.*?)</\1>")
_UNITS = {"position": BOHR, "velocity": BOHR / ATOMIC_TIME, "force": HARTREE / BOHR}


@dataclass
class _Iteration:
    """What one iteration of the run has told so far.

    Attributes:
        count: as Qbox counts, from 1 in each `run`.
        energy: Hartree.
        cell: bohr, (3, 3).
        species: name for each atom.
        vectors: positions, velocities and forces of the atoms, atomic units.
    """

    count: int
    energy: float | None = None
    cell: np.ndarray | None = None
    species: list[str] = field(default_factory=list)
    vectors: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in _UNITS})


@dataclass
class _State:
    """The variables set and the species loaded up to the line that was read last."""

    variables: dict[str, str] = field(default_factory=dict)
    species: dict[str, dict[str, float]] = field(default_factory=dict)
    release: str = ""
    n_skipped: int = 0


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(candidate.path) for candidate in candidates
            if "<fpmd:simulation" in candidate.head and "qbox" in candidate.head]


def _read(source: Source) -> RawRun:
    state = _State()
    with closing(source.lines(source.main)) as lines:
        first = next(_iterations(lines, state), None)
        if first is None:
            raise lines.error("no iteration with `set atoms_dyn MD` in this output; give a molecular dynamics run")
        atoms = []
        for name in first.species:
            if state.species.get(name, {}).keys() < {"atomic_number", "mass"}:
                raise lines.error(f"atomic number and mass of the species {name!r} are not in this output")
            atoms.append(state.species[name])
        timestep = state.variables.get("dt")
        try:
            timestep = None if timestep is None else float(timestep) * ATOMIC_TIME
        except ValueError:
            raise lines.error(f"`set dt {timestep}` gives no time step") from None
    notes: list[str] = []
    return RawRun(
        code="Qbox", version=state.release, numbers=np.array([int(atom["atomic_number"]) for atom in atoms]),
        masses=np.array([atom["mass"] for atom in atoms]), pbc=np.ones(3, bool), timestep=timestep,
        timestep_from="" if timestep is None else "set dt", frames=_frames(source, first.species, notes),
        settings={name: state.variables[name] for name in ("xc", "ecut", "wf_dyn", "thermostat", "th_temp", "th_time")
                  if name in state.variables}, notes=notes,
    )


def _frames(source: Source, species: list[str], notes: list[str]) -> Iterator[Frame]:
    state, timestep = _State(), None
    with closing(source.lines(source.main)) as lines:
        for iteration in _iterations(lines, state):
            timestep = timestep or state.variables.get("dt")
            if state.variables.get("dt") != timestep:
                raise lines.error(f"dt changes from {timestep} to {state.variables['dt']}; split the file there")
            if iteration.species != species:
                raise lines.error(f"the atoms of iteration {iteration.count} are not those of the first; "
                                  "a run keeps its atoms")
            vectors = {name: np.array(rows) * _UNITS[name] for name, rows in iteration.vectors.items() if rows}
            if "position" not in vectors or any(len(rows) != len(species) for rows in vectors.values()):
                raise lines.error(f"iteration {iteration.count} has not one position, velocity and force for each of "
                                  f"the {len(species)} atoms")
            yield Frame(
                positions=vectors["position"], cell=iteration.cell * BOHR, forces=vectors.get("force"),
                velocities=vectors.get("velocity"), step=iteration.count,
                energy=None if iteration.energy is None else iteration.energy * HARTREE,
            )
    if state.n_skipped:
        notes.append(f"{state.n_skipped} iterations without molecular dynamics were left out")


def _iterations(lines: Lines, state: _State) -> Iterator[_Iteration]:
    """The iterations of molecular dynamics; `state` is that of the line read last."""
    iteration, species = None, ""
    for line in lines:
        if match := _SET.search(line):
            state.variables[match[1]] = match[2]
        elif "<release>" in line:
            state.release = line.replace("<release>", "").split()[0]
        elif "<species name=" in line:
            species = _attribute(lines, line, "name")
        elif "<iteration " in line:
            count = _attribute(lines, line, "count")
            if not count.isdecimal():
                raise lines.error(f"iteration {count[:20]!r} is no number")
            iteration = _Iteration(int(count[:9]))
        elif iteration and "<atom " in line:
            iteration.species.append(_attribute(lines, line, "species"))
        elif iteration and re.search(r"<unit_cell(\s|$)", line):
            iteration.cell = _cell(lines, line)
        elif iteration and "</iteration>" in line:
            if state.variables.get("atoms_dyn") == "MD":
                if iteration.cell is None:
                    raise lines.error(f"iteration {iteration.count} has no <atomset>; the output is damaged")
                yield iteration
            else:
                state.n_skipped += 1
            iteration = None
        elif match := _TAG.search(line):
            _store(lines, match, iteration, state.species.setdefault(species, {}))
    if iteration:
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside iteration {iteration.count}")


def _store(lines: Lines, tag: re.Match, iteration: _Iteration | None, species: dict[str, float]) -> None:
    name, text = tag[1], tag[2]
    try:
        values = [float(value) for value in text.split()]
        if len(values) != (3 if name in _UNITS else 1):
            raise ValueError
    except ValueError:
        raise lines.error(f"no number or vector in {tag[0][:80]!r}") from None
    if name == "atomic_number" and values[0] not in range(1, len(atomic_masses)):
        raise lines.error(f"{tag[0][:80]!r} is no atomic number")
    if name in ("atomic_number", "mass"):
        species[name] = values[0]
    elif iteration and name == "etotal":
        iteration.energy = values[0]
    elif iteration:
        iteration.vectors[name].append(values)


def _attribute(lines: Lines, line: str, name: str) -> str:
    match = re.search(rf'\b{name}="([^"]*)"', line)
    if match is None:
        raise lines.error(f'no {name}="…" in {line.strip()[:60]!r}')
    return match[1]


def _cell(lines: Lines, line: str) -> np.ndarray:
    """The cell of a <unit_cell …/> that starts on this line, bohr."""
    while "/>" not in line:
        line += " " + lines.need("the cell")
    try:
        return np.array([[float(value) for value in _attribute(lines, line, name).split()] for name in "abc"]
                        ).reshape(3, 3)
    except ValueError:
        raise lines.error(f"no cell vectors in {line.strip()[:80]!r}") from None


FORMAT = Format(name="Qbox", find=_find, read=_read)
"""Output of a Born–Oppenheimer molecular dynamics run."""
