"""The page of the report: one HTML text with figures, style and script inside."""

from __future__ import annotations

from collections.abc import Sequence

from dtmd.comparison_report.curves import side_names
from dtmd.comparison_report.data import figure_data, file_names, side_colours
from dtmd.comparison_report.header import Header
from dtmd.comparison_report.summary import cell_of, key_plots, summary_lines, tally, verdict_of
from dtmd.comparison_report.text import estimate_text, value_text
from dtmd.observables.section import Row, Section, Verdict
from dtmd.presentation.page import render_page

LONG_TABLE = 12
"""Lines from which a table is folded."""

_TEMPLATE = "comparison_report/report.html"
_MARKS = {Verdict.AGREES: ("agrees", "✓"), Verdict.DIFFERS: ("differs", "✗"), Verdict.UNDECIDED: ("undecided", "?")}


def report_html(sections: Sequence[Section], header: Header) -> str:
    """The page; figures are drawn by its own script from data within it.

    Raises:
        DtmdError: two plots have one name.
    """
    sides = side_names(sections, header)
    plots = [plot for section in sections for plot in section.plots]
    names = file_names(plots)
    figures = [figure_data(plot, name, sides) for plot, name in zip(plots, names, strict=True)]
    # By identity: sections and plots hold arrays, which have no single answer to ==.
    places = {id(item): place for items in (plots, sections) for place, item in enumerate(items)}
    filters = {
        "estimate": estimate_text, "value": value_text, "mark": _MARKS.__getitem__,
        "place": lambda item: places[id(item)],
        "paragraphs": lambda text: [part.strip() for part in text.split("\n\n") if part.strip()],
    }
    return render_page(
        _TEMPLATE, filters, header=header, sections=sections, sides=sides, colours=side_colours(sides),
        figures=figures, lines=summary_lines(sections, sides), long_table=LONG_TABLE,
        tallies={side: tally(sections, side) for side in sides}, keys=key_plots(sections, sides),
        verdict_of=verdict_of, cell_of=cell_of, sides_of=lambda row: sides_of(row, sides),
    )


def sides_of(row: Row, sides: Sequence[str]) -> list[str]:
    """The sides that a row says anything of, at least one line for the AIMD alone."""
    return [side for side in sides if side in row.md or side in row.difference or side in row.verdict] or [""]
