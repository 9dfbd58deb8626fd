"""LAMMPS text dumps many frames at a time: found in chunks of bytes, their tables parsed together by pandas.

What this quick way does not take as it stands, be it damaged or only written otherwise, goes frame by frame through
`read_frame`, which reads it or says what is wrong.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from pandas.errors import ParserWarning

from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_frame import DumpFrames, boxes, is_numeric, joined, read_frame
from dtmd.ingest.source import DAMAGED, CutShort, Source

BLOCK_BYTES = 1 << 22
"""Numbers of one block, unless a single frame has more."""

_FIRST_PIECE = 1 << 12
_HEADER = re.compile(
    rb"(?:ITEM: UNITS\n(?P<units>\S+)\n)?(?:ITEM: TIME\n(?P<time>\S+)\n)?ITEM: TIMESTEP\n(?P<step>\d+)\n"
    rb"ITEM: NUMBER OF ATOMS\n(?P<atoms>\d+)\nITEM: (?P<box>BOX BOUNDS [^\n]*)\n"
    rb"(?P<bounds>[^\n]+\n[^\n]+\n[^\n]+\n)ITEM: ATOMS (?P<columns>[^\n]*)\n"
)


def dump_frames(source: Source, max_bytes: int = BLOCK_BYTES) -> Iterator[DumpFrames]:
    """The frames of a dump in blocks of about `max_bytes`, the first one alone.

    Raises:
        CutShort: the file ends inside a frame, or within a line.
        DtmdError: as `read_frame`, or bytes that cannot be unpacked.
    """
    with source.open(source.main) as stream:
        text, index, layout = _Growing(stream, source.main), 0, None
        while True:
            if layout is None:
                frames, used = _careful(text, index, None)
            else:
                frames, used = _many(text, index, layout)
            if frames is not None:
                if layout is None:
                    layout = _Layout(frames, text.data[:used].decode("latin-1"))
                    text.piece = max(_FIRST_PIECE, max_bytes * used // layout.n_bytes)
                yield frames
                index += len(frames)
                text.drop(used, index)
            elif not text.ended:
                text.piece = max(text.piece, len(text.data))  # so that long frames are not begun over and over
                text.grow()
            elif text.cut:
                raise CutShort(f"{source.main}: ends inside frame {index}")
            else:
                return


class _Growing:
    """The part of a file that is being looked at.

    Attributes:
        data: the bytes of it.
        ended: nothing comes after it.
        piece: so many bytes are read at a time.
        path: of the file, for messages.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.data, self.ended, self.piece = b"", False, _FIRST_PIECE
        self.path, self._stream, self._torn, self._index = path, stream, False, 0

    def grow(self) -> None:
        """Add what comes next."""
        pieces, missing = [self.data], self.piece
        try:
            while missing > 0 and (piece := self._stream.read1(missing)):
                pieces.append(piece)
                missing -= len(piece)
            self.ended = missing > 0
        except EOFError:  # a packed file that is cut short
            self.ended = self._torn = True
        except DAMAGED as error:
            raise DtmdError(f"{self.path}: cannot be read after frame {self._index - 1} ({error}); the file is "
                            "damaged or cut off, copy it again") from error
        self.data = b"".join(pieces)

    def drop(self, used: int, index: int) -> None:
        """Leave the first bytes behind; frame `index` comes next."""
        self.data, self._index = self.data[used:], index

    @property
    def cut(self) -> bool:
        """Something is left that is no whole line, or would have come."""
        return self._torn or bool(self.data)


class _Lines:
    """The whole lines of some bytes; `place` is where the next one begins."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        end = self._data.find(b"\n", self.place)
        if end < 0:
            raise StopIteration
        line, self.place = self._data[self.place:end].decode("latin-1"), end + 1
        return line


def _careful(text: _Growing, index: int, first: DumpFrames | None) -> tuple[DumpFrames | None, int]:
    """The whole frames at hand, or the first of the file alone, and the bytes they take; None if there is none."""
    lines, frames, used = _Lines(text.data), [], 0
    try:
        while (frame := read_frame(lines, text.path, index + len(frames), first)) is not None:
            frames.append(frame)
            used = lines.place
            if first is None:
                break
    except CutShort:  # it may go on in the next piece of the file
        pass
    return joined(frames) if frames else None, used


@dataclass(frozen=True)
class _Layout:
    """What all frames of a dump have in common, by the text of the first."""

    first: DumpFrames
    text: str

    @cached_property
    def n_bytes(self) -> int:
        """Of the numbers of one frame in memory."""
        return sum(column.nbytes for column in self.first.values.values())

    @cached_property
    def rows(self) -> list[str]:
        return self.text.splitlines()[-len(self.first.ids):]

    @cached_property
    def header(self) -> str:
        return self.text[:-sum(len(row) + 1 for row in self.rows)]

    @cached_property
    def columns(self) -> bytes:
        return self.header.rsplit("ITEM: ATOMS ", 1)[1].rstrip("\n").encode("latin-1")

    @cached_property
    def box(self) -> bytes:
        return re.search(r"BOX BOUNDS [^\n]*", self.header)[0].encode("latin-1")

    @cached_property
    def elements(self) -> pd.Index:
        return pd.Index(sorted(set(self.first.elements)))

    @cached_property
    def element_codes(self) -> np.ndarray:
        """Of the atoms, numbers of their elements in `elements`, (N,)."""
        return self.elements.get_indexer(list(self.first.elements))

    @cached_property
    def parsing(self) -> dict:
        """What pandas is told. All columns are parsed, so that rows of another length are found out."""
        names, tokens = self.columns.decode("latin-1").split(), self.rows[0].split()
        types = {name: "float64" if is_numeric(name) or _is_number(token) else "category"
                 for name, token in zip(names, tokens, strict=True)} | {"element": "category"}
        single = all(row.rstrip(" ") == " ".join(row.split()) for row in self.rows)
        return {"sep": " " if single else r"\s+", "names": names, "dtype": types, "header": None, "index_col": False,
                "na_filter": False, "quoting": 3, "skip_blank_lines": False, "engine": "c", "low_memory": False}


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def _many(text: _Growing, index: int, layout: _Layout) -> tuple[DumpFrames | None, int]:
    """As many frames as there are in the next piece of the file and the bytes they take; None if there is none."""
    if not text.ended and len(text.data) < text.piece:
        text.grow()
    spans = _spans(text, layout)
    frames = _parse(text.data, spans, layout) if spans else None
    return _careful(text, index, layout.first) if frames is None else (frames, spans[-1][1])


def _spans(text: _Growing, layout: _Layout) -> list[tuple[re.Match, int]]:
    """Headers like the first one with the ends of their rows, up to the first frame that is not whole or not alike."""
    data, n_atoms, place, spans = text.data, len(layout.first.ids), 0, []
    while header := _HEADER.match(data, place):
        end = data.find(b"\nITEM: ", header.end() - 1) + 1 or (len(data) if text.ended else 0)
        if not (end and data.count(b"\n", header.end(), end) == n_atoms == int(header["atoms"])
                and data[end - 1:end] == b"\n" and header["columns"] == layout.columns and header["box"] == layout.box
                and (header["time"] is None) == (layout.first.times is None)
                and header["units"] in (None, (layout.first.units or "").encode())):
            break
        spans.append((header, end))
        place = end
    return spans


def _parse(data: bytes, spans: list[tuple[re.Match, int]], layout: _Layout) -> DumpFrames | None:
    """The frames at these places; None if anything in them is not as it should be."""
    first, n_frames = layout.first, len(spans)
    headers = [header for header, _ in spans]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            rows = BytesIO(b"".join([data[header.end():end] for header, end in spans]))
            table = pd.read_csv(rows, **layout.parsing)
        bounds = [header["bounds"].split() for header in headers]
        cells, origins, pbc = boxes(layout.box.decode().split()[1:], bounds)
        times = None if first.times is None else np.array([float(header["time"]) for header in headers])
    except (ValueError, ParserWarning):  # with pandas' ParserError
        return None
    shape = n_frames, len(first.ids)
    if len(table) != shape[0] * shape[1] or len(cells) != n_frames:
        return None
    values = {name: table[name].to_numpy().reshape(shape) for name in first.values}
    elements = table["element"].cat
    codes = layout.elements.get_indexer(elements.categories)[elements.codes.to_numpy()].reshape(shape)
    if not (values["id"] == first.ids).all():
        order = np.argsort(values["id"], axis=1, kind="stable")
        values = {name: np.take_along_axis(column, order, axis=1) for name, column in values.items()}
        codes = np.take_along_axis(codes, order, axis=1)
    if not ((values["id"] == first.ids).all() and (codes == layout.element_codes).all()
            and all(np.isfinite(column).all() for column in values.values())):
        return None
    steps = np.array([int(header["step"]) for header in headers])
    return DumpFrames(steps, times, None, cells, origins, pbc, values, first.elements)
