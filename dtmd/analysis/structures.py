"""The structure that is analysed: read, its atoms chosen and held, relaxed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixSubsetCom
from ase.data import atomic_numbers, chemical_symbols
from ase.optimize import BFGS, FIRE

from dtmd.errors import DtmdError
from dtmd.ingest import read_aimd
from dtmd.named_calculators import NamedCalculator
from dtmd.store import is_store

OPTIMIZERS = {"bfgs": BFGS, "fire": FIRE}


@dataclass(frozen=True)
class RelaxationSettings:
    """How atoms are relaxed; the cell stays as it is.

    Attributes:
        fmax: eV/Å, no force on an atom is larger in the end.
        max_steps: of the optimizer.
        optimizer: a name in `OPTIMIZERS`: bfgs is fast near a minimum, fire is robust far from one.

    Raises:
        DtmdError: an unknown optimizer.
    """

    fmax: float = 0.001
    max_steps: int = 1000
    optimizer: str = "bfgs"

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise DtmdError(f"--optimizer {self.optimizer}: unknown; there are: {', '.join(OPTIMIZERS)}")


def read_structure(place: str) -> Atoms:
    """A structure from FILE or FILE@FRAME: any format of ASE, or a store as DATA.h5:NAME.

    Args:
        place: frames are counted from 0, negative ones from the end; without a frame the first.

    Returns:
        Atoms; those that the file holds have constraints.

    Raises:
        DtmdError: no such file, one that cannot be read, no such frame, or a coordinate that is not finite.
    """
    found = re.fullmatch(r"(.+)@(-?\d+)", place)
    path, frame = (Path(found[1]), int(found[2])) if found else (Path(place), 0)
    store = Path(str(path).rpartition(":")[0] or path)
    atoms = _from_store(path, frame) if store.is_file() and is_store(store) else _from_file(path, frame)
    if not np.isfinite(atoms.positions).all():
        raise DtmdError(f"{place}: atom {np.argmin(np.isfinite(atoms.positions).all(axis=1)) + 1} has a coordinate "
                        "that is not finite; give another frame")
    return atoms


def atoms_of(text: str, symbols: list[str], option: str) -> np.ndarray:
    """Indices of atoms given as elements and numbers from 1, such as "H,7,50-57"; ascending, each once.

    Raises:
        DtmdError: an element that is not there, a number beyond the last atom, or neither.
    """
    chosen: set[int] = set()
    for part in text.split(","):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if numbers:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if not 1 <= first <= last <= len(symbols):
                raise DtmdError(f"{option} {text}: {part}, but the atoms are 1 to {len(symbols)}")
            chosen |= set(range(first - 1, last))
        elif part in atomic_numbers:
            here = {k for k, symbol in enumerate(symbols) if symbol == part}
            if not here:
                raise DtmdError(f"{option} {text}: no {part}, the elements are {', '.join(sorted(set(symbols)))}")
            chosen |= here
        else:
            raise DtmdError(f"{option} {text}: {part!r} is neither an element nor numbers of atoms, counted from 1; "
                            "write such as H,7,50-57")
    return np.array(sorted(chosen))


def held_components(atoms: Atoms, fixed: str | None = None) -> np.ndarray:
    """Components that do not move, (N, 3): those of the file and of the atoms in `fixed`, as `atoms_of` takes it.

    Raises:
        DtmdError: a constraint other than held atoms or components.
    """
    held = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            held[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            held[constraint.index] |= constraint.mask
        else:
            raise DtmdError(f"--structure: has a constraint {type(constraint).__name__}; held atoms and components "
                            "are understood, remove it")
    if fixed:
        held[atoms_of(fixed, atoms.get_chemical_symbols(), "--fixed")] = True
    return held


def relaxed(
    model: NamedCalculator, atoms: Atoms, held: np.ndarray, settings: RelaxationSettings,
    anchored: np.ndarray | None = None, where: str = "",
) -> tuple[Atoms, int]:
    """Move the atoms until all forces are small.

    Args:
        held: components that stay, (N, 3).
        anchored: indices of atoms whose common centre of mass stays.
        where: what to add to a message.

    Returns:
        The relaxed atoms, without constraints and calculator, and the number of steps.

    Raises:
        DtmdError: not converged within the steps, or forces that are not finite.
    """
    moving = atoms.copy()
    # The held components come last: keeping a centre of mass shifts all atoms.
    moving.set_constraint(([] if anchored is None else [FixSubsetCom(anchored)]) + _constraints(held))
    moving.calc = model.calculator
    with model.failures():
        optimizer = OPTIMIZERS[settings.optimizer](moving, logfile=None)
        for converged in optimizer.irun(fmax=settings.fmax, steps=settings.max_steps):
            if not np.isfinite(moving.get_forces()).all():
                raise model.not_finite(f"in step {optimizer.nsteps} of the relaxation{where}")
    if not converged:
        largest = np.linalg.norm(moving.get_forces(), axis=1).max()
        raise DtmdError(
            f"{model.label}: not relaxed after {optimizer.nsteps} steps of {settings.optimizer}{where}: the largest "
            f"force is {largest:.2g} eV/Å, wanted {settings.fmax:g}; give more --max-steps, a larger --fmax, "
            "--optimizer fire or a structure nearer to a minimum"
        )
    done = moving.copy()
    done.set_constraint()
    return done, optimizer.nsteps


def _constraints(held: np.ndarray) -> list[FixCartesian]:
    """One constraint for each way in which atoms are held."""
    masks = np.unique(held[held.any(axis=1)], axis=0)
    return [FixCartesian(np.flatnonzero((held == mask).all(axis=1)), mask) for mask in masks]


def _from_file(path: Path, frame: int) -> Atoms:
    if not path.is_file():
        raise DtmdError(f"--structure {path}: no such file")
    try:
        return ase.io.read(path, index=frame)
    except (IndexError, StopIteration) as error:  # formats differ in which
        raise DtmdError(f"--structure {path}: has no frame {frame}") from error
    except Exception as error:  # ASE's readers meet foreign files with exceptions of many kinds
        raise DtmdError(f"--structure {path}: ASE cannot read it ({type(error).__name__}: {error}); convert it to "
                        "extxyz") from error


def _from_store(path: Path, frame: int) -> Atoms:
    trajectories = read_aimd([path])
    if len(trajectories) > 1:
        raise DtmdError(f"--structure {path}: {len(trajectories)} trajectories ({trajectories[0].source}, …); name one")
    (run,) = trajectories
    if not -len(run) <= frame < len(run):
        raise DtmdError(f"--structure {path}: has no frame {frame}, only {len(run)} frames")
    symbols = [chemical_symbols[number] for number in run.numbers]
    atoms = Atoms(symbols, run.positions[frame], masses=run.masses, cell=run.cells[frame], pbc=run.pbc)
    if run.fixed is not None:
        atoms.set_constraint(_constraints(run.fixed))
    return atoms
