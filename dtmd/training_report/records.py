"""What the epochs of a run have left in its metrics.jsonl."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from dtmd.errors import DtmdError

METRICS = "metrics.jsonl"

KEYS = ("epoch", "stage", "S", "learning_rate", "updates", "loss", "gradient_norm", "validation", "best_of_stage",
        "ends", "seconds", "updates_per_second")
"""Of a record, see the README."""

SUM = "sum"
"""Name of the sum over species beside the species."""


@dataclass(frozen=True)
class Stage:
    """The epochs of one stage of the curriculum, in their order; at least one."""

    records: list[dict]

    @property
    def length(self) -> int:
        """S."""
        return self.records[0]["S"]

    @property
    def epochs(self) -> tuple[int, int]:
        """First and last."""
        return self.records[0]["epoch"], self.records[-1]["epoch"]

    @property
    def best(self) -> dict | None:
        """The epoch of the lowest MEPA, None if all validations diverged."""
        return best_of(self.records)

    @property
    def seconds(self) -> float:
        """Time that its epochs took, validation included."""
        return sum(record["seconds"] for record in self.records)

    @property
    def ended(self) -> bool:
        """False while it goes on, or if the run was given up in it."""
        return self.records[-1]["ends"] is not None


def read_records(run_dir: Path) -> list[dict]:
    """The records of a run, one per epoch.

    Raises:
        DtmdError: no metrics.jsonl, no epoch in it, or a line that dtmd train does not write.
    """
    path = run_dir / METRICS
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")  # what follows the last line end was cut off
    except OSError as error:
        raise DtmdError(f"{path}: cannot be read ({error.strerror}); give the folder of a run of dtmd train") from error
    if not lines:
        raise DtmdError(f"{path}: no epoch in it yet")
    return [_record(path, number, line) for number, line in enumerate(lines, start=1)]


def stages(records: list[dict]) -> list[Stage]:
    """The records by stage."""
    return [Stage(list(group)) for _, group in itertools.groupby(records, key=lambda record: record["stage"])]


def best_of(records: list[dict]) -> dict | None:
    """The record of the lowest MEPA, None if all validations diverged."""
    sound = [record for record in records if record["validation"]["mepa"] is not None]
    return min(sound, key=lambda record: record["validation"]["mepa"], default=None)


def best_by_length(records: list[dict]) -> dict[int, dict]:
    """The record of the best model of each S; S whose validations all diverged are left out."""
    best = {}
    for length in sorted({record["S"] for record in records}):
        best[length] = best_of([record for record in records if record["S"] == length])
    return {length: record for length, record in best.items() if record is not None}


def elements_of(records: list[dict]) -> list[str]:
    """Chemical symbols of the validation, none if all diverged."""
    best = best_of(records)
    return [] if best is None else list(best["validation"]["by_species"])


def mepa_curves(records: list[dict]) -> dict[str, list[float]]:
    """MEPA of each epoch and its terms by element, eV/Å; NaN where the validation diverged."""
    curves = {SUM: [record["validation"]["mepa"] for record in records]}
    for element in elements_of(records):
        curves[element] = [record["validation"].get("by_species", {}).get(element) for record in records]
    return {name: [float("nan") if value is None else value for value in values] for name, values in curves.items()}


def _record(path: Path, number: int, line: str) -> dict:
    try:
        record = json.loads(line)
        missing = [key for key in KEYS if key not in record]
    except (ValueError, TypeError) as error:
        raise DtmdError(f"{path}, line {number}: not a record of dtmd train ({error})") from error
    if missing:
        raise DtmdError(f"{path}, line {number}: {', '.join(missing)} missing; another version of dtmd wrote it")
    return record
