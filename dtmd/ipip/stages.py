"""A stage: a folder with what it was made from, what came out, and a state file, done once and never half."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.files import sha256, write_text
from dtmd.presentation.numbers import clock

STATE = "state.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One step of a pretraining.

    Attributes:
        root: the folder of the whole; `name` is the path of the stage's folder below it.
        settings: plain values that it depends on.
        inputs: files that it reads.
        outputs: files that it leaves, relative to its folder.
    """

    root: Path
    name: str
    settings: Mapping[str, object]
    inputs: Sequence[Path]
    outputs: Sequence[str]

    @property
    def folder(self) -> Path:
        """Where it works."""
        return self.root / self.name

    def output(self, name: str) -> Path:
        """The path of one of its outputs."""
        return self.folder / name

    def run(self, work: Callable[[Path], dict]) -> dict:
        """Do it, if it is not done; one that was interrupted goes on with what it left.

        Args:
            work: gets the folder, leaves the outputs there and returns plain facts.

        Returns:
            The facts, with the `seconds` that it took over all interruptions.

        Raises:
            DtmdError: it was done from other inputs or settings, or interrupted while it was; one that failed begins
                anew then. An input that is missing.
        """
        made_from, state = self._made_from(), read_state(self.folder)
        changes = _changes(state["made_from"], made_from) if state else []
        if changes and state["state"] == "failed":  # what was wrong with it has been mended
            shutil.rmtree(self.folder)
            changes, state = [], {}
        if changes:
            raise DtmdError(f"{self.folder}: was made from something else: {'; '.join(changes)}. Put that back, give "
                            f"another folder with -o, or repeat the command with --redo {self.name}, which does this "
                            "stage and all that follow it again")
        if state.get("state") == "done":
            if all(self.output(name).exists() for name in self.outputs):
                return state["facts"]
            logger.info("%s: its outputs are gone, so that it is done again", self.name)
            shutil.rmtree(self.folder)
            state = {}
        logger.info("%s: %s", self.name, "goes on" if state else "begins")
        before, begun = state.get("seconds", 0.0), time.monotonic()
        record = {"state": "running", "seconds": before, "made_from": made_from}
        self._write(record)
        try:
            facts = work(self.folder)
        except BaseException as error:
            state = "failed" if isinstance(error, DtmdError) else "running"
            self._write(record | {"state": state, "seconds": before + time.monotonic() - begun})
            raise
        seconds = round(before + time.monotonic() - begun, 1)
        facts |= {"seconds": seconds}
        self._write(record | {"state": "done", "seconds": seconds, "facts": facts})
        logger.info("%s: done in %s", self.name, clock(seconds))
        return facts

    def _made_from(self) -> dict:
        for path in self.inputs:
            if not path.exists():
                raise DtmdError(f"{path}: is missing, and {self.name} is made from it; repeat the command with --redo "
                                "and the stage that it belongs to")
        files = {_relative(path, self.root): sha256([path]) for path in self.inputs}
        return json.loads(json.dumps({"settings": self.settings, "files": files}))

    def _write(self, state: dict) -> None:
        write_text(self.folder / STATE, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


def read_state(folder: Path) -> dict:
    """What is known of a stage; empty if it has not begun.

    Raises:
        DtmdError: a damaged state file.
    """
    path = folder / STATE
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DtmdError(f"{path}: damaged ({error}); remove the folder {folder}, and its stage is done anew") from error


def forget_from(root: Path, name: str, order: Sequence[str]) -> list[str]:
    """Remove the folders of a stage and of all that follow it; returns their names.

    Raises:
        DtmdError: no stage of this name is there.
    """
    there = [stage for stage in order if (root / stage).exists()]
    if name not in there:
        raise DtmdError(f"--redo {name}: no such stage in {root}; there are: {', '.join(there) or 'none yet'}")
    gone = there[there.index(name):]
    for stage in reversed(gone):  # the last first: what is left at any moment is the beginning of a sequence
        shutil.rmtree(root / stage)
    return gone


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _changes(before: dict, now: dict) -> list[str]:
    """In words, at most three."""
    found = [f"the file {name} has changed" for name, digest in now["files"].items()
             if before["files"].get(name, digest) != digest]
    if before["files"].keys() != now["files"].keys():
        found.append(f"files were {', '.join(before['files'])}, now they are {', '.join(now['files'])}")
    old, new = _flat(before["settings"]), _flat(now["settings"])
    found += [f"{key} was {old.get(key, 'not there')}, now {new.get(key, 'not there')}"
              for key in [*new, *(key for key in old if key not in new)]
              if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    return found[:3] + ([f"and {len(found) - 3} more"] if len(found) > 3 else [])


_ABSENT = object()


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
