"""Has a model seen a trajectory? Read from what its file says about its training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from dtmd.config import TrainConfig
from dtmd.errors import DtmdError
from dtmd.training_data import TrainingData, load_training_data
from dtmd.trajectory import Trajectory


@dataclass(frozen=True)
class Seen:
    """What trajectories were to a model, by the contents of their files.

    Attributes:
        training: sources that it was trained on.
        validation: sources that it was chosen by.
        doubt: why this is not certain or not known, empty if it is.
    """

    training: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    doubt: str = ""


def seen_by(models: Sequence[dict], trajectories: Sequence[Trajectory]) -> list[Seen]:
    """What the trajectories were to each model.

    A model file holds one hash over all its data. The data that its config names are read again, once for
    all models with the same; where they still have that hash, the answer is certain.

    Args:
        models: the metadata of the model files.
        trajectories: to look up.
    """
    read: dict[str, TrainingData | str] = {}
    found = []
    for metadata in models:
        config = metadata.get("config")
        if config is None or not {"data", "seed"} <= set(config):
            found.append(Seen(doubt="the model file does not name its training data"))
            continue
        name = json.dumps([config["data"], config["seed"]], sort_keys=True)
        if name not in read:
            read[name] = _data_of(config)
        found.append(_compare(read[name], metadata.get("data_sha256"), trajectories))
    return found


def _data_of(config: dict) -> TrainingData | str:
    """The data that a config names, or why they cannot be had; its other sections may be of any version."""
    try:
        relevant = {"name": "data", "seed": config["seed"], "data": config["data"]}
        return load_training_data(TrainConfig.model_validate(relevant))
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
    except DtmdError as error:
        return str(error)


def _compare(data: TrainingData | str, digest: str | None, trajectories: Sequence[Trajectory]) -> Seen:
    if isinstance(data, str):
        return Seen(doubt=f"its training data cannot be read again ({data})")
    training, validation = ({_key(t) for t in part} for part in (data.training, data.validation))
    return Seen(
        [t.source for t in trajectories if _key(t) in training],
        [t.source for t in trajectories if _key(t) in validation - training],
        "" if data.digest == digest else "the data that its config names have changed since the training",
    )


def _key(trajectory: Trajectory) -> str:
    return trajectory.origin.digest or trajectory.source
