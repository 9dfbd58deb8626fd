"""Numbers with intervals as people read them."""

from __future__ import annotations

from math import floor, isfinite, isnan, log10

from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import GAP, NOTHING, decimals, fixed, number

SMALL, LARGE = 1e-3, 1e6
"""Sizes from which a number is written with a power of ten."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def estimate_text(estimate: Estimate | None, signed: bool = False) -> str:
    """Value and, in brackets, its 95 % interval; the decimals show one or two digits of the half-width.

    Very small and large ones share one power of ten. No line breaks within the brackets.

    Args:
        signed: put a plus before a positive value.
    """
    if estimate is None or isnan(estimate.value):
        return NOTHING
    value, low, high = estimate.value, estimate.low, estimate.high
    plus = "+" if signed and value > 0.0 else ""
    if low is None or high is None or not (isfinite(value) and isfinite(low) and isfinite(high)):
        return plus + value_text(value)
    size = max(abs(low), abs(high), abs(value))
    exponent = 0 if size == 0.0 or SMALL <= size < LARGE else floor(log10(size))
    value, low, high = (x / 10.0**exponent for x in (value, low, high))
    half_width = max(high - value, value - low)
    places = decimals(value, 3)
    if half_width:
        places = max(decimals(half_width, 1), min(decimals(half_width, 2), places))
    brackets = f"({fixed(low, places)} to {fixed(high, places)})".replace(" ", GAP)
    return f"{plus}{fixed(value, places)} {brackets}" + (_power(exponent) if exponent else "")


def value_text(value: float, digits: int = 3) -> str:
    """A number alone, with a power of ten where it is very small or large."""
    if isnan(value):
        return NOTHING
    if not isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value == 0.0 or SMALL <= abs(value) < LARGE:
        return number(value, digits)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return mantissa.replace("-", "−") + _power(int(exponent))


def _power(exponent: int) -> str:
    return f"{GAP}·{GAP}10{str(exponent).translate(_SUPERSCRIPTS)}"
