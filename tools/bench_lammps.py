"""Speed of MD in LAMMPS: full-size EGNN and MACE on H2/Pd6 (57 atoms) and on replicas of it.

    python tools/bench_lammps.py [--quick] [--atoms N …] [--device cuda] [--json FILE]

The arms take turns, each in a process of its own that may take 80 % of the free memory; medians of LAMMPS's loop
time are compared, and of its processor time, which other work on the machine disturbs less. The share of the pair
style is LAMMPS's own. Weights are fresh ones, in float32: the time does not depend on their values. So that such a
potential leaves the atoms where they are, with the neighbours of the AIMD frame, the time step is 1e-9 ps, and the
neighbour lists are built anew every 20 steps (at 300 K that is needed every 30 or so). The ASE calculator builds its
list once, which is in its favour.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from measuring import in_process, machine

from dtmd.calculator import DtmdCalculator
from dtmd.checkpoint import ModelFile, ProbeFrames, save_model
from dtmd.export import Exported, export_aotinductor, export_torchscript
from dtmd.ingest import read_aimd
from dtmd.lammps import write_start
from dtmd.lmp import run_lammps
from dtmd.models import EGNNConfig, MACEConfig, ModelConfig
from dtmd.potential import Potential
from dtmd.subsequences import Subsequences
from dtmd.trajectory import Trajectory

AIMD = Path(__file__).parents[1] / "inputs" / "aimd" / "train" / "h2pd6_001_from_000.extxyz.xz"
ELEMENTS = ["H", "C", "Pd"]
UNIT = 57
REPLICAS = {UNIT: (1, 1), 2_052: (6, 6), 20_520: (20, 18), 100_548: (42, 42)}
"""Along the surface, by the number of atoms."""
TWO_RANKS = 2_052

INPUT = """
units metal
atom_modify map yes
read_data start.data
replicate ${x} ${y} 1
pair_style dtmd device ${device}
pair_coeff * * ${model} H C Pd
neighbor 1.0 bin
neigh_modify every 20 delay 0 check no
timestep 1e-9
fix integrate all nve
run 2
timer timeout ${seconds} every 1
run 1000000
"""


@dataclass(frozen=True)
class Arm:
    """A model, and how it gets into LAMMPS; without `export` it is an ASE calculator."""

    name: str
    model: ModelConfig
    export: Callable[[Path], Exported] | None


ARMS = {
    "a": Arm("EGNN, TorchScript", EGNNConfig(n_knots=0), export_torchscript),
    "b": Arm("EGNN, TorchScript, filters on a grid", EGNNConfig(), export_torchscript),
    "c": Arm("EGNN, AOTInductor, filters on a grid", EGNNConfig(), export_aotinductor),
    "d": Arm("EGNN, ASE calculator, filters on a grid", EGNNConfig(), None),
    "e": Arm("MACE, 128 channels of degree 0 and 1, TorchScript", MACEConfig(avg_num_neighbors=29.0),
             export_torchscript),
}


@dataclass(frozen=True)
class Plan:
    """What is measured: the arms at each number of atoms, how often, and for how many seconds a time."""

    arms: dict[int, str]
    two_ranks: str
    repeats: int = 3
    seconds: int = 8


FULL = Plan({57: "abcde", 2_052: "abcde", 20_520: "abcd"}, two_ranks="bc")
"""A step of MACE with 20,520 atoms would take a minute and some 100 GB."""
QUICK = Plan({57: "abde", 2_052: "b"}, two_ranks="b", repeats=1, seconds=1)
GPU = Plan({57: "abde", 2_052: "abde", 20_520: "abde", 100_548: "b"}, two_ranks="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short turn each, nothing compiled: under a minute")
    parser.add_argument("--atoms", type=int, nargs="+", choices=REPLICAS, help="of these sizes only")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else GPU if arguments.device == "cuda" else FULL
    plan = replace(plan, arms={n: arms for n, arms in plan.arms.items() if n in (arguments.atoms or REPLICAS)})
    figures = {"machine": machine(), "device": arguments.device, "rows": []}
    print(figures["machine"])
    with TemporaryDirectory(prefix="dtmd-bench-") as folder:
        in_process(prepare, 1, Path(folder), sorted(set().union(*plan.arms.values())))
        for n_atoms, arms in plan.arms.items():
            turns = [(arm, 1) for arm in arms]
            turns += [(arm, 2) for arm in plan.two_ranks] if n_atoms == TWO_RANKS else []
            figures["rows"] += rows(Path(folder), n_atoms, turns, plan, arguments.device)
    figures["summary"] = summary(figures["rows"])
    print(json.dumps(figures["summary"], indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def start() -> Trajectory:
    """The AIMD with the frame that all begin from, its first."""
    return read_aimd([AIMD])[0]


def prepare(folder: Path, arms: list[str]) -> Iterator[None]:
    """Start file, models and artefacts; those of the arm b are b.pt and b.lammps.pt or .pt2."""
    write_start(start(), 0, folder / "start.data")
    for key in arms:
        write_model(ARMS[key], folder / f"{key}.pt")
        if ARMS[key].export is not None:
            ARMS[key].export(folder / f"{key}.pt")
    (folder / "in.bench").write_text(INPUT)
    yield None


def write_model(arm: Arm, path: Path) -> None:
    """Fresh weights; the export is checked on two frames."""
    torch.manual_seed(0)
    potential = Potential(ELEMENTS, arm.model, torch.tensor([-14.0, -150.0, -20.0])).to_precision(torch.float32)
    points = Subsequences([start()], potential, 1, stride=1)
    probes = points.batch(points.spread(2), torch.device("cpu")).start
    save_model(ModelFile(potential, ProbeFrames(probes.structures, probes.positions), {}), path)


# --- a turn ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """One run: per step its wall-clock and processor time (of each rank) in ms, shares in %, peak memory in MB."""

    ms: float
    cpu_ms: float
    steps: int
    pair: float | None = None
    neighbours: float | None = None
    peak_MB: int | None = None


def rows(folder: Path, n_atoms: int, turns: list[tuple[str, int]], plan: Plan, device: str) -> list[dict]:
    """Medians of each (arm, ranks)."""
    found: dict[tuple[str, int], list[Turn]] = {turn: [] for turn in turns}
    failed = set()
    for _ in range(plan.repeats):
        for turn in turns:
            if turn not in failed:
                # A step of many atoms takes seconds, and the first one waits for its memory.
                seconds = plan.seconds if n_atoms <= TWO_RANKS else 4 * plan.seconds
                result = in_process(measured, 1, folder, n_atoms, *turn, seconds, device)
                found[turn] += result
                failed |= set() if result else {turn}
    made = []
    for (arm, ranks), results in found.items():
        row = {"arm": arm, "name": ARMS[arm].name, "atoms": n_atoms, "ranks": ranks}
        row |= {"out_of_memory": True} if (arm, ranks) in failed else medians(results, n_atoms)
        print(row, flush=True)
        made.append(row)
    return made


def measured(folder: Path, n_atoms: int, arm: str, ranks: int, seconds: int, device: str) -> Iterator[Turn]:
    x, y = REPLICAS[n_atoms]
    if ARMS[arm].export is None:
        yield in_ase(folder / f"{arm}.pt", (x, y, 1), seconds, device)
        return
    (model,) = folder.glob(f"{arm}.lammps.pt*")
    variables = {"x": x, "y": y, "device": device, "model": model.name, "seconds": seconds}
    printed = run_lammps("in.bench", variables, folder, ranks=ranks)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 // 10**6
    yield read_timings(printed, peak)


def read_timings(printed: str, peak_MB: int) -> Turn:
    """From what `lmp` printed about its last run."""
    text = printed[printed.rindex("Loop time of"):]
    seconds, steps = re.match(r"Loop time of (\S+) on \d+ procs for (\d+) steps", text).groups()
    ms = 1e3 * float(seconds) / int(steps)
    cpu = float(re.search(r"(\S+)% CPU use", text)[1])
    share = {name: float(re.search(rf"^{name} .*\|\s*(\S+)$", text, re.MULTILINE)[1]) for name in ("Pair", "Neigh")}
    return Turn(ms, cpu / 100 * ms, int(steps), share["Pair"], share["Neigh"], peak_MB)


def in_ase(model: Path, repeat: tuple[int, int, int], seconds: int, device: str) -> Turn:
    """Velocity Verlet of ASE."""
    aimd = start()
    atoms = Atoms(aimd.symbols, aimd.positions[0], cell=aimd.cells[0], pbc=aimd.pbc).repeat(repeat)
    atoms.calc = DtmdCalculator(model, device)
    dynamics = VelocityVerlet(atoms, timestep=1e-6 * units.fs)
    for _ in range(2):
        dynamics.step()
    begin, steps = (time.perf_counter(), time.process_time()), 0
    while time.perf_counter() - begin[0] < seconds:
        dynamics.step()
        steps += 1
    ms = [1e3 * (end - first) / steps for first, end in zip(begin, (time.perf_counter(), time.process_time()))]
    return Turn(*ms, steps, peak_MB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6)


# --- what comes out ----------------------------------------------------------------------------------------------


def medians(turns: list[Turn], n_atoms: int) -> dict:
    """Of each number that the turns have."""
    row = {}
    for name in ("ms", "cpu_ms", "steps", "pair", "neighbours", "peak_MB"):
        values = [getattr(turn, name) for turn in turns]
        row[name] = None if None in values else round(statistics.median(values), 3)
    return row | {"steps_per_s": round(1e3 / row["ms"], 2), "us_per_atom": round(1e3 * row["ms"] / n_atoms, 2)}


def summary(made: list[dict]) -> dict:
    """Ratios by wall clock and by processor time, of what was measured."""
    table = {(row["arm"], row["atoms"], row["ranks"]): row for row in made if "ms" in row}
    best = "c" if any(arm == "c" for arm, _, _ in table) else "b"
    found = {}
    for (arm, n_atoms, ranks), row in table.items():
        fast = table.get((best, n_atoms, 1))
        if ranks == 1 and arm != best and fast:
            found[f"{best} over {arm}, {n_atoms} atoms"] = ratios(row, fast)
        if ranks == 2 and (arm, n_atoms, 1) in table:
            found[f"efficiency of {arm} on 2 ranks, {n_atoms} atoms"] = round(
                table[arm, n_atoms, 1]["ms"] / row["ms"] / 2, 3)
    found["least share of pair, %"] = min(row["pair"] for row in table.values() if row["pair"] and row["ranks"] == 1)
    large = [row["us_per_atom"] for (arm, n_atoms, ranks), row in table.items()
             if arm == best and n_atoms > UNIT and ranks == 1]
    if len(large) > 1:
        found[f"cost per atom of {best} from 2,000 atoms on, largest over smallest"] = round(max(large) / min(large), 3)
    return found


def ratios(slow: dict, fast: dict) -> dict:
    return {"wall": round(slow["ms"] / fast["ms"], 2), "cpu": round(slow["cpu_ms"] / fast["cpu_ms"], 2)}


if __name__ == "__main__":
    main()
