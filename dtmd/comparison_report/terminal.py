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
    table = Table("observable", "number", "AIMD", *sides)
    for line in summary_lines(sections, sides):
        unit = f" ({line.row.unit})" if line.row.unit else ""
        cells = [_cell(line.cells[side]) if side in line.cells else NOTHING for side in sides]
        table.add_row(line.section.title, line.row.quantity + unit, line.aimd, *cells)
    return table


def notes(header: Header) -> list[str]:
    """What the readers had to decide, and what could not be compared."""
    told = [f"{run.source}: {note}" for side in header.sides for run in side.runs for note in run.notes]
    return told + [f"skipped: {observable}: {reason}" for observable, reason in header.skipped]


def _cell(cell: Cell) -> str:
    parts = [cell.verdict.value if cell.verdict else "", cell.value or cell.difference]
    return ": ".join(part for part in parts if part)
