"""One LAMMPS run in a folder of its own. Imported by each process that does one, so nothing heavy is."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.files import locked, write_text
from dtmd.lmp import run_lammps

START, STATE, LOCK, LOG, OUT = "start.data", "state.json", ".lock", "run.log", "run"


@dataclass(frozen=True)
class LammpsRun:
    """A task of `dtmd.launcher`. An attempt that did not finish is started anew.

    Attributes:
        name: of the run.
        folder: absolute; `lmp` runs in it. Holds start.data, and while it runs and afterwards state.json.
        input_file: absolute.
        variables: for the input.
        threads: cores.
    """

    name: str
    folder: Path
    input_file: Path
    variables: Mapping[str, str]
    threads: int = 1

    def work(self) -> None:
        """Run it.

        Raises:
            DtmdError: LAMMPS failed, or another process runs in the folder.
        """
        with locked(self.folder / LOCK) as lock:
            if self.done():
                return
            self._clear()
            begun = time.time()
            self._record("running")
            try:
                run_lammps(self.input_file, self.variables, self.folder, self.threads, ["-log", LOG], [lock])
            except DtmdError as error:
                self._record("failed", problem=str(error), seconds=round(time.time() - begun, 1))
                raise
            self._record("finished", seconds=round(time.time() - begun, 1))

    def done(self) -> bool:
        """Whether it finished."""
        return state_of(self.folder).get("state") == "finished"

    def _clear(self) -> None:
        """Inputs may append to files, so nothing of an earlier attempt may be left."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (START, LOCK):
                path.unlink()

    def _record(self, state: str, **more: object) -> None:
        content = {"state": state, **more, "host": socket.gethostname(), "threads": self.threads,
                   "input": str(self.input_file), "variables": dict(self.variables)}
        write_text(self.folder / STATE, json.dumps(content, indent=1) + "\n")


def state_of(folder: Path) -> dict:
    """What the last attempt left: "state" (running, finished or failed), "problem", …; empty if there was none."""
    path = folder / STATE
    return json.loads(path.read_text()) if path.exists() else {}
