"""The page of the report: one HTML text with figures, style and script inside."""

from __future__ import annotations

from collections.abc import Sequence

from dtmd.comparison_report.curves import side_names
from dtmd.comparison_report.data import figure_data, file_names, side_colours
from dtmd.comparison_report.header import Header
from dtmd.comparison_report.summary import MOST_IN_FULL, key_plots, number_lines, summary_lines, tally, verdict_of
from dtmd.observables.section import Section, Verdict
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
        "mark": _MARKS.__getitem__, "number_lines": lambda row: number_lines(row, sides),
        "place": lambda item: places[id(item)],
        "paragraphs": lambda text: [part.strip() for part in text.split("\n\n") if part.strip()],
    }
    return render_page(
        _TEMPLATE, filters, header=header, sections=sections, sides=sides, colours=side_colours(sides),
        figures=figures, lines=summary_lines(sections, sides), in_full=len(sides) <= MOST_IN_FULL,
        long_table=LONG_TABLE, tallies={side: tally(sections, side) for side in sides}, keys=key_plots(sections, sides),
        verdict_of=verdict_of,
    )
