"""Time and memory of dynamic training with the full-size EGNN on H2/Pd6, against a straightforward implementation.

    python tools/bench_training.py [--quick] [--threads 1 2] [--json FILE]

The straightforward one is in bench_training_baseline.py; that both have the same loss and gradient is checked first.
Arms take turns and medians of the wall clock are compared, and of the processor time, which other work on the machine
disturbs less. Whatever may run out of memory runs in a process of its
own that may take 80 % of what is free. `dtmd, compiled` is the training with `compile: true`, after its compilation.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from bench_training_baseline import StraightforwardEGNN
from measuring import in_process, is_out_of_memory, machine, memory_limit
from torch import Tensor

from dtmd.compilation import CompiledEvaluation
from dtmd.config import LossConfig
from dtmd.ingest import read_aimd
from dtmd.losses import RolloutLoss
from dtmd.models import ARCHITECTURES
from dtmd.models.egnn import EGNNConfig
from dtmd.neighbors import Edges
from dtmd.potential import Potential, Prediction
from dtmd.rollout import PART_ATOMS, accumulate_gradient, rollout
from dtmd.structures import Structures
from dtmd.subsequences import Points, Subsequences
from dtmd.validation import validate

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"
CPU = torch.device("cpu")
ELEMENTS = ["H", "C", "Pd"]
SKIN = 0.5


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    lengths: tuple[int, ...] = (1, 2, 4, 11)
    batches: tuple[int, ...] = (8,)
    repeats: int = 5
    memory_batch: int = 8
    memory_lengths: tuple[int, int] = (2, 64)
    starts: int = 32
    steps: int = 10
    compiled: bool = True


ARMS = ("dtmd", ""), ("dtmd, compiled", "compiled_")
"""Their names, and what their keys begin with."""

QUICK = Plan((1, 2), (2,), 1, 2, (2, 8), 2, 3, compiled=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, nothing compiled: under a minute")
    parser.add_argument("--threads", type=int, nargs="+", help="of torch, one run with each; 1 and 2, or 1 if quick")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan(compiled=shutil.which("g++") is not None)
    figures = {"machine": machine(), "update": [], "validation": [], "architectures": []}
    print(figures["machine"])
    figures["equal"] = in_process(check, 1)[-1]
    print(figures["equal"])
    for threads in arguments.threads or ([1] if arguments.quick else [1, 2]):
        for batch in plan.batches:
            figures["update"] += update_rows(plan, threads, batch)
        figures["validation"] += in_process(validations, threads, plan)
        figures["architectures"] += in_process(architectures, threads, plan)
    figures["memory"] = memories(plan)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def timed(arms: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float] | None]:
    """Median wall-clock and processor time of each arm in ms, in turns; None for one that runs out of memory."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    failed = set()
    for turn in range(repeats + 1):  # the first is not counted
        for name, arm in arms.items():
            if name in failed:
                continue
            begin = time.perf_counter(), time.process_time()
            try:
                arm()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed.add(name)
            if turn > 0:
                times[name].append((1e3 * (time.perf_counter() - begin[0]), 1e3 * (time.process_time() - begin[1])))
    return {name: None if name in failed else tuple(map(statistics.median, zip(*values, strict=True)))
            for name, values in times.items()}


# --- what is compared --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A fresh network and subsequences of the example's training data."""

    potential: Potential
    points: Subsequences

    @classmethod
    def of(cls, length: int, config=EGNNConfig(), precision: torch.dtype = torch.float32) -> Case:
        torch.manual_seed(0)
        potential = Potential(ELEMENTS, config, torch.tensor([-14.0, -150.0, -20.0])).to_precision(precision)
        return cls(potential, Subsequences(read_aimd([AIMD / "train"]), potential, length, stride=1))

    def batches(self, size: int, n_parts: int = 1) -> list[Points]:
        """Subsequences spread over the data, in parts."""
        return [self.points.batch(part, CPU) for part in np.array_split(self.points.spread(size), n_parts)]

    def loss(self, points: Points, share: float = 1.0) -> Callable[[list[Prediction]], Tensor]:
        """The dynamic-training loss with the article's weights."""
        loss = RolloutLoss.of(LossConfig(), ELEMENTS, CPU)
        return lambda predictions: share * loss(points.start.structures, predictions, points.energies, points.forces)

    def update(self, size: int, length: int) -> Tensor:
        """Loss, and gradient added, as the trainer does it: in parts of some PART_ATOMS atoms."""
        self.potential.zero_grad()
        parts = self.batches(size, min(math.ceil(size * 57 / PART_ATOMS), size))
        losses = []
        for points in parts:
            structures = points.start.structures
            edges = Edges(structures, self.potential.config.cutoff, SKIN)
            loss = self.loss(points, share=structures.n_graphs / size)
            losses.append(accumulate_gradient(self.potential, points.start, edges, length, loss))
        return torch.stack(losses).sum()

    def straightforward_update(self, network: StraightforwardEGNN, size: int, length: int) -> Tensor:
        """The same by the straightforward implementation, in one piece."""
        network.zero_grad()
        (points,) = self.batches(size)
        return network.add_gradient(points.start, length, self.loss(points))


def check() -> Iterator[dict]:
    """Relative differences of loss and gradient between the two implementations, for S = 3."""
    differences = {}
    for name, config, precision, bound in (
        ("float64, exact filters", EGNNConfig(n_knots=0), torch.float64, 1e-9),
        ("as timed", EGNNConfig(), torch.float32, 1e-2),
    ):
        case = Case.of(3, config, precision)
        network = StraightforwardEGNN(case.potential)
        losses = case.update(2, 3), case.straightforward_update(network, 2, 3)
        ours = torch.cat([p.grad.flatten() for p in case.potential.parameters()])
        theirs = torch.cat([g.flatten() for g in network.gradients_like(case.potential)])
        found = {"loss": ((losses[0] - losses[1]).abs() / losses[1]).item(),
                 "gradient": ((ours - theirs).norm() / theirs.norm()).item()}
        if not max(found.values()) < bound:
            raise SystemExit(f"the two implementations differ, {name}: {found}, allowed {bound}")
        differences[name] = found
    yield differences


def update_rows(plan: Plan, threads: int, batch: int) -> list[dict]:
    """Of each length, also of those at which the process died."""
    rows = in_process(updates, threads, plan, batch)
    for row in rows:
        row["threads"] = threads
        print(f"update, {threads} threads, batch {batch}, S = {row['S']}: " + describe(row), flush=True)
    if len(rows) < len(plan.lengths):
        print(f"batch {batch}: out of memory from S = {plan.lengths[len(rows)]} on")
    return rows


def updates(plan: Plan, batch: int) -> Iterator[dict]:
    case = Case.of(max(plan.lengths))
    network = StraightforwardEGNN(case.potential)
    compiled = CompiledEvaluation(CPU) if plan.compiled else None

    def with_code(length: int) -> None:
        case.potential.compiled = compiled
        case.update(batch, length)
        case.potential.compiled = None

    for length in plan.lengths:
        arms = {"dtmd": lambda: case.update(batch, length)}
        if compiled is not None:
            arms["dtmd, compiled"] = lambda: with_code(length)
        arms["baseline"] = lambda: case.straightforward_update(network, batch, length)
        times = timed(arms, plan.repeats)
        baseline = times.pop("baseline")
        row = {"batch": batch, "S": length, "baseline_ms": baseline and round(baseline[0])}
        for name, (wall, cpu) in times.items():
            key = "" if name == "dtmd" else "compiled_"
            row |= {f"{key}ms": round(wall), f"{key}ratio": baseline and round(baseline[0] / wall, 2),
                    f"{key}cpu_ratio": baseline and round(baseline[1] / cpu, 2)}
        yield row


def describe(row: dict) -> str:
    baseline = f"baseline {row['baseline_ms']} ms" if row["baseline_ms"] else "baseline out of memory"
    parts = [f"{label} {row[key + 'ms']} ms" for label, key in ARMS if f"{key}ms" in row]
    if row["baseline_ms"]:
        parts = [f"{part} ({row[key + 'ratio']} ×, by CPU time {row[key + 'cpu_ratio']} ×)"
                 for part, (_, key) in zip(parts, ARMS, strict=False)]
    return ", ".join([baseline, *parts])


# --- memory ------------------------------------------------------------------------------------------------------


def memories(plan: Plan) -> dict:
    """Peaks of processes that do one update, MB; growth is that of dtmd from the short rollout to the long one."""
    batch = plan.memory_batch
    found: dict = {"batch": batch, "limit_MB": memory_limit() // 10**6, "baseline": {}, "dtmd": {}}
    for length in plan.memory_lengths:
        found["dtmd"][length] = (in_process(peak, 1, "dtmd", batch, length) or [None])[-1]
    for length in plan.lengths:
        found["baseline"][length] = (in_process(peak, 1, "baseline", batch, length) or [None])[-1]
        if found["baseline"][length] is None:
            break
    short, long = (found["dtmd"][length] for length in plan.memory_lengths)
    found["growth"] = round(long / short, 3)
    print("memory, MB (null: out of memory):", found)
    return found


def peak(which: str, batch: int, length: int) -> Iterator[int]:
    case = Case.of(length)
    if which == "dtmd":
        case.update(batch, length)
    else:
        case.straightforward_update(StraightforwardEGNN(case.potential), batch, length)
    yield resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


# --- validation --------------------------------------------------------------------------------------------------


def validations(plan: Plan) -> Iterator[dict]:
    """Structures × steps per second: batched, and in Python loops over the structures."""
    case = Case.of(plan.steps)
    indices = case.points.spread(plan.starts)
    network = StraightforwardEGNN(case.potential).requires_grad_(False)
    starts = [case.points.batch([k], CPU).start for k in indices]
    batched = lambda: validate(case.potential, case.points, indices, plan.steps, 32, SKIN)  # noqa: E731
    compiled = CompiledEvaluation(CPU) if plan.compiled else None

    def with_code() -> None:
        case.potential.compiled = compiled
        batched()
        case.potential.compiled = None

    def own_model_alone() -> None:
        for start in starts:
            edges = Edges(start.structures, case.potential.config.cutoff, 0.0)
            list(rollout(case.potential, start, edges, plan.steps))

    def straightforward(neighbours: Callable) -> Callable[[], None]:
        return lambda: [network.rollout(start, plan.steps, neighbours, create_graph=False) for start in starts]

    arms = {"batched": batched, **({"batched, compiled": with_code} if compiled else {}),
            "loop, dtmd's model": own_model_alone,
            "loop, straightforward model": straightforward(network.neighbours),
            "loop, straightforward model, lists by ASE": straightforward(ase_neighbours)}
    times = timed(arms, plan.repeats)
    rates = {name: round(1e3 * plan.starts * plan.steps / wall, 1) for name, (wall, _) in times.items()}
    row = {"threads": torch.get_num_threads(), "starts": plan.starts, "frames": plan.steps, "per_s": rates}
    for name in ("batched", "batched, compiled"):
        if name in times:
            row[f"{name}, over, by CPU time"] = {other: round(cpu / times[name][1], 2)
                                                 for other, (_, cpu) in times.items()}
    print("validation, structures × steps per second:", row, flush=True)
    yield row


def ase_neighbours(structures: Structures, positions: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of one structure inside the cutoff of the full-size EGNN."""
    cell = structures.cells[0].numpy()
    atoms = Atoms(positions=positions.numpy(), cell=cell, pbc=structures.pbc[0].numpy())
    i, j, images = neighbor_list("ijS", atoms, EGNNConfig().cutoff)
    return torch.from_numpy(np.stack([j, i])), torch.from_numpy(images @ cell)


# --- architectures -----------------------------------------------------------------------------------------------


def architectures(plan: Plan) -> Iterator[dict]:
    """One update at S = 1 with the default settings of each, over EGNN's time."""
    batch = plan.batches[0]
    cases = {}
    for config in ARCHITECTURES:
        name = config.model_fields["architecture"].default
        try:
            settings = {"avg_num_neighbors": 29.0} if "avg_num_neighbors" in config.model_fields else {}
            cases[name] = Case.of(1, config(**settings))
        except ImportError as error:
            print(f"{name} is left out: {error}")
    arms = {name: (lambda case=case: case.update(batch, 1)) for name, case in cases.items()}
    times = timed(arms, plan.repeats)
    row = {"threads": torch.get_num_threads(), "batch": batch, "S": 1,
           "ms": {name: value and round(value[0]) for name, value in times.items()},
           "over_egnn_by_cpu": {name: value and round(value[1] / times["egnn"][1], 2) for name, value in times.items()}}
    print("architectures:", row, flush=True)
    yield row


if __name__ == "__main__":
    main()
