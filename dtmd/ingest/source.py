"""What every reader takes and gives: the files of one run in, its frames in dtmd's units out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from dtmd.errors import DtmdError

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError
    from compression.zstd import open as open_zstd
else:
    from backports.zstd import ZstdError
    from backports.zstd import open as open_zstd

COMPRESSIONS: Mapping[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": open_zstd,
}
"""Name endings of packed files, and what unpacks them."""

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, ZstdError)
"""What reading raises where a disk fails or a packed file is damaged or cut off (EOFError)."""

HEAD_SIZE = 16_384
"""Characters of a file that formats are recognised by."""


_DECIMAL = re.compile(r"\d\.(\d+)\s*$")


class CutShort(DtmdError):
    """The file ends inside a frame; the frames before it are whole."""


@dataclass(frozen=True)
class Candidate:
    """A file that may be part of a run.

    Attributes:
        path: as found.
        head: its first characters, unpacked; bytes that are no text are kept one to one (latin-1).
    """

    path: Path
    head: str

    @property
    def name(self) -> str:
        """File name without the ending of a packed file."""
        return plain_name(self.path)


@dataclass(frozen=True)
class Source:
    """The files of one run.

    Attributes:
        main: the file that names the run in messages and tables.
        companions: other files of the run by their role, as the reader calls them.
        watch: told the number of bytes read from disk, for progress; readers open files through `lines`
            or `open`, which see to it.
    """

    main: Path
    companions: Mapping[str, Path] = field(default_factory=dict)
    watch: Callable[[int], None] = lambda n_bytes: None

    @property
    def files(self) -> list[Path]:
        return [self.main, *self.companions.values()]

    def open(self, path: Path) -> BinaryIO:
        """The bytes of `path`, unpacked where its name says so.

        Raises:
            DtmdError: it cannot be opened. Errors while reading are those of `unpacking`.
        """
        return open_unpacked(path, self.watch)

    def lines(self, path: Path) -> Lines:
        """The lines of `path`, counted."""
        return Lines(path, self.watch)


@dataclass(frozen=True)
class Frame:
    """One MD step as the code wrote it, in dtmd's units; N atoms.

    Attributes:
        positions: Å, (N, 3), wrapped or not.
        cell: rows are the cell vectors, Å, (3, 3); zeros for directions without.
        forces: eV/Å, (N, 3); None where the code wrote none.
        energy: potential energy that the forces are the gradient of, eV; None where there is none.
        velocities: Å/fs, (N, 3), at the time of the positions; None where the code wrote none.
        step: number of the MD step; None where the code does not count.
        time: fs; only where the code gives times and no step numbers.
        ab_initio: False where the labels are those of a model, such as VASP's on-the-fly force field.
    """

    positions: np.ndarray
    cell: np.ndarray
    forces: np.ndarray | None = None
    energy: float | None = None
    velocities: np.ndarray | None = None
    step: int | None = None
    time: float | None = None
    ab_initio: bool = True


@dataclass(frozen=True)
class RawRun:
    """One run as its files tell it, nothing derived or checked yet.

    Attributes:
        code: name of the code, as its users write it.
        version: of the code, empty where the files do not say.
        numbers: atomic numbers, (N,).
        masses: u, (N,), as the files say, else None for the standard ones.
        pbc: periodic directions, (3,), bool.
        frames: one after another, read as they are asked for. Raises DtmdError with the file, the line or
            frame, what was found and what to do; `CutShort` where the file ends inside a frame.
        timestep: fs from one step number to the next, None where the files do not say.
        timestep_from: where that is written, such as "POTIM".
        consecutive: the frames are MD steps in order; False for selected configurations.
        precision: Å, last digit of the written positions (1e-5 for five decimals); None where it is below 1e-7.
        fixed: components that the run did not move (selective dynamics), (N, 3), bool; None for none.
        settings: what else is worth keeping of the input, such as the functional, cutoff and thermostat.
        notes: what the reader had to decide or found odd; may grow while the frames are read.
    """

    code: str
    numbers: np.ndarray
    pbc: np.ndarray
    frames: Iterator[Frame]
    version: str = ""
    masses: np.ndarray | None = None
    timestep: float | None = None
    timestep_from: str = ""
    consecutive: bool = True
    precision: float | None = None
    fixed: np.ndarray | None = None
    settings: Mapping[str, str | float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """A kind of output.

    Attributes:
        name: for messages, such as "VASP vasprun.xml".
        find: the runs of this format among the files of one folder, recognised by content, with their companions.
        read: opens one of them. Reads no more than the head; raises DtmdError as `RawRun.frames` does.
        unfinished_is_usual: the code writes its frames bit by bit, so that a job whose time runs out leaves a file
            that ends inside one; elsewhere that is a failure, which the user may allow.
    """

    name: str
    find: Callable[[list[Candidate]], list[Source]]
    read: Callable[[Source], RawRun]
    unfinished_is_usual: bool = False


def plain_name(path: Path) -> str:
    """File name without the ending of a packed file."""
    return path.stem if path.suffix in COMPRESSIONS else path.name


def candidate(path: Path) -> Candidate:
    """A file with its head, as far as it can be read; `Lines` says later what is wrong."""
    head = b""
    try:
        with open_unpacked(path) as file:
            while len(head) < HEAD_SIZE and (piece := file.read1(HEAD_SIZE - len(head))):
                head += piece
    except (DtmdError, *DAMAGED):
        pass
    return Candidate(path, head.decode("latin-1"))


def open_unpacked(path: Path, watch: Callable[[int], None] = lambda n_bytes: None) -> BinaryIO:
    """The bytes of a file, unpacked where its name says so; `watch` is told how many were read from disk.

    Raises:
        DtmdError: it cannot be opened.
    """
    try:
        raw = io.BufferedReader(_Watched(open(path, "rb", buffering=0), watch), 1 << 18)
    except OSError as error:
        raise DtmdError(f"{path}: cannot be opened ({error.strerror})") from error
    unpack = COMPRESSIONS.get(path.suffix)
    return unpack(raw) if unpack else raw


class Lines:
    """The lines of a text file, without their ends, counted from 1 so that errors name the place.

    Attributes:
        number: of the line read last.
        cut: the last line has no end and may lack digits; it was not handed out. One that ends like the line
            before it counts as whole: scripts often leave the last line end out.
    """

    def __init__(self, path: Path, watch: Callable[[int], None] = lambda n_bytes: None) -> None:
        self.path, self.number, self.cut = path, 0, False
        self._before = ""
        self._text: TextIO = io.TextIOWrapper(open_unpacked(path, watch), encoding="latin-1", newline="\n")

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline()
        except DAMAGED as error:
            raise DtmdError(f"{self.path}: cannot be read beyond line {self.number} ({error}); the file is damaged "
                            "or cut off, copy it again") from error
        if not line.endswith("\n") and not (line and _ends_like(line, self._before)):
            self.cut = self.cut or bool(line)
            raise StopIteration
        self.number += 1
        self._before = line
        return line.removesuffix("\n")

    def need(self, what: str) -> str:
        """The next line, where one must come.

        Raises:
            CutShort: the file ends.
        """
        line = next(self, None)
        if line is None:
            raise CutShort(f"{self.path}: ends after line {self.number} inside {what}")
        return line

    def table(self, n_rows: int, columns: tuple[int, ...], what: str) -> np.ndarray:
        """Numbers from the given columns of the next `n_rows` lines, (n_rows, len(columns)).

        Raises:
            CutShort: the file ends.
            DtmdError: a line with too few columns or no number there.
        """
        rows = []
        for _ in range(n_rows):
            fields = self.need(what).split()
            try:
                rows.append([float(fields[k]) for k in columns])
            except (ValueError, IndexError):
                raise self.error(f"{what}: expected numbers in columns {[k + 1 for k in columns]}, "
                                 f"found {' '.join(fields)[:60]!r}") from None
        return np.array(rows).reshape(n_rows, len(columns))

    def vector(self, fields: list[str], what: str) -> np.ndarray:
        """Three numbers, (3,), from fields of the line.

        Raises:
            DtmdError: something else.
        """
        try:
            x, y, z = (float(field) for field in fields)
        except ValueError:
            raise self.error(f"{what}: expected three numbers, found {' '.join(fields)[:60]!r}") from None
        return np.array([x, y, z])

    def number_after(self, line: str, key: str, what: str) -> float:
        """The first number after `key` in `line`.

        Raises:
            DtmdError: none there.
        """
        fields = line.partition(key)[2].replace("=", " ").split()
        try:
            return float(fields[0])
        except (ValueError, IndexError):
            raise self.error(f"{what}: no number after {key!r} in {line.strip()[:60]!r}") from None

    def error(self, problem: str) -> DtmdError:
        """An error that names file and line."""
        return DtmdError(f"{self.path}: line {self.number}: {problem}")

    def close(self) -> None:
        self._text.close()


def _ends_like(line: str, before: str) -> bool:
    """Whether two lines have as many fields and end in decimal numbers with as many digits."""
    ends = [_DECIMAL.search(text) for text in (line, before)]
    return all(ends) and len(line.split()) == len(before.split()) and len(ends[0][1]) == len(ends[1][1])


class _Watched(io.RawIOBase):
    """A raw file that tells how many bytes were read from it."""

    def __init__(self, file: io.FileIO, watch: Callable[[int], None]) -> None:
        self._file, self._watch = file, watch

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        n_bytes = self._file.readinto(buffer)
        self._watch(n_bytes or 0)
        return n_bytes

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()
