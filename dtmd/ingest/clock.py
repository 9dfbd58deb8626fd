"""When the frames of a run were: step numbers, time step, and the unbroken pieces between gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.recording import Recording
from dtmd.trajectory import Check

REPEATED = 0.05
"""eV/Å; forces of a step that a restart computes again agree within it."""

SAME_TIMESTEP = 1e-3
"""Largest relative difference of a time step that is given to the one in the file, which may be rounded."""

Segments = list[tuple[int, int]]
"""First and one-past-last frame of each unbroken piece."""


@dataclass(frozen=True)
class Clock:
    """When the frames were.

    Attributes:
        steps: number of each frame in units of the usual spacing, from 0, (T,).
        spacing: fs between frames, None if nothing says it.
        origin: where that is written.
        notes: for the user.
    """

    steps: np.ndarray
    spacing: float | None
    origin: str
    notes: tuple[str, ...] = ()


def clock_of(rec: Recording, given: float | None, insist: bool) -> Clock:
    """The clock of a run.

    Args:
        rec: the run.
        given: fs between frames, as the user says.
        insist: the user's word counts more than the file's.

    Raises:
        DtmdError: a time step that is no positive number, or contradicts the user's.
    """
    clock = _by_times(rec) if rec.times is not None and len(rec) > 1 else _by_steps(rec)
    said = clock.spacing
    if said is not None and not (np.isfinite(said) and said > 0.0):
        raise DtmdError(f"{rec.name}: the time step is {said:g} fs ({clock.origin}); correct it in the file")
    if given is None or (said is not None and abs(given / said - 1.0) <= SAME_TIMESTEP):
        return clock
    if said is not None and not insist:
        raise DtmdError(f"{rec.name}: the file says {said:g} fs between frames ({clock.origin}), you say {given:g} "
                        "fs; leave --timestep out, or insist with --allow timestep")
    return Clock(clock.steps, given, "given", clock.notes)


def _by_times(rec: Recording) -> Clock:
    spacing = float(np.median(np.diff(rec.times)))
    if spacing <= 0.0:
        return Clock(np.zeros(len(rec)), None, "")
    return Clock((rec.times - rec.times[0]) / spacing, spacing, rec.run.timestep_from or "the times of the frames")


def _by_steps(rec: Recording) -> Clock:
    steps = np.arange(len(rec)) if rec.steps is None else rec.steps.astype(float)
    stride = float(np.median(np.diff(steps))) if len(rec) > 1 else 1.0
    stride = stride if stride > 0.0 else 1.0
    notes = (f"one frame in {stride:g} steps was written",) if stride > 1.0 else ()
    said = rec.run.timestep
    return Clock((steps - steps[0]) / stride, None if said is None else said * stride, rec.run.timestep_from, notes)


def segments_of(steps: np.ndarray, forces: np.ndarray | None) -> tuple[Segments, list[Check]]:
    """Pieces without gaps in the step numbers, and what is wrong with these.

    Of steps that a restart repeats, known by their forces (T, N, 3), the later pass is kept.
    """
    segments, begin, gaps, repeated, disordered = [], 0, [], [], []
    for k in np.flatnonzero(np.abs(np.diff(steps) - 1.0) > 1e-3).tolist():
        end = k + 1
        if steps[k + 1] <= steps[k]:
            first = begin + int(np.searchsorted(steps[begin:end], steps[k + 1]))
            if not _same_step(steps, forces, first, k + 1):
                disordered.append(k)
                continue
            repeated.append((first, k))
            end = first
        else:
            gaps.append(k)
        segments.append((begin, end))
        begin = k + 1
    segments.append((begin, len(steps)))
    return [(begin, end) for begin, end in segments if end > begin], _findings(steps, gaps, repeated, disordered)


def _findings(
    steps: np.ndarray, gaps: list[int], repeated: list[tuple[int, int]], disordered: list[int]
) -> list[Check]:
    checks = []
    if gaps:
        checks.append(Check("order", "warning", len(gaps), f"steps are missing after frame {gaps[0]}"
                            + (f" and in {len(gaps) - 1} more places" if gaps[1:] else "") + "; split there"))
    if repeated:
        first, last = repeated[0]
        checks.append(Check("duplicates", "warning", sum(k - first + 1 for first, k in repeated), (
            f"the steps of frames {first} to {last} come again after them (a restart), and {len(repeated) - 1} "
            "more times likewise; the later ones are kept")))
    if disordered:
        k = disordered[0]
        doubled = steps[k + 1] == steps[k]
        checks.append(Check("duplicates" if doubled else "order", "failed", len(disordered), (
            f"frame {k + 1} {'has the same step number as' if doubled else 'has a step number before that of'} "
            f"frame {k}, and {len(disordered) - 1} more frames likewise; put the frames in order, each once")))
    return checks


def _same_step(steps: np.ndarray, forces: np.ndarray | None, i: int, j: int) -> bool:
    """Whether frames i and j are one step that was computed twice."""
    return forces is not None and steps[i] == steps[j] and float(np.abs(forces[i] - forces[j]).max()) < REPEATED
