"""CP2K's log: version, ensemble, time step, cell and masses, all before the first SCF."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from dtmd.ingest.source import Lines

_VECTOR = re.compile(r"\s*CELL\| Vector ([abc]) \[angstrom\]?:?\s+(\S+)\s+(\S+)\s+(\S+)\s+\|[abc]\|\s*=\s*(\S+)")
_ATOM = re.compile(r"\s*\d+\s+\d+\s+[A-Z][a-z]?\s+\d+(?:\s+[-\d.]+){4}\s+(\d+\.\d+)\s*$")


@dataclass
class Log:
    """What the log says.

    Attributes:
        timestep: fs.
        ensemble: in capitals.
        cell: Å, (3, 3), three decimals only; the lengths may have six.
        pbc: periodic directions, None where the log does not say.
        masses: u, of each atom.
    """

    version: str = ""
    timestep: float | None = None
    ensemble: str = ""
    cell: np.ndarray | None = None
    pbc: tuple[bool, bool, bool] | None = None
    masses: tuple[float, ...] = ()


def read_log(lines: Lines) -> Log:
    """What stands before the first SCF.

    Raises:
        DtmdError: a number cannot be read.
    """
    log, vectors, masses = Log(), {}, []
    for line in lines:
        if "SCF WAVEFUNCTION OPTIMIZATION" in line or line.lstrip().startswith("MD_INI|"):
            break
        if "CP2K| version string" in line:
            log.version = line.split()[-1]
        elif re.match(r"\s*MD(_PAR)?\| Ensemble type", line, re.IGNORECASE):
            log.ensemble = line.split()[-1].upper()
        elif re.match(r"\s*MD(_PAR)?\| Time step \[fs\]", line, re.IGNORECASE):
            log.timestep = lines.number_after(line, "[fs]", "time step")
        elif match := _VECTOR.match(line):
            vectors[match[1]] = _vector(lines, match)
        elif line.lstrip().startswith("CELL| Periodicity"):
            log.pbc = tuple(axis in line.split()[-1].replace("NONE", "") for axis in "XYZ")
        elif match := _ATOM.match(line):
            masses.append(float(match[1]))
    if len(vectors) == 3:
        log.cell = np.array([vectors[name] for name in "abc"])
    log.masses = tuple(masses)
    return log


def _vector(lines: Lines, match: re.Match) -> np.ndarray:
    """Å, with the length as written, which may have more digits than the components."""
    try:
        vector, length = np.array([float(match[k]) for k in (2, 3, 4)]), float(match[5])
    except ValueError:
        raise lines.error(f"expected a cell vector with its length, found {match[0].strip()[:60]!r}") from None
    return vector * (length / np.linalg.norm(vector) if vector.any() else 1.0)
