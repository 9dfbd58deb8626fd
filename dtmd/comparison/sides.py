"""The runs of each side, as the user names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dtmd.comparison.gathering import Held, Stream
from dtmd.ensemble.results import folder_runs
from dtmd.errors import DtmdError
from dtmd.files import sha256
from dtmd.md import open_run
from dtmd.observables.section import AIMD
from dtmd.trajectory import Trajectory

UNNAMED = "MD"


@dataclass(frozen=True)
class RunFiles:
    """The file or files of one run.

    Attributes:
        paths: several where it was restarted.
        timestep: fs per MD step, for files without times.
        start: digest of the AIMD files and time in fs of the frame that it started from, where it was noted.
    """

    paths: tuple[Path, ...]
    timestep: float | None = None
    start: tuple[str, float] | None = None

    def open(self, like: Trajectory, watch: Callable[[int], None] = lambda n_bytes: None) -> Stream:
        """As `open_run`."""
        return open_run(self.paths, self.timestep, like, watch)

    @property
    def n_bytes(self) -> int:
        """On disk."""
        return sum(path.stat().st_size for path in self.paths if path.is_file())

    def sha256(self) -> str:
        """Over its files; empty for a trajectory of a store, which has digests of its own."""
        return sha256(list(self.paths)) if all(path.is_file() for path in self.paths) else ""


@dataclass(frozen=True)
class HeldRun:
    """A run in memory."""

    trajectory: Trajectory
    start: tuple[str, float] | None = None
    n_bytes: int = 0

    def open(self, like: Trajectory, watch: Callable[[int], None] = lambda n_bytes: None) -> Stream:
        return Held(self.trajectory)

    def sha256(self) -> str:
        return self.trajectory.origin.digest


@dataclass(frozen=True)
class MDSide:
    """The MD of one potential.

    Attributes:
        model: what is known of the potential, for the report.
        left_out: (run, reason) of those that are not compared.
    """

    name: str
    runs: Sequence[RunFiles | HeldRun]
    model: Mapping[str, object] = field(default_factory=dict)
    left_out: Sequence[tuple[str, str]] = ()


def sides_of(
    texts: Sequence[str], models: Sequence[str] = (), timestep: float | None = None
) -> list[MDSide]:
    """The sides of the MD.

    Args:
        texts: files of MD or folders of `dtmd run`, each as PATH or NAME=PATH; what has no name is one side. Files of
            one run that was restarted stand together as A+B.
        models: files of the potentials, each as FILE or NAME=FILE; without one the record of a folder tells.
        timestep: fs per MD step, for files without times.

    Raises:
        DtmdError: no such file, a folder that is none of `dtmd run`, or a model of a side that is not there.
    """
    sides: dict[str, list[MDSide]] = {}
    for text in texts:
        name, place = _named(text)
        sides.setdefault(name, []).append(_side(name, place, timestep))
    given = dict(map(_named, models))
    if unknown := [name for name in given if name not in sides]:
        raise DtmdError(f"--model {unknown[0]}: there is no side of this name, only {', '.join(sides)}; name the "
                        "model as NAME=FILE")
    return [_joined(name, parts, given.get(name)) for name, parts in sides.items()]


def _named(text: str) -> tuple[str, str]:
    """Name and place; both may have = in them."""
    if "=" not in text or _exists(text):
        return UNNAMED, text
    splits = [(text[:k].strip(), text[k + 1:]) for k, letter in enumerate(text) if letter == "="]
    name, place = next((split for split in splits if _exists(split[1])), splits[0])
    if name in (AIMD, ""):
        raise DtmdError(f"{text}: {AIMD} is the name of the reference; give this side another name" if name else
                        f"{text}: no name before =; write NAME={place}")
    return name, place


def _exists(place: str) -> bool:
    return Path(place).exists() or all(Path(part).exists() for part in place.split("+"))


def _side(name: str, place: str, timestep: float | None) -> MDSide:
    path = Path(place)
    if path.is_dir():
        found = folder_runs(path)
        runs = [RunFiles((dump,), timestep, start) for dump, start in found.runs]
        return MDSide(name, runs, _metadata(found.model), found.left_out)
    parts = (path,) if path.exists() else tuple(map(Path, place.split("+")))
    return MDSide(name, [RunFiles(parts, timestep)])


def _joined(name: str, parts: Sequence[MDSide], model: str | None) -> MDSide:
    known = next((part.model for part in parts if part.model), {})
    return MDSide(
        name, [run for part in parts for run in part.runs], known if model is None else _metadata(Path(model)),
        [entry for part in parts for entry in part.left_out],
    )


def _metadata(model: Path | None) -> dict[str, object]:
    if model is None:
        return {}
    from dtmd.artefact import read_metadata  # loads torch

    return {"file": str(model), "sha256": sha256([model]), **read_metadata(model)}
