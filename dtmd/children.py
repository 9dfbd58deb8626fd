"""Child processes: that they do not outlive their parent, and how they ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dtmd.errors import ProgramFailed

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, the process `parent`, has died; holds beyond execv."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")


def ending(code: int) -> str:
    """What the exit code of a child says."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run_module(
    module: str, arguments: Sequence[str], folder: Path, output: str, threads: int, lock: int,
    told_by: int | None = None,
) -> None:
    """Run a module as a Python program of its own, which gets the number of this process before its arguments.

    Args:
        folder: in which it runs.
        output: file in it for what it prints.
        threads: cores.
        lock: a file descriptor that it is to hold as long as it runs.
        told_by: an exit code with which the last line that it printed says why it ended.

    Raises:
        ProgramFailed: an exit code other than 0.
    """
    path, command = folder / output, [sys.executable, "-m", module, str(os.getpid()), *arguments]
    with open(path, "w") as stream:
        code = subprocess.run(
            command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, pass_fds=[lock],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT).returncode
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if code and code == told_by:
        raise ProgramFailed(lines[-1], code)
    if code:
        shown = "\n  ".join(lines[-5:])
        raise ProgramFailed(f"{ending(code)}; it printed last:\n  {shown}\n  all that it printed: {path}", code)
