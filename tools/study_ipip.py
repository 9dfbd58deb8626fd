"""Does iterative pretraining help, and which of its parts? Trains, runs, evaluates on unseen frames, with intervals.

python tools/study_ipip.py tools/study_ipip/ethane.yaml [-o runs/study_ipip] [--jobs 2]

For every student and seed: the reference alone; pretraining by the teacher once (the first round of `dtmd ipip`),
and as long as all rounds together; all rounds; then fine-tuning by rollouts in place of single frames; and the rounds
with one part switched off. All are judged by the same test frames and by runs from the same starts. After an
interruption the same command goes on. report.json, report.md and figure.png are what comes out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

WITHOUT, ONCE, LONGER, ROUNDS, DYNAMIC = (
    "reference alone", "pretrained once", "pretrained once, as long", "all rounds", "all rounds, then rollouts")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(Strict):
    """What differs in `Study.ipip`, and for which students."""

    students: list[str]
    changes: dict


class Study(Strict):
    """What is trained and how it is judged.

    Attributes:
        seeds: of weights, starts and choices.
        students: name → model section of `dtmd train`.
        groups: name → part of the names of the test runs that belong to it.
        ipip: config of `dtmd ipip` for all; paths relative to the root of the project.
        without: training on the reference alone, in keys of `finetune`.
        dynamic: fine-tuning by rollouts, likewise.
        longer: factor on the epochs of pretraining where there is one round only.
        variants: name → rounds with something changed, such as a part switched off.
    """

    seeds: list[int] = Field(min_length=1)
    students: dict[str, dict]
    groups: dict[str, str]
    ipip: dict
    without: dict
    dynamic: dict
    longer: int
    variants: dict[str, Variant]


@dataclass(frozen=True)
class Arm:
    """One student, trained in one way."""

    student: str
    seed: int
    name: str
    folder: Path

    @property
    def result(self) -> Path:
        """What is known of it."""
        return self.folder / "result.json"


class Plan:
    """Which arms there are."""

    def __init__(self, study: Study, out: Path) -> None:
        self.study, self.out = study, out

    def arm(self, student: str, seed: int, name: str) -> Arm:
        slug = "".join(c if c.isalnum() else "_" for c in f"{student}_{seed}_{name}")
        return Arm(student, seed, name, self.out / slug)

    def names(self, student: str) -> list[str]:
        """All that is done with a student."""
        variants = [name for name, variant in self.study.variants.items() if student in variant.students]
        return [WITHOUT, ONCE, LONGER, ROUNDS, DYNAMIC, *variants]

    def work(self) -> list[list[Arm]]:
        """What is done in turn; the arms of a turn do not wait for each other. The costly ones are first."""
        everyone = [(student, seed) for seed in self.study.seeds for student in reversed(self.study.students)]
        turns = [[ROUNDS], [LONGER, DYNAMIC, *self.study.variants, WITHOUT]]
        return [[self.arm(student, seed, name) for name in turn for student, seed in everyone
                 if name in self.names(student)] for turn in turns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/study_ipip"))
    parser.add_argument("--jobs", type=int, default=2, help="arms side by side, one thread each")
    parser.add_argument("--only", nargs=3, metavar=("STUDENT", "SEED", "ARM"), help="one arm alone")
    arguments = parser.parse_args()
    study = Study.model_validate(yaml.safe_load(arguments.study.read_text()))
    plan = Plan(study, arguments.output.resolve())
    if arguments.only:
        # Every process that a launcher makes imports this file anew, so that it has to be light.
        from study_ipip_arms import do

        student, seed, name = arguments.only
        do(plan, plan.arm(student, int(seed), name))
        return
    begun = time.monotonic()
    for turn in plan.work():
        do_all([arm for arm in turn if not arm.result.exists()], arguments)
    from study_ipip_arms import collected
    from study_ipip_report import write_report

    write_report(collected(plan), plan.out, time.monotonic() - begun)


def do_all(arms: list[Arm], arguments: argparse.Namespace) -> None:
    """Each in a process of its own, so many at a time."""
    begun = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [pool.submit(in_process, arm, arguments) for arm in arms]
        for done, future in enumerate(as_completed(futures), start=1):
            left = (time.monotonic() - begun) / done * (len(arms) - done)
            print(f"{future.result()}; {done} of {len(arms)}, {left / 60:.0f} min left of this part", flush=True)


def in_process(arm: Arm, arguments: argparse.Namespace) -> str:
    begun = time.monotonic()
    command = [sys.executable, __file__, str(arguments.study), "-o", str(arguments.output), "--only", arm.student,
               str(arm.seed), arm.name]
    arm.folder.mkdir(parents=True, exist_ok=True)
    with open(arm.folder.with_suffix(".log"), "a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        sys.exit(f"{' '.join(command)}: exit code {code}, see {arm.folder.with_suffix('.log')}")
    return f"{arm.student}, seed {arm.seed}, {arm.name}: {time.monotonic() - begun:.0f} s"


if __name__ == "__main__":
    main()
