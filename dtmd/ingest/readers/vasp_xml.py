"""Reader of VASP's vasprun.xml. Steps of an on-the-fly force field stand outside of <calculation>."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.readers import vasp
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, RawRun, Source
from dtmd.units import ELEMENTARY_CHARGE

_KILOBAR = 1e8 * 1e-30 / ELEMENTARY_CHARGE  # eV/Å³


def find(candidates: list[Candidate]) -> list[Source]:
    return [
        Source(c.path, vasp.beside(c, "vasprun", candidates, OUTCAR=vasp.is_outcar, XDATCAR=vasp.is_xdatcar))
        for c in candidates if vasp.is_vasprun(c.head)
    ]


def read(source: Source) -> RawRun:
    scan = vasp.Scan(source)
    head = _head(scan)
    vasp.check_is_md(_number(head, "IBRION"), source.main)
    numbers, masses, titles = _atoms(head, source.main)
    timestep, notes = _number(head, "POTIM"), []
    start = head.find("structure[@name='initialpos']")
    cell = _table(scan, start, "crystal/varray[@name='basis']", 3, "the initial structure")
    return RawRun(
        code="VASP", version=(head.findtext("generator/i[@name='version']") or "").strip(), numbers=numbers,
        masses=masses, pbc=np.full(3, True), frames=_Frames(scan, head, len(numbers), notes).read(),
        timestep=timestep, timestep_from="" if timestep is None else "POTIM", precision=vasp.digits(8, cell),
        fixed=_fixed(start, cell, len(numbers), source.main), settings=_settings(head, titles), notes=notes,
    )


def _head(scan: vasp.Scan) -> ET.Element:
    """Everything before the first MD step."""
    text = scan.until(b'name="initialpos"')
    structure = None if text is None else scan.until(b"</structure>")
    if structure is None:
        raise DtmdError(f"{scan.path}: ends inside the header, before the first MD step; "
                        "leave it out, or copy it again")
    try:
        return ET.fromstring(text + b'name="initialpos"' + structure + b"</structure></modeling>")
    except (ET.ParseError, LookupError, ValueError) as error:
        raise DtmdError(f"{scan.path}: the header is no well-formed XML ({error}); copy the file again") from error


def _text(head: ET.Element, name: str) -> str | None:
    """A parameter as VASP used it, else as INCAR has it."""
    for path in ("parameters//*[@name='{}']", "incar/*[@name='{}']"):
        found = head.find(path.format(name))
        if found is not None:
            return found.text or ""
    return None


def _number(head: ET.Element, name: str) -> float | None:
    value = vasp.setting(_text(head, name) or "")
    return value if isinstance(value, float) else None


def _settings(head: ET.Element, titles: list[str]) -> dict[str, str | float]:
    written = {name: _text(head, "ENMAX" if name == "ENCUT" else name) for name in vasp.SETTINGS}
    settings = {name: vasp.setting(text) for name, text in written.items() if text is not None}
    return settings | {"POTCAR": ", ".join(titles)}


def _atoms(head: ET.Element, path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Atomic numbers, masses, and the titles of the pseudopotentials by type."""
    rows = [[c.text or "" for c in row] for row in head.findall("atominfo/array[@name='atomtypes']/set/rc")]
    try:
        counts = vasp.counts([row[0].strip() for row in rows])
        masses = np.array([float(row[2]) for row in rows])
        titles = [" ".join(row[4].split()) for row in rows]
        n_atoms = int(head.findtext("atominfo/atoms"))
    except (ValueError, IndexError, TypeError) as error:
        raise DtmdError(f"{path}: <atominfo> has no table of atom types with numbers and masses") from error
    if counts is None or sum(counts) != n_atoms or n_atoms == 0:
        raise DtmdError(f"{path}: <atominfo> tells of {n_atoms} atoms, its types are {counts}; copy the file again")
    numbers = [vasp.atomic_number(title, path) for title in titles]
    return np.repeat(numbers, counts), np.repeat(masses, counts), titles


def _fixed(start: ET.Element, cell: np.ndarray, n_atoms: int, path: Path) -> np.ndarray | None:
    flags = [(row.text or "").split() for row in start.findall("varray[@name='selective']/v")]
    if not flags:
        return None
    if len(flags) != n_atoms or any(len(row) != 3 for row in flags):
        raise DtmdError(f"{path}: selective dynamics without three flags for each of {n_atoms} atoms")
    return vasp.fixed_components(np.array([[flag == "T" for flag in row] for row in flags]), cell)


class _Frames:
    """The MD steps, one after another; each is whole from <structure> to </energy>."""

    def __init__(self, scan: vasp.Scan, head: ET.Element, n_atoms: int, notes: list[str]) -> None:
        self._scan, self._n_atoms, self._notes = scan, n_atoms, notes
        self._pressure = (_number(head, "PSTRESS") or 0.0) * _KILOBAR
        self._dispersion = bool(_number(head, "IVDW")) or "T" in (_text(head, "LVDW") or "")
        self._counted = (_number(head, "ML_OUTBLOCK") or 1) == 1
        if not self._counted:
            notes.append("ML_OUTBLOCK leaves MD steps out of vasprun.xml, which does not number them")
        if self._pressure and self._dispersion:
            notes.append("no energies: with PSTRESS and a dispersion correction, vasprun.xml does not tell whether "
                         "its energies contain the pressure's work; read the OUTCAR")

    def read(self) -> Iterator[Frame]:
        """Raises DtmdError; CutShort where the file ends inside a step."""
        step = 0
        while (before := self._scan.until(b"<structure>")) is not None:
            step += 1
            if before.count(b"<calculation>") > 1:
                raise self._scan.error(f"a <calculation> before that of MD step {step} has no <structure>")
            text = self._scan.until(b"</energy>")
            if text is None:
                raise CutShort(f"{self._scan.path}: ends inside MD step {step}")
            yield self._frame(before, text, step)
        if b"<calculation>" in self._scan.rest:
            raise CutShort(f"{self._scan.path}: ends inside the electronic steps of MD step {step + 1}")

    def _frame(self, before: bytes, text: bytes, step: int) -> Frame:
        what = f"MD step {step}"
        try:
            root = ET.fromstring(b"<step><structure>" + text + b"</energy></step>")
        except (ET.ParseError, ValueError) as error:
            row = getattr(error, "position", (1, 0))[0]
            raise DtmdError(f"{self._scan.path}: line {self._scan.start + row - 1}: {what} is no well-formed XML "
                            f"({error}); cut the file before it or copy it again") from error
        cell = _table(self._scan, root, "structure/crystal/varray[@name='basis']", 3, what, text)
        scaled = _table(self._scan, root, "structure/varray[@name='positions']", self._n_atoms, what, text)
        forces = _table(self._scan, root, "varray[@name='forces']", self._n_atoms, what, text)
        return Frame(
            positions=vasp.cartesian(scaled, cell), cell=cell, forces=forces,
            energy=self._energy(root, before, cell, what),
            step=step if self._counted else None, ab_initio=b"</scstep>" in before,
        )

    def _energy(self, root: ET.Element, before: bytes, cell: np.ndarray, what: str) -> float | None:
        """That of the step's own <energy>: those of the electronic steps lack dispersion corrections.

        With PSTRESS some versions add the work of the pressure to it, which is no part of the forces' energy.
        """
        text = root.findtext("energy/i[@name='e_fr_energy']")
        try:
            energy = float(text)
        except (TypeError, ValueError):
            raise self._scan.error(f"{what} has no energy e_fr_energy, found {text!r}") from None
        if not self._pressure:
            return energy
        electronic = re.findall(rb'name="e_fr_energy">\s*([-\d.]+)', before)
        if self._dispersion:
            return None
        if not electronic:
            return energy
        work = self._pressure * abs(np.linalg.det(cell))
        return min(energy, energy - work, key=lambda e: abs(e - float(electronic[-1])))


def _table(
    scan: vasp.Scan, root: ET.Element, path: str, n_rows: int, what: str, text: bytes = b""
) -> np.ndarray:
    """The numbers of a <varray>, (n_rows, 3)."""
    found = root.find(path)
    if found is None:
        raise scan.error(f"{what} has no <{path}>; cut the file before it or copy it again")
    rows = [row.text or "" for row in found]
    try:
        return np.array([float(word) for word in " ".join(rows).split()]).reshape(n_rows, 3)
    except ValueError:
        pass
    bad = next((row for row in rows if not _is_row(row)), None)
    if bad is None:
        raise scan.error(f"{what}: {len(rows)} rows in <{path}>, not {n_rows}; cut the file before it or copy it "
                         "again", text, len(text))
    raise scan.error(f"{what}: expected three numbers in <{path}>, found {bad.strip()[:60]!r}; "
                     "cut the file before it or copy it again", text, max(text.find(bad.encode()), 0))


def _is_row(text: str) -> bool:
    try:
        return len([float(word) for word in text.split()]) == 3
    except ValueError:
        return False


FORMAT = Format("VASP vasprun.xml", find, read, unfinished_is_usual=True)
