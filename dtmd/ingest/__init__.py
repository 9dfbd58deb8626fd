"""AIMD output → `Trajectory`: one reader per code, every run checked before it is used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.files import sha256
from dtmd.ingest.checks import check_names
from dtmd.ingest.examination import Examined, examine
from dtmd.ingest.formats import Found, find_runs
from dtmd.ingest.recording import record
from dtmd.ingest.source import Format, Source
from dtmd.ingest.twins import KnownRuns
from dtmd.store import read_store
from dtmd.trajectory import Trajectory

Watch = Callable[[Found], AbstractContextManager[Callable[[int], None]]]
"""What follows the reading: told what will be read, it gives a function that is told the number of bytes read."""


def unwatched(found: Found) -> AbstractContextManager[Callable[[int], None]]:
    """Nobody follows the reading."""
    return nullcontext(lambda n_bytes: None)


@dataclass(frozen=True)
class RunReport:
    """What became of one run.

    Attributes:
        form, source: the reader and the files.
        examined: the verdicts; None where the run could not be read.
        problem: why it is refused, None if it is not.
        left_out: why it is not taken although nothing is wrong with it, such as "repeats vasprun.xml".
    """

    form: Format
    source: Source
    examined: Examined | None = None
    problem: str | None = None
    left_out: str | None = None

    @property
    def trajectories(self) -> list[Trajectory]:
        return self.examined.trajectories if self.examined and self.problem is None and self.left_out is None else []


def ingest(
    found: Found, timestep: float | None = None, allow: Collection[str] = (),
    watch: Callable[[int], None] = lambda n_bytes: None, stored: Sequence[Trajectory] = (),
) -> Iterator[RunReport]:
    """Read and check runs one after another.

    Args:
        found: what to read.
        timestep: fs between frames, for files that do not say it.
        allow: names of checks that may fail.
        watch: told the number of bytes read, for progress.
        stored: what a store holds already; files behind it are not read again, and new runs that belong to
            one in it get its name.

    Raises:
        DtmdError: a name that no check has.
    """
    allowed, known = check_names(allow), KnownRuns(stored)
    for form, source in found.runs:
        source = replace(source, watch=watch)
        digest = sha256(source.files)
        if there := known.stored_as(digest):
            yield RunReport(form, source, left_out=f"is there already: {there}")
            continue
        try:
            examined = examine(record(source, form), timestep, allowed, form.unfinished_is_usual)
        except DtmdError as error:
            yield RunReport(form, source, problem=str(error))
            continue
        report = RunReport(form, source, examined, problem=_refusal(examined))
        if len(examined.recording) == 1 and source.main not in found.named:
            report = replace(report, problem=None, left_out="holds a single frame, no trajectory")
        elif examined.trajectories:
            report = _related(report, known, digest, "duplicates" in allowed)
        yield report


def _related(report: RunReport, known: KnownRuns, digest: str, take_twins: bool) -> RunReport:
    """The report with digests and the name of the run, or with the run that it repeats."""
    relation = known.add(report.examined, digest, take_twins)
    if relation.problem:
        return replace(report, problem=relation.problem)
    if relation.twin:
        return replace(report, left_out=f"repeats {relation.twin} (--allow duplicates takes both)")
    examined, notes = report.examined, relation.notes
    trajectories = [replace(t, origin=replace(t.origin, digest=digest, run=relation.run), notes=t.notes + notes)
                    for t in examined.trajectories]
    return replace(report, examined=replace(examined, trajectories=trajectories, notes=examined.notes + notes))


def read_aimd(
    paths: list[Path], timestep: float | None = None, allow: Collection[str] = (),
    watch: Watch = unwatched,
) -> list[Trajectory]:
    """Read and check all AIMD trajectories among `paths`; those in stores have been checked before.

    Args:
        paths: files, folders to search, or stores.
        timestep: fs between frames, for files that do not say it.
        allow: names of checks that may fail.
        watch: for progress.

    Raises:
        DtmdError: names the file, the frame, what was found and what to do.
    """
    found = find_runs(paths)
    stored = {t.source: t for store, pattern in found.stores for t in _selected(store, pattern)}
    trajectories = list(stored.values())
    with watch(found) as told:
        for report in ingest(found, timestep, allow, told):
            if report.problem:
                raise DtmdError(report.problem)
            trajectories += report.trajectories
    return trajectories


def _selected(store: Path, pattern: str) -> list[Trajectory]:
    """The trajectories of a store with fitting names."""
    trajectories = read_store(store)
    names = [t.source.removeprefix(f"{store}:") for t in trajectories]
    chosen = [t for t, name in zip(trajectories, names, strict=True)
              if fnmatch(name, pattern) or name.startswith(pattern.rstrip("/") + "/")]
    if not chosen:
        raise DtmdError(f"{store}: no trajectory in it has a name like {pattern}; it holds {', '.join(names[:8])}"
                        + (" …" if len(names) > 8 else ""))
    return chosen


def _refusal(examined: Examined) -> str | None:
    failures = examined.failures
    if not failures:
        return None
    texts = "; ".join(f"{check.text} [{check.name}]" for check in failures)
    names = " ".join(f"--allow {name}" for name in dict.fromkeys(check.name for check in failures))
    return f"{examined.recording.name}: {texts}. To use it all the same: {names}"
