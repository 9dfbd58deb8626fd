"""Do rollouts beat plain training at equal cost? Trains, evaluates on unseen AIMD, and reports with intervals.

python tools/study_dt.py tools/study_dt/h2pd6.yaml --aimd DIR [-o runs/study_dt] [--jobs 2] [--device cuda]

For every family of models and every seed: S = 1 until it has converged ("S=1"); from there each recipe of
rollouts; and from there S = 1 again for as many updates as the control's recipe made ("S=1, equal updates")
and for as much compute ("S=1, equal compute"). What an update costs at each S is measured first, on one
thread. After an interruption the same command goes on. Runs, costs and errors stay in the output folder,
report.json, report.md and figure.png are what comes out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from study_report import write_report

from dtmd.checkpoint import load_model
from dtmd.config import TrainConfig, load_config
from dtmd.evaluation.rollouts import rollout_errors, start_frames
from dtmd.files import write_text, written_whole
from dtmd.ingest import read_aimd
from dtmd.losses import RolloutLoss
from dtmd.neighbors import Edges
from dtmd.rollout import accumulate_gradient
from dtmd.subsequences import Subsequences
from dtmd.training_data import load_training_data

BASE, EQUAL_UPDATES, EQUAL_COMPUTE = "S=1", "S=1, equal updates", "S=1, equal compute"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Strict):
    """Numbers of whole trajectories; which ones is drawn with a fixed seed, the same for all models."""

    train: int
    validation: int
    test: int


class Recipe(Strict):
    """Training by rollouts from the converged S = 1: what differs from `Study.training`, and for which families."""

    settings: dict
    families: list[str] | None = None


class Study(Strict):
    """What is trained and how it is judged.

    Attributes:
        seeds: of the weights and the order of the batches.
        split: of the trajectories.
        steps: of the rollouts that models are judged by.
        report: MEPA over so many first steps.
        starts: of the rollouts, spread over the test trajectories.
        training: keys of `dtmd train` for all runs.
        families: name → what differs in training, such as the architecture or the loss.
        base: what makes S = 1 converge.
        recipes: name → rollouts.
        control: the recipe whose updates and compute S = 1 gets for comparison.
        continued: what differs in training when S = 1 goes on.
    """

    seeds: list[int] = Field(min_length=1)
    split: Split
    steps: int
    report: list[int]
    starts: int
    training: dict
    families: dict[str, dict]
    base: dict
    recipes: dict[str, Recipe]
    control: str
    continued: dict


@dataclass(frozen=True)
class Run:
    """One training: its config file lies beside its folder."""

    family: str
    seed: int
    arm: str
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".yaml")

    @property
    def finished(self) -> bool:
        return (self.folder / "finished").exists()


class Plan:
    """Which runs there are, what they wait for, and their configs."""

    def __init__(self, study: Study, aimd: Path, out: Path, device: str) -> None:
        self.study = study
        self.out = out
        self.device = device
        files = sorted(path for path in aimd.iterdir() if ".extxyz" in path.name)
        split = study.split
        if len(files) < split.train + split.validation + split.test:
            sys.exit(f"{aimd}: {len(files)} trajectories, the split asks for {split}")
        random.Random(0).shuffle(files)
        ends = np.cumsum([split.train, split.validation, split.test])
        self.train, self.validation, self.test = (
            sorted(map(str, files[first:last])) for first, last in zip([0, *ends], ends, strict=False))

    def run(self, family: str, seed: int, arm: str) -> Run:
        slug = "".join(c if c.isalnum() else "_" for c in f"{family} {arm} {seed}")
        return Run(family, seed, arm, self.out / "runs" / slug)

    def arms(self, family: str) -> list[str]:
        """All that is trained of a family, the base first."""
        recipes = [name for name, r in self.study.recipes.items() if r.families is None or family in r.families]
        controls = [EQUAL_UPDATES, EQUAL_COMPUTE] if self.study.control in recipes else []
        return [BASE, *recipes, *controls]

    def config(self, run: Run, costs: dict[str, dict[int, float]]) -> dict:
        """The config of a run; that of a control follows from what the finished recipe has spent."""
        study = self.study
        config = merged(study.training, study.families[run.family], {
            "name": run.folder.name, "seed": run.seed, "threads": 1, "device": self.device,
            "data": {"train": self.train, "validation": self.validation},
        })
        if run.arm == BASE:
            return merged(config, study.base)
        config = merged(config, {"start_from": str(self.run(run.family, run.seed, BASE).folder / "model.pt")})
        if run.arm in study.recipes:
            return merged(config, study.recipes[run.arm].settings)
        spent = epochs_by_length(self.run(run.family, run.seed, study.control).folder)
        cost = costs[run.family]
        equal = sum(n * (1.0 if run.arm == EQUAL_UPDATES else cost[s] / cost[1]) for s, n in spent.items())
        return merged(config, study.continued, {"curriculum": {"lengths": [1], "max_epochs": math.ceil(equal)}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--aimd", type=Path, required=True, help="folder of .extxyz trajectories, one per file")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/study_dt"))
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    study = Study.model_validate(yaml.safe_load(arguments.study.read_text()))
    torch.set_num_threads(1)
    plan = Plan(study, arguments.aimd.resolve(), arguments.output.resolve(), arguments.device)
    (plan.out / "runs").mkdir(parents=True, exist_ok=True)
    costs = measured_costs(plan)
    train_all(plan, costs, arguments.jobs)
    evaluate_all(plan, arguments.jobs)
    write_report(collected(plan, costs), plan.out)


def merged(*parts: dict) -> dict:
    """Nested mappings, later ones first; a section that names its architecture stands for itself."""
    result: dict = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict) and "architecture" not in value
            result[key] = merged(result[key], value) if both else value
    return result


def records(folder: Path) -> list[dict]:
    """The epochs of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def epochs_by_length(folder: Path) -> dict[int, int]:
    """Epochs that a run has made at each S."""
    lengths = [record["S"] for record in records(folder)]
    return {s: lengths.count(s) for s in sorted(set(lengths))}


def measured_costs(plan: Plan) -> dict[str, dict[int, float]]:
    """Seconds per update of each family at each S that its control's recipe uses, on one thread."""
    path = plan.out / "costs.json"
    if not path.exists():
        costs = {}
        for family in plan.study.families:
            run = plan.run(family, plan.study.seeds[0], BASE)
            recipe = plan.study.recipes[plan.study.control].settings
            config = written_config(run, merged(plan.config(run, {}), recipe))
            costs[family] = {s: seconds_per_update(config, s) for s in [1, *config.curriculum.lengths]}
            print(f"{family}: ms per update", {s: round(1000 * c) for s, c in costs[family].items()}, flush=True)
        write_text(path, json.dumps(costs, indent=2))
    return {family: {int(s): c for s, c in cost.items()} for family, cost in json.loads(path.read_text()).items()}


def seconds_per_update(config: TrainConfig, length: int, repeats: int = 7) -> float:
    """Median time of the gradient of a batch: of the processor, so that neighbours do not count, or of the GPU."""
    device = torch.device(config.device)
    clock = time.process_time if device.type == "cpu" else finished_time
    data = load_training_data(config)
    potential = data.new_potential(config).to(device)
    points = Subsequences(data.training, potential, length, config.data.stride)
    loss = RolloutLoss.of(config.loss, potential.elements, device)
    seconds = []
    for indices in np.array_split(points.spread(config.optimizer.batch_size * repeats), repeats):
        batch = points.batch(indices, device)
        structures = batch.start.structures
        begin = clock()
        accumulate_gradient(
            potential, batch.start, Edges(structures, potential.config.cutoff, config.optimizer.skin), length,
            lambda p, b=batch, s=structures: loss(s, p, b.energies, b.forces), config.rollout.cut_every,
        )
        seconds.append(clock() - begin)
    return statistics.median(seconds)


def finished_time() -> float:
    """The time when the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def written_config(run: Run, content: dict) -> TrainConfig:
    """The config as `dtmd train` reads it."""
    write_text(run.config, yaml.safe_dump(content, sort_keys=False))
    return load_config(run.config)


def train_all(plan: Plan, costs: dict[str, dict[int, float]], jobs: int) -> None:
    """Every run, `jobs` at a time; a control after its recipe, a recipe after its base."""
    study = plan.study
    waves = [[BASE], list(study.recipes), [EQUAL_UPDATES, EQUAL_COMPUTE]]
    for wave in waves:
        runs = [plan.run(family, seed, arm) for seed in study.seeds for arm in wave
                for family in study.families if arm in plan.arms(family)]
        todo = [run for run in runs if not run.finished]
        for run in todo:
            if not run.config.exists() or not run.folder.exists():
                written_config(run, plan.config(run, costs))
        begin = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            for done, future in enumerate(as_completed(pool.submit(train_one, run) for run in todo), start=1):
                left = (time.monotonic() - begin) / done * (len(todo) - done)
                print(f"{future.result()}; {done} of {len(todo)}, {left / 60:.0f} min left of this part", flush=True)


def train_one(run: Run) -> str:
    """`dtmd train` in a process of its own."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "dtmd", "train", str(run.config), "-o", str(run.folder)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{result.stderr}")
    (run.folder / "finished").touch()
    return f"{run.family}, {run.arm}, seed {run.seed}: {time.monotonic() - begin:.0f} s"


def evaluate_all(plan: Plan, jobs: int) -> None:
    """Errors of every model along the same rollouts on the test trajectories, into errors.npy of its folder."""
    runs = [plan.run(family, seed, arm) for family in plan.study.families for arm in plan.arms(family)
            for seed in plan.study.seeds]
    todo = [run.folder for run in runs if not (run.folder / "errors.npy").exists()]
    begin = time.monotonic()
    with ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(evaluate_one, folder, plan.test, plan.study.steps, plan.study.starts) for folder in todo]
        for done, future in enumerate(as_completed(futures), start=1):
            left = (time.monotonic() - begin) / done * (len(todo) - done)
            print(f"{future.result()} evaluated; {done} of {len(todo)}, {left / 60:.0f} min left", flush=True)


def evaluate_one(folder: Path, test: list[str], steps: int, starts: int) -> str:
    """(starts, steps + 1, species), eV/Å; NaN where a rollout diverged."""
    potential = load_model(folder / "model.pt").potential
    points = Subsequences(read_aimd([Path(path) for path in test]), potential, steps + 1, stride=1)
    errors = rollout_errors(potential, points, points.spread(starts), steps, batch_size=8, watch=lambda n: None).errors
    with written_whole(folder / "errors.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, errors)
    return folder.name


def collected(plan: Plan, costs: dict[str, dict[int, float]]) -> dict:
    """All that the report needs: errors summed over species, updates and compute of each run."""
    study = plan.study
    trajectories = read_aimd([Path(path) for path in plan.test])
    lengths = [len(t) - study.steps for t in trajectories]
    n = min(study.starts, sum(lengths))
    indices = [round(k * (sum(lengths) - 1) / max(n - 1, 1)) for k in range(n)]
    starts = start_frames(trajectories, indices, study.steps)
    families = {}
    for family in study.families:
        families[family] = {}
        for arm in plan.arms(family):
            runs = [plan.run(family, seed, arm) for seed in study.seeds]
            spent = [epochs_by_length(run.folder) for run in runs]
            epochs = records(runs[0].folder)
            per_epoch = epochs[-1]["updates"] / len(epochs)
            families[family][arm] = {
                "errors": np.stack([np.load(run.folder / "errors.npy").sum(axis=2) for run in runs]),
                "epochs": spent,
                "updates": [per_epoch * sum(s.values()) for s in spent],
                "seconds": [per_epoch * sum(k * costs[family][s] for s, k in e.items()) for e in spent],
            }
    return {"study": study.model_dump(), "trajectories": {"train": plan.train, "validation": plan.validation,
            "test": plan.test}, "runs": [Path(s.run).name for s in starts], "timestep": trajectories[0].timestep,
            "costs": costs, "families": families}


if __name__ == "__main__":
    main()
