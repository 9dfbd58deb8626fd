"""Speed and memory of reading LAMMPS text dumps in blocks, against MDAnalysis's LAMMPS DumpReader on the same file.

    python tools/bench_dump.py [--size-mb 300] [--json FILE]

The files hold made-up positions, velocities, forces and energies of 57 or 2,000 atoms, in a fixed cell and in one
that changes, sorted by id or not. Both readers go through all frames, in turns; the medians of wall and processor
time are compared (processor time is the one to go by on a busy machine). dtmd reads and checks all columns in
double precision, MDAnalysis reads positions, velocities and forces in single precision. Memory is what a process of
its own has taken at most, all modules included, for a file and one of a quarter of its length. Needs MDAnalysis
(`pip install MDAnalysis`). Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measuring import machine, memory, tell

from dtmd.md import open_run

COLUMNS = "id element xu yu zu vx vy vz fx fy fz c_pe"
ELEMENTS = ("H", "C", "Pd")
N_VARIANTS = 20


@dataclass(frozen=True)
class Case:
    """A kind of dump."""

    n_atoms: int
    changing: bool
    shuffled: bool


CASES = {
    "57 atoms": Case(57, changing=False, shuffled=False),
    "57 atoms, changing cell, unsorted": Case(57, changing=True, shuffled=True),
    "2000 atoms": Case(2000, changing=False, shuffled=False),
}


def write(path: Path, case: Case, size: float) -> int:
    """A dump of about `size` bytes; the number of its frames."""
    rng, tables = np.random.default_rng(0), []
    for _ in range(N_VARIANTS):
        rows = [f"{k + 1} {ELEMENTS[k % 3]} " + " ".join(f"{x:.12g}" for x in rng.normal(3, 2, 10))
                for k in (rng.permutation(case.n_atoms) if case.shuffled else range(case.n_atoms))]
        tables.append("\n".join(rows) + "\n")
    k = 0
    with open(path, "w") as file:
        while size > 0:
            length = 20 + (k % 100 / 100 if case.changing else 0)
            size -= file.write(
                f"ITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n{case.n_atoms}\n"
                f"ITEM: BOX BOUNDS xy xz yz pp pp pp\n0 {length} 0\n0 {length} 0\n0 20 0\nITEM: ATOMS {COLUMNS}\n"
                + tables[k % N_VARIANTS])
            k += 1
    return k


def by_dtmd(path: Path) -> int:
    return sum(len(block) for block in open_run(path, timestep=1.0).blocks())


def by_mdanalysis(path: Path) -> int:
    from MDAnalysis.coordinates.LAMMPS import DumpReader

    with DumpReader(str(path)) as reader:
        return sum(1 for _ in reader)


def peak_memory(path: Path) -> float:
    """MB that a process takes at most to read; to be called in one of its own."""
    by_dtmd(path)
    return memory("VmHWM")


def timed(read: Callable[[Path], int], path: Path, n_frames: int) -> tuple[float, float]:
    """Wall and processor time, s."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = read(path)
    times = time.perf_counter() - wall, time.process_time() - cpu
    if found != n_frames:
        sys.exit(f"{path}: {found} of {n_frames} frames were read by {read.__name__}")
    return times


def measure(case: Case, folder: Path, size: float, n_rounds: int) -> dict:
    """Times (medians of the rounds), their ratios, and memory."""
    path, quarter = folder / "run.dump", folder / "quarter.dump"
    n_frames = write(path, case, size)
    write(quarter, case, size / 4)
    readers, times = (by_dtmd, by_mdanalysis), {"by_dtmd": [], "by_mdanalysis": []}
    for _ in range(n_rounds):
        for read in readers:
            times[read.__name__].append(timed(read, path, n_frames))
    wall, cpu = ({name: statistics.median(pair[k] for pair in pairs) for name, pairs in times.items()}
                 for k in range(2))
    taken = {}
    for name, file in (("whole", path), ("quarter", quarter)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            taken[name] = pool.apply(peak_memory, (file,))
    megabytes = path.stat().st_size / 1e6
    path.unlink()
    quarter.unlink()
    return {
        "size_MB": megabytes, "frames": n_frames, "wall_s": wall, "cpu_s": cpu,
        "frames_per_s": {name: n_frames / seconds for name, seconds in wall.items()},
        "MB_per_cpu_s": {name: megabytes / seconds for name, seconds in cpu.items()},
        "ratio_wall": wall["by_mdanalysis"] / wall["by_dtmd"], "ratio_cpu": cpu["by_mdanalysis"] / cpu["by_dtmd"],
        "peak_memory_MB": taken,
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=float, default=300, help="size of each file [300]")
    parser.add_argument("--quick", action="store_true", help="20 MB and one round")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--folder", type=Path, help="where the files are written, and removed again [temporary]")
    args = parser.parse_args(argv)
    size, n_rounds = (20e6, 1) if args.quick else (args.size_mb * 1e6, 3)
    versions = {name: version(name) for name in ("pandas", "MDAnalysis")}
    report = {"machine": machine() | versions, "rounds": n_rounds, "cases": {}}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name, case in CASES.items():
            report["cases"][name] = measure(case, Path(folder), size, n_rounds)
    tell(report, args.json)


if __name__ == "__main__":
    main(sys.argv[1:])
