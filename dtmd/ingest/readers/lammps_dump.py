"""LAMMPS text dumps (`dump custom`): their units, and as training data (`FORMAT`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers.lammps_blocks import BLOCK_BYTES, dump_frames
from dtmd.ingest.readers.lammps_frame import FORCES, VELOCITIES, DumpFrames
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, RawRun, Source


@dataclass(frozen=True)
class Units:
    """What LAMMPS's numbers are in eV, Å and fs."""

    time: float
    velocity: float
    energy: float


_KCAL_PER_MOL = 4184.0 * units.ATOMIC_MASS * 1000.0 / units.ELEMENTARY_CHARGE  # eV; 1000 u are 1 kg/mol
UNITS = {
    "metal": Units(time=units.FS_PER_PS, velocity=1.0 / units.FS_PER_PS, energy=1.0),
    "real": Units(time=1.0, velocity=1.0, energy=_KCAL_PER_MOL),
}


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates
            if c.head.startswith("ITEM: ") and "ITEM: TIMESTEP" in c.head and "ITEM: ATOMS" in c.head]


def open_dump(source: Source, max_bytes: int = BLOCK_BYTES) -> tuple[DumpFrames, Iterator[DumpFrames]]:
    """The first frame of a dump, and all of its frames in blocks of about `max_bytes`.

    Raises:
        DtmdError: no whole frame, or units that dtmd does not know; the blocks raise as `dump_frames`.
    """
    first = next(dump_frames(replace(source, watch=lambda n_bytes: None)), None)
    if first is None:
        raise CutShort(f"{source.main}: no complete frame of a LAMMPS text dump (`ITEM: TIMESTEP` …) in it")
    if first.units not in (None, *UNITS):
        raise DtmdError(f"{source.main}: written in `units {first.units}`; dtmd reads dumps of `units metal` and "
                        "`units real` runs")
    return first, dump_frames(source, max_bytes)


def unit_of(first: DumpFrames) -> Units:
    """What its numbers are in dtmd's units."""
    return UNITS[first.units or "metal"]


def unit_notes(first: DumpFrames) -> list[str]:
    """For the user, where the dump does not say its units."""
    return [] if first.units else ["the dump does not name its units; read as metal"]


def _read(source: Source) -> RawRun:
    first, blocks = open_dump(source)
    return RawRun(
        code="LAMMPS", numbers=first.numbers(source.main), pbc=np.array(first.pbc), masses=first.masses(),
        frames=_frames(blocks, first), timestep_from="" if first.times is None else "ITEM: TIME",
        precision=first.precision, settings={"labels": "another potential", "units": first.units or "metal"},
        notes=["the labels are those of the potential that LAMMPS ran with", *unit_notes(first)],
    )


def _frames(blocks: Iterator[DumpFrames], first: DumpFrames) -> Iterator[Frame]:
    """In dtmd's units; the time where it is dumped counts, as the time step may have been changed in the run."""
    unit = unit_of(first)
    for block in blocks:
        positions, energies = block.positions() - first.origins[0], block.energies()
        velocities, forces = block.vectors(VELOCITIES), block.vectors(FORCES)
        for k in range(len(block)):
            yield Frame(
                positions=positions[k], cell=block.cells[k],
                forces=None if forces is None else forces[k] * unit.energy,
                energy=None if energies is None else float(energies[k]) * unit.energy,
                velocities=None if velocities is None else velocities[k] * unit.velocity,
                step=int(block.steps[k]) if block.times is None else None,
                time=None if block.times is None else float(block.times[k]) * unit.time,
            )


FORMAT = Format(name="LAMMPS dump", find=_find, read=_read)
