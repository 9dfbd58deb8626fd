"""The training configuration: a strict YAML file, every key with its unit and default."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dtmd.errors import DtmdError
from dtmd.models import ModelConfig
from dtmd.models.egnn import EGNNConfig
from dtmd.resources import embedded


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which AIMD trains the potential and which judges it; whole trajectories, never single frames.

    Attributes:
        train: files or folders, relative to the config file.
        validation: likewise; without it `validation_share` of the training trajectories is set apart.
        split: how to set `validation_share` apart: whole `runs`, at least one, or the end of each run (`time`),
            which resembles what is trained on and flatters the model; for a single run.
        validation_share: share of the runs, or of the frames of each.
        timestep: fs between frames, for files that do not say it.
        allow: names of checks of the AIMD that may fail.
        stride: steps between the first frames of training subsequences.
        validation_points: rollouts of a validation, spread evenly over the validation trajectories.
    """

    train: list[Path] = Field(min_length=1)
    validation: list[Path] | None = None
    split: Literal["runs", "time"] = "runs"
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    timestep: float | None = Field(default=None, gt=0)
    allow: list[str] = Field(default_factory=list)
    stride: int = Field(default=1, ge=1)
    validation_points: int = Field(default=256, ge=1)


class CurriculumConfig(_Section):
    """How the subsequence length S grows; a stage ends when the rollout validation has converged.

    Attributes:
        lengths: S of each stage, increasing.
        validation_length: frames of a validation rollout, S_val.
        learning_rate: of the first stage.
        reset_learning_rate: of each later stage.
        minimum_learning_rate: a stage ends when the patience runs out at this rate.
        decay: factor on the learning rate when the patience runs out.
        patience: epochs without a clearly better validation.
        max_epochs: of each stage (one number, or one per stage); none leaves it to convergence.
        improvement: relative gain that is clearly better; the best model is kept whatever the gain.
    """

    lengths: list[int] = Field(default_factory=lambda: list(range(1, 12)), min_length=1)
    validation_length: int = Field(default=60, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    reset_learning_rate: float = Field(default=1e-4, gt=0)
    minimum_learning_rate: float = Field(default=2e-6, gt=0)
    decay: float = Field(default=0.33, gt=0, lt=1)
    patience: int = Field(default=15, ge=0)
    max_epochs: list[int] | int | None = None
    improvement: float = Field(default=1e-4, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> CurriculumConfig:
        if self.lengths[0] < 1 or any(b <= a for a, b in zip(self.lengths, self.lengths[1:], strict=False)):
            raise ValueError(f"lengths {self.lengths} must increase from at least 1")
        if isinstance(self.max_epochs, list) and len(self.max_epochs) != len(self.lengths):
            raise ValueError(f"max_epochs has {len(self.max_epochs)} entries for {len(self.lengths)} lengths")
        limits = self.max_epochs if isinstance(self.max_epochs, list) else [self.max_epochs or 1]
        if min(limits) < 1:
            raise ValueError("max_epochs must be at least 1")
        if self.minimum_learning_rate > min(self.learning_rate, self.reset_learning_rate):
            raise ValueError("minimum_learning_rate is above the learning rates it is the minimum of")
        return self

    def epoch_limit(self, stage: int) -> int | None:
        """Most epochs of a stage, or None."""
        return self.max_epochs[stage] if isinstance(self.max_epochs, list) else self.max_epochs


class OptimizerConfig(_Section):
    """Adam on the dynamic-training loss.

    Attributes:
        batch_size: subsequences per update.
        validation_batch_size: rollouts integrated side by side; changes memory and speed only.
        gradient_clip: largest norm of the gradient; larger ones are scaled down.
        ema_decay: validated and saved are the weights averaged exponentially over the updates with this
            decay; none takes the weights of the last update, as the article does.
        first_weight: λ of the first frame for S > 1; the others have 1.
        skin: Å beyond the cutoff within which neighbour lists are kept.
    """

    batch_size: int = Field(default=32, ge=1)
    validation_batch_size: int = Field(default=32, ge=1)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    first_weight: float = Field(default=50.0, gt=0)
    skin: float = Field(default=0.5, gt=0)


class TrainConfig(_Section):
    """Everything that determines a training run.

    Attributes:
        name: of the run; its folder is runs/<name>.
        seed: of the weights, the order of the batches and the split.
        precision: of the network; positions, velocities and sums are float64.
        device: auto takes the GPU where there is one.
        threads: CPU threads of torch; none leaves the choice to torch.
        checkpoint_minutes: longest time that a killed run loses.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.\-]+$")
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    data: DataConfig
    model: ModelConfig = EGNNConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    optimizer: OptimizerConfig = OptimizerConfig()


def load_config(path: Path | None) -> TrainConfig:
    """Read a config file, or the embedded example's without one; data paths become absolute.

    Raises:
        DtmdError: names the file, the key, what is wrong and the nearest valid key.
    """
    path = path or embedded("inputs") / "h2pd6.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DtmdError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML config") from error
    except yaml.YAMLError as error:
        raise DtmdError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise DtmdError(f"{path}: a config is a mapping of keys to values, this is {type(content).__name__}")
    content.setdefault("name", path.stem)
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        raise DtmdError("\n".join(_describe(path, problem) for problem in error.errors())) from error
    folder = path.resolve().parent
    data = config.data.model_copy(update={
        "train": [folder / p for p in config.data.train],
        "validation": config.data.validation and [folder / p for p in config.data.validation],
    })
    return config.model_copy(update={"data": data})


def dump_config(config: TrainConfig) -> str:
    """The fully resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _describe(path: Path, problem: dict) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{path}: {key or 'config'}: {problem['msg']} (found {problem['input']!r})"
    section = _section(problem["loc"][:-1])
    valid = list(section.model_fields) if section else []
    nearest = difflib.get_close_matches(problem["loc"][-1], valid, n=1, cutoff=0.0)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{path}: unknown key {key}{hint} Valid here: {', '.join(valid)}"


def _section(location: tuple[str, ...]) -> type[BaseModel] | None:
    section: type[BaseModel] = TrainConfig
    for part in location:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        section = annotation
    return section
