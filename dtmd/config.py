"""The training configuration: a strict YAML file, every key with its unit and default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator, model_validator

from dtmd.errors import DtmdError
from dtmd.models import ModelConfig
from dtmd.models.egnn import EGNNConfig
from dtmd.resources import embedded
from dtmd.yaml_files import read_yaml, unknown_key

PRESETS = ("article", "small", "production")
"""Files in dtmd/presets/ whose values a config may start from."""

FREE = {
    "preset", "threads", "device", "compile", "checkpoint_minutes", "tensorboard", "optimizer.accumulate",
    "optimizer.validation_batch_size", "curriculum.max_updates", "curriculum.max_hours",
}
"""Keys that may change when a run goes on: they set memory, speed, output and end, not what is computed on the way."""


class Section(BaseModel):
    """A mapping in a config file, in which keys that are not known are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """Which AIMD trains the potential and which judges it; whole trajectories, never single frames.

    Attributes:
        train: files or folders, relative to the config file.
        validation: likewise; without it `validation_share` of the training trajectories is set apart.
        split: how to set `validation_share` apart: whole `runs`, at least one, or the end of each run (`time`),
            which resembles what is trained on and flatters the model; for a single run.
        validation_share: share of the runs, or of the frames of each.
        timestep: fs between frames, for files that do not say it.
        allow: names of checks of the AIMD that may fail.
        mixed_timesteps: take runs of different Δt, though rollouts of as many frames then last differently long.
        mixed_labels: take AIMD and frames that potentials have labelled together, or those of several potentials,
            though their energies may be of different levels of theory.
        stride: steps between the first frames of training subsequences.
        validation_points: rollouts of a validation, spread evenly over the validation trajectories.
    """

    train: list[Path] = Field(min_length=1)
    validation: list[Path] | None = None
    split: Literal["runs", "time"] = "runs"
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    timestep: float | None = Field(default=None, gt=0)
    allow: list[str] = Field(default_factory=list)
    mixed_timesteps: bool = False
    mixed_labels: bool = False
    stride: int = Field(default=1, ge=1)
    validation_points: int = Field(default=256, ge=1)


class CurriculumConfig(Section):
    """How the subsequence length S grows; a stage ends when the rollout validation has converged.

    Attributes:
        lengths: S of each stage; one that is repeated trains on at that S, with the learning rate reset.
        epoch_points: subsequences of an epoch, after which comes a validation; those of the next epochs follow
            until all have been seen, then all are shuffled anew. None, or more than there are, takes all.
        validation_length: frames of a validation rollout, S_val; 1 judges by the forces on the frames themselves. With
            that and lengths [1], frames need neither velocities nor a time step.
        learning_rate: of the first stage.
        reset_learning_rate: of each later stage.
        minimum_learning_rate: a stage ends when the patience runs out at this rate.
        decay: factor on the learning rate when the patience runs out.
        patience: epochs without a clearly better validation.
        max_epochs: of each stage (one number, or one per stage); none leaves it to convergence.
        improvement: relative gain that is clearly better; the best model is kept whatever the gain.
        stop_after: training ends when so many stages in a row have not clearly improved the best validation.
        max_updates: training ends after so many updates in all.
        max_hours: training ends after so many hours in all, those before an interruption included.
    """

    lengths: list[int] = Field(default_factory=lambda: list(range(1, 12)), min_length=1)
    epoch_points: int | None = Field(default=None, ge=1)
    validation_length: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    reset_learning_rate: float = Field(default=1e-4, gt=0)
    minimum_learning_rate: float = Field(default=2e-6, gt=0)
    decay: float = Field(default=0.33, gt=0, lt=1)
    patience: int = Field(default=15, ge=0)
    max_epochs: list[int] | int | None = None
    improvement: float = Field(default=1e-4, ge=0, lt=1)
    stop_after: int | None = Field(default=None, ge=1)
    max_updates: int | None = Field(default=None, ge=1)
    max_hours: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> CurriculumConfig:
        if self.lengths[0] < 1 or any(b < a for a, b in zip(self.lengths, self.lengths[1:], strict=False)):
            raise ValueError(f"lengths {self.lengths} must not decrease, nor begin below 1")
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


class LossConfig(Section):
    """What the training minimises; the validation measures the MEPA whatever it is.

    Attributes:
        kind: of the force errors: mepa sums the mean absolute errors of the species, mae and mse are means
            over all atoms alike (article eqs. 11, 16 and 14). The energy goes in as |ΔE|/N, with mse as ΔE²/N.
        species_weights: factors on the force errors of elements, such as {H: 2.0}; others have 1.
        first_weight: λ of the first frame for S > 1; the second has 1.
        step_decay: λ of each further frame over that of the frame before it.
        energy: first has the energy in the loss at S = 1 only, as the article does, all at every S, where the
            energy of the first frame gets that frame's λ.
        energy_weight: factor on the energy.
    """

    kind: Literal["mepa", "mae", "mse"] = "mepa"
    species_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    first_weight: float = Field(default=50.0, gt=0)
    step_decay: float = Field(default=1.0, gt=0)
    energy: Literal["first", "all"] = "first"
    energy_weight: float = Field(default=1.0, ge=0)


class RolloutConfig(Section):
    """How the rollouts of the training are made and differentiated; those of the validation are always free.

    Attributes:
        bptt: how far the gradient runs back through time: full, to the start; a number k cuts it at the frames
            k, 2k, … after the start, where positions and velocities count as constants; none cuts it at every
            frame, as k = 1 does, so that a frame's error changes the weights at its own positions only.
        neighbors: predicted takes pairs inside the cutoff at the predicted positions, aimd those inside it in
            the AIMD frame of the same step, as the article does.
        neighbors_every: steps between the AIMD frames that pairs are taken from.
    """

    bptt: int | Literal["full", "none"] = "full"
    neighbors: Literal["predicted", "aimd"] = "predicted"
    neighbors_every: int = Field(default=1, ge=1)

    @field_validator("bptt", mode="before")
    @classmethod
    def _check_bptt(cls, bptt: object) -> object:
        if bptt not in ("full", "none") and not (type(bptt) is int and bptt >= 1):
            raise ValueError("must be full, none or a number of steps from 1")
        return bptt

    @model_validator(mode="after")
    def _check(self) -> RolloutConfig:
        if self.neighbors == "predicted" and self.neighbors_every != 1:
            raise ValueError("neighbors_every is for neighbors: aimd; pairs at predicted positions are always exact")
        return self

    @property
    def cut_every(self) -> int | None:
        """Steps between cuts of the gradient, None without cuts."""
        return {"full": None, "none": 1}.get(self.bptt, self.bptt)


class OptimizerConfig(Section):
    """Adam on the dynamic-training loss.

    Attributes:
        batch_size: subsequences per update, on all ranks together.
        accumulate: parts in which the batch of an update is worked off one after another, divided among the
            ranks; changes memory and speed only. By default one on a GPU, and on a CPU parts that stay in its caches.
        validation_batch_size: rollouts integrated side by side; changes memory and speed only.
        gradient_clip: largest norm of the gradient; larger ones are scaled down.
        ema_decay: validated and saved are the weights averaged exponentially over the updates with this
            decay; none takes the weights of the last update, as the article does.
        skin: Å beyond the cutoff within which neighbour lists are kept.
    """

    batch_size: int = Field(default=32, ge=1)
    accumulate: int | None = Field(default=None, ge=1)
    validation_batch_size: int = Field(default=32, ge=1)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    skin: float = Field(default=0.5, gt=0)


class TrainConfig(Section):
    """Everything that determines a training run.

    Attributes:
        preset: whose values the keys have that are not given.
        name: of the run; its folder is runs/<name>.
        seed: of the weights, the order of the batches and the split.
        precision: of the network; positions, velocities and sums are float64.
        device: auto takes the GPU where there is one.
        threads: CPU threads of torch, of each rank; none leaves the choice to torch, or divides the cores of a
            machine among its ranks.
        compile: have torch compile forces and their derivatives, with a C++ compiler: each training step is about
            twice as fast, after minutes of compilation when a run begins or goes on; not for mace.
        checkpoint_minutes: longest time that a killed run loses.
        start_from: model file, of dtmd or of mace-torch, whose weights, reference energies and energy scale the
            training begins with, in place of fresh ones; relative to the config file. `model` is that of the file,
            and keys that are given must agree with it.
        tensorboard: write the curves as TensorBoard events too; the package is not among the dependencies.
    """

    preset: Literal[PRESETS] | None = None
    name: str = Field(min_length=1, pattern=r"^[\w.\-]+$")
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    compile: bool = False
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    start_from: Path | None = None
    tensorboard: bool = False
    data: DataConfig
    model: ModelConfig = EGNNConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    loss: LossConfig = LossConfig()
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        no_end = isinstance(self.model, EGNNConfig) and self.model.envelope == "none" and self.model.n_knots > 0
        if no_end and self.rollout.neighbors == "aimd":
            raise ValueError("rollout.neighbors: aimd has pairs beyond the cutoff, where tabulated filters without "
                             "an envelope have no values; set model.n_knots to 0 or model.envelope to smooth")
        if self.optimizer.accumulate is not None and self.optimizer.accumulate > self.optimizer.batch_size:
            raise ValueError(f"optimizer.accumulate {self.optimizer.accumulate} makes more parts than batch_size "
                             f"{self.optimizer.batch_size} has subsequences")
        return self


def load_config(path: Path | None) -> TrainConfig:
    """Read a config file, or the embedded example's without one; data paths become absolute.

    Raises:
        DtmdError: names the file, the key, what is wrong and the nearest valid key.
    """
    path = path or embedded("inputs") / "h2pd6.yaml"
    content = read_yaml(path, "the path of a YAML config")
    if not isinstance(content, dict):
        raise DtmdError(f"{path}: a config is a mapping of keys to values, this is {type(content).__name__}")
    content.setdefault("name", path.stem)
    return _resolve(content, str(path), path.resolve().parent)


def config_for(sources: list[Path], preset: str | None) -> TrainConfig:
    """What to train: a config file, or AIMD with nothing but a preset, or the embedded example.

    Args:
        sources: one YAML file, or AIMD; the run is named after the first.
        preset: for AIMD, production by default.

    Raises:
        DtmdError: as `load_config`; an unknown preset; a config file with anything beside it.
    """
    configs = [path for path in sources if path.suffix in (".yaml", ".yml")]
    if configs and (preset or len(sources) > 1):
        raise DtmdError(f"{configs[0]}: a config stands alone; write preset and data.train into it")
    if preset and not sources:
        raise DtmdError(f"--preset {preset}: name the AIMD to train on, as in dtmd train aimd/ --preset {preset}")
    if configs or not sources:
        return load_config(configs[0] if configs else None)
    path = Path(str(sources[0]).partition(":")[0]).resolve()
    name = re.sub(r"[^\w\-]", "_", path.name.partition(".")[0]) or "run"
    content = {"preset": preset or "production", "name": name, "data": {"train": list(map(str, sources))}}
    return _resolve(content, "command line", Path.cwd())


def _resolve(content: dict, where: str, folder: Path) -> TrainConfig:
    """Fill in the preset, validate, and take relative paths from `folder`."""
    if content.get("preset") in PRESETS:
        preset = Path(__file__).parent / "presets" / f"{content['preset']}.yaml"
        defaults = yaml.safe_load(preset.read_text(encoding="utf-8"))
        if content.get("start_from"):  # the model is that of the file
            defaults.pop("model", None)
        content = _over(defaults, content)
    config = validated(TrainConfig, content, where)
    data = config.data.model_copy(update={
        "train": [folder / p for p in config.data.train],
        "validation": config.data.validation and [folder / p for p in config.data.validation],
    })
    start_from = config.start_from and folder / config.start_from
    return config.model_copy(update={"data": data, "start_from": start_from})


def _over(defaults: dict, own: dict) -> dict:
    """`own`, and what it lacks from `defaults`, section by section; another architecture shares no keys."""
    merged = defaults | own
    for key in defaults.keys() & own.keys():
        below, above = defaults[key], own[key]
        if isinstance(below, dict) and isinstance(above, dict):
            same = above.get("architecture", below.get("architecture")) == below.get("architecture")
            merged[key] = _over(below, above) if same else above
    return merged


def differences(text: str, config: TrainConfig) -> dict[str, str]:
    """Keys, such as data.stride, that a dumped config has otherwise, each with both values."""
    old, new = _flat(yaml.safe_load(text)), _flat(config.model_dump(mode="json"))
    return {key: f"{new.get(key)} (was {old.get(key)})" for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)}


def _flat(section: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def dump_config(config: TrainConfig) -> str:
    """The fully resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


Config = TypeVar("Config", bound=Section)


def validated(schema: type[Config], content: dict, where: str) -> Config:
    """The config that the content of a file stands for.

    Raises:
        DtmdError: begins with `where`; a line for each mistake with its key, and for an unknown key the nearest one.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise DtmdError("\n".join(_describe(schema, where, problem) for problem in error.errors())) from error


def _describe(schema: type[Section], where: str, problem: dict) -> str:
    *parents, name = [str(part) for part in problem["loc"]] or ["config"]
    section, path = _section(schema, parents)
    if problem["type"] != "extra_forbidden":
        return f"{where}: {'.'.join([*path, name])}: {problem['msg']} (found {problem['input']!r})"
    return unknown_key(where, name, list(section.model_fields), ".".join(path))


def _section(schema: type[BaseModel], parents: list[str]) -> tuple[type[BaseModel], list[str]]:
    """The section that holds a key, and its path, of which the architecture that tells the kind of one is no part."""
    path, kinds = [], ()
    for parent in parents:
        if parent in schema.model_fields:
            annotation = schema.model_fields[parent].annotation
            kinds = get_args(annotation) or (annotation,)
            path = [*path, parent]
            if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
                schema = kinds[0]
        else:
            schema = next((kind for kind in kinds if kind().architecture == parent), schema)
    return schema, path
