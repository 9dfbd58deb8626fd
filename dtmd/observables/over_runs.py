"""One number of every run of every side, put together as a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dtmd.observables.section import Row, judged
from dtmd.observables.statistics import Estimate, difference, mean_over_runs

RULE = ("Over several runs the number is their mean, with the 95 % bootstrap interval over runs. A side agrees where "
        "the whole interval of its difference lies within the tolerance, differs where none of it does, and there is "
        "not enough data otherwise, or where a side is a single run.")


def estimates_row(
    quantity: str, unit: str, md: Mapping[str, Estimate], aimd: Estimate | None, tolerance: float | None = None,
    note: str = "",
) -> Row:
    """A row of numbers that are known of each side; judged where there is a tolerance and a reference."""
    differences = {} if aimd is None else {side: difference(value, aimd) for side, value in md.items()}
    verdicts = {} if tolerance is None else {side: judged(d, tolerance) for side, d in differences.items()}
    return Row(quantity, unit, aimd, md, differences, verdict=verdicts, note=note)


def means(values: Mapping[str, Sequence[float]], seed: int) -> dict[str, Estimate]:
    """Mean over the runs of each side that has any."""
    return {side: mean_over_runs(np.array(of_runs), seed) for side, of_runs in values.items() if len(of_runs)}


def means_row(
    quantity: str, unit: str, md: Mapping[str, Sequence[float]], aimd: Sequence[float], seed: int,
    tolerance: float | None = None, note: str = "",
) -> Row:
    """A row of the means over runs; values of each run by side, and of each run of the AIMD."""
    reference = mean_over_runs(np.array(aimd), seed) if len(aimd) else None
    return estimates_row(quantity, unit, means(md, seed), reference, tolerance, note)
