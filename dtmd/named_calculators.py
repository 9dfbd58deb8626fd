"""Models as users name them, each as an ASE calculator under a short label: of this project, or any other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.abc import GetPropertiesMixin

from dtmd.calculator import DtmdCalculator
from dtmd.checkpoint import MODEL, file_of
from dtmd.errors import DtmdError
from dtmd.factories import is_factory, made_by_factory, told

_LABELLED = re.compile(r"([\w.+-]+)=(.+)")


@dataclass(frozen=True)
class NamedCalculator:
    """A calculator under the label that it has in tables, figures and names of files.

    Attributes:
        named: what the user wrote, without the label.
        file: of the model; None for other calculators.
        closest_pairs: as of `DtmdCalculator`; None for other calculators.
    """

    label: str
    named: str
    calculator: GetPropertiesMixin
    file: Path | None = None
    closest_pairs: Mapping[str, float] | None = None

    @property
    def slug(self) -> str:
        """The label as a part of a file name."""
        return slug(self.label)

    def evaluate_many(self, atoms: Atoms, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same atoms at positions (K, N, 3) in Å: energies (K,) in eV and forces (K, N, 3) in eV/Å.

        Raises:
            DtmdError: the calculator failed, or a number is not finite.
        """
        with self.failures():
            if isinstance(self.calculator, DtmdCalculator):
                energies, forces = self.calculator.evaluate_many(atoms, positions)
            else:
                energies, forces = self._one_by_one(atoms, positions)
        bad = np.flatnonzero(~np.isfinite(energies) | ~np.isfinite(forces).all(axis=(1, 2)))
        if len(bad):
            raise self.not_finite(f"in structure {bad[0]} of {len(positions)}")
        return energies, forces

    def not_finite(self, where: str) -> DtmdError:
        """What to tell of an energy or a force that is no number."""
        return DtmdError(f"{self.label}: energy or forces are not finite {where}; the structure is too far from what "
                         "the model was made for, such as atoms on top of each other")

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Within it, whatever a calculator fails with becomes a DtmdError with its label."""
        try:
            yield
        except DtmdError:
            raise
        except Exception as error:  # calculators of others fail with exceptions of any kind
            raise DtmdError(f"{self.label}: the calculator {self.named} failed ({told(error)})") from error

    def _one_by_one(self, atoms: Atoms, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = atoms.copy()
        moved.set_constraint()
        moved.calc = self.calculator
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        for k, places in enumerate(positions):
            moved.positions = places
            energies[k], forces[k] = moved.get_potential_energy(), moved.get_forces()
        return energies, forces


def slug(label: str) -> str:
    """A label with _ for all that does not belong into the name of a file."""
    return re.sub(r"[^\w.+-]", "_", label)


def short_label(place: Path) -> str:
    """The name of the run folder for its model, else that of the file; of a resolved path."""
    return place.parent.name if place.name == MODEL else place.stem


def named_calculators(texts: Sequence[str], precision: torch.dtype | None = None) -> list[NamedCalculator]:
    """Calculators of what the user names, in that order.

    Args:
        texts: each a run folder, a model file of dtmd or mace-torch, an exported potential, or `module:factory`, a
            function without arguments in a module of the current directory or an installed package that gives an
            ASE calculator. `NAME=` before it is the label.
        precision: of the networks of model files; None leaves them as trained.

    Raises:
        DtmdError: no such file, not a model, a module or factory that cannot be used, or one label twice.
    """
    return [_calculator(label, named, precision) for label, named in labelled(texts)]


def labelled(texts: Sequence[str]) -> list[tuple[str, str]]:
    """The label and the name of each of the models that the user names as for `named_calculators`.

    Raises:
        DtmdError: one label twice.
    """
    parted = [_label_and_name(text) for text in texts]
    labels = [label or _default_label(named) for label, named in parted]
    if len(set(map(slug, labels))) < len(labels):
        labels = [label or named for label, named in parted]
    slugs = [slug(label) for label in labels]
    twice = next((label for k, label in enumerate(labels) if slugs[k] in slugs[:k]), None)
    if twice:
        raise DtmdError(f"{twice}: is given twice; give each model once, or labels of their own: NAME=MODEL")
    return [(label, named) for label, (_, named) in zip(labels, parted, strict=True)]


def _label_and_name(text: str) -> tuple[str | None, str]:
    labelled = _LABELLED.fullmatch(text)
    return (labelled[1], labelled[2]) if labelled and not Path(text).exists() else (None, text)


def _default_label(named: str) -> str:
    if is_factory(named):
        return named
    return short_label(file_of(Path(named)).resolve())


def _calculator(label: str, named: str, precision: torch.dtype | None) -> NamedCalculator:
    if is_factory(named):
        return NamedCalculator(label, named, made_by_factory(named))
    calculator = DtmdCalculator(named, precision=precision)
    return NamedCalculator(label, named, calculator, calculator.path, calculator.closest_pairs)
