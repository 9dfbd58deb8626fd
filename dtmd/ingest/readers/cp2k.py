"""CP2K molecular dynamics: `PROJECT-pos-1.xyz` with `-vel-1.xyz`, `-frc-1.xyz`, `-1.ener`, `-1.cell`, input and log.

The files may be written at different intervals, so they are joined by their step numbers.
"""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.readers.by_step import shown_timestep
from dtmd.ingest.readers.cp2k_files import find, paths
from dtmd.ingest.readers.cp2k_frames import Layout, number_of_atoms, read_energies, read_frames, read_vectors
from dtmd.ingest.readers.cp2k_input import DEFAULT_UNITS, Input, read_input, unit
from dtmd.ingest.readers.cp2k_log import Log, read_log
from dtmd.ingest.source import Format, Lines, RawRun, Source

_SECTIONS = {"positions": "TRAJECTORY", "velocities": "VELOCITIES", "forces": "FORCES"}
_SAME_CELL = 2e-3
"""Å; the log has three decimals."""
_MOVING_CELL = ("NPT", "NPE", "MSST", "HYDROSTATICSHOCK")
_MODELS = ("FIST", "NNP", "EIP", "IPI")
_BIASES = {"METAD", "PBMETAD", "OPES_METAD", "OPES_METAD_EXPLORE", "OPES_EXPANDED", "RESTRAINT", "MOVINGRESTRAINT",
           "UPPER_WALLS", "LOWER_WALLS", "EXTERNAL", "ABMD", "BIASVALUE", "EXTENDED_LAGRANGIAN", "MAXENT", "EDS"}


def _read(source: Source) -> RawRun:
    given, log = _input(source), _log(source)
    with closing(source.lines(source.main)) as lines:
        labels, decimals = _first_frame(lines)
    numbers = np.array([_element(label, given, source.main) for label in labels])
    notes = list(given.notes)
    ensemble = given.ensemble or log.ensemble
    cell, pbc = _cell(source, given, log, ensemble.startswith(_MOVING_CELL), notes)
    timestep, timestep_from = _timestep(source, given, log, notes)
    units = {role: given.units.get(section, unit(source.main, DEFAULT_UNITS[section], section))
             for role, section in _SECTIONS.items()}
    settings = {**({"ensemble": ensemble} if ensemble else {}), **given.settings, **_bias(source, given, notes)}
    layout = Layout(labels, units, cell, timestep,
                    cell_holds=bool(ensemble) and not ensemble.startswith(_MOVING_CELL),
                    ab_initio=not str(settings.get("method", "")).startswith(_MODELS))
    precision = 10.0**-decimals * units["positions"]
    return RawRun(
        code="CP2K", version=log.version, numbers=numbers, masses=_masses(labels, numbers, given, log, source.main),
        pbc=np.array(pbc), frames=read_frames(source, layout, notes), timestep=timestep, timestep_from=timestep_from,
        precision=precision if precision > 0.99e-7 else None, fixed=_fixed(source, given, len(labels)),
        settings=settings, notes=notes,
    )


def _input(source: Source) -> Input:
    inputs = paths(source, "input")
    found = [read_input(path, source.lines) for path in inputs]
    if any(given != found[0] for given in found[1:]):
        raise DtmdError(f"{source.main}: {', '.join(map(str, inputs))} differ in cell, time step, kinds, units or "
                        "fixed atoms; leave only the input of this run in the folder")
    return found[0] if found else Input()


def _log(source: Source) -> Log:
    for path in paths(source, "log"):
        with closing(source.lines(path)) as lines:
            return read_log(lines)
    return Log()


def _first_frame(lines: Lines) -> tuple[list[str], int]:
    """Labels of the atoms, and decimals of the positions."""
    n_atoms = number_of_atoms(lines, lines.need("the first frame"))
    if "time" not in lines.need("the first frame"):
        raise lines.error("no time in the comment line, so this is a geometry optimisation of CP2K; dtmd reads "
                          "molecular dynamics (RUN_TYPE MD)")
    labels, decimals = [], 0
    for _ in range(n_atoms):
        fields = lines.need("the first frame").split() or [""]
        labels.append(fields[0])
        decimals = len(fields[-1].partition(".")[2])
    return labels, decimals


def _element(label: str, given: Input, path: Path) -> int:
    """Atomic number of a label, which is an element, or a kind such as "Fe1" where the input says so."""
    kind = given.kinds.get(label.upper())
    named = kind.element if kind else ""
    letters = re.match(r"[A-Z]?[a-z]?", label)[0]
    choices = (label, named, letters, letters[:1], "H" if label == "D" else "")
    for name in (named, *choices) if given.prints_kinds else choices:
        if atomic_numbers.get(name):
            return atomic_numbers[name]
    raise DtmdError(f"{path}: {label!r} is no element; put the input with &KIND {label} and its ELEMENT beside it")


def _masses(labels: list[str], numbers: np.ndarray, given: Input, log: Log, path: Path) -> np.ndarray | None:
    """u, (N,): the log lists them all, the input only those that are not the standard ones."""
    if len(log.masses) == len(labels):
        return np.array(log.masses)
    if all(kind.mass is None for kind in given.kinds.values()):
        return None
    in_input = len(given.atom_kinds) == len(labels)
    masses = []
    for name, number in zip(given.atom_kinds if in_input else labels, numbers, strict=True):
        if (in_input or given.prints_kinds) and name.upper() in given.kinds:
            found = {given.kinds[name.upper()].mass}
        else:
            found = {kind.mass for other, kind in given.kinds.items()
                     if atomic_numbers.get(kind.element or other.capitalize()) == number} or {None}
        if len(found) > 1:
            raise DtmdError(f"{path}: kinds of the element {name} have the masses {sorted(map(str, found))}; put the "
                            "log of CP2K beside it, which lists the mass of each atom")
        mass = found.pop()
        masses.append(atomic_masses[number] if mass is None else mass)
    return np.array(masses)


def _fixed(source: Source, given: Input, n_atoms: int) -> np.ndarray | None:
    fixed = np.zeros((n_atoms, 3), bool)
    for first, last, components in given.fixed:
        if not 1 <= first <= last <= n_atoms:
            raise DtmdError(f"{source.main}: FIXED_ATOMS {first}..{last} of the input, but {n_atoms} atoms in all; "
                            "put the input of this run beside it")
        for k, axis in enumerate("XYZ"):
            fixed[first - 1:last, k] |= axis in components
    return fixed if fixed.any() else None


def _cell(
    source: Source, given: Input, log: Log, moves: bool, notes: list[str]
) -> tuple[np.ndarray | None, tuple[bool, ...]]:
    """Cell in Å, None where it comes with the frames, and the periodic directions."""
    if not given.units and log.pbc is None:
        notes.append("neither input nor log says which directions are periodic; taken as all three")
    pbc = given.pbc if given.units or log.pbc is None else log.pbc
    if paths(source, "cell"):
        return None, pbc
    if moves or (given.cell is None and log.cell is None):
        problem, remedy = ("the cell changes in this run", "") if moves else ("no cell", ", the input or the log")
        raise DtmdError(f"{source.main}: {problem}; put PROJECT-1.cell{remedy} of the run beside it")
    if given.cell is None:
        notes.append("cell from the log, which has three decimals")
        return log.cell, pbc
    if log.cell is not None and not np.allclose(given.cell, log.cell, rtol=0.0, atol=_SAME_CELL):
        notes.append("the cell in the log is not that of the input; the log's is used, which has three decimals")
        return log.cell, pbc
    return np.array(given.cell), pbc


def _timestep(source: Source, given: Input, log: Log, notes: list[str]) -> tuple[float | None, str]:
    """fs, and where it is written."""
    if given.ensemble == "REFTRAJ":
        notes.append("ENSEMBLE REFTRAJ: frames of another trajectory, their distance in time is unknown")
    if paths(source, "energies"):
        name = paths(source, "energies")[0].name
        shown = shown_timestep((step, time) for step, (time, _) in read_energies(source))
    else:
        name = source.main.name
        titles = (title for title, _ in read_vectors(source, "positions", None, 1.0))
        shown = shown_timestep((title.step, title.time) for title in titles)
    for said, where in ((given.timestep, "TIMESTEP in the input"), (log.timestep, "Time step in the log")):
        if said is not None and shown is not None and abs(shown / said - 1.0) > 0.02:
            raise DtmdError(f"{source.main}: {where} is {said:g} fs, {name} shows {shown:g} fs per step; put the "
                            "input and the log of this run beside it, or take them away")
    if given.ensemble == "REFTRAJ":
        return None, ""
    if given.timestep is not None:
        return given.timestep, "TIMESTEP"
    if shown is not None:
        return shown, f"times in {name}"
    return log.timestep, "log" if log.timestep is not None else ""


def _bias(source: Source, given: Input, notes: list[str]) -> dict[str, str]:
    """What PLUMED did, for the settings."""
    if given.plumed is None:
        return {}
    if "plumed" not in source.companions:
        notes.append(f"PLUMED was on, its input {given.plumed} is not here; forces hold its bias if there was one")
        return {"plumed": "on"}
    with closing(source.lines(source.companions["plumed"])) as lines:
        words = {word for line in lines for word in re.split(r"[\s:]+", line.partition("#")[0])}
    biases = sorted(words & _BIASES)
    if biases:
        notes.append(f"PLUMED applied {', '.join(biases)}: the forces hold its bias, the energies do not")
    return {"plumed": ", ".join(biases) or "no bias"}


FORMAT = Format("CP2K", find, _read)
