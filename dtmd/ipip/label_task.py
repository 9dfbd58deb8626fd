"""A part of the frames that a potential labels, in a process of its own. Imported by each, so nothing heavy is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtmd.children import run_module
from dtmd.ensemble.lammps_run import FolderRun

FRAMES, LABELLED, FAILED = "frames.h5", "labelled.h5", "failed.json"
"""Of a task: what to label, what was, and (trajectory, frame, reason) of what could not be."""

OUTPUT = "labels.out"

_PROGRAM = "dtmd.ipip.label_frames"


@dataclass(frozen=True)
class LabelTask(FolderRun):
    """Frames of one folder.

    Attributes:
        named: `module:factory` of an ASE calculator, or a file of a potential.
        arguments: of the factory.
        here: folder from which its module and files are named.
    """

    name: str
    folder: Path
    named: str
    arguments: Mapping[str, object]
    here: Path
    threads: int = 1

    inputs = (FRAMES,)

    def program(self, lock: int) -> None:
        arguments = [str(self.here), self.named, json.dumps(dict(self.arguments))]
        run_module(_PROGRAM, arguments, self.folder, OUTPUT, self.threads, lock)

    def described(self) -> dict[str, object]:
        return {"potential": self.named, "arguments": dict(self.arguments)}
