"""Molecular dynamics of one potential from all starts, and how each run ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dtmd.analysis.structures import held_components, read_structure
from dtmd.crashtest.models import CrashModel
from dtmd.crashtest.protocol import Protocol
from dtmd.crashtest.results import RunResult, results_of
from dtmd.crashtest.runs import run_crash_test
from dtmd.ensemble.starts import Start
from dtmd.errors import DtmdError
from dtmd.files import write_text
from dtmd.ipip.labelling import Launching
from dtmd.md import open_run
from dtmd.observables.survival import Survival
from dtmd.trajectory import Trajectory


@dataclass(frozen=True)
class RunEnd:
    """What became of one run.

    Attributes:
        name: of the run.
        temperature: K.
        dump: its frames, absolute; None where there are none.
        alive: it came to its end within the limits of survival.
        n_sound: frames up to the one that is beyond a limit, this included.
        time: fs that it stayed within the limits.
        cause: why it ended early; empty if it did not.
        speed: MD steps per second; None where it was too short to tell.
    """

    name: str
    temperature: float
    dump: str | None
    alive: bool
    n_sound: int
    time: float
    cause: str
    speed: float | None


def all_runs(
    folder: Path, model: CrashModel, starts: Sequence[Start], protocol: Protocol, survival: Survival, launching:
Launching ) -> list[RunEnd]:
    """Run what is not done.

    Raises:
        DtmdError: the potential cannot run, or runs that have no result.
    """
    for element in {e for start in starts for e in start.trajectory.elements}:
        model.check_elements([element])
    batches, failed = run_crash_test(folder, [model], starts, protocol, launching.place, launching.display)
    if failed:
        raise DtmdError(f"{folder}: {len(failed)} runs have no result; {failed[0].name}: {failed[0].problem}. Mend "
                        "that and repeat the command, which does them again")
    return [_end(result, batch.temperature) for batch in batches for result in results_of(batch, survival).runs]


def _end(result: RunResult, temperature: float) -> RunEnd:
    end = result.life.end
    return RunEnd(
        result.name, temperature, str(result.dump.resolve()) if result.dump else None, result.alive,
        -1 if end is None else end.frame + 1, result.life.observed, "" if end is None else "; ".join(end.causes),
        result.speed,
    )


def sound_frames(end: RunEnd) -> Trajectory:
    """The frames of a run that has some, up to the one that is beyond a limit, this included; in memory."""
    run = replace(open_run(end.dump).whole(), source=end.name)
    return run if end.alive else run.window(0, min(end.n_sound, len(run)))


def write_ends(path: Path, ends: Sequence[RunEnd]) -> None:
    """Write them, whole."""
    write_text(path, json.dumps([asdict(end) for end in ends], indent=1, ensure_ascii=False) + "\n")


def read_ends(path: Path) -> list[RunEnd]:
    """What `write_ends` wrote."""
    return [RunEnd(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def structure_starts(texts: Sequence[str]) -> list[Start]:
    """Starts from files of structures, named after them.

    Raises:
        DtmdError: as `read_structure`, or a structure given twice.
    """
    starts = []
    for text in texts:
        atoms = read_structure(text)
        held = held_components(atoms)
        frame = Trajectory(
            numbers=atoms.numbers, masses=atoms.get_masses(), pbc=np.array(atoms.pbc), cells=np.array(atoms.cell)[None],
            times=np.zeros(1), positions=atoms.positions[None], source=text, fixed=held if held.any() else None,
        )
        starts.append(Start(Path(text).name.replace(".", "_"), frame, 0))
    if len({start.name for start in starts}) < len(starts):
        raise DtmdError("md.structures: two of them have one name; give each structure once, files by different names")
    return starts
