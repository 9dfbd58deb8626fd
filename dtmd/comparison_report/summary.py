"""What a reader takes away in a minute: a verdict and a number of each observable, and three figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtmd.comparison_report.curves import AIMD
from dtmd.comparison_report.text import estimate_text, value_text
from dtmd.observables.section import Plot, Row, Section, Verdict
from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import GAP, NOTHING

N_KEY_FIGURES = 3

_WORST_FIRST = (Verdict.DIFFERS, Verdict.UNDECIDED, Verdict.AGREES)


@dataclass(frozen=True)
class Cell:
    """What a line says of one side.

    Attributes:
        value: with its interval; empty where the row has none.
        difference: how far it is from the AIMD, in words; empty where it is not known.
    """

    verdict: Verdict | None
    value: str
    difference: str


@dataclass(frozen=True)
class Line:
    """One line of the summary: the number of an observable by which the verdict of a side fell.

    Attributes:
        aimd: its number with its interval, or how far apart its halves are.
        cells: of each side that the number is known of.
    """

    section: Section
    row: Row
    aimd: str
    cells: dict[str, Cell]


def verdict_of(section: Section, side: str) -> Verdict | None:
    """The worst of the rows of a section: it differs if one number does; None where nothing is judged."""
    found = {row.verdict[side] for row in section.rows if side in row.verdict}
    return next((verdict for verdict in _WORST_FIRST if verdict in found), None)


def deciding_rows(section: Section, sides: Sequence[str]) -> list[Row]:
    """The first row with the verdict of the section, of each side; the first row of all if none is judged."""
    rows: list[Row] = []
    for side in sides:
        worst = verdict_of(section, side)
        deciding = next((row for row in section.rows if worst and row.verdict.get(side) is worst), None)
        if deciding is not None and not any(deciding is row for row in rows):
            rows.append(deciding)
    return rows or list(section.rows[:1])


def summary_lines(sections: Sequence[Section], sides: Sequence[str]) -> list[Line]:
    """The lines of all sections that have numbers."""
    lines = []
    for section in sections:
        for row in deciding_rows(section, sides):
            cells = {side: cell_of(row, side) for side in known_sides(row, sides)}
            lines.append(Line(section, row, aimd_text(row), cells))
    return lines


def aimd_text(row: Row) -> str:
    """The AIMD in a row: its number, or how far apart its halves are."""
    if row.aimd is None and row.equal is not None:
        return f"halves differ by {value_text(row.equal)}"
    return estimate_text(row.aimd)


def cell_of(row: Row, side: str) -> Cell:
    """What a row says of one side, in short."""
    difference = ""
    if side in row.difference:
        apart = row.difference[side]
        if row.equal is None:
            difference = f"{estimate_text(apart, signed=True)} from AIMD"
        else:
            difference = f"{estimate_text(apart)} apart"
            if row.equal > 0.0:
                difference += f", {value_text(apart.value / row.equal, 2)}{GAP}×{GAP}AIMD halves"
    return Cell(row.verdict.get(side), _text(row.md.get(side)), difference)


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
        difference = _text(row.difference.get(side), signed=row.equal is None)
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
