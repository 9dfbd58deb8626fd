"""Runs into a store, with a row for each that says what was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from dtmd.errors import DtmdError
from dtmd.ingest import RunReport, ingest
from dtmd.ingest.examination import Examined
from dtmd.ingest.formats import Found
from dtmd.ingest.motion import pieces
from dtmd.ingest.recording import formula
from dtmd.store import is_store, read_store, write_store
from dtmd.trajectory import Trajectory

COLUMNS = {
    "run": "run", "code": "code", "frames": "frames", "atoms": "atoms", "composition": "composition",
    "timestep": "Δt/fs (from)", "velocities": "velocities", "temperature": "T/K",
    "energy": "E/atom, eV", "force": "max |F|, eV/Å", "verdict": "checks",
}
"""Titles of the columns by the field of `Row`."""


BATCH_BYTES = 1 << 30
"""Size of the files after which a store is written for the first time."""


@dataclass(frozen=True)
class Row:
    """One run as the table shows it."""

    run: str
    code: str
    frames: str = ""
    atoms: str = ""
    composition: str = ""
    timestep: str = ""
    velocities: str = ""
    temperature: str = ""
    energy: str = ""
    force: str = ""
    verdict: str = ""


@dataclass
class Ingestion:
    """What came of a whole ingest.

    Attributes:
        rows: of the table, one per run.
        findings: sentences on failures, warnings and decisions, each with its run.
        refused: the problem of each refused run.
        n_accepted: runs that passed.
        added: names of the new trajectories in the store.
    """

    rows: list[Row] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    n_accepted: int = 0
    added: tuple[str, ...] = ()


def run_ingest(
    found: Found, output: Path | None, timestep: float | None = None, allow: Collection[str] = (),
    watch: Callable[[int], None] = lambda n_bytes: None, done: Callable[[Row], None] = lambda row: None,
) -> Ingestion:
    """Read and check all runs, and write those that pass into a store.

    Args:
        found: what to read.
        output: the store, added to if it is there; None to check only.
        timestep: fs between frames, for files that do not say it.
        allow: names of checks that may fail.
        watch: told the number of bytes read.
        done: told the row of each run that is finished.

    Raises:
        DtmdError: a store that cannot be written, a name that no check has. Bad runs do not raise.
    """
    result = Ingestion()
    root = Path(os.path.commonpath([source.main.parent for _, source in found.runs])) if found.runs else Path()
    for batch in _batches(found):
        stored = read_store(output) if output and is_store(output) else []

        def accepted(batch: Found = batch, stored: list[Trajectory] = stored) -> Iterator[Trajectory]:
            for report in ingest(batch, timestep, allow, watch, stored):
                _tell(report, root, result)
                done(result.rows[-1])
                for trajectory in report.trajectories:
                    yield _relative(trajectory, root)

        trajectories = accepted()
        first = next(trajectories, None)
        if first is None:
            continue
        if output is None:
            for _ in trajectories:
                pass
        else:
            result.added += write_store(output, chain([first], trajectories)).added
    return result


def _batches(found: Found) -> Iterator[Found]:
    """Runs that are written together: what is done stays done when the command is killed.

    Each batch is as large as those before it together, since adding to a store copies it.
    """
    batch, n_bytes, limit = [], 0, BATCH_BYTES
    for run in found.runs:
        batch.append(run)
        n_bytes += sum(path.stat().st_size for path in run[1].files)
        if n_bytes >= limit:
            yield replace(found, runs=batch)
            batch, limit = [], 2 * n_bytes
    if batch:
        yield replace(found, runs=batch)


def _tell(report: RunReport, root: Path, result: Ingestion) -> None:
    name, examined = _short(str(report.source.main), root), report.examined
    result.rows.append(_row(report, name))
    if report.problem:
        result.refused.append(report.problem)
        result.findings.append(f"refused: {report.problem.replace(str(report.source.main), name, 1)}")
    elif report.left_out:
        result.findings.append(f"left out: {name} {report.left_out.replace(f'{root}/', '')}")
    else:
        result.n_accepted += 1
    for check in examined.checks if examined else ():
        if check.verdict in ("warning", "allowed"):
            result.findings.append(f"{check.verdict}: {name}: {check.text} [{check.name}]")
    result.findings += [f"note: {name}: {note}" for note in (examined.notes if examined else ())]


def _row(report: RunReport, name: str) -> Row:
    examined = report.examined
    if examined is None:
        verdict = "in the store" if report.left_out else "REFUSED: unreadable"
        return Row(name, report.form.name.split()[0], verdict=verdict)
    rec, kept = examined.recording, examined.trajectories
    n_segments = len(kept)
    temperatures = [t.temperatures() for t in kept if t.velocities is not None]
    return Row(
        run=name, code=f"{rec.run.code} {rec.run.version}".strip(),
        frames=f"{sum(map(len, kept))} in {n_segments} segments" if n_segments > 1 else str(len(rec)),
        atoms=str(len(rec.run.numbers)), composition=formula(rec.run.numbers),
        velocities=_velocities(examined),
        timestep="?" if examined.timestep is None else f"{examined.timestep:.4g} ({examined.timestep_from})",
        temperature=f"{np.concatenate(temperatures).mean():.0f}" if temperatures else "–",
        energy="–" if rec.energies is None else f"{rec.energies.mean() / len(rec.run.numbers):.3f}",
        force="–" if rec.forces is None else f"{largest_force(rec.forces):.2f}",
        verdict=_verdict(report),
    )


def _velocities(examined: Examined) -> str:
    """Where the velocities come from, and the error of reconstructed ones."""
    if examined.recording.velocities is not None:
        return "given"
    error = next((check.value for check in examined.checks if check.name == "velocities"), None)
    return "–" if error is None else f"from the motion, to {100 * error:.1g} %"


def _verdict(report: RunReport) -> str:
    checks = report.examined.checks
    if report.left_out:
        return f"left out: {report.left_out.split()[0]} …"
    named = {verdict: ", ".join(f"{c.name}{_percent(c.name, c.value)}" for c in checks if c.verdict == verdict)
             for verdict in ("failed", "allowed", "warning")}
    if named["failed"]:
        return f"REFUSED: {named['failed']}"
    told = [f"{verdict}: {names}" for verdict, names in named.items() if names]
    return "; ".join(told) or "ok"


def _percent(name: str, value: float | None) -> str:
    """The number of a check that is a share."""
    shares = ("motion", "rounding", "velocities", "work", "net_force")
    if name not in shares or value is None:
        return ""
    return f" {100 * value:.0f} %" if value >= 0.1 else f" {100 * value:.2g} %"


def largest_force(forces: np.ndarray) -> float:
    """Largest |F| of an atom over all frames, eV/Å; (T, N, 3), read in pieces."""
    return max(float(np.sqrt(np.sum(np.asarray(forces[first:last]) ** 2, axis=-1).max()))
               for first, last in pieces([(0, len(forces))], forces.shape[1], overlap=0))


def _relative(trajectory: Trajectory, root: Path) -> Trajectory:
    """The trajectory with its files named from `root`, so that a store does not depend on where it was made."""
    origin = trajectory.origin
    return replace(
        trajectory, source=_short(trajectory.source, root),
        origin=replace(origin, run=_short(origin.run, root), files=tuple(_short(f, root) for f in origin.files)),
    )


def _short(name: str, root: Path) -> str:
    return str(Path(name).relative_to(root)) if Path(name).is_relative_to(root) else name


def summary(found: Found, result: Ingestion) -> list[str]:
    """The last lines: what was not looked at, and what was written."""
    lines = []
    if found.unknown:
        shown = ", ".join(str(path) for path in found.unknown[:8])
        lines.append(f"{len(found.unknown)} files that are no AIMD output to any reader: {shown}"
                     + (" …" if len(found.unknown) > 8 else ""))
    lines += [f"{store}: a store already; not read again" for store, _ in found.stores]
    lines.append(f"{result.n_accepted} runs accepted, {len(result.refused)} refused, "
                 f"{len(result.rows) - result.n_accepted - len(result.refused)} left out")
    return lines


def raise_if_refused(result: Ingestion) -> None:
    """Refused runs make the command fail.

    Raises:
        DtmdError: the problem of the only run, or how many there were.
    """
    if len(result.refused) == len(result.rows) == 1:
        raise DtmdError(result.refused[0])
    if result.refused:
        raise DtmdError(f"{len(result.refused)} of {len(result.rows)} runs were refused, each with its reason above; "
                        "mend them or leave them out" + (", the store holds the others" if result.added else ""))
