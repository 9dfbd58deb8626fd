"""What a folder of runs gives to the comparison with AIMD: dumps, where they start, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtmd.ensemble.lammps_run import state_of
from dtmd.ensemble.record import is_ensemble, read_record
from dtmd.errors import DtmdError
from dtmd.files import sha256
from dtmd.ingest.readers.lammps_dump import FORMAT
from dtmd.ingest.source import candidate


@dataclass(frozen=True)
class FolderRuns:
    """The runs of a folder of `dtmd run`.

    Attributes:
        runs: dump of each finished run, and the digest of the AIMD files and the time in fs of its start frame.
        left_out: (run, reason).
        model: file of the potential, where it still is the one that the runs were made with.
    """

    runs: Sequence[tuple[Path, tuple[str, float]]]
    left_out: Sequence[tuple[str, str]]
    model: Path | None


def folder_runs(folder: Path) -> FolderRuns:
    """The dumps of all finished runs in a folder of `dtmd run`.

    Raises:
        DtmdError: another folder, none of its runs has finished, or a run without its dump.
    """
    if not is_ensemble(folder):
        raise DtmdError(f"{folder}: not a folder of `dtmd run`; give its dumps one by one")
    record, runs, left_out = read_record(folder), [], []
    for name, start in record["starts"].items():
        state = state_of(folder / name)
        if state.get("state") == "finished":
            runs.append((_dump(folder / name), (start["digest"], start["time"])))
        else:
            left_out.append((str(folder / name), state.get("problem", "it has not finished")))
    if not runs:
        raise DtmdError(f"{folder}: none of its runs has finished; repeat the `dtmd run` that made it")
    return FolderRuns(runs, left_out, _model(record))


def _model(record: dict) -> Path | None:
    model = record["model"]
    path = Path(model["file"]) if model else None
    return path if path and path.is_file() and sha256([path]) == model["sha256"] else None


def _dump(folder: Path) -> Path:
    files = [candidate(path) for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size]
    dumps = [source.main for source in FORMAT.find(files)]
    if len(dumps) != 1:
        raise DtmdError(f"{folder}: {len(dumps)} LAMMPS text dumps in it ({', '.join(d.name for d in dumps)}), where "
                        "one is needed; have the input write one to ${out}.lammpstrj, as inputs/h2pd6.in does, or give "
                        "the dumps to compare one by one")
    return dumps[0]
