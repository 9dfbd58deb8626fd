"""Numbers, times and names as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from math import floor, isfinite, log10
from pathlib import PurePath

from dtmd.units import FS_PER_PS

NOTHING = "–"
GAP = "\u00a0"
"""Between a number and its unit, where no line may break."""


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and a real minus sign, without an exponent."""
    return fixed(value, decimals(value, digits))


def fixed(value: float, decimals: int) -> str:
    """A number with so many decimals; a rounded −0 is 0."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def decimals(value: float, digits: int) -> int:
    """How many decimals show so many significant digits; at most six."""
    if not isfinite(value) or value == 0.0:
        return digits - 1
    return min(6, max(0, digits - 1 - floor(log10(abs(value)))))


def duration(fs: float) -> str:
    """A time in fs below 1 ps, else in ps."""
    return f"{fs:.4g}{GAP}fs" if fs < FS_PER_PS else f"{fs / FS_PER_PS:.4g}{GAP}ps"


def percent(share: float) -> str:
    """A share in per cent."""
    if 0.0 < share < 1e-4:
        return f"below{GAP}0.01{GAP}%"
    return f"{100 * share:.0f}{GAP}%" if share >= 0.1 else f"{100 * share:.2g}{GAP}%"


def clock(seconds: float) -> str:
    """A time of work as hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def now() -> str:
    """The date and the time of day, UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def short_names(sources: Sequence[str]) -> dict[str, str]:
    """The end of each path that tells it from the others: as few parts as do."""
    for n_parts in range(1, max(len(PurePath(s).parts) for s in sources) + 1):
        names = {source: "/".join(PurePath(source).parts[-n_parts:]) for source in sources}
        if len(set(names.values())) == len(set(sources)):
            return names
    return {source: source for source in sources}
