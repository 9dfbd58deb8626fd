"""Files that are either complete under their name or not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtmd.errors import DtmdError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, moved to `path` when the block has succeeded.

    Raises:
        DtmdError: the folder or the disk does not take the file; `path` is as it was before.
    """
    # One fixed name, so that what a killed process left behind is overwritten by the next.
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DtmdError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed. "
                        "Make room or give another folder, then repeat the command") from error
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def torch_writing() -> Iterator[None]:
    """Within `written_whole`: torch reports a full disk as RuntimeError, this makes it an OSError again."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; raises as `written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, patience: float = 3.0) -> Iterator[int]:
    """Hold a lock file, which no other process can hold then; the system frees it when its holders have died.

    Args:
        path: created if needed, and left there.
        patience: s to wait for another holder.

    Yields:
        The file descriptor; a child that has it holds the lock too.

    Raises:
        DtmdError: another process holds it, or the disk knows no locks.
    """
    descriptor = _lock(path, patience)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path, patience: float) -> int:
    give_up = time.monotonic() + patience
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > give_up:
                    os.close(descriptor)
                    raise DtmdError(f"{path.parent}: another process works in this folder; "
                                    "wait for it or end it, then repeat the command") from None
                time.sleep(0.1)
    except OSError as error:
        raise DtmdError(f"{path}: cannot be locked ({error.strerror}); give a folder on another disk") from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file.

    Raises:
        DtmdError: the disk does not take it; the file may then end in a part of the line.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise DtmdError(f"{path}: cannot be written ({error.strerror}); make room, then repeat the command") from error


def sha256(paths: list[Path]) -> str:
    """One hash over the contents of files, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
