"""Child processes: that they do not outlive their parent, and how they ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, the process `parent`, has died; holds beyond execv."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")


def ending(code: int) -> str:
    """What the exit code of a child says."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
