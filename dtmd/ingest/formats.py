"""Which readers there are, and which runs lie among files and folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.ingest.readers import (
    abacus,
    ase_traj,
    castep,
    cp2k,
    cpmd,
    deepmd,
    dtegnn,
    extxyz,
    fhi_aims,
    fhi_vibes,
    gaussian,
    lammps_dump,
    nwchem,
    openmx,
    pwmat,
    qbox,
    qe_cp,
    qe_pw,
    qe_xml,
    siesta,
    vasp_ml_ab,
    vasp_outcar,
    vasp_xdatcar,
    vasp_xml,
)
from dtmd.ingest.source import Candidate, Format, Source, candidate
from dtmd.store import is_store

FORMATS: tuple[Format, ...] = tuple(module.FORMAT for module in (
    vasp_xml, vasp_outcar, vasp_ml_ab, vasp_xdatcar, cp2k, qe_xml, qe_pw, qe_cp, fhi_aims, fhi_vibes, abacus, siesta,
    castep, pwmat, gaussian, openmx, qbox, deepmd, cpmd, nwchem, dtegnn, ase_traj, extxyz, lammps_dump,
))
"""In the order in which they may claim files: a richer output of a run before a poorer one."""


@dataclass
class Found:
    """What lies among the given paths.

    Attributes:
        runs: the runs with the formats that recognised them, in the order of their names.
        stores: trajectory stores, each with the pattern of the names to take from it.
        unknown: files in folders that no reader recognised.
        named: main files of runs that were given themselves, not found in a folder.
    """

    runs: list[tuple[Format, Source]] = field(default_factory=list)
    stores: list[tuple[Path, str]] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    named: set[Path] = field(default_factory=set)


def find_runs(paths: list[Path]) -> Found:
    """The runs and stores among files and folders, folders searched recursively, each once.

    `DATA.h5:PATTERN` takes the trajectories of a store whose names match, as a shell would, or lie
    below that folder.

    Raises:
        DtmdError: a path that does not exist, a file that no reader recognises, or a folder without any run.
    """
    found = Found()
    for path in paths:
        store, _, pattern = str(path).partition(":")
        if path.is_dir():
            here = Found()
            for folder in _folders(path):
                _search(folder, here)
            if not here.runs and not here.stores:
                raise DtmdError(f"{path}: no AIMD output in this folder that dtmd knows; it reads "
                                f"{', '.join(form.name for form in FORMATS)}, and its own stores")
            found.runs += here.runs
            found.stores += here.stores
            found.unknown += here.unknown
        elif is_store(path):
            found.stores.append((path, "*"))
        elif path.exists():
            found.runs.append(_run_with(path))
            found.named.add(found.runs[-1][1].main)
        elif pattern and is_store(Path(store)):
            found.stores.append((Path(store), pattern))
        else:
            raise DtmdError(f"{path}: no such file or folder; give the AIMD files or the folder they are in")
    # A run that is named twice would be weighted twice, and could be split into training and validation.
    found.runs = _distinct(found.runs, lambda run: run[1].main.resolve())
    found.stores = _distinct(found.stores, lambda selection: (selection[0].resolve(), selection[1]))
    return found


def _distinct(items: list, key: Callable) -> list:
    """The first of each key, in order."""
    return list({key(item): item for item in reversed(items)}.values())[::-1]


def _folders(top: Path) -> Iterator[Path]:
    yield top
    yield from sorted(p for p in top.rglob("*") if p.is_dir() and not p.name.startswith("."))


def _search(folder: Path, found: Found) -> None:
    """Add what lies directly in `folder`."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    stores = [path for path in files if is_store(path)]
    found.stores += [(path, "*") for path in stores]
    candidates = [candidate(path) for path in files if path not in stores]
    claims = _claims(candidates)
    claimed = {path for _, source in claims for path in source.files}
    found.runs += sorted(claims, key=lambda claim: claim[1].main)
    found.unknown += [c.path for c in candidates if c.path not in claimed]


def _claims(candidates: list[Candidate]) -> list[tuple[Format, Source]]:
    """What each format recognises among the files that none before it took."""
    claims, left = [], candidates
    for form in FORMATS:
        sources = form.find(left)
        taken = {path for source in sources for path in source.files}
        left = [c for c in left if c.path not in taken]
        claims += [(form, source) for source in sources]
    return claims


def _run_with(path: Path) -> tuple[Format, Source]:
    """The run whose main file `path` is, alone if need be, or else the one that it is part of.

    Raises:
        DtmdError: no reader recognises it.
    """
    beside = [candidate(p) for p in sorted(path.parent.iterdir()) if p.is_file()]
    in_folder, alone = _claims(beside), _claims([candidate(path)])
    for claims, part in ((in_folder, False), (alone, False), (in_folder, True)):
        for form, source in claims:
            if source.main == path or (part and path in source.files):
                return form, source
    raise DtmdError(f"{path}: not recognised as AIMD output (empty, damaged or of another kind); dtmd reads "
                    f"{', '.join(form.name for form in FORMATS)}, and its own stores")
