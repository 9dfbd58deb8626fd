"""Reader of fhi-vibes's `trajectory.son`: a header closed by `===`, then frames closed by `---`, all JSON.

Units are ASE's: velocities and the time step are in Å and eV with u, and the header's `fs` is 1 fs in these units.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, Format, Frame, Lines, RawRun, Source
from dtmd.units import ASE_TIME

_HEADER = re.compile(r'\s*\{.*"MD": *\{.*"(calculator|atoms)": *\{', re.DOTALL)
_AB_INITIO = frozenset(
    "abacus abinit aims castep cp2k dftb dmol3 elk espresso exciting gaussian gpaw mopac nwchem octopus onetep "
    "openmx orca psi4 qchem siesta tblite turbomole vasp vasp2 xtb".split()
)
"""ASE's names of calculators that solve for the electrons."""

_MOST_ATOMS = 10_000_000
_LARGEST = 1e15


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates if _HEADER.match(c.head)]


def _read(source: Source) -> RawRun:
    lines = source.lines(source.main)
    header = _piece(lines, "===", "the header")
    atoms, md = _entry(lines, header, "atoms"), _entry(lines, header, "MD")
    numbers = _numbers(lines, atoms)
    first = _piece(lines, "---", "the first frame")
    in_fs = _number(lines, md.get("fs", 1.0 / ASE_TIME), "fs")
    step = md.get("timestep", _info(first).get("dt"))
    calculator = header.get("calculator")
    name = str(calculator.get("calculator", "")) if isinstance(calculator, dict) else ""
    ab_initio = name.lower() in _AB_INITIO
    named = f"names the calculator {name}" if name else "names no calculator"
    parameters = calculator.get("calculator_parameters", {}) if name else {}
    return RawRun(
        code=f"fhi-vibes ({name})" if name else "fhi-vibes", numbers=numbers,
        masses=_masses(lines, atoms, len(numbers)),
        pbc=np.broadcast_to(np.array(atoms.get("pbc", "cell" in atoms), dtype=bool), 3).copy(),
        frames=_frames(lines, first, atoms, numbers, in_fs, ab_initio),
        timestep=None if step is None else _number(lines, step, "timestep") / in_fs,
        timestep_from="MD timestep of the header" if "timestep" in md else "dt of the first frame",
        settings={"calculator": name, **_plain(parameters), **_plain(md, ("md-type", "temperature"))},
        notes=[] if ab_initio else [f"the header {named}, so the labels do not count as ab initio"],
    )


def _frames(lines: Lines, first: dict, header: dict, numbers: np.ndarray, in_fs: float,
            ab_initio: bool) -> Iterator[Frame]:
    for piece in itertools.chain([first], _pieces(lines)):
        atoms, results = _entry(lines, piece, "atoms"), _entry(lines, piece, "calculator")
        if {"symbols", "numbers"} & atoms.keys() and not np.array_equal(_numbers(lines, atoms), numbers):
            raise lines.error("the atoms of this frame are not those of the header; give the file of one run")
        velocities = _vectors(lines, atoms, "velocities", len(numbers))
        positions = _vectors(lines, atoms, "positions", len(numbers))
        if positions is None:
            raise lines.error("a frame without positions; write the trajectory again")
        cell = _vectors(lines, atoms if "cell" in atoms else header, "cell", 3)
        energy = results.get("free_energy", results.get("energy"))
        step = _info(piece).get("nsteps")
        yield Frame(
            positions, np.zeros((3, 3)) if cell is None else cell, _vectors(lines, results, "forces", len(numbers)),
            None if energy is None else _number(lines, energy, "energy"),
            None if velocities is None else velocities * in_fs,
            None if step is None else round(_number(lines, step, "nsteps")),
            ab_initio=ab_initio,
        )


def _pieces(lines: Lines) -> Iterator[dict]:
    for line in lines:
        if line.strip():
            yield _piece(lines, "---", "a frame", line)


def _piece(lines: Lines, end: str, what: str, first: str = "") -> dict:
    """The JSON object up to the line `end`, of which `first` was read already."""
    start, rows = lines.number, [first]
    while (line := lines.need(what)).rstrip() != end:
        rows.append(line)
    try:
        piece = json.loads("\n".join(rows))
    except (ValueError, RecursionError) as error:
        raise DtmdError(f"{lines.path}: lines {start + 1}-{lines.number} ({what}) are not JSON ({error}); the file "
                        "is damaged there, copy it again or cut it before these lines") from None
    if not isinstance(piece, dict):
        raise lines.error(f"{what} is no JSON object but {str(piece)[:40]!r}; give a trajectory of fhi-vibes")
    return piece


def _entry(lines: Lines, piece: dict, key: str) -> dict:
    if not isinstance(piece.get(key), dict):
        raise lines.error(f"no object {key!r} before this line; write the trajectory again")
    return piece[key]


def _info(piece: dict) -> dict:
    atoms = piece.get("atoms")
    info = atoms.get("info") if isinstance(atoms, dict) else None
    return info if isinstance(info, dict) else {}


def _numbers(lines: Lines, atoms: dict) -> np.ndarray:
    listed = _expanded(atoms.get("numbers", atoms.get("symbols")))
    numbers = [atomic_numbers.get(entry, 0) if isinstance(entry, str) else entry for entry in listed]
    wrong = [entry for entry, z in zip(listed, numbers) if not isinstance(z, int) or not 1 <= z <= 118]
    if wrong or not numbers:
        raise lines.error(f"{f'{wrong[0]!r} is no element' if wrong else 'no symbols or numbers of the atoms'}; "
                          "write the trajectory again")
    return np.array(numbers)


def _masses(lines: Lines, atoms: dict, n_atoms: int) -> np.ndarray | None:
    if "masses" not in atoms:
        return None
    masses = [_number(lines, mass, "masses") for mass in _expanded(atoms["masses"])]
    if len(masses) != n_atoms:
        raise lines.error(f"{len(masses)} masses for {n_atoms} atoms; write the trajectory again")
    return np.array(masses)


def _expanded(listed: object) -> list:
    """The list, with runs of equal entries, which fhi-vibes may write as `[count, entry]`, written out."""
    expanded = []
    for entry in listed if isinstance(listed, list) else []:
        is_run = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], int)
        expanded += [entry[1]] * entry[0] if is_run and entry[0] < _MOST_ATOMS else [entry]
    return expanded


def _vectors(lines: Lines, entry: dict, key: str, n_rows: int) -> np.ndarray | None:
    if key not in entry:
        return None
    try:
        rows = np.array(entry[key], dtype=float)
    except (ValueError, TypeError, OverflowError):
        raise lines.error(f"{key}: not a table of numbers; the frame that ends here is damaged") from None
    if rows.shape != (n_rows, 3):
        raise lines.error(f"{key}: {rows.shape} numbers, not ({n_rows}, 3); the frame that ends here is damaged")
    return rows


def _number(lines: Lines, value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _LARGEST:
        raise lines.error(f"{what}: not a number but {str(value)[:40]!r}; write the trajectory again")
    return float(value)


def _plain(settings: object, keys: tuple[str, ...] = ("xc", "k_grid", "relativistic")) -> dict[str, str]:
    return {key: str(settings[key]) for key in keys if isinstance(settings, dict) and key in settings}


FORMAT = Format("fhi-vibes trajectory", _find, _read)
"""Format of fhi-vibes's trajectory.son."""
