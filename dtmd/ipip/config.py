"""The configuration of an iterative pretraining: a strict YAML file, every key with its unit and default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from dtmd.config import CurriculumConfig, LossConfig, OptimizerConfig, RolloutConfig, Section, TrainConfig, validated
from dtmd.crashtest.protocol import THERMOSTATS, Protocol, parse_time
from dtmd.models import ModelConfig
from dtmd.models.painn import PaiNNConfig
from dtmd.yaml_files import mapping, read_yaml

class ReferenceConfig(Section):
    """The few frames of the level of theory that the student is to have.

    Attributes:
        train: files, folders or stores, relative to the config file; dynamic training needs velocities.
        validation: likewise; chooses models and ends the rounds.
        test: likewise; is only ever looked at, and gives the numbers of the table.
        level: of theory, by a name.
        timestep: fs between frames, for files that do not say it.
        allow: names of checks of the AIMD that may fail.
    """

    train: list[Path] = Field(min_length=1)
    validation: list[Path] = Field(min_length=1)
    test: list[Path] = Field(min_length=1)
    level: str = Field(min_length=1)
    timestep: float | None = Field(default=None, gt=0)
    allow: list[str] = Field(default_factory=list)


class TeacherConfig(Section):
    """The potential that explores and labels.

    Attributes:
        calculator: `module:factory` of any ASE calculator, a file of mace-torch, a run folder or model file of dtmd, or
            an exported potential; paths are relative to the config file.
        arguments: of the factory, by name.
        level: of theory, by a name. With that of the reference, energies must agree without a shift.
        frames_per_task: frames that one process labels.
    """

    calculator: str = Field(min_length=1)
    arguments: dict[str, str | int | float | bool | None | list | dict] = Field(default_factory=dict)
    level: str = Field(min_length=1)
    frames_per_task: int = Field(default=200, ge=1)


class MDConfig(Section):
    """Molecular dynamics of teacher and student alike.

    Attributes:
        starts: frames of reference.train, chosen at random, that runs start from.
        structures: files of structures to start from in place of them, any format of ASE, `FILE@FRAME` for one of many.
        temperatures: K; every start runs at each.
        time: of each run, such as 10ps.
        timestep: fs.
        stride: steps from one written frame to the next.
        thermostat: none runs at constant energy.
    """

    starts: int = Field(default=12, ge=1)
    structures: list[str] | None = Field(default=None, min_length=1)
    temperatures: list[float] = Field(default_factory=lambda: [300.0], min_length=1)
    time: str = "10ps"
    timestep: float = Field(default=0.5, gt=0)
    stride: int = Field(default=20, ge=1)
    thermostat: Literal[THERMOSTATS] = "langevin"

    def protocol(self, n_starts: int, seed: int) -> Protocol:
        """As the runs take it."""
        return Protocol(tuple(self.temperatures), n_starts, parse_time(self.time), self.timestep, self.stride,
                        self.thermostat, seed)


SINGLE_FRAMES = {"lengths": [1], "validation_length": 1}


def _single_frames(curriculum: object) -> object:
    return {**SINGLE_FRAMES, **curriculum} if isinstance(curriculum, dict) else curriculum


class TrainingConfig(Section):
    """How to train, in sections and keys of `dtmd train`.

    Attributes:
        curriculum: as there, but that lengths are [1] and validation_length is 1 where nothing else is given.
        loss, rollout, optimizer, precision, device, threads, compile, checkpoint_minutes: as there.
        stride: steps between the starts of training subsequences, data.stride there.
        validation_points: data.validation_points there.
    """

    precision: Literal["float32", "float64"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    compile: bool = False
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    stride: int = Field(default=1, ge=1)
    validation_points: int = Field(default=256, ge=1)
    curriculum: Annotated[CurriculumConfig, BeforeValidator(_single_frames)] = CurriculumConfig(**SINGLE_FRAMES)
    loss: LossConfig = LossConfig()
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    def as_training(self, name: str, seed: int, data: dict, **more: object) -> TrainConfig:
        """The config of one training."""
        sections = {key: getattr(self, key) for key in type(self).model_fields if key in TrainConfig.model_fields}
        data = {"stride": self.stride, "validation_points": self.validation_points, **data}
        return TrainConfig.model_validate({"name": name, "seed": seed, "data": data, **sections, **more})


class PretrainConfig(TrainingConfig):
    """Training on pseudo-labels: S = 1, as their frames are not followed in time.

    Attributes:
        weights: fresh ones in every round, or from the second on those of the student before.
        validation_share: of the runs that the frames are from.
    """

    weights: Literal["fresh", "student"] = "fresh"
    validation_share: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> PretrainConfig:
        if set(self.curriculum.lengths) != {1} or self.curriculum.validation_length != 1:
            raise ValueError("curriculum.lengths must be [1] and curriculum.validation_length 1: pseudo-labelled "
                             "frames are not followed in time")
        return self


class RenewConfig(Section):
    """The pretraining set of the next round.

    Attributes:
        forget: share of the old frames that is discarded at random.
        relabel: the student labels the old frames that stay; otherwise they keep their labels.
        frames: new ones, at most, for the teacher to label.
        last: frames before the end of each run that ended early, which are taken first.
        near: a frame is a near-duplicate if it is closer to one that is there, in the descriptor, than this share of
            the median distance between consecutive frames of the teacher's runs.
        max_force: eV/Å; frames with a larger force by the teacher are dropped.
    """

    forget: float = Field(default=0.1, ge=0, lt=1)
    relabel: bool = True
    frames: int = Field(default=500, ge=1)
    last: int = Field(default=10, ge=1)
    near: float = Field(default=0.3, ge=0)
    max_force: float = Field(default=50.0, gt=0)


class AssessConfig(Section):
    """What is measured on reference.test after each round, beside errors on single frames.

    Attributes:
        frames: that single-frame errors are taken over, at most, evenly over the runs.
        steps: of the rollouts, 0 for none.
        starts: of the rollouts, at most.
    """

    frames: int = Field(default=500, ge=1)
    steps: int = Field(default=60, ge=0)
    starts: int = Field(default=32, ge=1)


class IPIPConfig(Section):
    """Everything that determines an iterative pretraining.

    Attributes:
        name: its folder is runs/<name>.
        seed: of starts, velocities, weights and all that is chosen at random.
        rounds: at most.
        least_gain: the rounds end when the error in validation has not become smaller by this share and no more of the
            student's runs survive than in the round before.
        observables: file of settings as for `dtmd compare`, of which those of `survival` say when a run has ended.
        student: as the model section of `dtmd train`.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.\-]+$")
    seed: int = Field(default=0, ge=0)
    rounds: int = Field(default=3, ge=1)
    least_gain: float = Field(default=0.0, ge=0, lt=1)
    observables: Path | None = None
    reference: ReferenceConfig
    teacher: TeacherConfig
    md: MDConfig = MDConfig()
    student: ModelConfig = PaiNNConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: TrainingConfig = TrainingConfig()
    renew: RenewConfig = RenewConfig()
    assess: AssessConfig = AssessConfig()


def load_ipip_config(path: Path) -> IPIPConfig:
    """Read a config file; paths in it become absolute.

    Raises:
        DtmdError: names the file, the key, what is wrong and the nearest valid key.
    """
    content = mapping(read_yaml(path, "the path of a YAML config"), str(path))
    content.setdefault("name", path.stem)
    config, folder = validated(IPIPConfig, content, str(path)), path.resolve().parent
    reference = config.reference.model_copy(update={
        part: [folder / file for file in getattr(config.reference, part)] for part in ("train", "validation", "test")})
    named = config.teacher.calculator
    teacher = config.teacher.model_copy(update={
        "calculator": str(folder / named) if (folder / named).exists() else named})
    structures = config.md.structures and [str(folder / text) for text in config.md.structures]
    return config.model_copy(update={
        "reference": reference, "teacher": teacher, "md": config.md.model_copy(update={"structures": structures}),
        "observables": config.observables and folder / config.observables,
    })
