"""What is done for one arm of the study of iterative pretraining, and what is gathered of all."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.console import Console
from study_dt import merged
from study_ipip import DYNAMIC, LONGER, ONCE, ROUNDS, WITHOUT, Arm, Plan

from dtmd.checkpoint import MODEL
from dtmd.comparison.settings import load_settings
from dtmd.display import TrainingDisplay
from dtmd.files import write_text, written_whole
from dtmd.ingest import read_aimd, unwatched
from dtmd.ipip.assessment import predictions
from dtmd.ipip.config import IPIPConfig, load_ipip_config
from dtmd.ipip.labelling import Launching
from dtmd.ipip.rounds import Pretraining, Reference
from dtmd.ipip.sequence import Displays, run_ipip
from dtmd.ipip.stages import read_state
from dtmd.launcher.display import LaunchDisplay
from dtmd.launcher.processes import processes
from dtmd.train import train

FIRST_STAGES = [f"round_1/{stage}" for stage in ("explore", "pretrain", "finetune", "probe", "assess")]


def config_of(plan: Plan, arm: Arm) -> IPIPConfig:
    """Of `dtmd ipip`, written beside the folder of the arm."""
    own = {"name": "study", "seed": arm.seed, "student": plan.study.students[arm.student]}
    content = merged(plan.study.ipip, own)
    if arm.name in plan.study.variants:
        content = merged(content, plan.study.variants[arm.name].changes)
    if arm.name == LONGER:
        epochs = plan.study.longer * content["pretrain"]["curriculum"]["max_epochs"]
        content = merged(content, {"rounds": 1, "pretrain": {"curriculum": {"max_epochs": epochs}}})
    finetuning = {DYNAMIC: plan.study.dynamic, WITHOUT: plan.study.without}.get(arm.name, {})
    content = merged(content, {"finetune": finetuning})
    here = Path.cwd()
    reference = {part: [str(here / path) for path in content["reference"][part]]
                 for part in ("train", "validation", "test")}
    path = arm.folder.with_suffix(".yaml")
    write_text(path, yaml.safe_dump(merged(content, {"reference": reference}), sort_keys=False))
    return load_ipip_config(path)


def do(plan: Plan, arm: Arm) -> None:
    """Train, run and assess one arm."""
    torch.set_num_threads(1)
    config, console = config_of(plan, arm), Console(quiet=True)
    with processes(1) as place:
        displays = Displays(Launching(place, partial(LaunchDisplay, console)), partial(TrainingDisplay, console))
        if arm.name in (WITHOUT, DYNAMIC):
            models = [one_model(plan, arm, config, displays)]
        else:
            if arm.name in plan.study.variants:
                begin_like(plan.arm(arm.student, arm.seed, ROUNDS), arm, FIRST_STAGES)
            elif arm.name == LONGER:
                begin_like(plan.arm(arm.student, arm.seed, ROUNDS), arm, FIRST_STAGES[:1])
            _, progress = run_ipip(config, arm.folder, displays)
            models = [(done.student, done.probing, done.assessed, done.seconds, done.set_size)
                      for done in progress.rounds]
    write_result(arm, config, models)


def begin_like(other: Arm, arm: Arm, stages: list[str]) -> None:
    """With the first stages of another arm, which are the same."""
    for stage in ["teacher", *stages]:
        if not (arm.folder / stage).exists():
            shutil.copytree(other.folder / stage, arm.folder / f".{stage.replace('/', '_')}", dirs_exist_ok=True)
            (arm.folder / stage).parent.mkdir(parents=True, exist_ok=True)
            (arm.folder / f".{stage.replace('/', '_')}").rename(arm.folder / stage)


def one_model(
    plan: Plan, arm: Arm, config: IPIPConfig, displays: Displays
) -> tuple[Path, dict, dict, float, tuple[int, int]]:
    """A student that goes through no rounds: trained, then judged as the others are."""
    reference = Reference.read(config, unwatched)
    survival = load_settings(None).survival([*reference.train, *reference.validation])
    work = Pretraining(config, arm.folder, survival, reference, displays.launching, displays.training)
    if arm.name == DYNAMIC:
        rounds = plan.arm(arm.student, arm.seed, ROUNDS)
        last = max(rounds.folder.glob("round_*/pretrain"), key=lambda path: path.parent.name)
        model, trained = work.finetune(1, last / "training" / MODEL)
    else:
        model, trained = on_the_reference(config, arm, displays)
    _, probing = work.probe(1, model)
    assessed = work.assess(1, model)
    return model, probing, assessed, sum(part["seconds"] for part in (trained, probing, assessed)), (0, 0)


def on_the_reference(config: IPIPConfig, arm: Arm, displays: Displays) -> tuple[Path, dict]:
    """A fresh student trained on the reference frames."""
    begun, given, training = time.monotonic(), config.reference, config.finetune
    data = {"train": given.train, "validation": given.validation}
    settings = training.as_training("without", config.seed, data, model=config.student)
    model = train(settings, arm.folder / "training", displays.training(settings.curriculum))
    return model, {"seconds": time.monotonic() - begun}


def write_result(arm: Arm, config: IPIPConfig, models: list) -> None:
    """Numbers of each model of an arm, and the errors of each test frame."""
    test, rounds = read_aimd(config.reference.test), []
    for k, (model, probing, assessed, seconds, (old, new)) in enumerate(models):
        predicted = predictions(model, test)
        force = [np.abs(own.forces - np.asarray(true.forces)).mean(axis=(1, 2))
                 for own, true in zip(predicted, test, strict=True)]
        energy = [np.abs(own.energies - true.energies) / len(true.numbers)
                  for own, true in zip(predicted, test, strict=True)]
        with written_whole(arm.folder / f"errors_{k}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, np.stack([np.concatenate(force), np.concatenate(energy)]))
        rounds.append({"alive": probing["alive"], "speed": probing["speed"], "mepa": assessed["mepa"],
                       "seconds": seconds, "frames": [old, new]})
    write_text(arm.result, json.dumps(rounds, indent=1))


def collected(plan: Plan) -> dict:
    """All that the report needs."""
    study, students = plan.study, {}
    first = plan.arm(next(iter(study.students)), study.seeds[0], ROUNDS)
    test = read_aimd([Path(path) for path in study.ipip["reference"]["test"]])
    runs = [t.source for t in test for _ in range(len(t))]
    for student in study.students:
        arms = {}
        for name in plan.names(student):
            source = ROUNDS if name == ONCE else name
            per_seed = [plan.arm(student, seed, source) for seed in study.seeds]
            results = [json.loads(arm.result.read_text()) for arm in per_seed]
            which = 0 if name == ONCE else -1
            arms[name] = {
                "errors": [np.load(arm.folder / f"errors_{(len(result) + which) % len(result)}.npy")
                           for arm, result in zip(per_seed, results, strict=True)],
                "last": [result[which] for result in results],
                "seconds": [sum(done["seconds"] for done in (result[:1] if name == ONCE else result))
                            for result in results],
                "rounds": [] if name == ONCE else [
                    {"errors": [np.load(arm.folder / f"errors_{k}.npy") for arm in per_seed],
                     "alive": [result[k]["alive"] for result in results]} for k in range(min(map(len, results)))],
            }
        students[student] = arms
    teacher = read_state(first.folder / "teacher")["facts"]
    explored = [read_state(plan.arm(student, seed, ROUNDS).folder / "round_1/explore")["facts"]
                for student in study.students for seed in study.seeds]
    return {"study": study.model_dump(), "runs": runs, "students": students, "teacher": teacher, "explored": explored}
