"""The teacher: found, tried out, and brought to the reference's level of theory."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dtmd.checkpoint import file_of
from dtmd.errors import DtmdError
from dtmd.factories import is_factory
from dtmd.files import sha256
from dtmd.ipip.config import TeacherConfig
from dtmd.ipip.labelling import Launching, Potential, label
from dtmd.ipip.pseudo_labels import Labeller
from dtmd.training_data import fit_reference_energies
from dtmd.trajectory import Trajectory

DISPLACEMENT = 0.01
"""Å, of the finite differences that forces are checked by, along random directions in all coordinates together."""

WORK_TOLERANCE = 0.05
"""Share of the forces by which they may differ from the derivatives of the energy."""

N_CHECKED, N_DIRECTIONS = 3, 3
"""Start frames, and directions in each."""

_SMALL = 1e-3  # eV/Å, the noise of energies in single precision

SLOPE = (0.5, 2.0)
"""Of the reference's forces against the teacher's: another level of theory is within, another unit is not."""

SAME_LEVEL = 0.05
"""eV/atom; energies of one level of theory agree to this without a shift."""

ALIGNED = 0.1
"""eV/atom; so far may runs be off the shift by element: chemistry of other levels of theory differs by less."""

UNITS = {"Hartree/bohr": 51.4221, "kcal/mol/Å": 0.0433641, "kJ/mol/Å": 0.0103643, "Ry/bohr": 25.7110,
         "Hartree/Å": 27.2114}
"""Size of one of them in eV/Å (CODATA 2018)."""

NEAR_UNIT = 0.15
"""Natural logarithm of a ratio over that of a unit up to which it is told to look like it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A potential that explores and labels.

    Attributes:
        digest: SHA-256 of what it is: its file, or its module and arguments.
    """

    config: TeacherConfig
    digest: str

    @property
    def name(self) -> str:
        """Of its labels."""
        return f"teacher {self.config.level} {self.digest[:12]}"

    @property
    def potential(self) -> Potential:
        """For the processes that label."""
        return Potential(self.config.calculator, self.config.arguments)

    def labeller(self, shift: dict[str, float]) -> Labeller:
        """For labels that are shifted by these energies of the elements, eV."""
        return Labeller(self.name, shift)


def find_teacher(config: TeacherConfig) -> Teacher:
    """The teacher of a config.

    Raises:
        DtmdError: no such file or module, or arguments for a file.
    """
    if is_factory(config.calculator):
        module = config.calculator.partition(":")[0]
        digest = hashlib.sha256(json.dumps([config.calculator, config.arguments], sort_keys=True).encode())
        local, package = Path(f"{module.replace('.', '/')}.py"), module.partition(".")[0]
        if local.is_file():
            digest.update(local.read_bytes())
        elif not Path(package).is_dir() and importlib.util.find_spec(package) is None:
            raise DtmdError(f"teacher.calculator {config.calculator}: no module {module} in {Path.cwd()} or among the "
                            "installed packages; install it, or correct the name")
        return Teacher(config, digest.hexdigest())
    if config.arguments:
        raise DtmdError(f"teacher.arguments: are for a module:factory, {config.calculator} is a file; leave them out")
    path = file_of(Path(config.calculator))
    if not path.is_file():
        raise DtmdError(f"teacher.calculator {config.calculator}: no such file, and not of the form module:factory")
    return Teacher(config, sha256([path]))


def check_teacher(teacher: Teacher, starts: Sequence[Trajectory], folder: Path, launching: Launching) -> None:
    """See that its forces are the derivatives of its energy, on some start frames.

    Args:
        starts: single frames.
        folder: of the labelling.

    Raises:
        DtmdError: it fails on a frame, knows an element not, or energy and forces do not belong together.
    """
    rng = np.random.default_rng(0)
    displaced = [_displaced(start, rng) for start in starts[:N_CHECKED]]
    result = label([frames for frames, _ in displaced], teacher.potential, folder, 10**6, launching)
    if result.failed:
        elements = sorted({element for start in starts for element in start.elements})
        raise DtmdError(f"teacher {teacher.config.calculator}: cannot calculate the start {result.failed[0].source} "
                        f"({result.failed[0].reason}); see that it knows all elements, {' '.join(elements)}, and such "
                        "structures")
    pairs = [_work(directions, labelled)
             for (_, directions), labelled in zip(displaced, result.whole(), strict=True)]
    _check_work(teacher, *np.concatenate(pairs, axis=1))


def _displaced(start: Trajectory, rng: np.random.Generator) -> tuple[Trajectory, np.ndarray]:
    """The frame, then the frame displaced backwards and forwards along random directions of length 1, (K, N, 3)."""
    directions = rng.standard_normal((N_DIRECTIONS, *start.positions.shape[1:]))
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    steps = np.stack([-directions, directions], axis=1).reshape(-1, *directions.shape[1:]) * DISPLACEMENT
    positions = start.positions + np.concatenate([np.zeros_like(steps[:1]), steps])
    return replace(start, times=np.arange(len(positions), dtype=float), positions=positions, velocities=None,
                   cells=np.repeat(start.cells, len(positions), axis=0), forces=None, energies=None), directions


def _work(directions: np.ndarray, labelled: Trajectory) -> np.ndarray:
    """The force along each direction by differences of the energy, and by the forces, eV/Å, (2, K)."""
    energies, forces = np.asarray(labelled.energies, dtype=float), np.asarray(labelled.forces[0], dtype=float)
    numeric = -(energies[2::2] - energies[1::2]) / (2.0 * DISPLACEMENT)
    return np.stack([numeric, np.einsum("kni,ni->k", directions, forces)])


def _check_work(teacher: Teacher, numeric: np.ndarray, analytic: np.ndarray) -> None:
    size = max(np.linalg.norm(numeric), np.linalg.norm(analytic))
    if np.linalg.norm(numeric - analytic) <= max(WORK_TOLERANCE * size, _SMALL):
        return
    ratio = float(numeric @ analytic / (analytic @ analytic)) if analytic.any() else np.inf
    raise DtmdError(f"teacher {teacher.config.calculator}: its forces are not the derivatives of its energy. "
                    f"Where start frames are displaced by {DISPLACEMENT:g} Å, the energy changes by {ratio:.3g} times "
                    f"what the forces say{_unit(ratio)}; energy in eV and forces in eV/Å that belong together are "
                    "needed")


def _unit(ratio: float) -> str:
    """The unit that a ratio of forces, or its inverse, is near to: levels of theory differ by less than that."""
    apart = {(unit, sign): abs(np.log(abs(ratio) / size**sign)) for unit, size in UNITS.items() for sign in (-1, 1)}
    (unit, _), least = min(apart.items(), key=lambda item: item[1])
    return f", about that of eV/Å and {unit}" if least < NEAR_UNIT else ""


def shift_to_reference(
    teacher: Teacher, labelled: Sequence[Trajectory], reference: Sequence[Trajectory], level: str
) -> dict[str, float]:
    """Energy of each element that brings the teacher's energies to the reference's level of theory, eV.

    By least squares over the runs, on the same frames. None are needed, and given, where both are of one level.

    Args:
        labelled: by the teacher, one for one those of `reference`.
        level: of the reference.

    Raises:
        DtmdError: forces of another unit, energies that a shift by element does not bring together, or that differ
            although both are said to be of one level.
    """
    _check_forces(teacher, labelled, reference)
    pairs = list(zip(reference, labelled, strict=True))
    differences = [replace(ours, energies=np.asarray(ours.energies) - np.asarray(its.energies)) for ours, its in pairs]
    elements = sorted({element for t in reference for element in t.elements})
    if teacher.config.level == level:
        worst = max(differences, key=lambda t: abs(t.energies.mean()) / len(t.numbers))
        off = float(worst.energies.mean()) / len(worst.numbers)
        if abs(off) > SAME_LEVEL:
            raise DtmdError(f"teacher.level and reference.level are both {level}, but the energies of {worst.source} "
                            f"are {off:+.3g} eV/atom off the teacher's; one of the two is of another level of theory: "
                            "correct its name, and its energies are shifted, or give the right files")
        return {}
    fit = fit_reference_energies(differences, elements)
    run, residual = fit.worst
    if abs(residual) > ALIGNED:
        raise DtmdError(f"reference: after a shift for each element the energy of {run} is still {residual:+.3g} "
                        f"eV/atom off the teacher's; the reference is not of one level of theory ({level}), or the "
                        "teacher is no potential for these atoms")
    logger.info("the teacher's energies are shifted to %s: %s eV; runs are then at most %.1f meV/atom off", level,
                ", ".join(f"{e} {v:+.4f}" for e, v in zip(elements, fit.values, strict=True)), 1000 * abs(residual))
    return dict(zip(elements, map(float, fit.values), strict=True))


def check_level(shifted: Sequence[Trajectory], test: Sequence[Trajectory], level: str) -> None:
    """See that the test runs are of the level of theory that the teacher's energies were shifted to.

    Raises:
        DtmdError: the mean energy of a run is off.
    """
    for own, true in zip(shifted, test, strict=True):
        off = float(np.mean(true.energies - own.energies)) / len(true.numbers)
        if abs(off) > ALIGNED:
            raise DtmdError(f"reference.test: the energy of {true.source} is {off:+.3g} eV/atom off the teacher's "
                            f"after the shift to {level} that the training runs need; it is of another level of "
                            "theory, leave it out")


def _check_forces(teacher: Teacher, labelled: Sequence[Trajectory], reference: Sequence[Trajectory]) -> None:
    its = np.concatenate([np.asarray(t.forces, dtype=float).ravel() for t in labelled])
    ours = np.concatenate([np.asarray(t.forces, dtype=float).ravel() for t in reference])
    slope = float(its @ ours / (its @ its)) if its.any() else np.inf
    correlation = float(its @ ours / np.sqrt((its @ its) * (ours @ ours))) if its.any() else 0.0
    logger.info("forces of the reference against the teacher's: slope %.3f, correlation %.3f", slope, correlation)
    if not SLOPE[0] <= slope <= SLOPE[1]:
        raise DtmdError(f"teacher {teacher.config.calculator}: the reference's forces are {slope:.4g} times its own "
                        f"(correlation {correlation:.3f}){_unit(slope)}; give a teacher in eV/Å that describes these "
                        "atoms")
