"""The rounds of an iterative pretraining, stage by stage; each is done once and found again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from dtmd.checkpoint import MODEL, load_model
from dtmd.config import CurriculumConfig, TrainConfig
from dtmd.crashtest.models import CrashModel, models_of
from dtmd.display import TrainingDisplay
from dtmd.ensemble.starts import Start, choose_starts
from dtmd.errors import DtmdError
from dtmd.factories import is_factory
from dtmd.files import sha256
from dtmd.ingest import Watch, read_aimd
from dtmd.ipip.assessment import frame_errors, predictions, rollout_error
from dtmd.ipip.config import IPIPConfig, TrainingConfig
from dtmd.ipip.exploration import RunEnd, all_runs, read_ends, sound_frames, structure_starts, write_ends
from dtmd.ipip.labelling import Launching, Potential, label
from dtmd.ipip.pseudo_labels import (
    Labeller, Unseen, count, drawn, frames_for, picked, single_frames, without_repeats, write_frames,
)
from dtmd.ipip.selection import Candidates, Choice, Descriptor, choose, known_descriptors, usual_distance
from dtmd.ipip.stages import Stage
from dtmd.ipip.teacher import Teacher, check_level, check_teacher, find_teacher, shift_to_reference
from dtmd.observables.survival import Survival
from dtmd.store import read_store
from dtmd.train import train
from dtmd.training_data import digest_of
from dtmd.trajectory import Trajectory

FRAMES, OLD, NEW, ENDS, RUN = "frames.h5", "old.h5", "new.h5", "ends.json", "training"

STUDENT_FRAMES = 2000
"""Frames that one process has the student label: it is fast, and to begin takes seconds."""

TEACHER_STAGE = "teacher"
ROUND_STAGES = ("explore", "pretrain", "finetune", "probe", "assess", "renew")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """The reference frames by their use, and a hash over all."""

    train: list[Trajectory]
    validation: list[Trajectory]
    test: list[Trajectory]
    digest: str

    @classmethod
    def read(cls, config: IPIPConfig, watch: Watch) -> Reference:
        """Read and check them.

        Raises:
            DtmdError: bad files, labels that are not ab initio, a run in two of the parts, or too short test runs.
        """
        given = config.reference
        parts = {part: read_aimd(getattr(given, part), given.timestep, given.allow, watch)
                 for part in ("train", "validation", "test")}
        seen: dict[str, str] = {}
        for part, trajectories in parts.items():
            for t in trajectories:
                if t.origin.labels:
                    raise DtmdError(f"{t.source}: has the labels of a potential ({t.origin.labels}), it is no "
                                    f"reference of {given.level}; give AIMD in reference.{part}")
                key = t.origin.digest or t.source
                if seen.setdefault(key, part) != part:
                    raise DtmdError(f"{t.source}: is in reference.{seen[key]} and in reference.{part}; each needs runs "
                                    "of its own")
        longest = max(parts["test"], key=len)
        if config.assess.steps and len(longest) <= config.assess.steps:
            raise DtmdError(f"{longest.source}: the longest run in reference.test has {len(longest)} frames, rollouts "
                            f"of assess.steps {config.assess.steps} need {config.assess.steps + 1}; lower it, to 0 for "
                            "no rollouts")
        return cls(**parts, digest=digest_of([t for part in parts.values() for t in part]))


class Pretraining:
    """All stages of one pretraining.

    Args:
        config: what to do.
        root: the folder of the whole.
        survival: says when a run has ended.
        reference: the reference frames.
        launching: where molecular dynamics and labelling are done.
        display: of a training with this curriculum.
    """

    def __init__(
        self, config: IPIPConfig, root: Path, survival: Survival, reference: Reference, launching: Launching,
        display: Callable[[CurriculumConfig], TrainingDisplay],
    ) -> None:
        self.config, self.root, self.reference = config, root.resolve(), reference
        self._survival, self._launching, self._display = survival, launching, display
        self.teacher: Teacher = find_teacher(config.teacher)

    @cached_property
    def starts(self) -> list[Start]:
        """Of all runs."""
        md = self.config.md
        if md.structures:
            return structure_starts(md.structures)
        if count(self.reference.train) < md.starts:
            raise DtmdError(f"md.starts {md.starts}: reference.train has {count(self.reference.train)} frames; lower "
                            "it, or name md.structures to start from")
        return choose_starts(self.reference.train, "random", md.starts, self.config.seed, follow=0)

    # The stages, in their order.

    def check(self) -> dict:
        """The teacher on the reference: whether it can be used, the shift of its energies, its errors."""
        settings = {"teacher": self._teacher_settings, "level": self.config.reference.level, "seed": self.config.seed,
                    "reference": self.reference.digest, "starts": self._start_digests,
                    "frames": self.config.assess.frames}
        return self._stage(TEACHER_STAGE, settings).run(self._check)

    def _check(self, folder: Path) -> dict:
        check_teacher(self.teacher, single_frames(self.starts), folder / "check", self._launching)
        test = frames_for(self.reference.test, self.config.assess.frames)
        fitted = frames_for([*self.reference.train, *self.reference.validation], self.config.assess.frames)
        per_task = self.config.teacher.frames_per_task
        found = label([*fitted, *test], self.teacher.potential, folder / "reference", per_task, self._launching)
        if found.failed:
            raise DtmdError(f"teacher {self.teacher.config.calculator}: cannot calculate {len(found.failed)} frames of "
                            f"the reference, the first is {found.failed[0]}; give a teacher for these structures")
        predicted, level = found.whole(), self.config.reference.level
        shift = shift_to_reference(self.teacher, predicted[: len(fitted)], fitted, level)
        labeller = self.teacher.labeller(shift)
        shifted = [labeller.labelled(t, t.source) for t in predicted[len(fitted):]]
        check_level(shifted, test, level)
        return {"shift": shift, "errors": frame_errors(shifted, test, self.config.seed).as_dict()}

    def explore(self) -> tuple[list[Path], dict]:
        """The teacher's runs: the first pretraining set, and facts."""
        shift = self.check()["shift"]
        stage = self._stage("round_1/explore", {**self._md_settings, "teacher": self._teacher_settings, "shift": shift},
                            outputs=[FRAMES])
        facts = stage.run(lambda folder: self._explore(folder, self.teacher.labeller(shift)))
        return [stage.output(FRAMES)], facts

    def _explore(self, folder: Path, labeller: Labeller) -> dict:
        ends = self._runs(folder, self._teacher_model(folder))
        sound = [end for end in ends if end.alive]
        for end in ends:
            if not end.alive:
                logger.info("dropped: %s: %s after %.4g fs", end.name, end.cause, end.time)
        if len(sound) < _FEWEST_SOUND:
            first = next((f"{end.name}: {end.cause} after {end.time:.4g} fs" for end in ends if not end.alive),
                         "there were no more")
            raise DtmdError(f"teacher {self.teacher.config.calculator}: {len(sound)} of its {len(ends)} runs came to "
                            f"their end, and {_FEWEST_SOUND} are needed, to train on and to validate; {first}. "
                            + _ADVICE_TEACHER)
        unseen = Unseen()
        labelled = (labeller.labelled(sound_frames(end), end.name) for end in sound)
        n_frames = write_frames(folder / FRAMES, without_repeats(labelled, unseen))
        logger.info("%d of %d runs of the teacher are sound; %d frames, %d that were there already are left out",
                    len(sound), len(ends), n_frames, unseen.n_twice)
        explored = read_store(folder / FRAMES)
        return {"alive": _alive(ends), "broken": {end.name: end.cause for end in ends if not end.alive},
                "frames": n_frames, "repeated": unseen.n_twice, "speed": _median_speed(ends),
                "usual_distance": usual_distance(explored, _descriptor(explored))}

    def pretrain(self, number: int, frames: Sequence[Path], student: Path | None) -> tuple[Path, dict]:
        """The student trained on pseudo-labels: its model file, and facts."""
        config = self.config.pretrain
        go_on = student if config.weights == "student" else None
        settings = {"pretrain": _training_settings(config), "student": self.config.student.model_dump(),
                    "seed": self.config.seed}
        stage = self._stage(f"round_{number}/pretrain", settings, [*frames, *([go_on] if go_on else [])],
                            [f"{RUN}/{MODEL}"])
        more = {"start_from": go_on} if go_on else {"model": self.config.student}
        data = {"train": list(frames), "validation_share": config.validation_share, "mixed_labels": True}
        return self._train(stage, config.as_training(f"pretrain_{number}", self.config.seed, data, **more))

    def finetune(self, number: int, pretrained: Path) -> tuple[Path, dict]:
        """The student trained on the reference: its model file, and facts."""
        config, given = self.config.finetune, self.config.reference
        settings = {"finetune": _training_settings(config), "seed": self.config.seed,
                    "reference": self.reference.digest}
        stage = self._stage(f"round_{number}/finetune", settings, [pretrained], [f"{RUN}/{MODEL}"])
        data = {"train": given.train, "validation": given.validation, "timestep": given.timestep, "allow": given.allow}
        training = config.as_training(f"finetune_{number}", self.config.seed, data, start_from=pretrained)
        return self._train(stage, training)

    def _train(self, stage: Stage, config: TrainConfig) -> tuple[Path, dict]:
        def work(folder: Path) -> dict:
            model = train(config, folder / RUN, self._display(config.curriculum))
            return {"validation": load_model(model).metadata["validation"]["mepa"]}

        facts = stage.run(work)
        return stage.output(f"{RUN}/{MODEL}"), facts

    def probe(self, number: int, student: Path) -> tuple[Path, dict]:
        """The student's runs from the same starts with the same settings: how they ended, and facts."""
        stage = self._stage(f"round_{number}/probe", self._md_settings, [student], [ENDS])

        def work(folder: Path) -> dict:
            (model,) = models_of([f"student={student}"], folder)
            ends = self._runs(folder, model)
            write_ends(folder / ENDS, ends)
            return {"alive": _alive(ends), "speed": _median_speed(ends)}

        facts = stage.run(work)
        ends = read_ends(stage.output(ENDS))
        if all(not end.alive and end.n_sound <= 1 for end in ends):
            raise DtmdError(f"{stage.folder}: the student explodes at once in all {len(ends)} runs, so that there is "
                            f"nothing to learn from them; {ends[0].name}: {ends[0].cause}. Train it longer "
                            "(pretrain.curriculum, finetune.curriculum), let the teacher explore more (md.starts, "
                            "md.time), or lower md.temperatures or md.timestep")
        return stage.output(ENDS), facts

    def assess(self, number: int, student: Path) -> dict:
        """Errors on the test set."""
        settings = {"assess": self.config.assess.model_dump(), "reference": self.reference.digest,
                    "seed": self.config.seed}
        return self._stage(f"round_{number}/assess", settings, [student]).run(lambda folder: self._assess(student))

    def _assess(self, student: Path) -> dict:
        config, seed = self.config.assess, self.config.seed
        test = frames_for(self.reference.test, config.frames)
        errors = frame_errors(predictions(student, test), test, seed)
        mepa = rollout_error(student, self.reference.test, config, seed) if config.steps else None
        return {"errors": errors.as_dict(), "mepa": None if mepa is None else vars(mepa)}

    def renew(self, number: int, frames: Sequence[Path], student: Path, ends: Path) -> tuple[list[Path], dict]:
        """The pretraining set of the next round, and facts."""
        shift, near = self.check()["shift"], self.config.renew.near * self.explore()[1]["usual_distance"]
        settings = {"renew": self.config.renew.model_dump(), "seed": self.config.seed, "shift": shift, "near": near,
                    "teacher": self._teacher_settings}
        stage = self._stage(f"round_{number}/renew", settings, [*frames, student, ends], [OLD])
        facts = stage.run(lambda folder: self._renew(folder, number, frames, student, read_ends(ends)))
        return [stage.output(name) for name in ([OLD, NEW] if facts["new"] else [OLD])], facts

    def _renew(
        self, folder: Path, number: int, frames: Sequence[Path], student: Path, ends: Sequence[RunEnd]
    ) -> dict:
        config = self.config.renew
        old = [t for path in frames for t in read_store(path)]
        kept = drawn(old, 1.0 - config.forget, np.random.default_rng([self.config.seed, number]))
        stay = [(t, chosen) for t, chosen in zip(old, kept, strict=True) if len(chosen)]
        n_kept = write_frames(folder / OLD, self._relabelled(stay, folder / "relabel", number, student)
                              if config.relabel else (picked(t, chosen) for t, chosen in stay))
        chosen = self._chosen(old, ends)
        facts = {"forgotten": count(old) - n_kept, "kept": n_kept, "relabelled": config.relabel,
                 "last": chosen.n_last, "diverse": chosen.n_diverse, "near": chosen.n_near, "new": 0, "dropped": 0}
        if chosen.trajectories:
            facts |= self._new_frames(chosen, folder, number)
        logger.info("%d frames forgotten, %d kept; %d chosen from ends of runs, %d for being unlike the rest; %d new",
                    facts["forgotten"], n_kept, chosen.n_last, chosen.n_diverse, facts["new"])
        return facts

    def _relabelled(
        self, stay: Sequence[tuple[Trajectory, np.ndarray]], folder: Path, number: int, student: Path
    ) -> Iterator[Trajectory]:
        """These frames with the labels of the student, a few at a time."""
        found = label((picked(t, chosen) for t, chosen in stay), Potential(str(student), {}), folder, STUDENT_FRAMES,
                      self._launching)
        if not found.pieces:
            raise DtmdError(f"{student}: the student's forces are not finite on any old frame; see its training in the "
                            "log, and lower the learning rates")
        labeller = Labeller(f"student of round {number} {sha256([student])[:12]}", {})
        return (labeller.labelled(t, stay[k][0].origin.run) for k, t in found.pieces)

    def _chosen(self, old: list[Trajectory], ends: Sequence[RunEnd]) -> Choice:
        config, descriptor = self.config.renew, _descriptor(old)
        near = config.near * self.explore()[1]["usual_distance"]
        unseen = Unseen()
        for t in old:
            unseen.of(t)
        candidates = [Candidates(partial(sound_frames, end), not end.alive) for end in ends if end.dump]
        choice = choose(candidates, known_descriptors(old, descriptor), descriptor, n=config.frames, n_last=config.last,
                        near=near)
        return replace(choice, trajectories=list(without_repeats(choice.trajectories, unseen)))

    def _new_frames(self, chosen: Choice, folder: Path, number: int) -> dict:
        """Frames chosen from the student's runs, with the teacher's labels."""
        labeller = self.teacher.labeller(self.check()["shift"])
        found = label(chosen.trajectories, self.teacher.potential, folder / "label",
                      self.config.teacher.frames_per_task, self._launching)
        sound = []
        for _, t in found.pieces:
            sizes = np.linalg.norm(np.asarray(t.forces, dtype=float), axis=2).max(axis=1)
            good = np.flatnonzero(sizes <= self.config.renew.max_force)
            if len(good):
                sound.append(labeller.labelled(picked(t, good), f"round_{number}/{t.source}"))
        n_new = write_frames(folder / NEW, sound) if sound else 0
        return {"new": n_new, "dropped": chosen.n_last + chosen.n_diverse - n_new}

    # What stages share.

    def _stage(
        self, name: str, settings: Mapping[str, object], inputs: Sequence[Path] = (), outputs: Sequence[str] = ()
    ) -> Stage:
        return Stage(self.root, name, settings, inputs, outputs)

    @property
    def _teacher_settings(self) -> dict:
        return {"arguments": self.config.teacher.arguments, "level": self.config.teacher.level,
                "digest": self.teacher.digest}

    @property
    def _md_settings(self) -> dict:
        observables = self.config.observables
        return {"md": self.config.md.model_dump(exclude={"structures"}), "seed": self.config.seed,
                "starts": self._start_digests, "reference": self.reference.digest,
                "observables": sha256([observables]) if observables else None}

    @property
    def _start_digests(self) -> dict[str, str]:
        return {start.name: digest_of([start.trajectory.window(start.frame, start.frame + 1)])[:12]
                for start in self.starts}

    def _teacher_model(self, folder: Path) -> CrashModel:
        named = self.config.teacher.calculator
        if is_factory(named):
            return CrashModel("teacher", folder / "teacher", factory=named, arguments=self.config.teacher.arguments)
        (model,) = models_of([f"teacher={named}"], folder)
        return model

    def _runs(self, folder: Path, model: CrashModel) -> list[RunEnd]:
        protocol = self.config.md.protocol(len(self.starts), self.config.seed)
        return all_runs(folder, model, self.starts, protocol, self._survival, self._launching)


def _descriptor(trajectories: Sequence[Trajectory]) -> Descriptor:
    return Descriptor({z for t in trajectories for z in t.numbers.tolist()})


_FEWEST_SOUND = 2

_ADVICE_TEACHER = ("See that it is made for such structures; if the runs end in their first steps, the starts are not "
                   "what it knows: relax them with it (dtmd analyze harmonic does), or lower md.temperatures or "
                   "md.timestep; if bonds are meant to break, name them as reactive in the survival section of "
                   "`observables`")


def _training_settings(config: TrainingConfig) -> dict:
    """Without what changes memory, speed and output only, and without what the input files of a stage tell."""
    return config.model_dump(mode="json", exclude={"threads", "device", "compile", "checkpoint_minutes", "weights"})


def _alive(ends: Sequence[RunEnd]) -> dict[str, list[int]]:
    """By temperature in K the runs that survive, and all."""
    counts: dict[str, list[int]] = {}
    for end in ends:
        pair = counts.setdefault(f"{end.temperature:g}", [0, 0])
        pair[0] += end.alive
        pair[1] += 1
    return counts


def _median_speed(ends: Sequence[RunEnd]) -> float | None:
    speeds = [end.speed for end in ends if end.speed is not None]
    return float(np.median(speeds)) if speeds else None


def round_stages(n_rounds: int) -> list[str]:
    """The names of all stages in their order."""
    first, *others = ROUND_STAGES
    numbered = [f"round_{k}/{stage}" for k in range(1, n_rounds + 1) for stage in others]
    return [TEACHER_STAGE, f"round_1/{first}", *numbered]
