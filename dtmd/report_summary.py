"""The comparison in one table: what a reader takes away in a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from dtmd.compare import Comparison, Side, Window
from dtmd.observables.distance_comparison import TOTAL, DistanceComparison
from dtmd.observables.dissociation import DissociationCount
from dtmd.observables.statistics import Estimate
from dtmd.presentation.numbers import GAP, NOTHING, decimals, duration, fixed, number, percent

SUMMARY_COLUMNS = ("Observable", "MD", "AIMD", "Difference", "Note")


@dataclass(frozen=True)
class SummaryRow:
    """One line of the summary, texts ready to show, in the order of `SUMMARY_COLUMNS`."""

    observable: str
    md: str
    aimd: str
    difference: str
    note: str


def summary_rows(comparison: Comparison) -> list[SummaryRow]:
    """The summary of a comparison, for the report and for the terminal."""
    rows = [SummaryRow("Data", data_size(comparison.md), data_size(comparison.aimd), NOTHING, "")]
    for window in comparison.windows:
        rows.append(_distance_row(window, window.distances[0]))
    worst = max(comparison.windows[-1].distances[1:], key=lambda d: times_split_half(d) or 0.0)
    if times_split_half(worst) is not None:
        rows.append(_distance_row(comparison.windows[-1], worst))
    for window in comparison.windows:
        if window.md_dissociation and window.aimd_dissociation:
            rows.append(_dissociation_row(window, window.md_dissociation, window.aimd_dissociation))
    if comparison.rollout is not None:
        rows.append(_rollout_row(comparison))
    if comparison.md.drift is not None:
        rows.append(_drift_row(comparison))
    if comparison.md.temperature is not None:
        rows.append(_temperature_row(comparison))
    return rows


def with_interval(estimate: Estimate, unit: str = "", digits: int = 3) -> str:
    """Value with its unit, and its 95 % interval in brackets if there is one.

    Without an interval the value has so many significant digits, with one the decimals in which the
    half-width has two.
    """
    unit = f"{GAP}{unit}" if unit else ""
    if estimate.low is None:
        return f"{number(estimate.value, digits)}{unit}"
    half_width = max(estimate.high - estimate.value, estimate.value - estimate.low)
    places = min(decimals(half_width, 2), decimals(estimate.value, 3)) if half_width else digits
    low, high = fixed(estimate.low, places), fixed(estimate.high, places)
    return f"{fixed(estimate.value, places)}{unit} ({low} to {high})"


def short_names(sources: list[str]) -> dict[str, str]:
    """The end of each path that tells it from the others: as few parts as do."""
    for n_parts in range(1, max(len(PurePath(s).parts) for s in sources) + 1):
        names = {source: "/".join(PurePath(source).parts[-n_parts:]) for source in sources}
        if len(set(names.values())) == len(set(sources)):
            return names
    return {source: source for source in sources}


def times_split_half(distance: DistanceComparison) -> float | None:
    """The Wasserstein distance as a multiple of what equal looks like."""
    return distance.wasserstein.value / distance.split_half if distance.split_half else None


def atom_ids(bond: tuple[int, int]) -> str:
    """A bond by its atom ids, which count from 1 as in LAMMPS."""
    return f"{bond[0] + 1}–{bond[1] + 1}"


def share_of_runs(count: DissociationCount) -> str:
    """How many trajectories dissociated, with the interval of the share."""
    return (f"{count.n_dissociated} of {count.n_trajectories} ({percent(count.share.low)} to "
            f"{percent(count.share.high)})")


def data_size(side: Side) -> str:
    """Number of trajectories, frames and total duration."""
    n, frames, total = len(side.runs), sum(r.n_frames for r in side.runs), sum(r.duration for r in side.runs)
    return f"{n} {'trajectory' if n == 1 else 'trajectories'}, {frames} frames, {duration(total)}"


def _distance_row(window: Window, distance: DistanceComparison) -> SummaryRow:
    what = "all pairs" if distance.pair == TOTAL else f"{distance.pair}, the pair furthest off"
    multiple, equal = times_split_half(distance), NOTHING
    note = "no AIMD halves to compare: a single trajectory"
    if multiple is not None:
        equal = f"its halves differ by {number(distance.split_half, 2)}{GAP}Å"
        note = f"{number(multiple, 2)}{GAP}× the distance between halves of the AIMD"
    difference = f"W₁ {with_interval(distance.wasserstein, 'Å', 2)}; overlap {number(distance.overlap.value)}"
    return SummaryRow(f"Distances, {what} ({window.label})",
                      f"{percent(distance.outside)} outside the AIMD range", equal, difference, note)


def _dissociation_row(window: Window, md: DissociationCount, aimd: DissociationCount) -> SummaryRow:
    apart = md.share.low > aimd.share.high or aimd.share.low > md.share.high
    points = 100 * (md.share.value - aimd.share.value)
    note = "the 95 % intervals do not meet" if apart else "the 95 % intervals overlap"
    if window.duration > 1.01 * max(1.0, window.aimd_duration):
        note += "; the MD had more time"
    return SummaryRow(f"Dissociation ({window.label})", share_of_runs(md), share_of_runs(aimd),
                      f"{points:+.0f} percentage points".replace("-", "−"), note)


def _rollout_row(comparison: Comparison) -> SummaryRow:
    rollout = comparison.rollout
    species = zip(rollout.elements, rollout.species, strict=True)
    terms = " + ".join(f"{element}{GAP}{number(term.value)}" for element, term in species)
    n_runs = len(rollout.runs)
    return SummaryRow(
        f"Force error along the rollout (MEPA, {rollout.n_steps} steps, {duration(rollout.times[-1])})",
        f"{n_runs} {'run' if n_runs == 1 else 'runs'} from AIMD frames",
        f"forces of {number(rollout.reference_force)}{GAP}eV/Å",
        f"{with_interval(rollout.mepa, 'eV/Å')}", f"sum over species: {terms}",
    )


def _drift_row(comparison: Comparison) -> SummaryRow:
    md, aimd = comparison.md, comparison.aimd
    largest = max(run.conservation.largest for run in md.runs if run.conservation)
    return SummaryRow(
        "Drift of the total energy", with_interval(md.drift, "meV/atom/ps", 2),
        with_interval(aimd.drift, "meV/atom/ps", 2) if aimd.drift else NOTHING,
        f"{number(md.drift.value - aimd.drift.value, 2)}{GAP}meV/atom/ps" if aimd.drift else NOTHING,
        f"MD stays within {number(largest, 2)}{GAP}meV/atom of its start",
    )


def _temperature_row(comparison: Comparison) -> SummaryRow:
    md, aimd = comparison.md.temperature, comparison.aimd.temperature
    difference = f"{md.value - aimd.value:+.1f}{GAP}K".replace("-", "−") if aimd else NOTHING
    return SummaryRow("Temperature", with_interval(md, "K"), with_interval(aimd, "K") if aimd else NOTHING,
                      difference, "mean over trajectories")
