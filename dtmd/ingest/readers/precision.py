"""How exactly numbers are written in a text file."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

FINE = 1e-7
"""Å; rounding below this is not worth telling."""


def written_precision(tokens: Iterable[str], others: Iterable[str] = (), unit: float = 1.0) -> float | None:
    """Value of the last digit of lengths as written, such as 1e-5 Å; None where it is below `FINE`.

    Where the number of decimals differs, a fixed number of significant digits is taken (`%g`, LAMMPS's default,
    which leaves trailing zeros out): the largest length then has the coarsest last digit.

    Args:
        tokens: the lengths as written.
        others: numbers in the same format; they show the significant digits where the lengths are round.
        unit: of the lengths, Å.
    """
    try:
        lengths, alike = ([number for number in map(Decimal, group) if number.is_finite()]
                          for group in (tokens, others))
    except InvalidOperation:  # exponents of twenty digits
        return None
    if not lengths:
        return None
    exponents = {number.as_tuple().exponent for number in lengths}
    if len(exponents) > 1:
        digits = max(len(number.as_tuple().digits) for number in lengths + alike)
        exponents = {max(number.adjusted() for number in lengths) - digits + 1}
    last = unit * float(f"1e{exponents.pop()}")
    return None if last < 0.99 * FINE else last
