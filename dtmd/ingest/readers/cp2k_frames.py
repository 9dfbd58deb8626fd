"""The frames of a CP2K run: its files joined by step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.readers.by_step import Clock, Companion
from dtmd.ingest.readers.cp2k_files import paths
from dtmd.ingest.source import CutShort, Frame, Lines, Source
from dtmd.units import HARTREE

_TITLE = re.compile(r"\bi\s*=\s*([^,\s]+)(?=\s*,|\s*$)(?:\s*,\s*time\s*=\s*([^,\s]+))?(?:.*,\s*E\s*=\s*(\S+))?")
_SAME_ENERGY = 1e-6
"""Hartree; .ener has nine decimals, the comment lines ten."""

_CLOCK = 2e-3
"""fs; the times have three decimals."""


@dataclass(frozen=True)
class Title:
    """Comment line of a frame: step, time in fs and potential energy in Hartree."""

    step: int
    time: float | None
    energy: float | None


@dataclass(frozen=True)
class Layout:
    """What the files have in common.

    Attributes:
        labels: of the atoms.
        units: of positions, velocities and forces in dtmd's, by role.
        cell: Å, (3, 3), where it is not written with the frames.
        timestep: fs.
        cell_holds: the run keeps its cell, so that a frame without one has that of the frame before.
        ab_initio: the forces are not those of a model.
    """

    labels: list[str]
    units: dict[str, float]
    cell: np.ndarray | None
    timestep: float | None
    cell_holds: bool
    ab_initio: bool


def read_frames(source: Source, layout: Layout, notes: list[str]) -> Iterator[Frame]:
    """Frames whose step is in all files.

    Raises:
        DtmdError: a damaged file, or energies that differ between files.
    """
    vectors = {role: Companion(paths(source, role)[0], _by_step(source, role, layout))
               for role in ("velocities", "forces") if paths(source, role)}
    energies = cells = None
    if paths(source, "energies"):
        energies = Companion(paths(source, "energies")[0], read_energies(source), needed=False)
    if paths(source, "cell"):
        cells = Companion(paths(source, "cell")[0], _cells(source), needed=not layout.cell_holds)
    cell, clock = layout.cell, Clock(source.main, layout.timestep, _CLOCK, notes)
    n_frames = n_left_out = last = 0
    for title, positions in read_vectors(source, "positions", layout.labels, layout.units["positions"]):
        clock.check(title.step, title.time)
        found = {role: companion.at(title.step) for role, companion in vectors.items()}
        row = energies and energies.at(title.step)
        if cells is not None:
            new = cells.at(title.step)
            cell = new if new is not None or not layout.cell_holds else cell
        back, last = title.step < last, title.step
        if cell is None or None in found.values():
            if back:
                raise DtmdError(f"{source.main}: step {title.step} comes after a later one, and not so in the other "
                                "files of the run; put the frames in order")
            n_left_out += 1
            continue
        n_frames += 1
        for path, energy in _other_energies(source, found, row):
            if title.energy is not None and energy is not None and not abs(energy - title.energy) <= _SAME_ENERGY:
                raise DtmdError(f"{path}: energy {energy:.9f} Hartree at step {title.step}, {source.main.name} has "
                                f"{title.energy:.9f}; put the files of one run together")
        energy = title.energy if title.energy is not None or row is None else row[1]
        yield Frame(
            positions=positions, cell=cell, energy=None if energy is None else energy * HARTREE, step=title.step,
            ab_initio=layout.ab_initio, **{role: vector for role, (_, vector) in found.items()},
        )
    if n_left_out:
        others = ", ".join(path.name for role in ("velocities", "forces", "cell") for path in paths(source, role))
        if not n_frames:
            raise DtmdError(f"{source.main}: none of its steps is also in all of {others}; put the files of one run "
                            "together, or leave away the one that does not belong to it")
        notes.append(f"{n_left_out} frames left out whose step is not in all of {others}")


def read_vectors(
    source: Source, role: str, labels: list[str] | None, scale: float
) -> Iterator[tuple[Title, np.ndarray]]:
    """Title and table (N, 3), times `scale`, of each frame; labels are checked where they are given.

    Raises:
        DtmdError: a line that cannot be read, or other atoms.
    """
    for path in paths(source, role):
        with closing(source.lines(path)) as lines:
            for line in lines:
                n_atoms = number_of_atoms(lines, line)
                if labels is not None and n_atoms != len(labels):
                    raise lines.error(f"{n_atoms} atoms, the first frame has {len(labels)}; put the files of one run "
                                      "together")
                title = _title(lines)
                yield title, _vectors(lines, n_atoms, labels, f"{role} of step {title.step}") * scale
            if lines.cut:
                raise CutShort(f"{path}: ends after line {lines.number} inside a frame")


def read_energies(source: Source) -> Iterator[tuple[int, tuple[float, float]]]:
    """Step, time in fs and potential energy in Hartree of each row of .ener."""
    for step, (time, _, _, energy) in _rows(source, "energies", 5):
        yield step, (time, energy)


def number_of_atoms(lines: Lines, line: str) -> int:
    """The number that starts a frame.

    Raises:
        DtmdError: there is none.
    """
    word = line.strip()
    if not (word.isdecimal() and word.isascii() and 0 < int(word[:12]) < 10**9):
        raise lines.error(f"expected the number of atoms that starts a frame, found {word[:60]!r}")
    return int(word)


def _by_step(source: Source, role: str, layout: Layout) -> Iterator[tuple[int, tuple[float | None, np.ndarray]]]:
    for title, vectors in read_vectors(source, role, layout.labels, layout.units[role]):
        yield title.step, (title.energy, vectors)


def _cells(source: Source) -> Iterator[tuple[int, np.ndarray]]:
    for step, values in _rows(source, "cell", 11):
        yield step, np.array(values[1:]).reshape(3, 3)


def _rows(source: Source, role: str, n_columns: int) -> Iterator[tuple[int, list[float]]]:
    """Step and the numbers after it, of files with a line for each step."""
    for path in paths(source, role):
        with closing(source.lines(path)) as lines:
            for line in lines:
                fields = line.split()
                if not fields or line.lstrip().startswith("#"):
                    continue
                try:
                    step, values = int(fields[0]), [float(word) for word in fields[1:n_columns]]
                except ValueError:
                    values = []
                if len(values) != n_columns - 1:
                    raise lines.error(f"expected step and {n_columns - 1} numbers, found {line.strip()[:60]!r}")
                yield step, values
            if lines.cut:
                raise CutShort(f"{path}: ends after line {lines.number} inside a line")


def _title(lines: Lines) -> Title:
    line = lines.need("a frame")
    match = _TITLE.search(line)
    try:
        return Title(int(match[1]), *(None if word is None else float(word) for word in match.groups()[1:]))
    except (TypeError, ValueError):
        raise lines.error("expected a comment line such as 'i = 1, time = 0.5, E = -17.2', found "
                          f"{line.strip()[:60]!r}") from None


def _vectors(lines: Lines, n_atoms: int, labels: list[str] | None, what: str) -> np.ndarray:
    rows = []
    for k in range(n_atoms):
        fields = lines.need(what).split()
        try:
            rows.append([float(word) for word in fields[1:4]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != 3 or (labels is not None and fields[0] != labels[k]):
            expected = "an atom" if labels is None else labels[k]
            raise lines.error(f"{what}: expected {expected} with three numbers as atom {k + 1}, found "
                              f"{' '.join(fields)[:60]!r}")
    return np.array(rows)


def _other_energies(
    source: Source, found: dict[str, tuple[float | None, np.ndarray]], row: tuple[float, float] | None
) -> list[tuple[Path, float | None]]:
    """Energies of a step in the files beside the positions, in Hartree."""
    others = [(paths(source, role)[0], energy) for role, (energy, _) in found.items()]
    return others + ([(paths(source, "energies")[0], row[1])] if row is not None else [])
