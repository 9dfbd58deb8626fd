"""A run and the files it is in: read in blocks, joined, in order, positions unwrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_blocks import BLOCK_BYTES
from dtmd.ingest.source import CutShort
from dtmd.trajectory import Origin, Trajectory, unwrap

SAME_TIME = 1e-4
"""fs; frames of two files that are as close are of one step."""

SAME_POSITION = 0.02
"""Å; how far an atom may be from itself in the frame that two files share: XTC rounds to 0.01 Å."""

_GAP = 1.5
"""In spacings of the frames before it; a longer step from one file to the next is told to the user."""


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of one file in dtmd's units, not unwrapped yet; T frames, N atoms.

    Attributes:
        times, cells, positions, velocities, forces, energies: as in `Trajectory`.
    """

    times: np.ndarray
    cells: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None = None
    forces: np.ndarray | None = None
    energies: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.times)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those that are there, by name."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: values for name, values in found.items() if values is not None}

    def window(self, start: int, stop: int) -> Piece:
        """Frames start … stop − 1."""
        return self.chosen(slice(start, stop))

    def chosen(self, frames: slice | np.ndarray) -> Piece:
        """These frames."""
        return Piece(**{name: values[frames] for name, values in self.arrays().items()})

    def n_within(self, max_bytes: int) -> int:
        """How many frames such as these take at most so many bytes, at least one."""
        return max(1, max_bytes * len(self) // sum(values.nbytes for values in self.arrays().values()))


@dataclass(frozen=True)
class Part:
    """One file of a run.

    Attributes:
        source: its path, for messages.
        numbers, masses, pbc, fixed, origin: as in `Trajectory`.
        first: its first frame.
        pieces: begins to read it anew in pieces of about so many bytes. Raises CutShort where it ends inside a frame.
        wrapped: positions may be folded back into the box; False where they are continuous.
        ids: of the atoms, (N,), where the file has them.
        corner: lower corner of the box in the first frame, Å, (3,).
        notes: what the reader had to decide.
    """

    source: str
    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    first: Piece
    pieces: Callable[[int], Iterator[Piece]]
    wrapped: bool = True
    ids: np.ndarray | None = None
    corner: np.ndarray = field(default_factory=lambda: np.zeros(3))
    fixed: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)


def grouped(frames: Iterable, n_frames: int) -> Iterator[list]:
    """Frames, so many at a time.

    Raises:
        CutShort: as `frames`, after those before it.
    """
    waiting, cut = [], None
    try:
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == n_frames:
                yield waiting
                waiting = []
    except CutShort as short:
        cut = short
    if waiting:
        yield waiting
    if cut:
        raise cut


class MDRun:
    """A run of molecular dynamics, read in blocks as often as wanted.

    Where files overlap in time, as those of a restart do, the one that begins later counts. If its first frame is in
    the file before it as well, the two must be the same but for rounding and whole cells.

    Attributes:
        source: the file or files, for messages.
        first: its first frame.
        notes: what had to be decided or left out, for the user; complete when the blocks have been read to the end.

    Raises:
        DtmdError: files of different atoms, boundaries or quantities, or that begin at the same time.
    """

    def __init__(self, parts: list[Part]) -> None:
        self._parts = sorted(parts, key=lambda part: part.first.times[0])
        self._starts = [float(part.first.times[0]) for part in self._parts]
        for before, part in zip(self._parts, self._parts[1:], strict=False):
            _check_join(before, part)
        self.source = " + ".join(part.source for part in self._parts)
        self.notes: list[str] = []
        self._note(*(note for part in self._parts for note in part.notes))
        first = self._parts[0].first
        self.first = self._trajectory(replace(first, positions=first.positions - self._parts[0].corner))

    def blocks(self, max_bytes: int = BLOCK_BYTES) -> Iterator[Trajectory]:
        """All frames in order, in blocks of at most `max_bytes` or one frame.

        Positions are unwrapped over the whole run and relative to the lower corner of the box in its first frame.

        Raises:
            DtmdError: a damaged file, times that do not increase, or files that differ where they meet.
        """
        last: Trajectory | None = None
        for piece, wrapped in self._joined(max_bytes):
            if wrapped:
                piece = self._unwrapped(piece, last)
            block = self._trajectory(piece)
            n_frames = piece.n_within(max_bytes)
            for start in range(0, len(block), n_frames):
                yield block.window(start, start + n_frames)
            last = block.window(len(block) - 1, len(block))

    def whole(self) -> Trajectory:
        """All frames at once."""
        blocks = list(self.blocks())
        names = [entry.name for entry in fields(Piece) if getattr(blocks[0], entry.name) is not None]
        joined = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in names}
        return replace(blocks[0], **joined, notes=tuple(self.notes))

    def _joined(self, max_bytes: int) -> Iterator[tuple[Piece, bool]]:
        """The pieces of all files, positions relative to the first corner, and whether they may be wrapped."""
        end = spacing = None
        shift = -self._parts[0].corner
        for k, part in enumerate(self._parts):
            stop = self._starts[k + 1] if k + 1 < len(self._parts) else np.inf
            if end is not None and spacing is not None and self._starts[k] - end > _GAP * spacing:
                self._note(f"no frames between {end:g} fs ({self._parts[k - 1].source}) and {self._starts[k]:g} fs "
                           f"({part.source})")
            for piece in self._in_order(part, max_bytes):
                n_kept = int(np.searchsorted(piece.times, stop - SAME_TIME))
                if n_kept:
                    kept = piece if n_kept == len(piece) else piece.window(0, n_kept)
                    recent = kept.times[-2:] if end is None else np.append(end, kept.times[-2:])
                    end, spacing = recent[-1], recent[-1] - recent[-2] if len(recent) > 1 else None
                    yield replace(kept, positions=kept.positions + shift), part.wrapped
                if n_kept < len(piece):
                    if piece.times[n_kept] < stop + SAME_TIME:
                        following = self._parts[k + 1]
                        images = _images(f"{part.source} and {following.source}", piece.window(n_kept, n_kept + 1),
                                         following.first, part.pbc)
                        shift = shift if part.wrapped else shift + images
                    self._note(f"from {stop:g} fs on {self._parts[k + 1].source} is taken, not {part.source}")
                    break

    def _in_order(self, part: Part, max_bytes: int) -> Iterator[Piece]:
        """The pieces of one file.

        Left out are a last frame that is cut short, and a frame that is there twice, as where a restarted run goes
        on in the same file.
        """
        n_frames, last, repeated = 0, None, []
        where = f"{part.source}: " if len(self._parts) > 1 else ""
        try:
            for piece in part.pieces(max_bytes):
                times = np.append(-np.inf if last is None else last.times, piece.times)
                again = np.abs(np.diff(times)) < SAME_TIME
                later = np.flatnonzero(~(again | (np.diff(times) > 0)))
                if len(later):
                    k = int(later[0])
                    raise DtmdError(f"{part.source}: frame {n_frames + k} is at {times[k + 1]:g} fs, not after frame "
                                    f"{n_frames + k - 1} at {times[k]:g} fs; put the frames in order, where a run "
                                    "was restarted into the same file by splitting it there and giving both")
                for k in np.flatnonzero(again):
                    _images(f"{part.source}: frames {n_frames + k - 1} and {n_frames + k}",
                            piece.window(k - 1, k) if k else last, piece.window(k, k + 1), part.pbc & part.wrapped)
                repeated += [n_frames + int(k) for k in np.flatnonzero(again)]
                n_frames, last = n_frames + len(piece), piece.window(len(piece) - 1, len(piece))
                if not again.all():
                    yield piece.chosen(~again) if again.any() else piece
        except CutShort:
            self._note(f"{where}frame {n_frames} is cut short and was left out; {n_frames} frames used")
        if repeated:
            self._note(f"{where}{len(repeated)} frames that are the one before again, the first of them frame "
                       f"{repeated[0]}, were left out")

    def _unwrapped(self, piece: Piece, last: Trajectory | None) -> Piece:
        """With positions that go on from the frame before."""
        positions, cells = piece.positions, piece.cells
        if last is not None:
            positions, cells = np.concatenate([last.positions, positions]), np.concatenate([last.cells, cells])
        where = f"{self.source}: frames between {piece.times[0]:g} and {piece.times[-1]:g} fs"
        continuous = _continuous(where, positions, cells, self._parts[0].pbc)
        return replace(piece, positions=continuous[len(continuous) - len(piece):])

    def _note(self, *notes: str) -> None:
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]

    def _trajectory(self, piece: Piece) -> Trajectory:
        part = self._parts[0]
        return Trajectory(numbers=part.numbers, masses=part.masses, pbc=part.pbc, fixed=part.fixed, source=self.source,
                          notes=tuple(self.notes), origin=part.origin, **piece.arrays())


def _check_join(before: Part, part: Part) -> None:
    """Whether two files may be of one run."""
    both = f"{before.source} and {part.source}"
    if not (np.array_equal(before.numbers, part.numbers) and np.allclose(before.masses, part.masses)
            and (before.ids is None) == (part.ids is None) and np.array_equal(before.ids, part.ids)):
        raise DtmdError(f"{both} have not the same atoms; give files of one run together, others one by one")
    if not np.array_equal(before.pbc, part.pbc):
        raise DtmdError(f"{both} are periodic in different directions; give files of one run together")
    if before.first.arrays().keys() != part.first.arrays().keys() or before.wrapped != part.wrapped:
        raise DtmdError(f"{both} do not hold the same quantities; write all files of a run with one dump command")
    if part.first.times[0] - before.first.times[0] < SAME_TIME:
        raise DtmdError(f"{both} both begin at {part.first.times[0]:g} fs; give the files of one run in which time "
                        "goes on, each once")


def _continuous(where: str, positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    try:
        return unwrap(positions, cells, pbc)
    except np.linalg.LinAlgError as error:
        raise DtmdError(f"{where} have a cell without volume; periodic directions need independent cell "
                        "vectors") from error


def _images(where: str, frame: Piece, other: Piece, pbc: np.ndarray) -> np.ndarray:
    """Whole cells that lead from `other` to `frame`, which are the same frame, Å, (1, N, 3).

    Raises:
        DtmdError: begins with `where`; they are not the same.
    """
    cells = np.concatenate([other.cells, other.cells])
    met = _continuous(where, np.concatenate([frame.positions, other.positions]), cells, pbc)
    distances = np.linalg.norm(met[1] - met[0], axis=1)
    if distances.max() > SAME_POSITION:
        k = int(distances.argmax())
        raise DtmdError(f"{where} differ at {frame.times[0]:g} fs: atom {k + 1} of {len(distances)} is "
                        f"{distances[k]:.3g} Å away; give files of one run, each of which goes on from a restart of "
                        "the one before, others one by one")
    return met[1:] - other.positions
