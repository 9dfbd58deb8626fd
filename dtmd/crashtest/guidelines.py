"""What tests by MD should have, and which of it this crash test has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtmd.crashtest.models import CrashModel
from dtmd.crashtest.protocol import Protocol
from dtmd.crashtest.results import SideResults
from dtmd.observables.section import Section, Table, Verdict
from dtmd.presentation.numbers import duration
from dtmd.trajectory import Trajectory

STARTS, TIME = 12, 1e6
"""Starts of each experiment, and fs of each run, in the TEA Challenge 2023."""

NEAR = 0.1
"""Share of its temperature by which the AIMD may differ from the runs that are held against it."""

YES, PARTLY, NO = "yes", "in part", "no"


def checklist(
    models: Sequence[CrashModel], protocol: Protocol, results: Sequence[SideResults], aimd: Sequence[Trajectory],
    sections: Sequence[Section],
) -> Table:
    """The guidelines, each with whether it was followed and by what.

    Args:
        models, protocol, results: of the crash test.
        aimd: the reference.
        sections: the observables that were compared.
    """
    lines = [
        *_protocol_lines(protocol), _same_for_all(results), _energy(protocol, sections),
        *_reference_lines(protocol, aimd, sections), _intervals(results), *_model_lines(models),
    ]
    return Table("Guidelines for tests of potentials by MD, as in the TEA Challenge 2023 (numbers in brackets: its "
                 "guidelines), and what was done here.", ("guideline", "followed", "here"), lines)


def _protocol_lines(protocol: Protocol) -> list[tuple[str, str, str]]:
    temperatures = ", ".join(f"{t:g}" for t in protocol.temperatures)
    several = len(protocol.temperatures) > 1
    return [
        ("Several temperatures", YES if several else NO, f"{temperatures} K"),
        (f"Several starts ({STARTS} there)", YES if protocol.n >= STARTS else PARTLY if protocol.n > 1 else NO,
         f"{protocol.n} of each model at each temperature"),
        (f"Long enough ({duration(TIME)} there)", YES if protocol.time >= TIME else PARTLY,
         f"{duration(protocol.time)} each"),
        ("Velocities drawn anew for each start", YES, f"Maxwell–Boltzmann at the temperature, seed {protocol.seed}"),
    ]


def _same_for_all(results: Sequence[SideResults]) -> tuple[str, str, str]:
    n_left_out = sum(len(side.left_out) for side in results)
    text = "starts, velocities, time step, thermostat and limits"
    if n_left_out:
        return "The same protocol for every model", PARTLY, f"{text}; {n_left_out} runs have no result"
    return "The same protocol for every model", YES, text


def _energy(protocol: Protocol, sections: Sequence[Section]) -> tuple[str, str, str]:
    what = "Energy conserved"
    found = next((section for section in sections if section.name == "conservation"), None)
    if not protocol.conserves_energy:
        return what, NO, f"not tested: the runs are at {protocol.conditions}; repeat with --nve"
    if found is None:
        return what, NO, "not looked at: left out of the observables"
    verdicts = found.rows[0].verdict
    bad = [side for side, verdict in verdicts.items() if verdict is not Verdict.AGREES]
    if bad:
        return what, PARTLY if len(bad) < len(verdicts) else NO, f"not, or not enough data: {'; '.join(bad)}"
    return what, YES, "by the drift ratio, on all sides"


def _reference_lines(
    protocol: Protocol, aimd: Sequence[Trajectory], sections: Sequence[Section]
) -> list[tuple[str, str, str]]:
    titles = ", ".join(section.title for section in sections)
    lines = [("Observables compared with the reference", YES if sections else NO, titles or "none was")]
    what = "Reference at the same temperature"
    kelvin = [float(t.temperatures().mean()) for t in aimd if t.velocities is not None]
    if not kelvin:
        return [*lines, (what, NO, "the AIMD has no velocities that tell its temperature")]
    mean = float(np.mean(kelvin))
    near = [t for t in protocol.temperatures if abs(t / mean - 1.0) <= NEAR]
    followed = YES if len(near) == len(protocol.temperatures) else PARTLY if near else NO
    text = f"the AIMD is at {mean:.0f} K, the runs at {', '.join(f'{t:g}' for t in protocol.temperatures)} K"
    return [*lines, (what, followed, text)]


def _intervals(results: Sequence[SideResults]) -> tuple[str, str, str]:
    what, n_least = "Uncertainties", min(len(side.runs) for side in results)
    if n_least < 2:
        return what, PARTLY, "of shares (Wilson) only: a single run tells no more"
    return what, YES, f"95 % intervals, over at least {n_least} runs"


def _model_lines(models: Sequence[CrashModel]) -> list[tuple[str, str, str]]:
    told = [model.label for model in models if {"config", "data_sha256"} <= set(model.metadata)]
    count = YES if len(told) == len(models) else PARTLY if told else NO
    return [
        ("A second model to check against (1)", YES if len(models) > 1 else NO,
         ", ".join(model.label for model in models)),
        ("Errors by element and environment, not one average (2, 3)", NO, "not part of this test; see dtmd evaluate"),
        ("Settings and data of the training in the model file (8)", count,
         f"in that of {', '.join(told)}" if told else "in none of the files"),
    ]
