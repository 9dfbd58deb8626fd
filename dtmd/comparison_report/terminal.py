"""The summary of a report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from dtmd.comparison_report.curves import side_names
from dtmd.comparison_report.header import Header
from dtmd.comparison_report.summary import Cell, summary_lines
from dtmd.observables.section import Section
from dtmd.presentation.numbers import NOTHING


def summary_table(sections: Sequence[Section], header: Header) -> Table:
    """The number of each observable by which the verdict fell, on all sides."""
    sides = side_names(sections, header)
    table = Table("observable", "AIMD", *sides)
    for line in summary_lines(sections, sides):
        cells = [_cell(line.cells[side]) if side in line.cells else NOTHING for side in sides]
        table.add_row("\n".join(filter(None, (line.section.title, line.quantity))), line.aimd, *cells, end_section=True)
    return table


def notes(header: Header) -> list[str]:
    """What the readers had to decide, and what could not be compared."""
    told = [f"{run.source}: {note}" for side in header.sides for run in side.runs for note in run.notes]
    return told + [f"skipped: {observable}: {reason}" for observable, reason in header.skipped]


def _cell(cell: Cell) -> str:
    parts = (cell.verdict.value if cell.verdict else "", cell.quantity, cell.value or cell.difference)
    return "\n".join(filter(None, parts))
