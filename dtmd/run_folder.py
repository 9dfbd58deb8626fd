"""The folder of a training run: whose it is, and the model that it starts from."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from pydantic import ValidationError

from dtmd.checkpoint import load_model
from dtmd.config import FREE, TrainConfig, differences, dump_config
from dtmd.errors import DtmdError
from dtmd.files import write_text, written_whole
from dtmd.potential import Potential
from dtmd.training_report.summary import CONFIG

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
START = "start.pt"
"""Copy of the model that a training starts from, so that a run goes on whatever becomes of the original."""


def claim(run_dir: Path, config: TrainConfig) -> None:
    """Write the resolved config, and see that a run which is there has the same, but for keys that are free.

    Raises:
        DtmdError: the folder holds another run.
    """
    path = run_dir / CONFIG
    if (run_dir / CHECKPOINT).exists() and path.exists():
        changed = differences(path.read_text(), config)
        if locked := [f"{key}: {values}" for key, values in changed.items() if key not in FREE]:
            raise DtmdError(f"{path}: this folder holds a run with another config: {'; '.join(locked)}. "
                            "Give another folder with -o, or remove this one")
        for key, values in changed.items():
            logger.info("%s: %s", key, values)
    write_text(path, dump_config(config))


def with_its_model(config: TrainConfig, run_dir: Path) -> TrainConfig:
    """The config with the model section of the file that `start_from` names.

    Raises:
        DtmdError: no model, or one with other values for keys of the section that the config gives.
    """
    file = run_dir / START if (run_dir / CHECKPOINT).exists() else config.start_from
    there, here = load_model(file).potential.config, config.model
    differ = [f"model.{key} {getattr(there, key, None)} there, {getattr(here, key)} here"
              for key in sorted(here.model_fields_set) if getattr(there, key, None) != getattr(here, key)]
    if differ:
        raise DtmdError(f"start_from: {config.start_from} does not fit this config: {'; '.join(differ)}. Leave the "
                        "model section out to take that of the file, or leave start_from out")
    try:
        return TrainConfig.model_validate(dict(config) | {"model": there})
    except ValidationError as error:
        raise DtmdError(f"start_from: {config.start_from}: {error.errors()[0]['msg']}") from error


def started(config: TrainConfig, run_dir: Path, elements: list[str]) -> Potential:
    """The potential that `start_from` names, as it was when the run began.

    Raises:
        DtmdError: it does not know all of these elements, those of the data.
    """
    own = run_dir / START
    if not (run_dir / CHECKPOINT).exists():
        with written_whole(own) as temporary:
            temporary.write_bytes(config.start_from.read_bytes())
    potential = load_model(own).potential
    missing = sorted(set(elements) - set(potential.elements))
    if missing:
        raise DtmdError(f"start_from: {config.start_from} does not fit this config: it knows "
                        f"{', '.join(potential.elements)}, the data hold {', '.join(missing)} too. Give data of its "
                        "elements, or leave start_from out")
    return potential.to_precision(getattr(torch, config.precision))
