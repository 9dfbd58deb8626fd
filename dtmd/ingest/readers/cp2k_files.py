"""Which files of a folder belong to one CP2K run: by content, then by the project in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dtmd.ingest.source import Candidate, Source

_TITLE = re.compile(r"\s*\d+[ \t\r]*\n\s*i\s*=\s*(\d+|\*+)\s*,.*E\s*=")
_NAME = re.compile(r"(?P<project>.+?)-(?:(?:pos|vel|frc)-)?(?P<piece>\d+)\.(?:xyz|ener|cell)")
_INPUT = re.compile(r"(?im)^\s*&(GLOBAL|FORCE_EVAL|MOTION)\b")
_INPUT_PROJECT = re.compile(r"(?im)^\s*PROJECT(?:_NAME)?\s+(\S+)")
_LOG_PROJECT = re.compile(r"GLOBAL\| Project name\s+(\S+)")
_PLUMED_INPUT = re.compile(r"(?im)^\s*PLUMED_INPUT_FILE\s+['\"]?(\S+?)['\"]?\s*$")
_NUMBERED = ("velocities", "forces", "energies", "cell")


@dataclass(frozen=True)
class _Part:
    """A file of some run.

    Attributes:
        role: as in the source, or "restart" for the input that CP2K writes to continue a run.
        project: empty where neither name nor content tells.
        piece: number in the name; a continued run may write files with higher ones.
        first_step: of positions.
    """

    path: Path
    role: str
    project: str = ""
    piece: int = 1
    first_step: int = 0


def find(candidates: list[Candidate]) -> list[Source]:
    """The runs, each named by its (first) file with positions."""
    parts = [part for candidate in candidates if (part := _part(candidate))]
    runs = list(_runs([part for part in parts if part.role == "positions"]))
    sources = []
    for run in runs:
        companions = {_key("positions", k): part.path for k, part in enumerate(run[1:], start=1)}
        for role in (*_NUMBERED, "input", "log"):
            matching = _matching(run, [part for part in parts if part.role == role], alone=len(runs) == 1)
            if role == "input" and not matching:
                matching = _matching(run, [part for part in parts if part.role == "restart"], alone=False)[:1]
            companions.update({_key(role, k): path for k, path in enumerate(matching)})
        plumed = {Path(name).name for c in candidates if c.path in companions.values()
                  for name in _PLUMED_INPUT.findall(c.head)}
        companions.update({"plumed": c.path for c in candidates if c.name in plumed})
        sources.append(Source(run[0].path, companions))
    return sources


def paths(source: Source, role: str) -> list[Path]:
    """The files of a role, in the order of the run."""
    found = [path for key, path in source.companions.items() if key.split()[0] == role]
    return [source.main, *found] if role == "positions" else found


def _key(role: str, k: int) -> str:
    return f"{role} {k + 1}" if k else role


def _part(candidate: Candidate) -> _Part | None:
    head, name = candidate.head, candidate.name
    first = head.partition("\n")[0]
    match = _NAME.fullmatch(name)
    project, piece = (match["project"], int(match["piece"][:9])) if match else ("", 1)
    if title := _TITLE.match(head):
        role = _role(name)
        first_step = int(title[1]) if title[1].isdigit() else 0
        # Positions under a name of their own are a run of their own.
        return _Part(candidate.path, role, project or (name if role == "positions" else ""), piece, first_step)
    if first.startswith("#") and "Step" in first and "Pot.[a.u.]" in first or name.endswith(".ener"):
        return _Part(candidate.path, "energies", project, piece)
    if first.startswith("#") and "Step" in first and "Ax [Angstrom]" in first:
        return _Part(candidate.path, "cell", project, piece)
    if "CP2K| version string" in head or "GLOBAL| Project name" in head:
        said = _LOG_PROJECT.search(head)
        return _Part(candidate.path, "log", said[1] if said else "")
    if _INPUT.search(head):
        said = _INPUT_PROJECT.search(head)
        role = "restart" if "Version information for this restart file" in head else "input"
        return _Part(candidate.path, role, said[1] if said else "")
    return None


def _role(name: str) -> str:
    """Coordinates, velocities and forces look the same; only the name tells."""
    if re.search(r"(?i)(^|[-_.])vel(ocit(y|ies))?([-_.]|$)", name):
        return "velocities"
    return "forces" if re.search(r"(?i)(^|[-_.])(frc|forces?)([-_.]|$)", name) else "positions"


def _runs(positions: list[_Part]) -> Iterator[list[_Part]]:
    """Files with positions, those of one project together as long as they continue one another."""
    run: list[_Part] = []
    for part in sorted(positions, key=lambda part: (part.project, part.piece)):
        if run and (part.project != run[-1].project or part.first_step <= run[-1].first_step):
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def _matching(run: list[_Part], parts: list[_Part], alone: bool) -> list[Path]:
    """The files of one role that belong to `run`; where it is alone in its folder, also a single one that does
    not tell its project, or an input or log of another name."""
    pieces = {part.piece for part in run}
    named = [part for part in parts if part.project == run[0].project
             and (part.role not in _NUMBERED or part.piece in pieces)]
    if not named and alone and len(parts) == 1 and (parts[0].role not in _NUMBERED or not parts[0].project):
        named = parts
    return [part.path for part in sorted(named, key=lambda part: part.piece)]
