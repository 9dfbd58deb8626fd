"""ASE trajectories (.traj): an ulm container of JSON and plain arrays, one item per frame.

Read through `ase.io.ulm`, so that no constraint or calculator is built from what the file names. Momenta are in
ASE's units; the forces are the calculator's own, constraints not applied. Trajectories of ASE before 3.9 are
pickles, which could run any code when read, and are refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ase.data import atomic_masses
from ase.io import ulm

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.ase_names import CHOICES, check_atoms, choose_names
from dtmd.ingest.source import COMPRESSIONS, Candidate, CutShort, Format, Frame, RawRun, Source

_MAGIC = ("- of UlmASE-Trajectory", "AFFormatASE-Trajectory")
_PICKLE = "PickleTrajectory"
_MD_SETTINGS = ("md-type", "temperature_K")


@dataclass(frozen=True)
class _Header:
    """What is written once, with the first frame."""

    numbers: np.ndarray
    pbc: np.ndarray
    masses: np.ndarray | None
    names: dict[str, str | None]


def find(candidates: list[Candidate]) -> list[Source]:
    """The ASE trajectories among the files of a folder."""
    return [Source(candidate.path) for candidate in candidates if candidate.head.startswith((*_MAGIC, _PICKLE))]


def read(source: Source) -> RawRun:
    """Open an ASE trajectory; see `Format`."""
    with _opened(source, lambda n_bytes: None) as file:
        if file.read(len(_PICKLE)) == _PICKLE.encode():
            raise DtmdError(f"{source.main}: a trajectory of ASE before 3.9, a pickle, which could run any code; "
                            f"if you trust it, convert it with python -m ase.io.trajectory {source.main.name}")
        with _one_error(f"{source.main}: frame 0"):
            first = ulm.Reader(file)
            if len(first) == 0:
                raise DtmdError(f"{source.main}: no frames in this file")
            header = _header(first, source.main)
            timestep, origin, notes = _timestep(first, header)
            fixed = _fixed(first, notes)
            settings = _settings(first, notes)
            version = str(first.get("ase_version") or "")
    return RawRun(
        code="ASE", version=version, numbers=header.numbers, pbc=header.pbc, masses=header.masses, timestep=timestep,
        timestep_from=origin, fixed=fixed, settings=settings, notes=notes, frames=_frames(source, header),
    )


@contextmanager
def _opened(source: Source, watch: Callable[[int], None]) -> Iterator[BinaryIO]:
    """The file, or its contents where it is packed: items are read back and forth, which unpacks again and again."""
    path = source.main
    if path.suffix not in COMPRESSIONS:
        try:
            file = open(path, "rb")
        except OSError as error:
            raise DtmdError(f"{path}: cannot be opened ({error.strerror})") from error
    else:
        file = tempfile.TemporaryFile(prefix="dtmd-")
        with _one_error(f"{path}: the packed file"), Source(path, watch=watch).open(path) as packed:
            shutil.copyfileobj(packed, file)
        file.seek(0)
    with file:
        yield file


@contextmanager
def _one_error(what: str) -> Iterator[None]:
    """Whatever ASE's parser raises on damaged bytes, as one clear error."""
    try:
        yield
    except DtmdError:
        raise
    except Exception as error:
        raise DtmdError(f"{what} cannot be read ({type(error).__name__}: {error}); the file is damaged or cut off, "
                        "copy it again") from error


def _frames(source: Source, header: _Header) -> Iterator[Frame]:
    with _opened(source, source.watch) as file:
        with _one_error(f"{source.main}: frame 0"):
            size = os.fstat(file.fileno()).st_size
            offsets = ulm.read_header(file)[-1]
            items = ulm.Reader(file)
        told = 0
        for k, offset in enumerate(offsets):
            what = f"{source.main}: frame {k}"
            with _one_error(what):
                if _end(file, int(offset)) > size:
                    raise CutShort(f"{source.main}: ends inside frame {k} of {len(offsets)}")
                frame = _frame(items[k], header, what)
            yield frame
            if source.main.suffix not in COMPRESSIONS:
                source.watch(int(offset) - told)
                told = int(offset)


def _end(file: BinaryIO, offset: int) -> int:
    """Where the description of an item ends that begins at `offset`; its arrays are before it."""
    file.seek(offset)
    length = file.read(8)
    return offset + 8 + (int.from_bytes(length, "little") if len(length) == 8 else 1)


def _frame(item: ulm.Reader, header: _Header, what: str) -> Frame:
    n_atoms = len(header.numbers)
    if "numbers" in item:
        check_atoms(np.asarray(item.numbers), header.numbers, what)
    results, info = item.get("calculator"), item.get("info") or {}
    names = choose_names(_given(item), header.names, what)
    momenta, forces = item.get("momenta"), None if names["forces"] is None else results.get(names["forces"])
    masses = atomic_masses[header.numbers] if header.masses is None else header.masses
    step = info.get(names["step"])
    return Frame(
        positions=_array(item.positions, (n_atoms, 3), "positions", what),
        cell=_array(item.cell, (3, 3), "cell", what),
        forces=None if forces is None else _array(forces, (n_atoms, 3), "forces", what),
        energy=None if names["energy"] is None else float(results.get(names["energy"])),
        velocities=None if momenta is None else
        _array(momenta, (n_atoms, 3), "momenta", what) / masses[:, None] / units.ASE_TIME,
        step=None if step is None else int(step),
    )


def _given(item: ulm.Reader) -> set[str]:
    """The quantities of a frame by the names in `CHOICES`."""
    results = item.get("calculator")
    given = {name for name in (*CHOICES["energy"], "forces") if results is not None and name in results}
    return given | {name for name in ("momenta",) if name in item} | set(item.get("info") or {})


def _array(values: object, shape: tuple[int, ...], name: str, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.shape != shape:
        raise DtmdError(f"{what} has {name} of shape {array.shape}, expected {shape}")
    return array


def _header(first: ulm.Reader, path: Path) -> _Header:
    numbers = np.asarray(first.numbers)
    if (numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind != "i"
            or numbers.min() < 1 or numbers.max() >= len(atomic_masses)):
        raise DtmdError(f"{path}: the atomic numbers {numbers.ravel()[:10]} are not those of elements")
    masses = first.get("masses")
    return _Header(
        numbers=numbers, pbc=np.broadcast_to(np.asarray(first.pbc, dtype=bool), 3),
        masses=None if masses is None else _array(masses, numbers.shape, "masses", f"{path}: frame 0"),
        names=choose_names(_given(first), None, f"{path}: frame 0"),
    )


def _timestep(first: ulm.Reader, header: _Header) -> tuple[float | None, str, list[str]]:
    """fs between frames (from step to step where they are numbered), where that is written, and notes."""
    key = header.names["timestep"]
    if key is not None:
        return float(first.info[key]), key, []
    said = first.get("description") or {}
    if said.get("type") == "optimization":
        return None, "", ["the file says that it is a geometry optimisation, not MD"]
    if "timestep" not in said:
        return None, "", []
    step = float(said["timestep"]) * units.ASE_TIME
    if "interval" not in said:
        return None, "", [f"steps of {step:g} fs, but the file does not say how many lie between its frames"]
    return step * int(said["interval"]), "ASE's description of the MD run", []


def _fixed(first: ulm.Reader, notes: list[str]) -> np.ndarray | None:
    """From FixAtoms and FixCartesian; others are named in `notes`."""
    fixed = np.zeros((len(first.numbers), 3), dtype=bool)
    for constraint in json.loads(first.get("constraints", "[]")):
        name, arguments = constraint["name"], constraint["kwargs"]
        if name == "FixAtoms":
            fixed[arguments["indices"]] = True
        elif name == "FixCartesian":
            fixed[np.ix_(np.atleast_1d(arguments["a"]), np.flatnonzero(arguments.get("mask", [True] * 3)))] = True
        else:
            notes.append(f"ran with the constraint {name}, which moves atoms otherwise than the forces say")
    return fixed if fixed.any() else None


def _settings(first: ulm.Reader, notes: list[str]) -> dict[str, str | float]:
    """The kind of MD, the calculator and its single parameters, as far as they were written."""
    said, calculator = first.get("description") or {}, first.get("calculator")
    settings = {key: said[key] for key in _MD_SETTINGS if isinstance(said.get(key), (str, int, float))}
    if calculator is None:
        return settings
    name = calculator.get("name", "unknown")
    if name != "unknown":
        notes.append(f"forces and energies of ASE's calculator {name!r}")
    parameters = calculator.get("parameters") or {}
    plain = {key: value for key, value in parameters.items() if isinstance(value, (str, int, float))}
    return settings | {"calculator": str(name)} | plain


FORMAT = Format(name="ASE trajectory", find=find, read=read)
