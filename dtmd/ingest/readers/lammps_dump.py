"""LAMMPS text dumps (`dump custom`): as MD to compare with (`read_dump`), and as training data (`FORMAT`)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_frame import FORCES, VELOCITIES, DumpFrame, read_frame
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, Lines, RawRun, Source
from dtmd.trajectory import Trajectory, unwrap


@dataclass(frozen=True)
class _Units:
    """What LAMMPS's numbers are in eV, Å and fs."""

    time: float
    velocity: float
    energy: float


_KCAL_PER_MOL = 4184.0 * units.ATOMIC_MASS * 1000.0 / units.ELEMENTARY_CHARGE  # eV; 1000 u are 1 kg/mol
_UNITS = {
    "metal": _Units(time=units.FS_PER_PS, velocity=1.0 / units.FS_PER_PS, energy=1.0),
    "real": _Units(time=1.0, velocity=1.0, energy=_KCAL_PER_MOL),
}
_NOT_NAMED = "the dump does not name its units; read as metal"


def read_dump(path: Path | str, timestep: float | None = None) -> Trajectory:
    """Read a LAMMPS dump with the columns id, element and positions; velocities and forces if present.

    Positions come in any of `x y z`, `xu yu zu`, `xs ys zs`, `xsu ysu zsu`, in any column order, and
    are returned unwrapped and relative to the box origin of the first frame. Atoms are sorted by id.
    The potential energy is the sum over the atoms of the column `v_pe_share` or `c_pe`. A last frame
    that is cut short (run killed or still writing) is left out, which `notes` says.

    Args:
        path: text dump, or the same ending in `.gz`.
        timestep: fs per MD step; needed where the dump has no `ITEM: TIME`.

    Raises:
        DtmdError: a damaged frame, a number that is not finite, missing columns, a changed set of
            atoms, units other than metal, or no way to know the time of the frames.
    """
    path = Path(path)
    frames, notes = _read_frames(path)
    first = frames[0]
    if first.units not in (None, "metal"):
        raise DtmdError(f"{path}: written in `units {first.units}`; dtmd reads dumps of `units metal` runs")
    if first.units is None:
        notes.append(_NOT_NAMED)
    cells, pbc = np.stack([frame.cell for frame in frames]), np.array(first.pbc)
    positions = np.stack([frame.positions() for frame in frames]) - first.origin
    numbers = first.numbers(path)
    energies = [frame.energy() for frame in frames]
    return Trajectory(
        numbers=numbers, masses=first.column("mass") if "mass" in first.columns else atomic_masses[numbers],
        pbc=pbc, cells=cells, times=_times(frames, timestep, path),
        positions=unwrap(positions, cells, pbc) if first.wrapped else positions,
        velocities=_stacked(frames, VELOCITIES, 1.0 / units.FS_PER_PS), forces=_stacked(frames, FORCES, 1.0),
        energies=None if energies[0] is None else np.array(energies), source=str(path), notes=tuple(notes),
    )


def _read_frames(path: Path) -> tuple[list[DumpFrame], list[str]]:
    frames: list[DumpFrame] = []
    notes: list[str] = []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as stream:
            lines = _complete_lines(stream)
            while (frame := read_frame(lines, path, len(frames), frames[0] if frames else None)) is not None:
                frames.append(frame)
    except CutShort:
        notes.append(f"frame {len(frames)} is cut short and was left out; {len(frames)} frames used")
    except (gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise DtmdError(f"{path}: not a readable text dump after frame {len(frames) - 1}: {error}") from error
    except OSError as error:
        raise DtmdError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not frames:
        raise DtmdError(f"{path}: no complete frame of a LAMMPS text dump (`ITEM: TIMESTEP` …) in it")
    return frames, notes


def _complete_lines(stream) -> Iterator[str]:
    """The lines up to where writing stopped: a last line without its end may lack digits."""
    try:
        for line in stream:
            if not line.endswith("\n"):
                return
            yield line
    except EOFError:
        return


def _times(frames: list[DumpFrame], timestep: float | None, path: Path) -> np.ndarray:
    """Time of each frame, fs."""
    if all(frame.time is not None for frame in frames):
        return np.array([frame.time for frame in frames]) * units.FS_PER_PS
    if timestep is None:
        raise DtmdError(
            f"{path}: the dump does not hold the time of its frames; give the time step with --timestep "
            "(in fs), or write the dump with `dump_modify … time yes`"
        )
    return np.array([frame.step for frame in frames]) * timestep


def _stacked(frames: list[DumpFrame], columns: tuple[str, str, str], unit: float) -> np.ndarray | None:
    """Three columns of all frames, shape (T, N, 3), times `unit`; None where they were not written."""
    if frames[0].vectors(columns) is None:
        return None
    return unit * np.stack([frame.vectors(columns) for frame in frames])


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates
            if c.head.startswith("ITEM: ") and "ITEM: TIMESTEP" in c.head and "ITEM: ATOMS" in c.head]


def _read(source: Source) -> RawRun:
    lines = Lines(source.main)
    try:
        first = read_frame(lines, source.main, 0, None)
    finally:
        lines.close()
    if first is None:
        raise CutShort(f"{source.main}: ends inside frame 0")
    if first.units not in (None, *_UNITS):
        raise DtmdError(f"{source.main}: written in `units {first.units}`; dtmd reads dumps of `units metal` and "
                        "`units real` runs")
    return RawRun(
        code="LAMMPS", numbers=first.numbers(source.main), pbc=np.array(first.pbc),
        masses=first.column("mass") if "mass" in first.columns else None, frames=_frames(source, first),
        timestep_from="" if first.time is None else "ITEM: TIME", precision=first.precision,
        settings={"labels": "another potential", "units": first.units or "metal"},
        notes=["the labels are those of the potential that LAMMPS ran with", *([] if first.units else [_NOT_NAMED])],
    )


def _frames(source: Source, first: DumpFrame) -> Iterator[Frame]:
    unit = _UNITS[first.units or "metal"]
    lines, index = source.lines(source.main), 0
    try:
        while (frame := read_frame(lines, source.main, index, first)) is not None:
            if frame.units not in (None, first.units) or (frame.time is None) != (first.time is None):
                raise DtmdError(f"{source.main}: frame {index} (step {frame.step}) differs from frame 0 in its units "
                                "or in having a time; these are two dumps in one file, split it")
            yield _converted(frame, first, unit)
            index += 1
        if lines.cut:
            raise CutShort(f"{source.main}: ends inside frame {index}")
    finally:
        lines.close()


def _converted(frame: DumpFrame, first: DumpFrame, unit: _Units) -> Frame:
    """In dtmd's units; the time where it is dumped counts, as the time step may have been changed in the run."""
    velocities, forces, energy = frame.vectors(VELOCITIES), frame.vectors(FORCES), frame.energy()
    return Frame(
        positions=frame.positions() - first.origin, cell=frame.cell,
        forces=None if forces is None else forces * unit.energy,
        energy=None if energy is None else energy * unit.energy,
        velocities=None if velocities is None else velocities * unit.velocity,
        step=frame.step if frame.time is None else None, time=None if frame.time is None else frame.time * unit.time,
    )


FORMAT = Format(name="LAMMPS dump", find=_find, read=_read)
