"""What a folder of runs was made with: written once, and the measure of every later command on the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtmd.ensemble.starts import Start
from dtmd.errors import DtmdError
from dtmd.files import sha256, write_text

RECORD = "ensemble.json"
FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What all runs of a folder share: the LAMMPS input, the exported potential and the variables of the input."""

    input_file: Path
    model: Path | None
    variables: Mapping[str, str]


def is_ensemble(folder: Path) -> bool:
    """Whether `folder` was made by `dtmd run`."""
    return (folder / RECORD).is_file()


def read_record(folder: Path) -> dict:
    """The record of a folder; empty if it has none.

    Raises:
        DtmdError: damaged, or of another format.
    """
    if not is_ensemble(folder):
        return {}
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DtmdError(f"{path}: damaged ({error}); give another folder with -o") from error
    if record.get("format") != FORMAT:
        raise DtmdError(f"{path}: format {record.get('format')}, this dtmd reads format {FORMAT}")
    return record


def new_record(settings: Settings, starts: list[Start]) -> dict:
    """The record of runs with these settings from these starts."""
    model = settings.model
    return {
        "format": FORMAT,
        "input": {"file": str(settings.input_file), "sha256": sha256([settings.input_file])},
        "model": {"file": str(model), "sha256": sha256([model])} if model else None,
        "variables": dict(settings.variables),
        "starts": {start.name: _start_record(start) for start in starts},
    }


def write_record(folder: Path, record: dict) -> None:
    """Write it, whole."""
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def raise_if_changed(folder: Path, old: dict, new: dict) -> None:
    """Refuse to mix runs of other settings; more starts than before are fine.

    Raises:
        DtmdError: names what differs, before and now.
    """
    changes = []
    for key in ("input", "model"):
        before, now = old[key], new[key]
        if (before and before["sha256"]) != (now and now["sha256"]):
            changes.append(f"the {key} was {_file(before)}, now it is {_file(now)}")
    names = {**old["variables"], **new["variables"]}
    for name in names:
        before, now = old["variables"].get(name, "not given"), new["variables"].get(name, "not given")
        if before != now:
            changes.append(f"the variable {name} was {before}, now {now}")
    gone = [name for name in old["starts"] if name not in new["starts"]]
    if gone:
        changes.append(f"{len(gone)} of its starts are not among those chosen now, such as {gone[0]}")
    other = [name for name, start in old["starts"].items()
             if name in new["starts"] and start["digest"] != new["starts"][name]["digest"]]
    if other:
        changes.append(f"the AIMD behind {other[0]} has changed")
    if changes:
        raise DtmdError(f"{folder}: holds runs with other settings: {'; '.join(changes)}. "
                        "Give another folder with -o, or the settings as they were")


def _file(record: dict | None) -> str:
    return f"{record['file']} (SHA-256 {record['sha256'][:12]})" if record else "not given"


def _start_record(start: Start) -> dict:
    trajectory = start.trajectory
    return {"aimd": trajectory.source, "digest": trajectory.origin.digest, "frame": start.frame,
            "time": float(trajectory.times[start.frame])}
