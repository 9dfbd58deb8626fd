"""One run of a program in a folder of its own. Imported by each process that does one, so nothing heavy is."""

from __future__ import annotations

import json
import shutil
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dtmd.errors import DtmdError
from dtmd.files import locked, write_text
from dtmd.lmp import run_lammps

START, STATE, LOCK, LOG, OUT = "start.data", "state.json", ".lock", "run.log", "run"


class FolderRun(ABC):
    """A task of `dtmd.launcher` in a folder. An attempt that did not finish is started anew.

    Attributes:
        name: of the run.
        folder: absolute. Holds the files named in `inputs`, and while it runs and afterwards state.json.
        threads: cores.
    """

    inputs: ClassVar[tuple[str, ...]] = (START,)

    name: str
    folder: Path
    threads: int

    @abstractmethod
    def program(self, lock: int) -> None:
        """Run the program to its end.

        Args:
            lock: a file descriptor that it is to hold as long as it runs.

        Raises:
            DtmdError: it failed.
        """

    @abstractmethod
    def described(self) -> dict[str, object]:
        """What state.json says of the program."""

    def judged(self, error: DtmdError) -> str:
        """What a failure of the program means: "failed", or a word of a class in which it is a result."""
        return "failed"

    def measured(self) -> dict[str, object]:
        """What state.json says of the attempt after its end, beside the seconds that it took."""
        return {}

    def work(self) -> None:
        """Run it.

        Raises:
            DtmdError: the program failed, or another process runs in the folder.
        """
        with locked(self.folder / LOCK) as lock:
            if self.done():
                return
            self._clear()
            begun = time.time()
            self._record("running")
            try:
                self.program(lock)
            except DtmdError as error:
                state = self.judged(error)
                self._ended(state, begun, problem=str(error))
                if state == "failed":
                    raise
            else:
                self._ended("finished", begun)

    def done(self) -> bool:
        """Whether it finished."""
        return state_of(self.folder).get("state") == "finished"

    def _clear(self) -> None:
        """Inputs may append to files, so nothing of an earlier attempt may be left."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (*self.inputs, LOCK):
                path.unlink()

    def _ended(self, state: str, begun: float, **more: object) -> None:
        self._record(state, **more, seconds=round(time.time() - begun, 1), **self.measured())

    def _record(self, state: str, **more: object) -> None:
        content = {"state": state, **more, "host": socket.gethostname(), "threads": self.threads, **self.described()}
        write_text(self.folder / STATE, json.dumps(content, indent=1) + "\n")


@dataclass(frozen=True)
class LammpsRun(FolderRun):
    """A run of `lmp` in its folder.

    Attributes:
        input_file: absolute.
        variables: for the input.
    """

    name: str
    folder: Path
    input_file: Path
    variables: Mapping[str, str]
    threads: int = 1

    def program(self, lock: int) -> None:
        run_lammps(self.input_file, self.variables, self.folder, self.threads, ["-log", LOG], [lock])

    def described(self) -> dict[str, object]:
        return {"input": str(self.input_file), "variables": dict(self.variables)}


def state_of(folder: Path) -> dict:
    """What the last attempt left: "state" (running, finished, failed, …), "problem", …; empty if there was none."""
    path = folder / STATE
    return json.loads(path.read_text()) if path.exists() else {}
