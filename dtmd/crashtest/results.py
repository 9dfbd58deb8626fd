"""What became of each run: how long it lived, what ended it, how fast it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dtmd.comparison.gathering import Stream
from dtmd.crashtest.runs import Batch
from dtmd.crashtest.tasks import CRASHED, DUMP
from dtmd.ensemble.lammps_run import state_of
from dtmd.md import open_run
from dtmd.observables.survival import End, Life, Survival


@dataclass(frozen=True)
class RunResult:
    """One run that came to its end.

    Attributes:
        name: of the run.
        dump: its frames; None where it crashed before the first.
        life: how long it stayed within the limits; its crash is one.
        crash: why the program stopped before the end, None where it did not.
        speed: MD steps per second; None where it was too short to tell.
    """

    name: str
    dump: Path | None
    life: Life
    crash: str | None
    speed: float | None

    @property
    def alive(self) -> bool:
        """To the end of the run."""
        return self.life.end is None


@dataclass(frozen=True)
class SideResults:
    """Those of a model at a temperature.

    Attributes:
        left_out: (run, reason) of those without a result.
    """

    batch: Batch
    runs: Sequence[RunResult]
    left_out: Sequence[tuple[str, str]]

    @property
    def failed(self) -> list[RunResult]:
        """Those that did not live to the end."""
        return [run for run in self.runs if not run.alive]


def results_of(batch: Batch, survival: Survival) -> SideResults:
    """Read the runs of a model at a temperature.

    Raises:
        DtmdError: a damaged dump.
    """
    found, left_out = [], []
    for run in batch.runs:
        state = state_of(run.folder)
        if run.done():
            found.append(_result(run.name, run.folder, state, survival))
        else:
            left_out.append((run.name, state.get("problem", "it has not finished").splitlines()[0]))
    return SideResults(batch, found, left_out)


def _result(name: str, folder: Path, state: dict, survival: Survival) -> RunResult:
    crash = state["problem"].splitlines()[0] if state["state"] == CRASHED else None
    dump = folder / DUMP
    has_frames = dump.exists() and dump.stat().st_size > 0  # a crash at the very start leaves none
    life, n_frames = life_of(open_run(dump), survival) if has_frames else (Life(str(dump), 0.0, None, ()), 0)
    if crash is not None and life.end is None:
        life = replace(life, end=End(n_frames, life.observed, (crash,), None))
    seconds, steps = state.get("md_seconds", 0.0), state["steps"]
    return RunResult(name, dump if has_frames else None, life, crash, steps / seconds if steps and seconds else None)


def life_of(run: Stream, survival: Survival) -> tuple[Life, int]:
    """How long a run stayed within the limits, and the number of its frames."""
    watch, n_frames = survival.start(run.first), 0
    for block in run.blocks():
        watch.add(block, np.ones(len(block)))  # survival does not weigh frames
        n_frames += len(block)
    return watch.result(), n_frames
