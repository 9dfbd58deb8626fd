"""What a reader takes away in a minute: a verdict and a number of each observable, and three figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dtmd.comparison_report.text import estimate_text, value_text
from dtmd.observables.section import AIMD, Plot, Row, Section, Verdict
from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import GAP, NOTHING

N_KEY_FIGURES = 3
MOST_IN_FULL = 2
"""Sides up to which the summary has intervals."""

_WORST_FIRST = (Verdict.DIFFERS, Verdict.UNDECIDED, Verdict.AGREES)


@dataclass(frozen=True)
class Cell:
    """What a line says of one side.

    Attributes:
        quantity: by which the verdict of this side fell; empty where it is that of the line.
        value: with its interval; empty where the row has none.
        difference: how far it is from the AIMD, in words; empty where it is not known.
    """

    verdict: Verdict | None
    quantity: str
    value: str
    difference: str


@dataclass(frozen=True)
class Line:
    """One line of the summary: an observable by the number that decided the verdict of each side.

    Attributes:
        quantity: where one decided for all sides.
        aimd: its number with its interval, or how far apart its halves are; likewise.
        cells: of each side that a number is known of.
    """

    section: Section
    quantity: str
    aimd: str
    cells: dict[str, Cell]


def verdict_of(section: Section, side: str) -> Verdict | None:
    """The worst of the rows of a section: it differs if one number does; None where nothing is judged."""
    found = {row.verdict[side] for row in section.rows if side in row.verdict}
    return next((verdict for verdict in _WORST_FIRST if verdict in found), None)


def deciding_row(section: Section, side: str) -> Row | None:
    """The first row with the verdict of the section, or the first that says anything of a side that is not judged."""
    worst = verdict_of(section, side)
    rows = [row for row in section.rows if known_sides(row, [side]) and row.verdict.get(side) is worst]
    return rows[0] if rows else None


def summary_lines(sections: Sequence[Section], sides: Sequence[str]) -> list[Line]:
    """The lines of all sections that have numbers; with many sides without the intervals, which are in the sections."""
    lines = []
    for section in sections:
        rows = {side: row for side in sides if (row := deciding_row(section, side)) is not None}
        if not section.rows:
            continue
        shared = next(iter(rows.values()), section.rows[0])
        alike = all(row is shared for row in rows.values())
        cells = {side: _cell(row, side, named=not alike, short=len(sides) > MOST_IN_FULL) for side, row in rows.items()}
        lines.append(Line(section, _named(shared) if alike else "", aimd_text(shared) if alike else NOTHING, cells))
    return lines


def aimd_text(row: Row) -> str:
    """The AIMD in a row: its number, or how far apart its halves are."""
    if row.aimd is None and row.equal is not None:
        return f"halves differ by {value_text(row.equal)}"
    return estimate_text(row.aimd)


def _cell(row: Row, side: str, named: bool, short: bool) -> Cell:
    """What a row says of one side, with the name of its quantity or without, with intervals or without."""
    difference = ""
    if side in row.difference:
        apart = replace(row.difference[side], low=None, high=None) if short else row.difference[side]
        if not _is_distance(row):
            difference = f"{estimate_text(apart, signed=True)} from AIMD"
        else:
            difference = f"{estimate_text(apart)} apart"
            if row.equal:
                difference += f", {value_text(apart.value / row.equal, 2)}{GAP}×{GAP}AIMD halves"
    value = row.md.get(side)
    if value is not None and short:
        value = replace(value, low=None, high=None)
    return Cell(row.verdict.get(side), _named(row) if named else "", _text(value), difference)


def _is_distance(row: Row) -> bool:
    """Whether its differences have no sign; how far apart equal sides are is not known of a single trajectory."""
    return row.equal is not None or (row.aimd is None and not row.md)


def _named(row: Row) -> str:
    return f"{row.quantity} ({row.unit})" if row.unit else row.quantity


@dataclass(frozen=True)
class NumberLine:
    """One side in a row of a table of numbers; texts are empty where nothing is known."""

    side: str
    value: str
    difference: str
    verdict: Verdict | None


def number_lines(row: Row, sides: Sequence[str]) -> list[NumberLine]:
    """The lines of a row in the table of its section: the AIMD, then the sides that anything is known of."""
    lines = []
    if row.aimd is not None or row.equal is not None:
        halves = "" if row.equal is None else f"{value_text(row.equal)} between halves"
        lines.append(NumberLine(AIMD, _text(row.aimd), halves, None))
    for side in known_sides(row, sides):
        difference = _text(row.difference.get(side), signed=not _is_distance(row))
        lines.append(NumberLine(side, _text(row.md.get(side)), difference, row.verdict.get(side)))
    return lines or [NumberLine("", NOTHING, "", None)]


def known_sides(row: Row, sides: Sequence[str]) -> list[str]:
    """The sides that a row says anything of."""
    return [side for side in sides if side in row.md or side in row.difference or side in row.verdict]


def _text(estimate: Estimate | None, signed: bool = False) -> str:
    return "" if estimate is None else estimate_text(estimate, signed)


def tally(sections: Sequence[Section], side: str) -> dict[Verdict, int]:
    """How many observables have each verdict, the worst first; those that none has are left out."""
    verdicts = [verdict_of(section, side) for section in sections]
    return {verdict: verdicts.count(verdict) for verdict in _WORST_FIRST if verdict in verdicts}


def key_plots(sections: Sequence[Section], sides: Sequence[str]) -> list[tuple[Section, Plot]]:
    """The first curves of those sections that differ, then of those undecided, agreeing and not judged."""

    def rank(section: Section) -> int:
        verdicts = [verdict_of(section, side) for side in sides]
        return next((k for k, verdict in enumerate(_WORST_FIRST) if verdict in verdicts), len(_WORST_FIRST))

    first = [(section, next((plot for plot in section.plots if isinstance(plot, Plot)), None)) for section in sections]
    drawn = [(section, plot) for section, plot in first if plot is not None]
    return sorted(drawn, key=lambda pair: rank(pair[0]))[:N_KEY_FIGURES]
