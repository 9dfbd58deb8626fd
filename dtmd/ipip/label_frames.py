"""Energies and forces of the frames in a folder by one potential. A program of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.abc import GetPropertiesMixin

from dtmd.children import die_with_parent
from dtmd.errors import DtmdError
from dtmd.factories import is_factory, made_by_factory, told
from dtmd.files import write_text
from dtmd.ipip.label_task import FAILED, FRAMES, LABELLED
from dtmd.ipip.pseudo_labels import atoms_of_frame, picked
from dtmd.store import read_store, write_store
from dtmd.trajectory import Trajectory


def main(parent: int, here: str, named: str, arguments: Mapping[str, object]) -> None:
    """Label the frames of the current folder.

    Args:
        here: folder from which modules and files of the potential are named.
        named: `module:factory` with its arguments, or a file of a potential.
    """
    die_with_parent(parent)
    folder = Path.cwd()
    os.chdir(here)
    try:
        calculator = _calculator(named, arguments)
        os.chdir(folder)
        failed: list[tuple[str, int, str]] = []
        write_labelled(list(_labelled(calculator, failed)))
        write_text(Path(FAILED), json.dumps(failed, ensure_ascii=False) + "\n")
    except DtmdError as error:
        sys.exit(str(error))


def write_labelled(trajectories: list[Trajectory]) -> None:
    """What could be labelled; nothing where nothing could."""
    if trajectories:
        write_store(Path(LABELLED), trajectories, append=False)


def _calculator(named: str, arguments: Mapping[str, object]) -> GetPropertiesMixin:
    if is_factory(named):
        return made_by_factory(named, arguments)
    from dtmd.calculator import DtmdCalculator  # which loads torch

    return DtmdCalculator(named)


def _labelled(calculator: GetPropertiesMixin, failed: list[tuple[str, int, str]]) -> Iterator[Trajectory]:
    for trajectory in read_store(Path(FRAMES)):
        name = trajectory.source.partition(":")[2]
        labels = _together(calculator, trajectory) or [_alone(calculator, atoms_of_frame(trajectory, k))
                                                       for k in range(len(trajectory))]
        labels = [label if isinstance(label, str) or _finite(label) else "energy or forces are not finite"
                  for label in labels]
        failed += [(name, k, label) for k, label in enumerate(labels) if isinstance(label, str)]
        good = [k for k, label in enumerate(labels) if not isinstance(label, str)]
        if good:
            energies, forces = zip(*(labels[k] for k in good), strict=True)
            yield replace(picked(trajectory, good), energies=np.array(energies), forces=np.array(forces), source=name)


_Label = tuple[float, np.ndarray]  # energy, eV, and forces, eV/Å, (N, 3)


def _together(calculator: GetPropertiesMixin, trajectory: Trajectory) -> list[_Label] | None:
    """Of all frames side by side; None where the potential or the frames do not allow it."""
    if not hasattr(calculator, "evaluate_many") or (trajectory.cells != trajectory.cells[:1]).any():
        return None
    energies, forces = calculator.evaluate_many(atoms_of_frame(trajectory, 0), np.array(trajectory.positions))
    return list(zip(energies.tolist(), forces, strict=True))


def _alone(calculator: GetPropertiesMixin, atoms: Atoms) -> _Label | str:
    """Of one frame, or why there are none."""
    atoms.calc = calculator
    try:
        return float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=float)
    except DtmdError as error:
        return str(error)
    except Exception as error:  # calculators of others fail with exceptions of any kind
        return told(error)


def _finite(label: _Label) -> bool:
    return bool(np.isfinite(label[0]) and np.isfinite(label[1]).all())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
