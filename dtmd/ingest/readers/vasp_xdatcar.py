"""Reader of VASP's XDATCAR: wrapped scaled positions of every NBLOCK-th MD step, nothing else.

The header comes again before each step where the cell changes; old versions have empty lines for step numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from dtmd.ingest.readers import vasp
from dtmd.ingest.source import Candidate, Format, Frame, Lines, RawRun, Source

_STEP = re.compile(r"(?:Direct configuration|Konfig)\s*=\s*(\S+)")


def find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates if vasp.is_xdatcar(c.head)]


def read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    head = _header(lines, lines.need("the header"))
    separator = lines.need("the header")
    notes = []
    if not _STEP.search(separator):
        notes.append("the XDATCAR does not number its steps (old version of VASP)")
    precision = vasp.digits(_decimals(source), head.cell)
    return RawRun(
        code="VASP", numbers=head.numbers, pbc=np.full(3, True), frames=_frames(lines, head, separator),
        precision=precision, notes=notes,
    )


@dataclass(frozen=True)
class _Header:
    """Seven lines: name, scale, cell, elements, numbers of atoms."""

    cell: np.ndarray
    numbers: np.ndarray


def _header(lines: Lines, name: str) -> _Header:
    """The header whose first line, the `name`, has been read."""
    what = f"the header {name.strip()[:30]!r}"
    scale = float(lines.table(1, (0,), what)[0, 0])
    cell = lines.table(3, (0, 1, 2), what)
    with np.errstate(all="ignore"):
        volume = abs(np.linalg.det(cell))
        cell = cell * (scale if scale > 0 else (-scale / volume) ** (1 / 3))
    if not (np.isfinite(cell).all() and volume > 0 and scale != 0):
        raise lines.error(f"{what}: scale {scale:g} and a cell of {volume:g} Å³")
    symbols, words = lines.need(what).split(), lines.need(what).split()
    counts = vasp.counts(words)
    if counts is None or len(symbols) != len(counts):
        raise lines.error(f"{what}: elements {' '.join(symbols)[:40]!r} with numbers {' '.join(words)[:40]!r}")
    wrong = [symbol for symbol in symbols if symbol not in atomic_numbers or symbol == "X"]
    if wrong:
        raise lines.error(f"{what}: {wrong[0]!r} is no element")
    return _Header(cell, np.repeat([atomic_numbers[symbol] for symbol in symbols], counts))


def _decimals(source: Source) -> int:
    """Of the first number of the first step."""
    lines = source.lines(source.main)
    row = [lines.need("the first step") for _ in range(9)][-1].split()
    lines.close()
    return len(row[0].partition(".")[2]) if row else 0


def _frames(lines: Lines, head: _Header, separator: str | None) -> Iterator[Frame]:
    """The steps, from that of `separator` on; it is None at the end."""
    counted, numbers = _STEP.search(separator) is not None, head.numbers
    while separator is not None:
        if (_STEP.search(separator) is None) if counted else separator.strip():
            head = _header(lines, separator)
            if not np.array_equal(head.numbers, numbers):
                raise lines.error("other atoms than in the first step; put each run into a file of its own")
            separator = lines.need("the header")
        step = _step(lines, separator) if counted else None
        scaled = lines.table(len(numbers), (0, 1, 2), "the first step" if step is None else f"configuration {step}")
        yield Frame(positions=vasp.cartesian(scaled, head.cell), cell=head.cell, step=step)
        separator = next(lines, None)


def _step(lines: Lines, separator: str) -> int:
    found = _STEP.search(separator)
    if found is None or vasp.counts([found[1]]) is None:
        raise lines.error(f"expected 'Direct configuration=' and a number, found {separator.strip()[:60]!r}")
    return int(found[1])


FORMAT = Format("VASP XDATCAR", find, read, unfinished_is_usual=True)
