"""Which AIMD frames runs start from, and the names of the runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dtmd.errors import DtmdError
from dtmd.presentation.numbers import short_names
from dtmd.trajectory import Trajectory

CHOICES = ("random", "first", "spread")


@dataclass(frozen=True)
class Start:
    """An AIMD frame to start from; `name` tells trajectory and frame."""

    name: str
    trajectory: Trajectory
    frame: int


def choose_or_list(
    trajectories: list[Trajectory], listed: Sequence[str] | None, *, n: int | None, how: str | None,
    seed: int | None, follow: int | None,
) -> list[Start]:
    """The listed starts, or else chosen ones; None for what was not said.

    Raises:
        DtmdError: a list together with what is for a choice, or as `listed_starts` and `choose_starts`.
    """
    said = {"--n": n, "--choose": how, "--seed": seed, "--follow": follow}
    if listed:
        if both := [option for option, value in said.items() if value is not None]:
            raise DtmdError(f"--start lists the starts, and {both[0]} is for choosing them; give one of the two")
        return listed_starts(trajectories, listed)
    return choose_starts(trajectories, how or "random", n or 10, seed or 0, 60 if follow is None else follow)


def choose_starts(trajectories: list[Trajectory], how: str, n: int, seed: int, follow: int) -> list[Start]:
    """`n` frames of AIMD.

    Args:
        trajectories: to choose from.
        how: "random": any frames, none twice, and a larger `n` adds to those of a smaller one;
            "first": the first frame of each trajectory; "spread": evenly over all frames.
        n: number of starts.
        seed: of the random choice.
        follow: frames of AIMD that each start must have after it, for the comparison to follow the run.

    Raises:
        DtmdError: an unknown way to choose, or too few frames.
    """
    if how not in CHOICES:
        raise DtmdError(f"--choose {how}: unknown; the ways are: {', '.join(CHOICES)}")
    last = 1 if how == "first" else None
    places = [(k, frame) for k, t in enumerate(trajectories) for frame in range(len(t) - follow)[:last]]
    if n > len(places):
        of = "first frames of trajectories" if how == "first" else "frames"
        raise DtmdError(f"--n {n}: there are {len(places)} {of} with {follow} frames of AIMD after them; give more "
                        "AIMD, or lower --n or --follow")
    if how == "random":
        chosen = np.random.default_rng(seed).permutation(len(places))[:n]
    elif how == "first":
        chosen = np.arange(n)
    else:
        chosen = np.linspace(0, len(places) - 1, n).round().astype(int)
    names = run_names(trajectories)
    return [Start(f"{names[k]}@{frame}", trajectories[k], frame) for k, frame in (places[c] for c in chosen)]


def listed_starts(trajectories: list[Trajectory], texts: Sequence[str]) -> list[Start]:
    """The frames given as RUN@FRAME, where RUN is a part of the name of one trajectory.

    Raises:
        DtmdError: another form, no or several such trajectories, no such frame, or a start given twice.
    """
    names, starts = run_names(trajectories), []
    for text in texts:
        run, _, frame = text.rpartition("@")
        if not (run and frame.isdigit()):
            raise DtmdError(f"--start {text}: write RUN@FRAME, frames counted from 0")
        fitting = [k for k, t in enumerate(trajectories) if run in t.source]
        if len(fitting) != 1:
            among = ", ".join(trajectories[k].source for k in (fitting or range(len(trajectories)))[:5])
            raise DtmdError(f"--start {text}: {len(fitting)} trajectories with {run} in their name, among {among}")
        trajectory = trajectories[fitting[0]]
        if int(frame) >= len(trajectory):
            raise DtmdError(f"--start {text}: {trajectory.source} has {len(trajectory)} frames, counted from 0")
        starts.append(Start(f"{names[fitting[0]]}@{int(frame)}", trajectory, int(frame)))
    if len({start.name for start in starts}) < len(starts):
        raise DtmdError("a start is given twice: " + " ".join(texts))
    return starts


def run_names(trajectories: list[Trajectory]) -> list[str]:
    """A distinct name for each trajectory that a folder can have, as short as can be."""
    ends = [short_names([t.source for t in trajectories])[t.source] for t in trajectories]
    whole = [_cleaned(end) for end in ends]
    stems = [_cleaned("/".join([*end.split("/")[:-1], end.split("/")[-1].split(".")[0]])) for end in ends]
    numbered = [f"{k}_{name}" for k, name in enumerate(whole)]
    return next(names for names in (stems, whole, numbered) if len(set(names)) == len(names))


def _cleaned(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text).strip("._")
