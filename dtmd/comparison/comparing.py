"""The comparison: all runs of all sides gathered, over several processes, and told in sections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import PurePath

import numpy as np

from dtmd.children import die_with_parent
from dtmd.comparison.gathering import Gathered, gather
from dtmd.comparison.settings import ComparisonSettings
from dtmd.comparison.sides import HeldRun, MDSide, RunFiles
from dtmd.comparison_report.header import Header, Run, Side
from dtmd.errors import DtmdError
from dtmd.observables.observable import Observable
from dtmd.observables.rollout import start_at
from dtmd.observables.rollout_comparison import VELOCITY_TOLERANCE
from dtmd.observables.section import AIMD, Section, Verdict
from dtmd.presentation.numbers import duration, short_names
from dtmd.trajectory import Trajectory

CELL_TOLERANCE = 0.01
"""Largest relative difference of cell lengths, and of the cosines of the angles."""

START_TOLERANCE = 1e-3
"""Å, within which a run lies on the AIMD frame that was noted as its start."""

_POLL = 0.2
"""s between looks at how much has been read."""


@dataclass(frozen=True)
class Comparison:
    """All that a report tells."""

    sections: Sequence[Section]
    header: Header

    @property
    def differs(self) -> bool:
        """Whether any number differs on any side."""
        return any(verdict is Verdict.DIFFERS for section in self.sections for row in section.rows
                   for verdict in row.verdict.values())


def compare(
    sides: Sequence[MDSide], aimd: Sequence[Trajectory], settings: ComparisonSettings = ComparisonSettings(),
    n_jobs: int = 1, watch: Callable[[int], None] = lambda n_bytes: None, command: str = "",
) -> Comparison:
    """Compare MD with AIMD of the same system.

    Args:
        sides: with distinct names.
        aimd: the reference.
        settings: which observables, and how.
        n_jobs: processes that read files at the same time.
        watch: told the bytes read from disk, for progress.
        command: what was typed, for the report.

    Raises:
        DtmdError: nothing on one side, a damaged file, or another composition, periodicity or cell.
    """
    runs = [run for side in sides for run in side.runs]
    if not runs or not aimd:
        raise DtmdError(f"{len(runs)} MD and {len(aimd)} AIMD trajectories; at least one of each is needed")
    firsts = [run.open(aimd[0]).first for run in runs]
    for first in [*aimd[1:], *firsts]:
        check_same_system(first, aimd[0])
    names = _names([first.source for first in firsts], [t.source for t in aimd])
    starts = _starts(runs, firsts, aimd, settings.starts, names)
    named = [replace(trajectory, source=names[trajectory.source]) for trajectory in aimd]
    observables = replace(settings, starts=starts).observables(named)
    window = max(float(t.times[-1] - t.times[0]) for t in aimd)
    job = _Job(observables, window, aimd[0], names)
    reference = [job.gather(HeldRun(trajectory))[0] for trajectory in aimd]
    gathered = _gather_all(job, runs, n_jobs, watch)
    for found in [*(found for found, _ in gathered), *reference]:
        check_same_cell(found, reference[0], aimd[0].pbc)
    following = iter(gathered)
    by_side = {side.name: list(islice(following, len(side.runs))) for side in sides}
    told = _Told({name: [found for found, _ in of_side] for name, of_side in by_side.items()}, reference, window)
    header_sides = [Side(side.name, [_run(*found) for found in by_side[side.name]], side.model) for side in sides]
    aimd_side = Side(AIMD, [_run(found, t.origin.digest) for found, t in zip(reference, aimd, strict=True)])
    sections = [section for observable in observables for section in told.sections(observable)]
    left_out = [("all", f"{run}: {reason}") for side in sides for run, reason in side.left_out]
    symbols = aimd[0].symbols
    composition = {element: symbols.count(element) for element in aimd[0].elements}
    return Comparison(sections, Header(composition, header_sides, aimd_side, [*left_out, *told.skipped()], command))


def check_same_system(first: Trajectory, reference: Trajectory) -> None:
    """Refuse a trajectory of another system.

    Raises:
        DtmdError: other atoms or boundaries.
    """
    if len(reference.numbers) < 2:
        raise DtmdError(f"{reference.source}: a single atom; there is nothing to compare")
    if sorted(first.numbers) != sorted(reference.numbers):
        raise DtmdError(f"{first.source} holds {_formula(first)}, {reference.source} {_formula(reference)}; "
                        "compare runs of the same system")
    if not np.array_equal(first.pbc, reference.pbc):
        raise DtmdError(f"{first.source} is periodic in {_directions(first)}, {reference.source} in "
                        f"{_directions(reference)}; use the same boundaries on both sides")


def check_same_cell(run: Gathered, reference: Gathered, pbc: np.ndarray) -> None:
    """Refuse a run whose mean cell is another one.

    Raises:
        DtmdError: it differs by more than `CELL_TOLERANCE`.
    """
    own, known = _cell_shape(run.mean_cell[pbc]), _cell_shape(reference.mean_cell[pbc])
    if not np.allclose(own, known, rtol=CELL_TOLERANCE, atol=CELL_TOLERANCE):
        raise DtmdError(f"{run.source} has cell lengths (Å) and cosines of angles {np.round(own, 3)}, "
                        f"{reference.source} {np.round(known, 3)}; compare runs in the same cell")


def _formula(trajectory: Trajectory) -> str:
    symbols = trajectory.symbols
    return " ".join(f"{element}{symbols.count(element)}" for element in trajectory.elements)


def _directions(trajectory: Trajectory) -> str:
    axes = "".join(axis for axis, periodic in zip("xyz", trajectory.pbc, strict=True) if periodic)
    return axes or "no direction"


def _cell_shape(vectors: np.ndarray) -> np.ndarray:
    """Lengths (Å) of the vectors, then the cosines between them."""
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T) / np.outer(lengths, lengths)
    return np.concatenate([lengths, cosines[np.triu_indices(len(vectors), k=1)]])


def _names(md: Sequence[str], aimd: Sequence[str]) -> dict[str, str]:
    """How figures and tables call the runs: by as little of their paths as tells them apart."""
    apart = {**_without_shared(short_names(md)), **_without_shared(short_names(aimd))}
    return apart if len(set(apart.values())) == len({*md, *aimd}) else short_names([*md, *aimd])


def _without_shared(names: Mapping[str, str]) -> Mapping[str, str]:
    """Without the name of the file where all have the same one, each in a folder of its own."""
    if len(names) == 1 or len({PurePath(name).name for name in names.values()}) > 1:
        return names
    return {source: str(PurePath(name).parent) for source, name in names.items()}


def _starts(
    runs: Sequence[RunFiles | HeldRun], firsts: Sequence[Trajectory], aimd: Sequence[Trajectory],
    given: Mapping[str, tuple[str, int]], names: Mapping[str, str],
) -> dict[str, tuple[str, int]]:
    """The starts that were noted or given, by the names of the runs."""
    known = {**noted_starts(runs, firsts, aimd), **given}
    named = {}
    for first in firsts:
        place = next((known[name] for name in (first.source, PurePath(first.source).name) if name in known), None)
        if place is not None:
            trajectory = next((t.source for t in aimd if place[0] in (t.source, PurePath(t.source).name)), place[0])
            named[names[first.source]] = names.get(trajectory, trajectory), place[1]
    return named


def noted_starts(
    runs: Sequence[RunFiles | HeldRun], firsts: Sequence[Trajectory], aimd: Sequence[Trajectory]
) -> dict[str, tuple[str, int]]:
    """The noted starts that are among the AIMD and that the first frame of the run does lie on."""
    places = {(t.origin.digest, float(time)): (k, frame)
              for k, t in enumerate(aimd) for frame, time in enumerate(t.times)}
    found = {}
    for run, first in zip(runs, firsts, strict=True):
        place = places.get(run.start) if run.start else None
        if place and np.array_equal(aimd[place[0]].numbers, first.numbers):
            start = start_at(first, aimd, *place)
            if start.distance <= START_TOLERANCE and (start.velocity_difference or 0.0) <= VELOCITY_TOLERANCE:
                found[first.source] = (aimd[place[0]].source, place[1])
    return found


@dataclass(frozen=True)
class _Job:
    """What is done with every run; sent once to each process."""

    observables: Sequence[Observable]
    window: float
    like: Trajectory
    names: Mapping[str, str]

    def gather(
        self, run: RunFiles | HeldRun, watch: Callable[[int], None] = lambda n_bytes: None
    ) -> tuple[Gathered, str]:
        """What is kept of a run, and the digest of its files."""
        stream = run.open(self.like, watch)
        return gather(stream, self.observables, self.window, self.names[stream.source]), run.sha256()


def _gather_all(
    job: _Job, runs: Sequence[RunFiles | HeldRun], n_jobs: int, watch: Callable[[int], None]
) -> list[tuple[Gathered, str]]:
    if min(n_jobs, len(runs)) == 1:
        return [job.gather(run, watch) for run in runs]
    context = get_context("spawn")
    n_read = context.Value("q", 0)
    executor = ProcessPoolExecutor(min(n_jobs, len(runs)), context, _begin, (job, n_read, os.getpid()))
    try:
        futures = [executor.submit(_gather_one, run) for run in runs]
        told, left = 0, set(futures)
        while left:
            done, left = wait(left, _POLL, FIRST_COMPLETED)
            for future in done:
                future.result()  # raises at once what one of them raised
            watch(n_read.value - told)
            told = n_read.value
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DtmdError("a process that read MD was ended from outside, as when memory runs out; "
                        "repeat with fewer --jobs") from error
    finally:
        executor.shutdown(cancel_futures=True)


_HERE: dict[str, object] = {}
"""What a process of the pool was begun with."""


def _begin(job: _Job, n_read, parent: int) -> None:
    die_with_parent(parent)
    _HERE.update(job=job, n_read=n_read)


def _gather_one(run: RunFiles | HeldRun) -> tuple[Gathered, str]:
    def watch(n_bytes: int) -> None:
        with _HERE["n_read"].get_lock():
            _HERE["n_read"].value += n_bytes

    return _HERE["job"].gather(run, watch)


def _run(found: Gathered, digest: str) -> Run:
    return Run(found.name, found.source, found.n_frames, found.duration, digest, found.notes)


class _Told:
    """The results of all runs, told observable by observable.

    Args:
        md: by side.
        aimd: of the reference.
        window: fs, of the early results.
    """

    def __init__(self, md: Mapping[str, Sequence[Gathered]], aimd: Sequence[Gathered], window: float) -> None:
        self._md, self._aimd, self._window = md, aimd, window
        self._reasons: dict[tuple[str, str], list[str]] = {}
        for found in [*(run for runs in md.values() for run in runs), *aimd]:
            for name, reason in found.skipped.items():
                self._reasons.setdefault((name, reason), []).append(found.name)

    def sections(self, observable: Observable) -> Iterator[Section]:
        """The section of an observable, and that of its window where the MD is longer."""
        name = observable.name
        aimd = [found.results[name] for found in self._aimd if name in found.results]
        whole = self._of_sides(lambda found: found.results.get(name))
        if not whole:
            return
        yield observable.compare(whole, aimd)
        longer = any(found.duration > self._window * 1.0001 for runs in self._md.values() for found in runs)
        if observable.windowed and longer and aimd:
            early = self._of_sides(lambda found: found.early.get(name))
            if early:
                yield _of_window(observable.compare(early, aimd), self._window)

    def skipped(self) -> list[tuple[str, str]]:
        """(observable, reason with the runs that it holds for)."""
        return [(name, f"{_listed(sources)}: {reason}") for (name, reason), sources in self._reasons.items()]

    def _of_sides(self, get: Callable[[Gathered], object]) -> dict[str, list]:
        found = {side: [result for run in runs if (result := get(run)) is not None] for side, runs in self._md.items()}
        return {side: results for side, results in found.items() if results}


def _of_window(section: Section, window: float) -> Section:
    """A section of the first part of the MD, under names of its own."""
    plots = [replace(plot, name=f"{plot.name}_window") for plot in section.plots]
    title = f"{section.title}, first {duration(window)} of the MD"
    return replace(section, name=f"{section.name}_window", title=title, plots=plots)


def _listed(sources: Sequence[str]) -> str:
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"
