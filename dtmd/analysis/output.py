"""What both analyses write alike: JSON with its provenance, CSV, structures for viewers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from dtmd.checkpoint import provenance
from dtmd.files import sha256, write_text, written_whole
from dtmd.named_calculators import NamedCalculator
from dtmd.presentation.numbers import now


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Content that JSON can hold, with the date and the versions of the software; raises as `written_whole`."""
    everything = {"created": now(), "versions": provenance(), **content}
    write_text(path, json.dumps(everything, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under titles; raises as `written_whole`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows([f"{value:.8g}" if isinstance(value, float) else value for value in row] for row in rows)
    write_text(path, stream.getvalue())


def write_structures(path: Path, images: Sequence[Atoms]) -> None:
    """Frames as extxyz; raises as `written_whole`."""
    with written_whole(path) as temporary:
        ase.io.write(temporary, images, format="extxyz")


def described(model: NamedCalculator) -> dict[str, Any]:
    """What a model is, for the JSON."""
    digest = None if model.file is None else sha256([model.file])
    return {"label": model.label, "named": model.named, "sha256": digest}
