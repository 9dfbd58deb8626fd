"""Speed and memory of reading and of the whole `dtmd ingest` on big files, made from real ones.

    python tools/bench_ingest.py --size-mb 1000

Each file is the header of a real run and its MD steps over and over, with moved numbers. The readers are timed
against plain passes over the same file, in turns, and the medians are compared. Memory is what a process of its own
takes at most, files that it maps left out (RssAnon), and what it takes before. Linux only.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import platform
import random
import re
import statistics
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from measuring import memory, tell

from dtmd.ingest.checks import CHECKS
from dtmd.ingest.formats import Found
from dtmd.ingest.readers import vasp_outcar, vasp_xdatcar, vasp_xml
from dtmd.ingest.source import Format, Source
from dtmd.ingestion import run_ingest

DATA = Path(__file__).parents[2] / "shared" / "data" / "formats"
N_VARIANTS = 20
PAUSE = 0.01  # s between looks at the memory


def vasprun(data: Path) -> Iterator[str]:
    """A vasprun.xml of 64 atoms, 4 to 12 electronic steps per MD step, without end."""
    text = gzip.decompress((data / "vasp_pymatgen" / "vasprun.md.xml.gz").read_bytes()).decode("latin-1")
    start = text.index(" <calculation>")
    steps = re.findall(r" <calculation>.*?</calculation>\n", text, re.DOTALL)
    yield text[:start]
    table = re.compile(r'<varray name="(?:positions|forces)" >.*?</varray>', re.DOTALL)
    yield from cycle([table.sub(moved, step) for step in steps for _ in range(N_VARIANTS)])


def outcar(data: Path) -> Iterator[str]:
    """An OUTCAR of 80 atoms, 9 electronic steps and more per MD step, without end."""
    text = (data / "vasp_atompronet" / "OUTCAR").read_text("latin-1")
    parts = re.split(r"(?=-{20,} Iteration +\d+\(   1\))", text)
    yield parts[0]
    table = re.compile(r"(?<=TOTAL-FORCE \(eV/Angst\)\n).*?(?=total drift)", re.DOTALL)
    steps = cycle([table.sub(moved, step) for step in parts[1:-1] for _ in range(N_VARIANTS)])
    for number, step in enumerate(steps, 1):
        yield re.sub(r"Iteration +\d+", f"Iteration {number:6d}", step)


def xdatcar(data: Path) -> Iterator[str]:
    """An XDATCAR of 166 atoms, without end."""
    text = (data / "vasp_xdatcar_pt_slab" / "XDATCAR").read_text()
    head, *steps = re.split(r"Direct configuration= +\d+\n", text)
    yield head
    for number, step in enumerate(cycle(steps), 1):
        yield f"Direct configuration={number:6d}\n{step}"


def moved(table: re.Match) -> str:
    """The numbers with their last digits changed."""
    return re.sub(r"\d\d\d(?=\s)", lambda _: f"{random.randrange(1000):03d}", table[0])


def xml_pass(path: Path) -> None:
    for _, element in ET.iterparse(path):
        element.clear()


def text_pass(path: Path) -> None:
    with open(path) as file:
        for _ in file:
            pass


def split_pass(path: Path) -> None:
    with open(path) as file:
        for line in file:
            line.split()


@dataclass(frozen=True)
class Case:
    """A reader, what writes a file for it, and the passes it is compared with."""

    form: Format
    pieces: Callable[[Path], Iterator[str]]
    passes: tuple[Callable[[Path], None], ...]
    end: str = ""


CASES = {
    "vasprun.xml": Case(vasp_xml.FORMAT, vasprun, (xml_pass,), end="</modeling>\n"),
    "OUTCAR": Case(vasp_outcar.FORMAT, outcar, (text_pass, split_pass)),
    "XDATCAR": Case(vasp_xdatcar.FORMAT, xdatcar, (text_pass, split_pass)),
}


def write(path: Path, case: Case, data: Path, size: float) -> None:
    """A file of about `size` bytes."""
    with open(path, "w", encoding="latin-1") as file:
        for piece in case.pieces(data):
            size -= file.write(piece)
            if size < 0:
                break
        file.write(case.end)


def count_frames(case: str, path: Path) -> int:
    return sum(1 for _ in CASES[case].form.read(Source(path)).frames)


def ingest_all(case: str, path: Path) -> None:
    """The whole of `dtmd ingest`; the moved numbers fail the checks, which are allowed so that all is written."""
    found = Found(runs=[(CASES[case].form, Source(path))])
    timestep = 1.0 if case == "XDATCAR" else None
    if not run_ingest(found, path.with_suffix(".h5"), timestep, CHECKS).added:
        sys.exit(f"{path}: was refused")
    path.with_suffix(".h5").unlink()


def peak_memory(work: Callable[[str, Path], object], case: str, path: Path) -> tuple[float, float]:
    """Memory before and at most while working, MB; for a process of its own."""
    before, seen, done = memory("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(PAUSE):
            seen.append(memory("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    work(case, path)
    done.set()
    watcher.join()
    return before, max(seen)


def measure(case: str, path: Path, n_rounds: int) -> dict:
    """Times (medians of the rounds) and memory of one reader."""
    runs = {"reader": lambda: count_frames(case, path), "whole ingest": lambda: ingest_all(case, path)}
    runs |= {function.__name__: lambda function=function: function(path) for function in CASES[case].passes}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(n_rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    taken = {}
    for name, work in (("reader", count_frames), ("whole ingest", ingest_all)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            taken[name] = dict(zip(("before", "peak"), pool.apply(peak_memory, (work, case, path)), strict=True))
    size = path.stat().st_size / 1e6
    return {
        "size_MB": size, "frames": count_frames(case, path), "seconds": seconds,
        "MB_per_s": {name: size / value for name, value in seconds.items()},
        "reader_by_pass": {f.__name__: seconds[f.__name__] / seconds["reader"] for f in CASES[case].passes},
        "ingest_by_pass": {f.__name__: seconds[f.__name__] / seconds["whole ingest"] for f in CASES[case].passes},
        "anonymous_memory_MB": taken,
    }


def machine() -> dict[str, str]:
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": model[1] if model else platform.processor(), "system": platform.platform(),
            "python": platform.python_version(), "numpy": np.__version__}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=float, default=1000, help="size of each file [1000]")
    parser.add_argument("--quick", action="store_true", help="20 MB and one round")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--folder", type=Path, help="where the files are written, and removed again [temporary]")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files [%(default)s]")
    args = parser.parse_args(argv)
    size, n_rounds = (20e6, 1) if args.quick else (args.size_mb * 1e6, 3)
    report = {"machine": machine(), "rounds": n_rounds, "cases": {}}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name, case in CASES.items():
            path = Path(folder) / name
            write(path, case, args.data, size)
            report["cases"][name] = measure(name, path, n_rounds)
            path.unlink()
    tell(report, args.json)


if __name__ == "__main__":
    main(sys.argv[1:])
