"""Numbers with intervals as people read them."""

from __future__ import annotations

from math import isfinite, isnan

from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import GAP, NOTHING, decimals, fixed, number

SMALL, LARGE = 1e-4, 1e6
"""Sizes from which a number is written with a power of ten."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def estimate_text(estimate: Estimate | None, signed: bool = False) -> str:
    """Value and, in brackets, its 95 % interval; the decimals are those in which the half-width has two digits.

    Args:
        signed: put a plus before a positive value.
    """
    if estimate is None or isnan(estimate.value):
        return NOTHING
    value, low, high = estimate.value, estimate.low, estimate.high
    plus = "+" if signed and value > 0.0 else ""
    if low is None or high is None or not (isfinite(value) and isfinite(low) and isfinite(high)):
        return plus + value_text(value)
    half_width = max(high - value, value - low)
    if max(abs(low), abs(high), abs(value)) >= LARGE or 0.0 < half_width < SMALL:
        return f"{plus}{value_text(value)} ({value_text(low)} to {value_text(high)})"
    places = min(decimals(half_width, 2), decimals(value, 3)) if half_width else decimals(value, 3)
    return f"{plus}{fixed(value, places)} ({fixed(low, places)} to {fixed(high, places)})"


def value_text(value: float, digits: int = 3) -> str:
    """A number alone, with a power of ten where it is very small or large."""
    if isnan(value):
        return NOTHING
    if not isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value == 0.0 or SMALL <= abs(value) < LARGE:
        return number(value, digits)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}{GAP}·{GAP}10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", "−")
