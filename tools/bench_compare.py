"""Time and memory of a whole comparison with all observables, against the length of the MD.

    python tools/bench_compare.py [--size-mb 1000] [--json FILE]

The MD is a trajectory of the embedded example that goes to and fro, with velocities, forces and energies, as a text
dump of so many MB, of half and of a quarter of it; the AIMD is the embedded example. Each comparison runs in a process
of its own, without drawing the report: memory is what that process has taken at most, all modules included. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from measuring import machine, memory, tell

from dtmd.comparison.comparing import compare
from dtmd.comparison.sides import MDSide, RunFiles
from dtmd.ingest import read_aimd
from dtmd.resources import embedded
from dtmd.trajectory import Trajectory
from dtmd.units import FS_PER_PS

COLUMNS = "id element mass xu yu zu vx vy vz fx fy fz v_pe_share"


def write(path: Path, run: Trajectory, size: float) -> None:
    """A dump of about `size` bytes: the frames of `run` forwards, backwards and so on."""
    (ax, _, _), (bx, by, _), (_, _, cz) = run.cells[0]
    low, high = min(0.0, bx), ax + max(0.0, bx)
    head = (f"ITEM: NUMBER OF ATOMS\n{len(run.numbers)}\nITEM: BOX BOUNDS xy xz yz pp pp pp\n{low:.10g} {high:.10g} "
            f"{bx:.10g}\n0 {by:.10g} 0\n0 {cz:.10g} 0\nITEM: ATOMS {COLUMNS}\n")
    tables = [head + "".join(rows(run, k)) for k in range(len(run))]
    order = [*range(len(run) - 1), *range(len(run) - 1, 0, -1)]
    step = 0
    with open(path, "w") as file:
        file.write("ITEM: UNITS\nmetal\n")
        while size > 0:
            time_ps = step * run.timestep / FS_PER_PS
            size -= file.write(f"ITEM: TIME\n{time_ps:.16g}\nITEM: TIMESTEP\n{step}\n")
            size -= file.write(tables[order[step % len(order)]])
            step += 1


def rows(run: Trajectory, k: int) -> list[str]:
    made = []
    for n, symbol in enumerate(run.symbols):
        values = [*run.positions[k, n], *(FS_PER_PS * run.velocities[k, n]), *run.forces[k, n],
                  run.energies[k] / len(run.numbers)]
        made.append(f"{n + 1} {symbol} {run.masses[n]:g} " + " ".join(f"{value:.10g}" for value in values) + "\n")
    return made


def measure(path: Path) -> dict[str, float]:
    """To be called in a process of its own."""
    aimd = read_aimd([embedded("inputs") / "aimd"], None, [])
    wall, cpu = time.perf_counter(), time.process_time()
    found = compare([MDSide("MD", [RunFiles((path,))])], aimd)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n_frames = found.header.md[0].n_frames
    peak = memory("VmHWM")
    return {"size_MB": path.stat().st_size / 1e6, "frames": n_frames, "sections": len(found.sections),
            "wall_s": wall, "cpu_s": cpu, "cpu_ms_per_frame": 1000 * cpu / n_frames, "peak_memory_MB": peak}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=float, default=1000, help="size of the largest file [1000]")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--folder", type=Path, help="where the files are written, and removed again [temporary]")
    args = parser.parse_args(argv)
    report = {"machine": machine(), "files": []}
    (run,) = read_aimd([embedded("inputs") / "aimd" / "test" / "h2pd6_014_from_060.extxyz.xz"], None, [])
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for share in (0.25, 0.5, 1.0):
            path = Path(folder) / "run.lammpstrj"
            write(path, run, share * args.size_mb * 1e6)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                report["files"].append(pool.apply(measure, (path,)))
    tell(report, args.json)


if __name__ == "__main__":
    main(sys.argv[1:])
