"""What a folder of runs gives to the comparison with AIMD: trajectories, where they start, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dtmd.ensemble.lammps_run import state_of
from dtmd.ensemble.record import is_ensemble, read_record
from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_dump import FORMAT
from dtmd.ingest.source import candidate
from dtmd.md import read_dump
from dtmd.observables.rollout import start_at
from dtmd.observables.rollout_comparison import VELOCITY_TOLERANCE
from dtmd.trajectory import Trajectory


@dataclass
class Results:
    """MD trajectories to compare.

    Attributes:
        trajectories: of dumps, and of the finished runs of folders.
        recorded: (digest of the AIMD files, time in fs) of the start frame, by the `source` of the run.
        left_out: (run, reason).
    """

    trajectories: list[Trajectory] = field(default_factory=list)
    recorded: dict[str, tuple[str, float]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def starts(self, aimd: list[Trajectory], tolerance: float) -> dict[str, tuple[str, int]]:
        """The recorded starts that are among the AIMD and that the first dumped frame does lie on.

        Args:
            aimd: with the frames that runs started from.
            tolerance: Å, largest distance of an atom.

        Returns:
            {MD source: (AIMD source, frame)}.
        """
        places = {(t.origin.digest, float(time)): (k, frame)
                  for k, t in enumerate(aimd) for frame, time in enumerate(t.times)}
        found = {}
        for run in self.trajectories:
            place = places.get(self.recorded.get(run.source))
            if place and aimd[place[0]].numbers.tolist() == run.numbers.tolist():
                start = start_at(run, aimd, *place)
                if start.distance <= tolerance and (start.velocity_difference or 0.0) <= VELOCITY_TOLERANCE:
                    found[run.source] = (aimd[place[0]].source, place[1])
        return found


def read_results(paths: list[Path], timestep: float | None = None) -> Results:
    """Read dumps, and the dumps of all finished runs in folders of `dtmd run`.

    Args:
        paths: dumps, or such folders.
        timestep: fs per MD step, for dumps without times.

    Raises:
        DtmdError: a folder without a finished run, a run without its dump, or as `read_dump`.
    """
    results = Results()
    for path in paths:
        if not path.is_dir():
            results.trajectories.append(read_dump(path, timestep))
        elif is_ensemble(path):
            _read_folder(path, timestep, results)
        else:
            raise DtmdError(f"{path}: not a folder of `dtmd run`; give its dumps one by one")
    return results


def _read_folder(folder: Path, timestep: float | None, results: Results) -> None:
    n_before = len(results.trajectories)
    for name, start in read_record(folder)["starts"].items():
        state = state_of(folder / name)
        if state.get("state") != "finished":
            results.left_out.append((str(folder / name), state.get("problem", "it has not finished")))
            continue
        run = read_dump(_dump(folder / name), timestep)
        results.trajectories.append(run)
        results.recorded[run.source] = (start["digest"], start["time"])
    if len(results.trajectories) == n_before:
        raise DtmdError(f"{folder}: none of its runs has finished; repeat the `dtmd run` that made it")


def _dump(folder: Path) -> Path:
    files = [candidate(path) for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size]
    dumps = [source.main for source in FORMAT.find(files)]
    if len(dumps) != 1:
        raise DtmdError(f"{folder}: {len(dumps)} LAMMPS text dumps in it ({', '.join(d.name for d in dumps)}), where "
                        "one is needed; have the input write one to ${out}.lammpstrj, as inputs/h2pd6.in does, or give "
                        "the dumps to compare one by one")
    return dumps[0]
