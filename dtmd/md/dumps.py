"""LAMMPS text dumps of `units metal` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_blocks import dump_frames
from dtmd.ingest.readers.lammps_dump import Units, open_dump, unit_notes, unit_of
from dtmd.ingest.readers.lammps_frame import FORCES, VELOCITIES, DumpFrames
from dtmd.ingest.source import Source
from dtmd.md.run import Part, Piece


def open_part(path: Path, timestep: float | None, watch: Callable[[int], None]) -> Part:
    """A dump with the columns id, element and positions; velocities and forces if present.

    Positions come in any of `x y z`, `xu yu zu`, `xs ys zs`, `xsu ysu zsu`, in any column order. Atoms are sorted
    by id. The potential energy is the sum over the atoms of the column `v_pe_share` or `c_pe`.

    Args:
        path: text dump, or packed with an ending in `COMPRESSIONS`.
        timestep: fs per MD step; needed where the dump has no `ITEM: TIME`.
        watch: told the bytes read for the pieces.

    Raises:
        DtmdError: a damaged first frame, missing columns, units other than metal, or no way to know the time of the
            frames; while reading also other atoms, columns or a number that is not finite.
    """
    first, _ = open_dump(Source(path))
    if first.units not in (None, "metal"):
        raise DtmdError(f"{path}: written in `units {first.units}`; dtmd reads dumps of `units metal` runs")
    if first.times is None and timestep is None:
        raise DtmdError(
            f"{path}: the dump does not hold the time of its frames; give the time step with --timestep "
            "(in fs), or write the dump with `dump_modify … time yes`"
        )
    unit, numbers, masses = unit_of(first), first.numbers(path), first.masses()

    def pieces(max_bytes: int) -> Iterator[Piece]:
        return (_piece(frames, unit, timestep) for frames in dump_frames(Source(path, watch=watch), max_bytes))

    return Part(
        source=str(path), numbers=numbers, masses=atomic_masses[numbers] if masses is None else masses,
        pbc=np.array(first.pbc), first=_piece(first, unit, timestep), pieces=pieces, wrapped=first.wrapped,
        ids=first.ids, corner=first.origins[0], notes=tuple(unit_notes(first)),
    )


def _piece(frames: DumpFrames, unit: Units, timestep: float | None) -> Piece:
    velocities, forces = frames.vectors(VELOCITIES), frames.vectors(FORCES)
    return Piece(
        times=frames.steps * timestep if frames.times is None else frames.times * unit.time,
        cells=frames.cells, positions=frames.positions(),
        velocities=None if velocities is None else velocities * unit.velocity, forces=forces,
        energies=frames.energies(),
    )
