"""Windows of S = 11 frames of 57 atoms per second: from a store, from arrays in memory, and by plain h5py slicing.

python tools/bench_store.py [--quick] [--json FILE]; the store is written to the temporary folder and removed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from dtmd.ingest import read_aimd
from dtmd.models.egnn import EGNNConfig
from dtmd.potential import Potential
from dtmd.store import read_store, write_store
from dtmd.subsequences import Subsequences
from dtmd.trajectory import Trajectory

AIMD = Path(__file__).parents[1] / "inputs" / "aimd"
LENGTH, BATCH = 11, 32
REPEATS, SECONDS = 5, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 frames in place of 200,000")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="dtmd-bench-") as folder:
        result = measure(Path(folder) / "data.h5", 20_000 if arguments.quick else 200_000)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def measure(path: Path, n_frames: int) -> dict:
    """Medians over the repeats; windows per second are those of all processes together."""
    source = read_aimd([AIMD / "train"])
    trajectories = source * round(n_frames / sum(map(len, source)))
    begin = time.perf_counter()
    write_store(path, trajectories)
    writing = time.perf_counter() - begin
    path.read_bytes()  # from here on the file is in the page cache
    begin = time.perf_counter()
    stored = read_store(path)
    opening = time.perf_counter() - begin
    makers = {"store": from_trajectories(stored), "memory": from_trajectories([in_memory(t) for t in stored]),
              "plain h5py": from_h5py(path)}
    return {
        "windows_per_s": {
            name: {f"{n} at once": round(statistics.median(in_parallel(make, n) for _ in range(REPEATS)))
                   for n in (1, 2)} for name, make in makers.items()
        },
        "frames": sum(map(len, stored)), "atoms": len(stored[0].numbers), "S": LENGTH, "batch": BATCH,
        "store_MB": round(path.stat().st_size / 1e6), "write_s": round(writing, 2), "open_s": round(opening, 3),
        "repeats": REPEATS, "seconds_each": SECONDS,
        "machine": f"{cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__,
                     "h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version},
    }


def in_memory(trajectory: Trajectory) -> Trajectory:
    """With arrays of its own in double precision, as the readers make them."""
    names = ("positions", "velocities", "forces")
    return replace(trajectory, **{name: np.array(getattr(trajectory, name), dtype=float) for name in names})


def from_trajectories(trajectories: list[Trajectory]) -> Callable[[], Callable[[], None]]:
    """Makes, in the process that uses it, what gathers one random batch."""
    def make() -> Callable[[], None]:
        potential = Potential(["H", "C", "Pd"], EGNNConfig(width=8, n_layers=1), torch.zeros(3))
        points = Subsequences(trajectories, potential, LENGTH, stride=1)
        return lambda: points.batch(random.choices(range(len(points)), k=BATCH), torch.device("cpu"))
    return make


def from_h5py(path: Path) -> Callable[[], Callable[[], None]]:
    """The same arrays by a slice of an HDF5 dataset each."""
    def make() -> Callable[[], None]:
        groups = list(h5py.File(path, "r", locking=False)["trajectories"].values())
        runs = [{name: group[name] for name in ("positions", "velocities", "forces", "energies")} for group in groups]

        def batch() -> None:
            chosen = random.choices(runs, k=BATCH)
            windows = [(run, random.randrange(len(run["positions"]) - LENGTH)) for run in chosen]
            for name in ("positions", "velocities", "energies"):
                np.stack([run[name][first] for run, first in windows]).astype(float)
            np.concatenate([run["forces"][first : first + LENGTH] for run, first in windows], axis=1).astype(float)
        return batch
    return make


def in_parallel(make: Callable[[], Callable[[], None]], n_processes: int) -> float:
    """Windows per second of processes that run at once."""
    context = multiprocessing.get_context("fork")
    barrier, rates = context.Barrier(n_processes), context.SimpleQueue()
    processes = [context.Process(target=run, args=(make, barrier, rates)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def run(make: Callable[[], Callable[[], None]], barrier, rates) -> None:
    random.seed(os.getpid())
    batch = make()
    for _ in range(200):  # pages of the file into the map of this process
        batch()
    barrier.wait()
    begin, n_batches = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        batch()
        n_batches += 1
    rates.put(BATCH * n_batches / (time.perf_counter() - begin))


def cpu() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
