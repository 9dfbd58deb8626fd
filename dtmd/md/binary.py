"""Binary trajectories without elements: DCD (CHARMM, NAMD, LAMMPS), XTC (GROMACS, LAMMPS) and AMBER's NetCDF."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from ase.geometry import cellpar_to_cell

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_dump import UNITS
from dtmd.ingest.source import CutShort
from dtmd.md.run import Part, Piece, grouped
from dtmd.trajectory import Trajectory

_ANGSTROM_PER_NM = 10.0
_SINGLE = float(np.finfo(np.float32).eps)
_XTC_EXACT = 9  # so few atoms are written in full single precision (GROMACS, xdrfile.c)
_NOT_WRITTEN = np.float32(9.9692099683868690e36)  # what NetCDF puts where nothing was written (NC_FILL_FLOAT)
_CUT = (OSError, EOFError, ValueError)
"""What the libraries raise where a file ends inside a frame."""


def _library(name: str, path: Path) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise DtmdError(f"{path}: reading it needs {name.partition('.')[0]}, which is not installed; "
                        "pip install 'dtmd[md]'") from error


def open_dcd(path: Path, timestep: float | None, like: Trajectory) -> Part:
    """A DCD file; its own time step is in the unit of the program that wrote it, and therefore not taken.

    Raises:
        DtmdError: another number of atoms, no `timestep` (fs per MD step), or a damaged head.
    """
    library = _library("MDAnalysis.coordinates.DCD", path)
    if timestep is None:
        raise DtmdError(f"{path}: the unit of time in a DCD file depends on what wrote it; give the time step with "
                        "--timestep (in fs)")
    try:
        with _library("MDAnalysis.lib.formats.libdcd", path).DCDFile(str(path)) as file:
            header, n_frames = file.header, len(file)
            n_left = (path.stat().st_size - file._header_size - file._firstframesize) % file._framesize
    except _CUT as error:
        raise _damaged(path, error) from error
    _check_atoms(path, header["natoms"], like)
    start, stride = header["istart"], max(header["nsavc"], 1)

    def frames() -> Iterator[Piece]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what frames share, which are copied here
            reader = library.DCDReader(str(path))
        with reader:
            for k in range(n_frames):
                frame = reader[k]
                yield _frame((start + k * stride) * timestep, _cell(frame.dimensions, like), frame.positions)
        if n_left:
            raise EOFError(f"{n_left} bytes too many")

    return _part(path, like, frames, ())


def open_xtc(path: Path, timestep: float | None, like: Trajectory) -> Part:
    """An XTC file; positions in nm, times in ps.

    Raises:
        DtmdError: another number of atoms, a `timestep` beside the times of the file, or a damaged head.
    """
    library = _library("MDAnalysis.lib.formats.libmdaxdr", path)
    _refuse_timestep(path, timestep)
    try:
        with library.XTCFile(str(path)) as file:
            _check_atoms(path, file.n_atoms, like)
            rounded = file.n_atoms > _XTC_EXACT
            precision = _ANGSTROM_PER_NM / file.read().prec
    except _CUT as error:
        raise _damaged(path, error) from error

    def frames() -> Iterator[Piece]:
        clock = _StepClock()
        with library.XTCFile(str(path)) as file:
            for frame in file:
                cell = _ANGSTROM_PER_NM * frame.box.astype(float)
                time = units.FS_PER_PS * clock.time(frame.step, frame.time)
                yield _frame(time, cell if cell.any() else like.cells[0], _ANGSTROM_PER_NM * frame.x.astype(float))

    return _part(path, like, frames, (f"positions are written to {precision:g} Å only",) if rounded else ())


def open_netcdf(path: Path, timestep: float | None, like: Trajectory) -> Part:
    """A NetCDF file by AMBER's convention, also by LAMMPS (`dump netcdf`); with velocities and forces if present.

    Raises:
        DtmdError: another number of atoms, a `timestep` beside the times of the file, units or a version of NetCDF
            that is not known.
    """
    library = _library("scipy.io", path)
    _refuse_timestep(path, timestep)
    try:
        with library.netcdf_file(str(path), mmap=True) as file:
            layout = _Amber(path, file)
    except (*_CUT, TypeError, IndexError) as error:
        raise DtmdError(f"{path}: cannot be read ({error}); the file is damaged or of a newer version of NetCDF, which "
                        "nccopy -k cdf2 converts") from error
    _check_atoms(path, layout.n_atoms, like)

    def frames() -> Iterator[Piece]:
        with library.netcdf_file(str(path), mmap=True) as file:
            for k in range(layout.n_frames):
                frame = layout.frame(file, k, like)
                if frame is None:
                    break
                yield frame
            else:
                return
        raise EOFError("not all of it was written")  # here, as an error refers to arrays that keep the file open

    return _part(path, like, frames, ())


class _StepClock:
    """Times of an XTC file, which are in single precision, by the numbers of its steps, which are exact."""

    def __init__(self) -> None:
        self._timestep: float | None = None

    def time(self, step: int, written: float) -> float:
        """That of the step, in the unit of `written`; `written` itself where the two do not go together."""
        if step and self._timestep is None:
            self._timestep = _decimal(written / step)
        exact = step * (self._timestep or 0.0)
        return exact if abs(exact - written) <= _SINGLE * abs(written) else written


def _even(times: np.ndarray) -> np.ndarray:
    """The same times, equally spaced if they are so but for single precision, in which AMBER writes them."""
    if len(times) < 2:
        return times
    mean = (times[-1] - times[0]) / (len(times) - 1)
    for digits in range(1, 7):
        spacing = float(f"{mean:.{digits}g}")
        even = _decimal(times[0]) + spacing * np.arange(len(times))
        if np.allclose(even, times, rtol=_SINGLE, atol=0.0):
            return even
    return times


def _decimal(value: float) -> float:
    """The number of six digits that `value` is in single precision; `value` itself if there is none."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= _SINGLE * abs(value) else value


READERS: tuple[tuple[Callable[..., Part], Callable[[str], bool]], ...] = (
    (open_dcd, lambda head: head[4:8] == "CORD"),
    (open_xtc, lambda head: head[:4] in ("\0\0\x07\xcb", "\0\0\x07\xe7")),
    (open_netcdf, lambda head: head[:4] in ("CDF\x01", "CDF\x02", "CDF\x05")),
)
"""What opens a file that begins so."""


class _Amber:
    """The units and variables of a NetCDF file by AMBER's convention."""

    def __init__(self, path: Path, file: object) -> None:
        self.path = path
        variables = file.variables
        self.positions = next((name for name in ("unwrapped_coordinates", "coordinates") if name in variables), None)
        if self.positions is None or "time" not in variables:
            raise DtmdError(f"{path}: NetCDF with {', '.join(variables)}, not with time and coordinates as AMBER and "
                            "LAMMPS write them")
        self.n_frames, self.n_atoms = variables[self.positions].shape[:2]
        time = _text(variables["time"], "units")
        self.unit = UNITS.get({"picosecond": "metal", "femtosecond": "real"}.get(time))
        if self.unit is None:
            raise DtmdError(f"{path}: times in {time or 'a unit that is not named'!r}; picosecond or femtosecond is "
                            "needed")
        kcal = UNITS["real"].energy
        steps = np.array(variables["time"][:], dtype=float)
        self.times = _even(steps * float(getattr(variables["time"], "scale_factor", 1.0)) * self.unit.time)
        self.factors = {self.positions: 1.0} | {
            name: self._factor(variables[name], name, known, default) for name, known, default in (
                ("velocities", {"angstrom/picosecond": 1.0 / units.FS_PER_PS, "angstrom/femtosecond": 1.0},
                 self.unit.velocity),
                ("forces", {"kilocalorie/mole/angstrom": kcal, "electronvolt/angstrom": 1.0}, self.unit.energy),
            ) if name in variables}

    def _factor(self, variable: object, name: str, known: dict[str, float], default: float) -> float:
        """To dtmd's units; LAMMPS names only the unit of time, which tells its others."""
        unit = _text(variable, "units").lower()
        if unit and unit not in known:
            raise DtmdError(f"{self.path}: {name} in {unit!r}; {' or '.join(known)} is needed")
        return known[unit] if unit else default

    def frame(self, file: object, k: int, like: Trajectory) -> Piece | None:
        """Frame `k`, atoms sorted by id where these are written; None if a part of it was not written."""
        variables, values = file.variables, {}
        order = np.argsort(variables["id"][k], kind="stable") if "id" in variables else slice(None)
        for name, factor in self.factors.items():
            scale = float(getattr(variables[name], "scale_factor", 1.0)) * factor
            raw = np.array(variables[name][k], dtype=float)
            if (raw == _NOT_WRITTEN).any():
                return None
            values[name] = raw * scale
        box = None
        if "cell_lengths" in variables:
            box = np.concatenate([np.array(variables[name][k], float) for name in ("cell_lengths", "cell_angles")])
        given = {name: values[name][order] for name in ("velocities", "forces") if name in values}
        return _frame(float(self.times[k]), _cell(box, like), values[self.positions][order], **given)


def _text(variable: object, name: str) -> str:
    value = getattr(variable, name, b"")
    return value.decode() if isinstance(value, bytes) else str(value)


def _frame(time: float, cell: np.ndarray, positions: np.ndarray, **given: np.ndarray) -> Piece:
    return Piece(times=np.array([time]), cells=cell[None], positions=np.array(positions, dtype=float)[None],
                 **{name: values[None] for name, values in given.items()})


def _cell(box: np.ndarray | None, like: Trajectory) -> np.ndarray:
    """From lengths (Å) and angles (°), the first vector along x; that of `like` where the file has none."""
    if box is None or not np.any(box[:3]):
        return like.cells[0]
    return cellpar_to_cell(np.asarray(box, dtype=float))


def _part(path: Path, like: Trajectory, frames: Callable[[], Iterator[Piece]], notes: tuple[str, ...]) -> Part:
    try:
        first = next(_checked(path, frames()))
    except StopIteration:
        raise DtmdError(f"{path}: no frames in this file") from None

    def pieces(max_bytes: int) -> Iterator[Piece]:
        return map(_joined, grouped(_checked(path, frames()), first.n_within(max_bytes)))

    return Part(source=str(path), numbers=like.numbers, masses=like.masses, pbc=like.pbc, first=first, pieces=pieces,
                notes=(f"elements and masses from {like.source}", *notes))


def _checked(path: Path, frames: Iterator[Piece]) -> Iterator[Piece]:
    """Finite frames, until the file ends."""
    k = 0
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except _CUT as error:
            raise CutShort(f"{path}: ends inside frame {k} ({error})") from error
        for name, values in frame.arrays().items():
            if not np.isfinite(values).all():
                raise DtmdError(f"{path}: frame {k} has {name} that are not finite; the run has failed here, cut the "
                                "file before this frame")
        yield frame
        k += 1


def _joined(frames: list[Piece]) -> Piece:
    return Piece(**{name: np.concatenate([getattr(frame, name) for frame in frames]) for name in frames[0].arrays()})


def _check_atoms(path: Path, n_atoms: int, like: Trajectory) -> None:
    if n_atoms != len(like.numbers):
        raise DtmdError(f"{path}: {n_atoms} atoms, {like.source} has {len(like.numbers)}; give a file with the same "
                        "atoms in the same order")


def _refuse_timestep(path: Path, timestep: float | None) -> None:
    if timestep is not None:
        raise DtmdError(f"{path}: the file holds the time of its frames; leave --timestep out")


def _damaged(path: Path, error: Exception) -> DtmdError:
    return DtmdError(f"{path}: cannot be read ({error}); the file is damaged or cut off, copy it again")
