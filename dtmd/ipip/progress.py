"""The numbers of all rounds, as table and report show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dtmd.observables.statistics import Estimate, wilson_interval
from dtmd.presentation.numbers import NOTHING, clock, number

_MILLI = 1000.0


def estimate(plain: Mapping[str, float | None] | None) -> Estimate | None:
    """From plain values."""
    return None if plain is None else Estimate(**plain)


@dataclass(frozen=True)
class TeacherRow:
    """The teacher on the test set.

    Attributes:
        errors: as `FrameErrors.as_dict`, its energies shifted.
        shift: of them, eV per atom of each element.
        explored: facts of its runs.
        seconds: of its check.
    """

    errors: Mapping[str, object]
    shift: Mapping[str, float]
    explored: Mapping[str, object]
    seconds: float


@dataclass(frozen=True)
class Round:
    """One round; facts are those of its stages.

    Attributes:
        student: its model file.
        ends: file of how its runs ended.
        renewed: facts of the stage that made the set: of exploring in the first round, else of renewing.
    """

    number: int
    student: Path
    ends: Path
    renewed: Mapping[str, object]
    pretraining: Mapping[str, object]
    finetuning: Mapping[str, object]
    probing: Mapping[str, object]
    assessed: Mapping[str, object]

    @property
    def validation(self) -> float:
        """Error in the validation of the fine-tuning, eV/Å; infinite where all rollouts diverged."""
        value = self.finetuning["validation"]
        return float("inf") if value is None else value

    @property
    def share_alive(self) -> float:
        """Of the student's runs."""
        alive, n_runs = n_alive(self.probing)
        return alive / n_runs

    @property
    def set_size(self) -> tuple[int, int]:
        """Frames that were in the set before, and new ones by the teacher."""
        if "new" in self.renewed:
            return self.renewed["kept"], self.renewed["new"]
        return 0, self.renewed["frames"]

    @property
    def seconds(self) -> float:
        """Of all its stages."""
        return sum(facts["seconds"] for facts in (self.renewed, self.pretraining, self.finetuning, self.probing,
                                                  self.assessed))

    def told(self) -> str:
        """In a line."""
        force, energy = (estimate(self.assessed["errors"][key]) for key in ("force", "energy"))
        alive, n_runs = n_alive(self.probing)
        return (f"force MAE {_MILLI * force.value:.1f} meV/Å, energy MAE {_MILLI * energy.value:.2f} meV/atom, {alive} "
                f"of {n_runs} runs survive")


@dataclass
class Progress:
    """The teacher, and the rounds that have been done."""

    teacher: TeacherRow
    rounds: list[Round] = field(default_factory=list)

    @property
    def best(self) -> Round:
        """Of which the most runs survive; among equals that with the smallest error in validation."""
        return max(self.rounds, key=lambda done: (done.share_alive, -done.validation))


def table(progress: Progress) -> tuple[list[str], list[list[str]]]:
    """Heads and lines for a terminal: the teacher, then each round."""
    elements = list(progress.teacher.errors["species"])
    heads = ["potential", "E, meV/atom", "F, meV/Å", *(f"F {element}" for element in elements), "MEPA, eV/Å",
             "runs alive", "steps/s", "pseudo-labels", "time"]
    explored = progress.teacher.explored
    lines = [["teacher", *_errors(progress.teacher.errors, elements), NOTHING, _share(explored),
              _speed(explored["speed"], None), NOTHING, clock(progress.teacher.seconds)]]
    for done in progress.rounds:
        old, new = done.set_size
        mepa = estimate(done.assessed["mepa"])
        lines.append([
            f"round {done.number}" + (" *" if done is progress.best else ""),
            *_errors(done.assessed["errors"], elements),
            NOTHING if mepa is None else _with_interval(mepa, 1.0), _share(done.probing),
            _speed(done.probing["speed"], explored["speed"]),
            f"{old} + {new} new" if old else str(new), clock(done.seconds),
        ])
    return heads, lines


def _errors(errors: Mapping[str, object], elements: Sequence[str]) -> list[str]:
    values = [errors["energy"], errors["force"], *(errors["species"][element] for element in elements)]
    return [_with_interval(estimate(value), _MILLI) for value in values]


def _with_interval(value: Estimate, factor: float) -> str:
    if value.low is None:
        return number(factor * value.value)
    return f"{number(factor * value.value)} ± {number(factor * 0.5 * (value.high - value.low), 2)}"


def _speed(speed: float | None, of_teacher: float | None) -> str:
    """And how many times as fast as the teacher, where that is known."""
    if speed is None:
        return NOTHING
    return number(speed) if of_teacher is None else f"{number(speed)} ({number(speed / of_teacher, 2)} ×)"


def n_alive(facts: Mapping[str, object]) -> tuple[int, int]:
    """Runs that survive, and all, of the teacher or of a round."""
    pairs = facts["alive"].values()
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def _share(facts: Mapping[str, object]) -> str:
    return "{} of {}".format(*n_alive(facts))


def alive_estimates(facts: Mapping[str, object]) -> dict[str, Estimate]:
    """Share of the runs that survive at each temperature in K, of the teacher or of a round."""
    return {kelvin: wilson_interval(alive, n_runs) for kelvin, (alive, n_runs) in facts["alive"].items()}
