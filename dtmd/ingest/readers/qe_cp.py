"""Quantum ESPRESSO's cp.x: `prefix.pos` with `.vel`, `.for`, `.evp` and `.cel` beside it, in Hartree atomic units.

These files hold numbers only: elements and masses come from the input or the output of cp.x. The columns of `.cel`
are the cell vectors. Up to version 7.0 the atoms are sorted by species, whatever their order in the input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.readers.by_step import Clock, Companion, shown_timestep
from dtmd.ingest.readers.qe_cp_text import CpText, element, read_input, read_output
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.units import ATOMIC_TIME, BOHR, FS_PER_PS, HARTREE

_BLOCK = re.compile(r"\s*\d+([ \t]+[\d.]+)?[ \t]*\n(\s*-?\d*\.\d+[ED][+-]\d+){3}")
_UNITS = {"velocities": BOHR / ATOMIC_TIME, "forces": HARTREE / BOHR, "cell": BOHR}
_NAMELIST = re.compile(r"(?im)^\s*&control\b")
_ONLY_CP = re.compile(r"(?i)calculation\s*=\s*['\"](vc-)?cp|electron_dynamics|\bemass\b")
_ENDINGS = {".vel": "velocities", ".for": "forces", ".evp": "energies", ".cel": "cell"}
_CAR_PARRINELLO = ("Car-Parrinello dynamics with emass = {} a.u.: the ions drag the electrons along and move as if "
                   "they were heavier, so F/m·Δt² is off by some per cent")
_CLOCK = 1e-4
"""fs; the times are rounded to 1e-5."""


def _find(candidates: list[Candidate]) -> list[Source]:
    mains = [c for c in candidates if c.name.endswith(".pos") and _BLOCK.match(c.head)]
    return [Source(main.path, _companions(main, candidates, alone=len(mains) == 1)) for main in mains]


def _companions(main: Candidate, candidates: list[Candidate], alone: bool) -> dict[str, Path]:
    stem = main.name.removesuffix(".pos")
    found = {role: c.path for ending, role in _ENDINGS.items() for c in candidates if c.name == stem + ending}
    inputs = [c for c in candidates if _NAMELIST.search(c.head) and _ONLY_CP.search(c.head)]
    outputs = [c for c in candidates if re.search(r"Program CP\s+v", c.head)]
    for role, texts in (("input", inputs), ("output", outputs)):
        named = [c for c in texts if c.name.rpartition(".")[0] == stem]
        named += [c for c in texts if re.search(rf"(?i)prefix\s*=\s*['\"]{re.escape(stem)}['\"]", c.head)]
        if named or (alone and len(texts) == 1):
            found[role] = (named or texts)[0].path
    return found


def _read(source: Source) -> RawRun:
    text = _text(source)
    with closing(source.lines(source.main)) as lines:
        n_atoms = _count_atoms(lines)
    labels = _labels(source, text, n_atoms)
    numbers = np.array([element(label, source.main) for label in labels])
    cel = f"{source.main.stem}.cel"
    if "cell" not in source.companions and text.cell is None:
        raise DtmdError(f"{source.main}: no cell; put {cel} or the output of cp.x beside it")
    if "cell" not in source.companions and text.cell_moves:
        raise DtmdError(f"{source.main}: the cell changes in this run; put {cel} beside it")
    notes = [_CAR_PARRINELLO.format(text.settings.get("emass (a.u.)", 400))] if text.car_parrinello else []
    timestep, timestep_from = _timestep(source, text, notes)
    return RawRun(
        code="Quantum ESPRESSO cp.x", version=text.version, numbers=numbers, masses=text.masses(labels, numbers),
        pbc=np.ones(3, bool), frames=_frames(source, n_atoms, text.cell, timestep, notes), timestep=timestep,
        timestep_from=timestep_from, fixed=text.fixed if labels == text.input_labels else None,
        settings=text.settings, notes=notes,
    )


def _text(source: Source) -> CpText:
    """What input and output say together."""
    text = CpText()
    for role, read in (("input", read_input), ("output", read_output)):
        if role in source.companions:
            with closing(source.lines(source.companions[role])) as lines:
                read(lines, text)
    return text


def _count_atoms(lines: Lines) -> int:
    lines.need("the first step")
    n_atoms = 0
    for line in lines:
        if len(line.split()) < 3:
            break
        n_atoms += 1
    if not n_atoms:
        raise CutShort(f"{lines.path}: ends after line {lines.number} inside the first step")
    return n_atoms


def _labels(source: Source, text: CpText, n_atoms: int) -> list[str]:
    """Species of the atoms in the order of the .pos file."""
    for labels, where in ((text.input_labels, "input"), (text.printed_labels, "output")):
        if labels and len(labels) != n_atoms:
            raise DtmdError(f"{source.main}: {n_atoms} atoms in a step, {len(labels)} in {source.companions[where]}; "
                            f"put the {where} of this run beside it")
    if text.printed_step is not None:
        for step, _, positions in _blocks(source, source.main, n_atoms):
            if step == text.printed_step:
                printed = dict(zip(map(tuple, text.printed_positions), text.printed_labels, strict=True))
                labels = [printed.get(tuple(row)) for row in positions]
                if None not in labels and len(printed) == n_atoms:
                    return labels
                raise DtmdError(f"{source.main}: step {step} has other positions than {source.companions['output']}; "
                                "put the output of this run beside it")
    labels = text.input_labels or text.printed_labels
    if not labels:
        raise DtmdError(f"{source.main}: holds no elements; put the input or output of cp.x beside it, named "
                        f"{source.main.stem}.in or {source.main.stem}.out")
    if not text.sorted_by_species(labels):
        raise DtmdError(f"{source.main}: the input mixes the species, and cp.x sorts them up to version 7.0; put the "
                        "output of cp.x, which has labels and positions, beside it")
    return labels


def _timestep(source: Source, text: CpText, notes: list[str]) -> tuple[float | None, str]:
    """fs, and where it is written: the times in the files count, dt says it with all digits."""
    shown, name = None, source.main.name
    if "energies" in source.companions:
        rows = ((step, time) for step, (time, _) in _energies(source, source.companions["energies"]))
        shown, name = shown_timestep(rows), source.companions["energies"].name
    if shown is None:
        with closing(source.lines(source.main)) as lines:
            n_atoms = _count_atoms(lines)
        shown = shown_timestep((step, time) for step, time, _ in _blocks(source, source.main, n_atoms))
    if text.timestep is None or (shown is not None and abs(shown / text.timestep - 1.0) > 0.01):
        if text.timestep is not None:
            notes.append(f"dt is {text.timestep:.5g} fs in input or output, but the times in {name} advance by "
                         f"{shown:.5g} fs per step, which is used")
        return shown, f"times in {name}" if shown is not None else ""
    return text.timestep, "dt"


def _frames(
    source: Source, n_atoms: int, cell: np.ndarray | None, timestep: float | None, notes: list[str]
) -> Iterator[Frame]:
    tables = {role: Companion(path, _table(source, path, 3 if role == "cell" else n_atoms, _UNITS[role]))
              for role, path in source.companions.items() if role in _UNITS}
    energies = None
    if "energies" in source.companions:
        energies = Companion(source.companions["energies"], _energies(source, source.companions["energies"]))
    clock = Clock(source.main, timestep, _CLOCK, notes)
    n_frames = n_left_out = 0
    for step, time, positions in _blocks(source, source.main, n_atoms):
        clock.check(step, time)
        found = {role: table.at(step) for role, table in tables.items()}
        energy = None if energies is None else energies.at(step)
        if any(value is None for value in found.values()) or (energies is not None and energy is None):
            n_left_out += 1
            continue
        n_frames += 1
        yield Frame(
            positions=positions * BOHR, cell=found["cell"].T if "cell" in found else cell, forces=found.get("forces"),
            energy=None if energy is None else energy[1], velocities=found.get("velocities"), step=step,
        )
    if n_left_out and not n_frames:
        raise DtmdError(f"{source.main}: no step of it is in all of {', '.join(map(str, source.files[1:]))}; put the "
                        "files of one run together")
    if n_left_out:
        notes.append(f"{n_left_out} steps left out that are not in all files")


def _table(source: Source, path: Path, n_rows: int, unit: float) -> Iterator[tuple[int, np.ndarray]]:
    for step, _, table in _blocks(source, path, n_rows):
        yield step, table * unit


def _blocks(source: Source, path: Path, n_rows: int) -> Iterator[tuple[int, float | None, np.ndarray]]:
    """Step, time in fs where it is written, and the table (n_rows, 3) in atomic units."""
    with closing(source.lines(path)) as lines:
        for line in lines:
            fields = line.split()
            try:
                step, time = int(fields[0]), float(fields[1]) * FS_PER_PS if len(fields) == 2 else None
            except (ValueError, IndexError):
                fields = []
            if len(fields) not in (1, 2):
                raise lines.error(f"expected step and time before {n_rows} rows of three numbers, found "
                                  f"{line.strip()[:60]!r}")
            yield step, time, lines.table(n_rows, (0, 1, 2), f"step {step}")
        if lines.cut:
            raise CutShort(f"{path}: ends after line {lines.number} inside a line")


def _energies(source: Source, path: Path) -> Iterator[tuple[int, tuple[float, float]]]:
    """Step, time in fs and total energy in eV of each row of an .evp file."""
    columns = ["nfi", "time(ps)", "ekinc", "T_cell(K)", "Tion(K)", "etot"]
    with closing(source.lines(path)) as lines:
        for line in lines:
            fields = line.split()
            if line.lstrip().startswith("#"):
                columns = fields[1:] if "etot" in fields and "time(ps)" in fields else columns
                continue
            # The Born-Oppenheimer variant has neither ekinc nor the temperature of the cell.
            energy = 3 if len(fields) == 9 else columns.index("etot")
            try:
                row = int(fields[0]), (float(fields[columns.index("time(ps)")]) * FS_PER_PS,
                                       float(fields[energy]) * HARTREE)
            except (ValueError, IndexError):
                raise lines.error(f"expected step, time and energies, found {line.strip()[:60]!r}") from None
            yield row
        if lines.cut:
            raise CutShort(f"{path}: ends after line {lines.number} inside a line")


FORMAT = Format("Quantum ESPRESSO cp.x", _find, _read)
