"""Runs for the tests of ingest: one read with one format, or made from arrays, without files."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from small import AIMD

from dtmd.ingest import read_aimd
from dtmd.ingest.examination import Examined, examine
from dtmd.ingest.recording import record
from dtmd.ingest.source import Format, Frame, RawRun, Source, candidate
from dtmd.trajectory import Trajectory


FILE = AIMD / "train" / "h2pd6_007_from_000.extxyz.xz"
N_ATOMS = 57
LINES_PER_FRAME = N_ATOMS + 2


def first_lines() -> list[list[str]]:
    """The first 12 frames of FILE, as lines."""
    lines = lzma.decompress(FILE.read_bytes()).decode().splitlines()[: 12 * LINES_PER_FRAME]
    return [lines[k : k + LINES_PER_FRAME] for k in range(0, len(lines), LINES_PER_FRAME)]


def write(path: Path, frames: list[list[str]]) -> Path:
    path.write_text("".join(line + "\n" for frame in frames for line in frame))
    return path


def read_run(form: Format, path: Path) -> tuple[RawRun, list[Frame]]:
    """The run that `path` belongs to, found among all files of its folder, with all its frames."""
    candidates = [candidate(p) for p in sorted(path.parent.iterdir()) if p.is_file()]
    (source,) = [source for source in form.find(candidates) if path in source.files]
    run = form.read(source)
    return run, list(run.frames)


@lru_cache
def sound() -> Trajectory:
    """60 frames of the embedded AIMD."""
    (trajectory,) = read_aimd([FILE])
    return trajectory.window(0, 60)


def frames_of(trajectory: Trajectory) -> list[Frame]:
    """The frames as a reader would give them, steps counted from 0."""
    t = trajectory
    return [Frame(t.positions[k], t.cells[k], t.forces[k], float(t.energies[k]), t.velocities[k], k)
            for k in range(len(t))]


def examined(
    frames: Sequence[Frame], trajectory: Trajectory | None = None, *, timestep: float | None = 0.5,
    given: float | None = None, allow: Sequence[str] = (), usual: bool = False, **head,
) -> Examined:
    """The verdicts on frames with the atoms of `trajectory` (or of the sound one)."""
    t = trajectory or sound()
    run = RawRun(**{"code": "toy", "numbers": t.numbers, "pbc": t.pbc, "frames": iter(frames), "masses": t.masses,
                    "timestep": timestep, "timestep_from": "the test", **head})
    form = Format("toy", find=lambda candidates: [], read=lambda source: run)
    return examine(record(Source(Path("toy.run")), form), given, allow, usual)


def without_steps(frames: Sequence[Frame]) -> list[Frame]:
    return [replace(frame, step=None) for frame in frames]


def with_forces(frames: Sequence[Frame], factors: np.ndarray | float) -> list[Frame]:
    return [replace(frame, forces=frame.forces * factors) for frame in frames]
