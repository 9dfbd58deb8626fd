"""Reader of VASP's ML_AB: the ab initio configurations an on-the-fly force field has selected, not consecutive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase.data import atomic_numbers

from dtmd.ingest.readers import vasp
from dtmd.ingest.source import Candidate, Format, Frame, Lines, RawRun, Source

_RULES = ("***", "===", "---")


def find(candidates: list[Candidate]) -> list[Source]:
    return [
        Source(c.path) for c in candidates
        if "The number of configurations" in c.head and "Reference atomic energy" in c.head
    ]


def read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    _seek(lines, "The number of configurations")
    found = lines.need("the number of configurations").split()
    if len(found) != 1 or vasp.counts(found) is None:
        raise lines.error(f"expected the number of configurations, found {' '.join(found)[:60]!r}")
    types = _section(lines, "The atom types in the data file")
    masses = dict(zip(types, _section(lines, "Atomic mass"), strict=False))
    atoms = _atoms(lines)
    return RawRun(
        code="VASP", numbers=_numbers(lines, atoms), masses=_masses(lines, atoms, masses), pbc=np.full(3, True),
        frames=_frames(lines, atoms, int(found[0])), consecutive=False,
        notes=["configurations that the on-the-fly force field selected, not consecutive MD steps"],
    )


def _seek(lines: Lines, title: str) -> None:
    """Goes to below the rule under the line `title`.

    Raises:
        CutShort: it does not come before the end of the file.
    """
    while lines.need(f"{title!r}").strip() != title:
        pass
    lines.need(f"{title!r}")


def _section(lines: Lines, title: str) -> list[str]:
    """The words below `title`, up to the next rule."""
    _seek(lines, title)
    words: list[str] = []
    while not (line := lines.need(f"{title!r}").strip()).startswith(_RULES):
        words += line.split()
    return words


def _atoms(lines: Lines) -> list[tuple[str, int]]:
    """Elements and numbers of atoms of the next configuration."""
    words = _section(lines, "Atom types and atom numbers")
    if len(words) % 2 or vasp.counts(words[1::2]) is None:
        raise lines.error(f"expected elements and numbers of atoms above this line, found {' '.join(words)[:60]!r}")
    return [(symbol, int(count)) for symbol, count in zip(words[::2], words[1::2], strict=True)]


def _numbers(lines: Lines, atoms: list[tuple[str, int]]) -> np.ndarray:
    wrong = [symbol for symbol, _ in atoms if symbol not in atomic_numbers or symbol == "X"]
    if wrong:
        raise lines.error(f"{wrong[0]!r} is no element")
    return np.repeat([atomic_numbers[symbol] for symbol, _ in atoms], [count for _, count in atoms])


def _masses(lines: Lines, atoms: list[tuple[str, int]], masses: dict[str, str]) -> np.ndarray:
    try:
        return np.repeat([float(masses[symbol]) for symbol, _ in atoms], [count for _, count in atoms])
    except (KeyError, ValueError):
        raise lines.error(f"no mass for each of {[symbol for symbol, _ in atoms]} among those in the header, "
                          f"{masses}") from None


def _frames(lines: Lines, first: list[tuple[str, int]], n_frames: int) -> Iterator[Frame]:
    atoms, n_atoms = first, sum(count for _, count in first)
    for k in range(n_frames):
        if k > 0:
            atoms = _atoms(lines)
        if atoms != first:
            raise lines.error(f"configuration {k + 1} has the atoms {atoms}, the first one {first}; dtmd needs the "
                              "same atoms in all, put each system into a file of its own")
        cell = _table(lines, "Primitive lattice vectors (ang.)", 3, k)
        positions = _table(lines, "Atomic positions (ang.)", n_atoms, k)
        _seek(lines, "Total energy (eV)")
        energy = float(lines.table(1, (0,), f"energy of configuration {k + 1}")[0, 0])
        yield Frame(positions, cell, _table(lines, "Forces (eV ang.^-1)", n_atoms, k), energy)


def _table(lines: Lines, title: str, n_rows: int, k: int) -> np.ndarray:
    """The (n_rows, 3) numbers below `title` of configuration `k`."""
    _seek(lines, title)
    table = lines.table(n_rows, (0, 1, 2), f"{title} of the {n_rows} rows of configuration {k + 1}")
    end = next(lines, None)
    if end is not None and not end.strip().startswith(_RULES):
        raise lines.error(f"{title} of configuration {k + 1}: more than {n_rows} rows, found {end.strip()[:60]!r}")
    return table


FORMAT = Format("VASP ML_AB", find, read)
