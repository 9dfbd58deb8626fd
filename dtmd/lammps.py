"""Start files for LAMMPS, and the lines that name a potential."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.calculators.lammps import Prism
from ase.data import atomic_numbers

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.files import write_text
from dtmd.trajectory import Trajectory


def write_start(trajectory: Trajectory, frame: int, path: str | Path) -> None:
    """Write one frame as a LAMMPS data file (units metal, atom_style atomic), atomically.

    Ids follow the order of the trajectory, types the atomic numbers. LAMMPS wants the first cell
    vector along x and the second in the xy plane: cell, positions and velocities are rotated
    alike. ASE's own writer is not used, as it rounds masses and velocities to its unit constants.

    Args:
        trajectory: velocities are needed.
        frame: index of the frame, may be negative.
        path: where to write.

    Raises:
        DtmdError: no such frame, no velocities, or a cell without volume.
    """
    if not -len(trajectory) <= frame < len(trajectory):
        raise DtmdError(f"{trajectory.source}: no frame {frame}, there are {len(trajectory)}")
    if trajectory.velocities is None:
        raise DtmdError(f"{trajectory.source}: has no velocities to start from")
    cell = trajectory.cells[frame]
    if np.linalg.det(cell) <= 0:
        raise DtmdError(
            f"{trajectory.source}: frame {frame} has a cell of volume {np.linalg.det(cell):g} Å³; "
            "LAMMPS needs a right-handed cell with a volume, also along directions that are not periodic"
        )
    write_text(Path(path), _data_file(trajectory, range(len(trajectory))[frame]))


def pair_coeff_lines(model: str | Path, elements: Sequence[str]) -> str:
    """The lines of a LAMMPS input that use an exported potential.

    Args:
        model: the exported file.
        elements: chemical symbols of the atom types, in their order.
    """
    return f"pair_style dtmd\npair_coeff * * {model} {' '.join(elements)}"


def held_atoms_lines(trajectory: Trajectory) -> str:
    """The lines of a LAMMPS input that hold the atoms which the AIMD held; empty if there are none.

    Atoms held in some directions only are named in a comment: LAMMPS may have the cell in another orientation.
    """
    if trajectory.fixed is None:
        return ""
    held = trajectory.fixed.all(axis=1)
    lines, partly = [], trajectory.fixed.any(axis=1) & ~held
    if held.any():
        lines += [f"group held id {id_ranges(np.flatnonzero(held) + 1)}", "fix held held setforce 0.0 0.0 0.0"]
    if partly.any():
        lines.append(f"# held in some directions only, and not here: {id_ranges(np.flatnonzero(partly) + 1)}")
    return "\n".join(lines)


def id_ranges(ids: np.ndarray) -> str:
    """Ascending ids as LAMMPS takes them, such as "1:16 20"."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}:{run[-1]}" for run in runs)


def _data_file(trajectory: Trajectory, frame: int) -> str:
    prism = Prism(trajectory.cells[frame])
    positions = trajectory.positions[frame] @ prism.rot_mat
    velocities = trajectory.velocities[frame] @ prism.rot_mat * units.FS_PER_PS
    elements = trajectory.elements
    types = [elements.index(symbol) + 1 for symbol in trajectory.symbols]
    xhi, yhi, zhi, xy, xz, yz = prism.get_lammps_prism().tolist()
    boundary = " ".join("p" if periodic else "f" for periodic in trajectory.pbc)

    origin = f"{trajectory.source} frame {frame}, {trajectory.times[frame]:g} fs"
    lines = [f"{origin}; units metal, boundary {boundary}", ""]
    lines += [f"{len(types)} atoms", f"{len(elements)} atom types", ""]
    lines += [f"0 {xhi!r} xlo xhi", f"0 {yhi!r} ylo yhi", f"0 {zhi!r} zlo zhi"]
    lines += [f"{xy!r} {xz!r} {yz!r} xy xz yz", "", "Masses", ""]
    for number, element in enumerate(elements, start=1):
        lines.append(f"{number} {_mass(trajectory, element)!r} # {element}")
    lines += ["", "Atoms # atomic", ""]
    for number, (kind, xyz) in enumerate(zip(types, positions.tolist()), start=1):
        lines.append(f"{number} {kind} {_numbers(xyz)}")
    lines += ["", "Velocities", ""]
    for number, xyz in enumerate(velocities.tolist(), start=1):
        lines.append(f"{number} {_numbers(xyz)}")
    return "\n".join(lines) + "\n"


def _mass(trajectory: Trajectory, element: str) -> float:
    masses = np.unique(trajectory.masses[trajectory.numbers == atomic_numbers[element]])
    if len(masses) > 1:
        raise DtmdError(
            f"{trajectory.source}: {element} atoms have the masses {masses.tolist()} u; "
            "an atom type of LAMMPS has one"
        )
    return float(masses[0])


def _numbers(values: Sequence[float]) -> str:
    """repr keeps all digits of a double."""
    return " ".join(repr(value) for value in values)
