"""AIMD output → `Trajectory`: one reader per format, every trajectory checked before it is used."""

from __future__ import annotations

from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.ingest.checks import check_physics
from dtmd.ingest.extxyz import read_extxyz
from dtmd.trajectory import Trajectory

SUFFIXES = (".extxyz", ".xyz")
COMPRESSIONS = ("", ".gz", ".xz", ".bz2")


def find_aimd(paths: list[Path]) -> list[Path]:
    """The AIMD files among `paths`, folders searched recursively, in the order of their names, each once.

    Raises:
        DtmdError: a path that does not exist, or a folder or a whole list without AIMD files.
    """
    endings = tuple(suffix + compression for suffix in SUFFIXES for compression in COMPRESSIONS)
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DtmdError(f"{path}: no such file or folder; give the AIMD files or the folder they are in")
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name.endswith(endings))
            if not inside:
                raise DtmdError(f"{path}: no AIMD files in this folder; files that end in {', '.join(SUFFIXES)} "
                                f"(also {', '.join(COMPRESSIONS[1:])}) are read")
            found += inside
        elif path.name.endswith(endings):
            found.append(path)
        else:
            raise DtmdError(f"{path}: unknown AIMD format; files that end in {', '.join(SUFFIXES)} are read")
    # A file that is named twice would be weighted twice, and could be split into training and validation.
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def read_aimd(paths: list[Path], timestep: float | None = None) -> list[Trajectory]:
    """Read and check all AIMD trajectories among `paths`, one per file.

    Args:
        paths: files, or folders to search.
        timestep: fs between frames, for files that do not say it.

    Raises:
        DtmdError: names the file, the frame, what was found and what to do.
    """
    trajectories = []
    for path in find_aimd(paths):
        trajectory = read_extxyz(path, timestep)
        check_physics(trajectory)
        trajectories.append(trajectory)
    return trajectories
