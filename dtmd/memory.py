"""Memory that does not suffice, said with what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dtmd.errors import DtmdError

_SIGNS = ("out of memory", "not enough memory", "allocate memory", "Unable to allocate")
"""In the messages of torch on GPUs, on CPUs and on Windows, and of NumPy; torch has no error of its own for CPUs."""


@contextmanager
def enough_memory(remedy: Callable[[], str]) -> Iterator[None]:
    """Turn a failed allocation within the block into a message for the user.

    Args:
        remedy: where it happened and what to do, asked for when it has.

    Raises:
        DtmdError: an allocation failed, on the GPU or on the CPU.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS)):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise DtmdError(f"{remedy()} ({reason})") from error
