"""The layout of the DTEGNN code: ASE trajectories `traj_7.traj` with velocities in texts `velall-7` beside them.

A text has one row per atom, frame after frame, without headers: the velocity in the basis of the cell vectors times
the time step, as VASP keeps it. The time step is in neither file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from dtmd.ingest.readers import ase_traj
from dtmd.ingest.source import Candidate, Format, Frame, Lines, RawRun, Source

_ROWS_IN_HEAD = 5


def _find(candidates: list[Candidate]) -> list[Source]:
    """Trajectories with a velocity text of the same number; a number must say one of each."""
    texts = [c for c in candidates if c.name.lower().startswith("vel") and _three_numbers_a_row(c.head)]
    trajectories = [source.main for source in ase_traj.find(candidates)]
    by_path = {c.path: c for c in candidates}
    pairs = []
    for path in trajectories:
        number = _number(by_path[path].name)
        mine = [c.path for c in texts if _number(c.name) == number]
        rivals = [other for other in trajectories if _number(by_path[other].name) == number]
        if len(mine) == 1 and len(rivals) == 1:
            pairs.append(Source(path, {"velocities": mine[0]}))
    return pairs


def _number(name: str) -> str:
    """The number at the end of a name: 7 of traj_7.traj, velall-7 and vel_007.txt; empty where there is none."""
    stem = re.sub(r"\.[A-Za-z]+$", "", name)
    return re.search(r"\d*$", stem)[0].lstrip("0")


def _three_numbers_a_row(head: str) -> bool:
    rows = [line.split() for line in head.split("\n")[:-1][:_ROWS_IN_HEAD]]
    try:
        return bool(rows) and all(len([float(field) for field in row]) == 3 for row in rows)
    except ValueError:
        return False


def _read(source: Source) -> RawRun:
    run = ase_traj.read(Source(source.main, watch=source.watch))
    text = source.companions["velocities"]
    return replace(
        run, code="DTEGNN", frames=_frames(run, source), settings={**run.settings, "velocities_per_step": "true"},
        notes=[*run.notes, f"velocities from {text.name}, taken as multiples of the cell vectors per time step"],
    )


def _frames(run: RawRun, source: Source) -> Iterator[Frame]:
    lines = source.lines(source.companions["velocities"])
    try:
        for k, frame in enumerate(run.frames):
            scaled = lines.table(len(run.numbers), (0, 1, 2), f"the velocities of frame {k}")
            yield replace(frame, velocities=scaled @ frame.cell)
        _check_end(lines, source)
    finally:
        lines.close()


def _check_end(lines: Lines, source: Source) -> None:
    for line in lines:
        if line.strip():
            raise lines.error(f"more velocities than {source.main.name} has frames and atoms; the two do not belong "
                              "together")


FORMAT = Format(name="DTEGNN", find=_find, read=_read)
