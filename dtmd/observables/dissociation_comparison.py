"""How often, when and for how long bonds come apart in MD and in AIMD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from dtmd.observables.dissociation import BondCriterion, BondFollower, Dissociation, Event, bonds_at_start
from dtmd.observables.distributions import plot_name
from dtmd.observables.kaplan_meier import SurvivalCurve, kaplan_meier, longest_common_time
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.over_runs import estimate_row
from dtmd.observables.section import AIMD, Curve, Plot, Section, Table, sides
from dtmd.observables.selection import Pair, atom_ids, check_atoms
from dtmd.observables.statistics import Estimate, wilson_interval
from dtmd.trajectory import Trajectory


@dataclass(frozen=True)
class DissociationSettings:
    """What the user may set.

    Attributes:
        criterion: when a bond counts as broken.
        bonds: atom index pairs (from 0) to follow; None for the H₂ molecules of each first frame.
        tolerance: difference of shares up to which MD agrees with AIMD.
    """

    criterion: BondCriterion = BondCriterion()
    bonds: tuple[Pair, ...] | None = None
    tolerance: float = 0.1


class Dissociations(Observable):
    """Dissociation and recombination of the bonds that the first frame of each run has."""

    name = "dissociation"
    windowed = True

    def __init__(self, settings: DissociationSettings = DissociationSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> BondFollower:
        named = self.settings.bonds
        check_atoms(named or (), first)
        bonds = bonds_at_start(first, None if named is None else list(named), self.settings.criterion)
        if not len(bonds):
            raise NotApplicable("its first frame has no H₂ molecule" if named is None else
                                "the named bonds are broken in its first frame")
        return BondFollower(first, bonds, self.settings.criterion)

    def compare(self, md: Mapping[str, Sequence[Dissociation]], aimd: Sequence[Dissociation]) -> Section:
        runs, tolerance = sides(md, aimd), self.settings.tolerance
        curves = {side: _survival(results) for side, results in runs.items()}
        end = longest_common_time(curves.values())
        shares = {side: _share(results) for side, results in runs.items()}
        apart = {side: _complement(curve.at(end)) for side, curve in curves.items()}
        rows = [
            estimate_row("runs with a dissociation", "", shares, tolerance, _undecided(runs)),
            estimate_row(f"runs with a dissociation within {end:g} fs (Kaplan–Meier)", "", apart, tolerance),
        ]
        again = {side: wilson_interval(sum(len(run.recombinations) for run in results), n) for side, results in
                 runs.items() if (n := sum(len(run.events) for run in results))}
        if again:
            rows.append(estimate_row("dissociations that end in recombination", "", again))
        plot = Plot(
            plot_name(self.name, "survival"), "Runs without a dissociation so far (Kaplan–Meier)", "time / fs", "share",
            [Curve(side, *curve.steps(), side) for side, curve in curves.items()],
        )
        return Section(
            self.name, "Dissociation", self._definition(), rows, [plot], [_events(runs)], self._rule(), caveats=[
                "A longer run has more time to dissociate: compare the shares within a time, or in the window of "
                "the duration of the AIMD."])

    def _definition(self) -> str:
        criterion = self.settings.criterion
        followed = ("the H₂ molecules of the first frame: two H atoms, each the other's nearest atom"
                    if self.settings.bonds is None else f"bonds {', '.join(map(atom_ids, self.settings.bonds))}")
        return (
            f"Followed are {followed}. A bond longer than {criterion.broken_above:g} Å has come apart, from that frame "
            f"on, unless it is shorter than {criterion.bonded_below:g} Å again within {criterion.persistence:g} fs; "
            "vibration is not counted. A bond that came apart recombines in the frame in which it is that short again. "
            "Shares with Wilson's intervals; differences with Newcombe's. The Kaplan–Meier estimate takes into account "
            "that runs are followed for unequal times, and runs that end with a bond open for less than that time only "
            "until it opened; its interval is Rothman's."
        )

    def _rule(self) -> str:
        return (f"MD agrees where the whole interval of the difference of the shares is within ±"
                f"{self.settings.tolerance:g}, and differs where none of it is.")


def _survival(runs: Sequence[Dissociation]) -> SurvivalCurve:
    """Until the first dissociation of each run."""
    times = [run.events[0].time if run.events else run.followed for run in runs]
    return kaplan_meier(np.array(times), np.array([bool(run.events) for run in runs]))


def _share(runs: Sequence[Dissociation]) -> Estimate:
    return wilson_interval(sum(bool(run.events) for run in runs), len(runs))


def _complement(share: Estimate) -> Estimate:
    return Estimate(1.0 - share.value, 1.0 - share.high, 1.0 - share.low)


def _undecided(runs: Mapping[str, Sequence[Dissociation]]) -> str:
    counts = {side: sum(bool(run.undecided) for run in results) for side, results in runs.items()}
    return "; ".join(f"{side}: {n} undecided at the end" for side, n in counts.items() if n)


def _events(runs: Mapping[str, Sequence[Dissociation]]) -> Table:
    """All events; the AIMD first."""
    lines = []
    for side in sorted(runs, key=lambda side: side != AIMD):
        for run in runs[side]:
            found = [(event, "dissociation") for event in run.events]
            found += [(event, "recombination") for event in run.recombinations]
            lines += [_line(side, run, event, what) for event, what in sorted(found, key=lambda pair: pair[0].frame)]
    return Table("Events", ("side", "run", "bond", "what", "time / fs", "frame"), lines)


def _line(side: str, run: Dissociation, event: Event, what: str) -> tuple[str, ...]:
    name = "/".join(PurePath(run.source).parts[-2:])
    return side, name, atom_ids(event.bond), what, f"{event.time:g}", str(event.frame)
