"""Reader of VASP's OUTCAR. A step's text ends with its "free  energy"; two blanks, those of the electronic
steps have one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.readers import vasp
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, RawRun, Source

_ENERGY, _TABLE, _CELL = b"free  energy", b"TOTAL-FORCE (eV/Angst)", b"direct lattice vectors"
_DECIMALS = re.compile(rb"-?\d+\.\d+")
_ITERATION = re.compile(rb"Iteration\s*(\d{1,9}|\*+)\(")


def find(candidates: list[Candidate]) -> list[Source]:
    return [
        Source(c.path, vasp.beside(c, "OUTCAR", candidates, XDATCAR=vasp.is_xdatcar, POSCAR=vasp.is_selective_poscar))
        for c in candidates if vasp.is_outcar(c.head)
    ]


def read(source: Source) -> RawRun:
    scan = vasp.Scan(source)
    text = scan.until(b"position of ions in cartesian coordinates")
    if text is None:
        raise DtmdError(f"{source.main}: ends inside the header, before the first MD step; "
                        "leave it out, or copy it again")
    head = text.decode("latin-1")
    vasp.check_is_md(_number(head, "IBRION"), source.main)
    numbers, masses, titles = _atoms(head, source.main)
    timestep = _number(head, "POTIM")
    settings = {name: vasp.setting(word) for name in vasp.SETTINGS if (word := _word(head, name)) is not None}
    notes: list[str] = []
    return RawRun(
        code="VASP", version=head.split(maxsplit=1)[0].removeprefix("vasp."), numbers=numbers, masses=masses,
        pbc=np.full(3, True), frames=_Frames(scan, head, len(numbers), notes).read(), timestep=timestep,
        timestep_from="" if timestep is None else "POTIM", precision=1e-5,
        fixed=_fixed(source, head, len(numbers), notes), settings=settings | {"POTCAR": ", ".join(titles)},
        notes=notes,
    )


def _word(head: str, name: str) -> str | None:
    """The value of an INCAR tag; the last one, since the header starts with a copy of INCAR."""
    found = re.findall(rf"\b{name}\s*=\s*([^\s;]+)", head)
    return found[-1] if found else None


def _number(head: str, name: str) -> float | None:
    value = vasp.setting(_word(head, name) or "")
    return value if isinstance(value, float) else None


def _atoms(head: str, path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Atomic numbers, masses, and the titles of the pseudopotentials by type."""
    line = re.search(r"ions per type =([\s\d]+)", head)
    counts = (vasp.counts(line[1].split()) if line else None) or []
    found = re.findall(r"TITEL\s*=(.*)", head) or re.findall(r"^ POTCAR:(.*)", head, re.MULTILINE)[:len(counts)]
    titles = [" ".join(title.split()) for title in found]
    n_atoms = _number(head, "NIONS") or 0
    if not counts or len(counts) != len(titles) or sum(counts) != n_atoms:
        raise DtmdError(f"{path}: {n_atoms:.0f} atoms (NIONS), but ions per type = {counts} of the pseudopotentials "
                        f"{titles}; copy the file again or read the vasprun.xml")
    exact = [float(word) for word in re.findall(r"POMASS =\s*([\d.]+); ZVAL", head)]
    used = re.search(r"Mass of Ions in am\s*POMASS =(.*)", head)
    rounded = [float(word) for word in re.findall(r"\d+\.\d\d", used[1])] if used else exact
    exact = exact or rounded
    if not len(exact) == len(rounded) == len(counts):
        raise DtmdError(f"{path}: masses {rounded} (POMASS) for {len(counts)} types of atoms; copy the file again")
    masses = [e if abs(e - r) < 0.0051 else r for e, r in zip(exact, rounded, strict=True)]
    return np.repeat([vasp.atomic_number(title, path) for title in titles], counts), np.repeat(masses, counts), titles


def _fixed(source: Source, head: str, n_atoms: int, notes: list[str]) -> np.ndarray | None:
    if "using selective dynamics" not in head:
        return None
    poscar = source.companions.get("POSCAR")
    flags = vasp.poscar_flags(source, poscar, n_atoms) if poscar else None
    cell = _last_cell(head.encode("latin-1"))
    if flags is None or cell is None:
        notes.append("selective dynamics, but OUTCAR does not say which atoms were fixed, and there is no POSCAR "
                     "of this run beside it")
        return None
    return vasp.fixed_components(flags, cell)


def _last_cell(text: bytes) -> np.ndarray | None:
    """The lattice vectors printed last, (3, 3), whose columns may touch; None where they are not whole."""
    rows = [_DECIMALS.findall(row)[:3] for row in text[text.rfind(_CELL):].split(b"\n", 4)[1:4]]
    whole = [len(row) for row in rows] == [3, 3, 3]
    return np.array([[float(word) for word in row] for row in rows]) if whole else None


class _Frames:
    """The MD steps, one after another.

    A step of an on-the-fly force field has a block of the model, and a second one where it was computed ab initio.
    """

    def __init__(self, scan: vasp.Scan, head: str, n_atoms: int, notes: list[str]) -> None:
        self._scan, self._n_atoms, self._notes = scan, n_atoms, notes
        self._step, self._model, self._cut = 0, False, False
        self._cell: np.ndarray | None = None
        self._constant = (_number(head, "ISIF") or 0) < 3
        self._counted = (_number(head, "ML_OUTBLOCK") or 1) == 1
        if not self._counted:
            notes.append("ML_OUTBLOCK leaves MD steps out of OUTCAR, which does not number them")

    def read(self) -> Iterator[Frame]:
        """Raises DtmdError; CutShort where the file ends inside a step."""
        held, n_read = None, 0
        for frame in self._blocks():
            if held is not None and (held.ab_initio or held.step != frame.step):
                yield self._numbered(held)
            n_read += held is None or held.step != frame.step
            held = frame
        if held is not None:
            yield self._numbered(held)
        if n_read < self._step:
            self._notes.append(f"OUTCAR has positions and forces of {n_read} of {self._step} MD steps (NWRITE below "
                               "2 or NBLOCK above 1); the vasprun.xml of the run may have all")
        if self._cut or any(mark in self._scan.rest for mark in (b"Iteration", _CELL, _TABLE)):
            raise CutShort(f"{self._scan.path}: ends inside MD step {self._step + (not self._cut)}")

    def _numbered(self, frame: Frame) -> Frame:
        return frame if self._counted else replace(frame, step=None)

    def _blocks(self) -> Iterator[Frame]:
        """Every block with positions, its number, and whether it is ab initio."""
        while (text := self._scan.until(_ENERGY)) is not None:
            if b"executed on" in text:
                raise self._scan.error("a second run starts here, and nothing tells whether it continues the first; "
                                       "put each into a file of its own", text, text.find(b"executed on"))
            model = b" ML FREE ENERGIE" in text[-400:]
            self._count(text, model)
            table, cell = self._table(text), self._lattice(text)
            line = self._scan.until(b"\n")
            if line is None:
                self._cut = True
                return
            energy = self._energy(line)
            if table is not None:
                yield Frame(table[:, :3], cell, table[:, 3:], energy, step=self._step, ab_initio=not model)

    def _count(self, text: bytes, model: bool) -> None:
        """The number of the MD step; counted where it is not printed: steps of the model, those after 9999."""
        printed = _ITERATION.findall(text)
        if len(set(printed)) > 1:
            raise self._scan.error(f"no energy of MD step {printed[0].decode()}, the next one starts here; cut the "
                                   "file before that step or copy it again", text, text.find(b"(   1)"))
        if printed and printed[0].isdigit():
            self._step = int(printed[0])
        elif model or not self._model:
            self._step += 1
        self._model = model

    def _table(self, text: bytes) -> np.ndarray | None:
        """Positions and forces, (N, 6)."""
        at = text.rfind(_TABLE)
        if at < 0:
            return None
        rows = text[at:].split(b"\n", self._n_atoms + 3)[2:-1]
        try:
            table = np.array([float(word) for word in b" ".join(rows[:self._n_atoms]).split()])
            if rows[self._n_atoms].strip(b" -\r"):
                raise ValueError
            return table.reshape(self._n_atoms, 6)
        except (ValueError, IndexError):
            raise self._bad_row(text, at, rows) from None

    def _bad_row(self, text: bytes, at: int, rows: list[bytes]) -> DtmdError:
        bad = next((k for k in range(self._n_atoms) if k >= len(rows) or not _is_row(rows[k])), self._n_atoms)
        found = rows[bad].decode("latin-1").strip()[:70] if bad < len(rows) else "the end of the table"
        wanted = "six numbers" if bad < self._n_atoms else f"the end of the table of {self._n_atoms} atoms"
        offset = at + sum(len(row) + 1 for row in text[at:].split(b"\n", bad + 2)[:bad + 2])
        return self._scan.error(f"MD step {self._step}: expected {wanted} below TOTAL-FORCE, found {found!r}; cut "
                                "the file before this step or copy it again", text, offset)

    def _lattice(self, text: bytes) -> np.ndarray | None:
        """The cell of the step, (3, 3)."""
        at = text.rfind(_CELL)
        if at >= 0:
            self._cell = _last_cell(text)
            if self._cell is None:
                raise self._scan.error(f"MD step {self._step}: no three lattice vectors below this line; cut the "
                                       "file before this step or copy it again", text, at)
        elif self._cell is None or (not self._constant and _TABLE in text):
            raise self._scan.error(f"MD step {self._step} has no lattice vectors; cut the file before this step or "
                                   "copy it again", text, text.rfind(_TABLE))
        return self._cell

    def _energy(self, line: bytes) -> float:
        """From the line of the total energy, with dispersion, without the work of an external pressure."""
        try:
            return float(line.partition(b"=")[2].split()[0])
        except (ValueError, IndexError):
            raise self._scan.error(f"MD step {self._step}: no number in 'free  energy{line.decode('latin-1')[:60]}'; "
                                   "cut the file before this step or copy it again") from None


def _is_row(row: bytes) -> bool:
    try:
        return len([float(word) for word in row.split()]) == 6
    except ValueError:
        return False


FORMAT = Format("VASP OUTCAR", find, read, unfinished_is_usual=True)
