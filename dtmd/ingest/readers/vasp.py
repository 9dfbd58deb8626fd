"""What the readers of VASP's files share: which files belong together, searching big files, species, fixed atoms."""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, Source

SETTINGS = (
    "PREC", "ENCUT", "EDIFF", "GGA", "METAGGA", "LHFCALC", "HFSCREEN", "AEXX", "IVDW", "LDAU", "ISPIN", "ISMEAR",
    "SIGMA", "NSW", "ISIF", "MDALGO", "SMASS", "PSTRESS", "TEBEG", "TEEND", "NBLOCK", "ML_LMLFF", "ML_MODE",
)
"""INCAR tags that are kept with a run."""

_NO_MD = {
    -1: "single points", 1: "a relaxation", 2: "a relaxation", 3: "a relaxation (damped dynamics)",
    5: "finite differences", 6: "finite differences", 7: "linear response", 8: "linear response",
    11: "positions given by another program", 12: "positions given by another program", 44: "a dimer search",
}
_CHUNK = 1 << 20
_KEPT = 1 << 25


class Scan:
    """A big file, searched from one mark to the next, so that the text between is never split into lines.

    Attributes:
        rest: text that no mark was found in, once the file has ended.
        start: number of the line that the text handed out last, or the rest, begins in.
    """

    def __init__(self, source: Source) -> None:
        self.path, self.start, self.rest = source.main, 1, b""
        self._file = source.open(source.main)
        self._text, self._at, self._line = b"", 0, 1

    def until(self, mark: bytes) -> bytes | None:
        """The text before the next `mark`, which is skipped; None, and `rest`, where there is none.

        Of more than 32 MB, such as the orbitals of many k-points, at least the last 16 are handed out.
        """
        self.start = self._line
        searched = self._at
        while (end := self._text.find(mark, searched)) < 0:
            unseen = max(self._at, len(self._text) - len(mark) + 1)
            chunk = self._read()
            if not chunk:
                self.rest, self._text, self._at = self._text[self._at:], b"", 0
                return None
            kept = self._at if len(self._text) - self._at < _KEPT else len(self._text) - _KEPT // 2
            self.start += self._text.count(b"\n", self._at, kept)
            self._text, searched, self._at = self._text[kept:] + chunk, max(unseen - kept, 0), 0
        text = self._text[self._at:end]
        self._at = end + len(mark)
        self._line = self.start + text.count(b"\n") + mark.count(b"\n")
        return text

    def _read(self) -> bytes:
        try:
            return self._file.read(_CHUNK)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise DtmdError(f"{self.path}: cannot be read beyond line {self.start} ({error}); the file is damaged "
                            "or cut off, copy it again") from error

    def error(self, problem: str, text: bytes = b"", offset: int = 0) -> DtmdError:
        """An error that names the file and the line of `offset` in the `text` handed out last."""
        return DtmdError(f"{self.path}: line {self.start + text.count(bytes([10]), 0, offset)}: {problem}")


def is_vasprun(head: str) -> bool:
    return "<modeling>" in head and re.search(r'name="program"[^>]*>\s*vasp', head) is not None


def is_outcar(head: str) -> bool:
    return head.lstrip().startswith("vasp.") and "executed on" in head


def is_xdatcar(head: str) -> bool:
    """Line 8 tells it from POSCAR and CONTCAR: a numbered configuration, in old versions an empty line."""
    lines = head.split("\n")[:8]
    if len(lines) < 8 or not (re.search(r"(Direct configuration|Konfig)\s*=", lines[7]) or not lines[7].strip()):
        return False
    return _is_box(lines) and counts(lines[6].split()) is not None


def is_selective_poscar(head: str) -> bool:
    lines = head.split("\n")[:9]
    return len(lines) == 9 and _is_box(lines) and any(line.strip()[:1] in ("S", "s") for line in lines[6:8])


def _is_box(lines: list[str]) -> bool:
    """Whether lines 2 to 5 are a scale and three vectors."""
    try:
        return [len([float(word) for word in line.split()]) for line in lines[1:5]] == [1, 3, 3, 3]
    except ValueError:
        return False


def beside(
    main: Candidate, kind: str, candidates: list[Candidate], **roles: Callable[[str], bool]
) -> Mapping[str, Path]:
    """Files of the same run by role: `OUTCAR.h2o` and `XDATCAR.h2o` lie beside `vasprun.h2o.xml`."""
    found: dict[str, Path] = {}
    run = _tag(main.name, kind)
    for other in candidates:
        for role, fits in roles.items():
            if run is not None and _tag(other.name, role) == run and fits(other.head):
                found.setdefault(role, other.path)
    return found


def _tag(name: str, kind: str) -> str | None:
    """What is left of a file name without `kind`; None where it is not in it."""
    rest, n_found = re.subn(kind, "", name.removesuffix(".xml"), count=1, flags=re.IGNORECASE)
    return rest if n_found else None


def check_is_md(ibrion: float | None, path: Path) -> None:
    """Raises DtmdError unless IBRION says molecular dynamics."""
    if ibrion is None:
        raise DtmdError(f"{path}: no IBRION in its header, so nothing says that it is molecular dynamics; "
                        "is the file whole?")
    if ibrion != 0:
        what = _NO_MD.get(ibrion, "no molecular dynamics")
        raise DtmdError(f"{path}: IBRION = {ibrion:g}, {what}; only molecular dynamics (IBRION = 0) has the "
                        "consecutive steps that dtmd needs")


def atomic_number(title: str, path: Path) -> int:
    """From the title of a pseudopotential, such as "PAW_PBE Zr_sv 04Jan2005"; VASP cuts the symbols short.

    Raises:
        DtmdError: no element in it.
    """
    words = title.split()
    symbol = re.match("[A-Z][a-z]?", words[min(1, len(words) - 1)]) if words else None
    if symbol is None or symbol[0] not in atomic_numbers or symbol[0] == "X":
        raise DtmdError(f"{path}: no element in the title {title.strip()[:60]!r} of a pseudopotential")
    return atomic_numbers[symbol[0]]


def counts(words: list[str]) -> list[int] | None:
    """Numbers of atoms by type; None where they are none, or no such numbers."""
    if not words or any(not word.isdecimal() or len(word) > 6 for word in words):
        return None
    return [int(word) for word in words]


def setting(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def fixed_components(free: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
    """Cartesian components that stay where they are, (N, 3), or None.

    Args:
        free: the flags of selective dynamics, which VASP takes along the cell vectors, (N, 3), bool.
        cell: rows are the cell vectors, (3, 3).
    """
    fixed = free.astype(int) @ (np.abs(cell) > 1e-6) == 0
    return fixed if fixed.any() else None


def poscar_flags(source: Source, path: Path, n_atoms: int) -> np.ndarray | None:
    """Flags of selective dynamics in a POSCAR, (n_atoms, 3), True where free; None for other numbers of atoms.

    Raises:
        DtmdError: the flags cannot be read.
    """
    lines = source.lines(path)
    texts = list(lines)
    lines.close()
    selective = next(k for k in (6, 7) if texts[k].strip()[:1] in ("S", "s"))
    if sum(counts(texts[selective - 1].split()) or []) != n_atoms:
        return None
    flags = [row.split()[3:6] for row in texts[selective + 2:selective + 2 + n_atoms]]
    if len(flags) < n_atoms or any(len(row) < 3 or row[k].strip(".")[:1].upper() not in ("T", "F")
                                   for row in flags for k in range(3)):
        raise DtmdError(f"{path}: selective dynamics without three flags T or F for each of {n_atoms} atoms")
    return np.array([[word.strip(".")[0].upper() == "T" for word in row] for row in flags])


def cartesian(scaled: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Å, (N, 3); numbers that are not finite stay so without a warning."""
    with np.errstate(all="ignore"):
        return scaled @ cell


def digits(decimals: int, cell: np.ndarray) -> float | None:
    """Å, last digit of scaled positions with so many decimals; None below 1e-7."""
    precision = 10.0**-decimals * np.abs(cell).max()
    return precision if precision >= 1e-7 else None
