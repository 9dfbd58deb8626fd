"""The programs of a crash test. Imported by each process that runs one, so nothing heavy is."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtmd.children import run_module
from dtmd.ensemble.lammps_run import OUT, START, FolderRun, LammpsRun, state_of
from dtmd.errors import DtmdError, ProgramFailed

START_INPUT, START_JSON = "start.in", "start.json"
"""What start.data does not tell: for LAMMPS, and for other programs."""

BEGUN = "begun"
"""A file that is there from the moment when whatever ends a program is a result."""

DUMP, PROGRESS = f"{OUT}.lammpstrj", f"{OUT}.progress"

OUTPUT = "md.out"
"""What the Python process printed."""

CRASHED = "crashed"

STOPPED = 3
"""Exit code of a Python process whose run came to an early end; the reason is the last thing it prints."""

_MD = "dtmd.crashtest.calculator_md"
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


class CrashTestRun(FolderRun):
    """A run whose crash is a result, once the program has begun with the dynamics."""

    def judged(self, error: DtmdError) -> str:
        from_outside = isinstance(error, ProgramFailed) and error.code in _FROM_OUTSIDE
        begun = (self.folder / BEGUN).exists()
        return CRASHED if begun and not from_outside else "failed"

    def done(self) -> bool:
        """Whether it finished or crashed."""
        return state_of(self.folder).get("state") in ("finished", CRASHED)

    def measured(self) -> dict[str, object]:
        """Steps done, and the seconds that they took, by the last whole line of the progress."""
        path = self.folder / PROGRESS
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        words = [line.split() for line in lines if line.endswith("\n") and not line.startswith("#")]
        return {"steps": int(words[-1][0]), "md_seconds": float(words[-1][1])} if words else {"steps": 0}


class PotentialRun(CrashTestRun, LammpsRun):
    """One of an exported potential in LAMMPS."""

    inputs = (START, START_INPUT)


@dataclass(frozen=True)
class CalculatorRun(CrashTestRun):
    """One of an ASE calculator, in a Python process of its own.

    Attributes:
        factory: `module:factory` of the calculator.
        here: folder from which its module and files are named.
        variables: as for LAMMPS.
        arguments: of the factory, by name, of kinds that JSON has.
    """

    name: str
    folder: Path
    factory: str
    here: Path
    variables: Mapping[str, str]
    threads: int = 1
    arguments: Mapping[str, object] = field(default_factory=dict)

    inputs = (START, START_JSON)

    def program(self, lock: int) -> None:
        arguments = [str(self.here), self.factory, json.dumps(dict(self.arguments)), json.dumps(dict(self.variables))]
        run_module(_MD, arguments, self.folder, OUTPUT, self.threads, lock, told_by=STOPPED)

    def described(self) -> dict[str, object]:
        return {"calculator": self.factory, "arguments": dict(self.arguments), "variables": dict(self.variables)}
