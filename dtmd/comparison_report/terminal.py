"""The summary of a report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from dtmd.comparison_report.curves import side_names
from dtmd.comparison_report.header import Header
from dtmd.comparison_report.summary import MOST_IN_FULL, Cell, summary_lines
from dtmd.observables.section import AIMD, Section
from dtmd.presentation.numbers import NOTHING


def summary_table(sections: Sequence[Section], header: Header) -> Table:
    """The verdicts on all observables, and the numbers by which they fell where there is room for them."""
    sides = side_names(sections, header)
    in_full = len(sides) <= MOST_IN_FULL
    table = Table("observable", *([AIMD] if in_full else []), *sides)
    for line in summary_lines(sections, sides):
        cells = [_cell(line.cells[side], in_full) if side in line.cells else NOTHING for side in sides]
        if in_full:
            table.add_row(_lines(line.section.title, line.quantity), line.aimd, *cells, end_section=True)
        else:
            table.add_row(line.section.title, *cells)
    return table


def notes(header: Header) -> list[str]:
    """What the readers had to decide, and what could not be compared."""
    told = [f"{run.source}: {note}" for side in header.sides for run in side.runs for note in run.notes]
    return told + [f"skipped: {observable}: {reason}" for observable, reason in header.skipped]


def _cell(cell: Cell, in_full: bool) -> str:
    verdict = cell.verdict.value if cell.verdict else ""
    if not in_full:
        return verdict or cell.value
    return _lines(verdict, cell.quantity, cell.value or cell.difference)


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))
