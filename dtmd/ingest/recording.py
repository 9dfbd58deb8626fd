"""All frames of a run as arrays, on disk where they are large, with atoms and labels the same in each."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from dtmd.errors import DtmdError
from dtmd.ingest.source import CutShort, Format, Frame, RawRun, Source
from dtmd.trajectory import unwrap

CHUNK_FRAMES = 64

IN_MEMORY = 1 << 24
"""Bytes up to which a quantity of a run is kept in memory."""


@dataclass(frozen=True)
class Recording:
    """A run as it was written; T frames, N atoms.

    Attributes:
        source: its files.
        run: what the head says.
        masses: u, (N,), of the run or the standard ones.
        cells: Å, (T, 3, 3).
        positions: Å, unwrapped, (T, N, 3).
        velocities, forces, energies: as in `Frame`, None where the code wrote none.
        steps: numbers of the MD steps, (T,), or None.
        times: fs, (T,), or None.
        ab_initio: (T,), bool.
        still: components that are the same in all frames, (N, 3), bool.
        cut: where the file ends inside a frame, or None.
    """

    source: Source
    run: RawRun
    masses: np.ndarray
    cells: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None
    forces: np.ndarray | None
    energies: np.ndarray | None
    steps: np.ndarray | None
    times: np.ndarray | None
    ab_initio: np.ndarray
    still: np.ndarray
    cut: str | None

    @property
    def name(self) -> str:
        return str(self.source.main)

    def __len__(self) -> int:
        return len(self.positions)


def record(source: Source, form: Format) -> Recording:
    """Read all frames of a run.

    Raises:
        DtmdError: as the reader does; frames with other atoms or without something that other frames have.
    """
    run = form.read(source)
    frames = _Frames(run, str(source.main))
    chunk, cut = [], None
    try:
        for frame in run.frames:
            chunk.append(frame)
            if len(chunk) == CHUNK_FRAMES:
                frames.append(chunk)
                chunk = []
    except CutShort as short:
        cut = str(short)
    if chunk:
        frames.append(chunk)
    if not frames.n_frames:
        raise DtmdError(cut or f"{source.main}: no frames in this {form.name} file")
    masses = run.masses if run.masses is not None else atomic_masses[run.numbers]
    return Recording(source=source, run=run, masses=np.asarray(masses, dtype=float), cut=cut, **frames.arrays())


class GrowingArray:
    """Rows of one shape and type, appended in pieces, kept in memory or, beyond IN_MEMORY, in an unnamed file."""

    def __init__(self, shape: tuple[int, ...], dtype: type = np.float64) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._pieces: list[np.ndarray] = []
        self._file = None
        self._n_rows = self._n_bytes = 0

    def append(self, rows: np.ndarray) -> None:
        """Add rows, (n, *shape)."""
        rows = np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1, *self._shape)
        self._n_rows += len(rows)
        self._n_bytes += rows.nbytes
        self._pieces.append(rows)
        if self._n_bytes > IN_MEMORY:
            self._spill()

    def array(self) -> np.ndarray:
        """All rows; a read-only memory map where they are on disk."""
        if self._file is None:
            return np.concatenate(self._pieces) if self._pieces else np.empty((0, *self._shape), self._dtype)
        return np.memmap(self._file, self._dtype, mode="r", shape=(self._n_rows, *self._shape))

    def _spill(self) -> None:
        try:
            self._file = self._file or tempfile.TemporaryFile(prefix="dtmd-")
            for piece in self._pieces:
                self._file.write(piece.data)
            self._file.flush()
        except OSError as error:
            raise DtmdError(f"{tempfile.gettempdir()}: no room for intermediate data ({error.strerror}); "
                            "set TMPDIR to a larger disk") from error
        self._pieces.clear()


@dataclass
class _Frames:
    """Collects frames and sees that they are of one kind."""

    run: RawRun
    name: str
    n_frames: int = 0
    columns: dict[str, GrowingArray] = field(default_factory=dict)

    def append(self, chunk: list[Frame]) -> None:
        if not self.columns:
            self._open_columns(chunk[0])
        for k, frame in enumerate(chunk):
            self._check(frame, self.n_frames + k)
        n_atoms = len(self.run.numbers)
        cells = np.array([frame.cell for frame in chunk], dtype=float)
        for name in self.columns.keys() - {"positions"}:
            values = cells if name == "cells" else [getattr(frame, _FIELDS.get(name, name)) for frame in chunk]
            self.columns[name].append(np.array(values))
        self._append_positions(np.array([frame.positions for frame in chunk]).reshape(-1, n_atoms, 3), cells)
        self.n_frames += len(chunk)

    def _open_columns(self, first: Frame) -> None:
        n_atoms = len(self.run.numbers)
        shapes = {"positions": (n_atoms, 3), "cells": (3, 3), "velocities": (n_atoms, 3), "forces": (n_atoms, 3),
                  "energies": (), "steps": (), "times": (), "ab_initio": ()}
        types = {"steps": np.int64, "ab_initio": np.bool_}
        self.columns = {
            name: GrowingArray(shape, types.get(name, np.float64))
            for name, shape in shapes.items() if getattr(first, _FIELDS.get(name, name)) is not None
        }
        self._still = np.ones((n_atoms, 3), dtype=bool)
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def _check(self, frame: Frame, k: int) -> None:
        n_atoms = len(self.run.numbers)
        for name in ("positions", "velocities", "forces"):
            value = getattr(frame, name)
            if value is not None and value.shape != (n_atoms, 3):
                raise DtmdError(f"{self.name}: frame {k} has {len(value)} {name}, the run {n_atoms} atoms; "
                                "a trajectory keeps its atoms")
        for name in ("velocities", "forces", "energies", "steps", "times"):
            present = getattr(frame, _FIELDS.get(name, name)) is not None
            if present != (name in self.columns):
                kind = _FIELDS.get(name, name)
                raise DtmdError(f"{self.name}: frame {k} has {'a' if present else 'no'} {kind}, the frames before it "
                                f"{'have none' if present else 'have'}; give frames of one kind")

    def _append_positions(self, positions: np.ndarray, cells: np.ndarray) -> None:
        """Unwrapped against the frame before, and compared with it."""
        if self._last is not None:
            positions = np.concatenate([self._last[0][None], positions])
            cells = np.concatenate([self._last[1][None], cells])
        finite = np.isfinite(positions).all() and np.isfinite(cells).all()
        try:
            unwrapped = unwrap(positions, cells, self.run.pbc) if finite else positions
        except np.linalg.LinAlgError as error:
            raise DtmdError(f"{self.name}: a cell without volume after frame {self.n_frames}; periodic directions need "
                            "cell vectors that are independent") from error
        self._still &= (unwrapped == unwrapped[:1]).all(axis=0)
        self.columns["positions"].append(unwrapped[0 if self._last is None else 1:])
        self._last = unwrapped[-1], cells[-1]

    def arrays(self) -> dict[str, np.ndarray | None]:
        names = ("cells", "positions", "velocities", "forces", "energies", "steps", "times", "ab_initio")
        found = {name: self.columns[name].array() if name in self.columns else None for name in names}
        return {**found, "still": self._still}


_FIELDS = {"energies": "energy", "steps": "step", "times": "time", "cells": "cell"}
"""Name in `Frame` of what is collected under another name."""


def formula(numbers: np.ndarray) -> str:
    """Composition such as "H2 C49 Pd6", by atomic number."""
    kinds, counts = np.unique(numbers, return_counts=True)
    return " ".join(f"{chemical_symbols[z]}{n}" for z, n in zip(kinds, counts, strict=True))
