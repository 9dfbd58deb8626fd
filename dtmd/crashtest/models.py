"""The models of a crash test: exported potentials that run in LAMMPS, and ASE calculators that run in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dtmd import artefact
from dtmd.checkpoint import file_of
from dtmd.errors import DtmdError
from dtmd.export import export_torchscript
from dtmd.factories import called, is_factory
from dtmd.files import sha256, write_text
from dtmd.named_calculators import labelled, slug

EXPORTED = "model.lammps.pt"
_SOURCE = "exported.json"


@dataclass(frozen=True)
class CrashModel:
    """One model.

    Attributes:
        label: in the report.
        folder: of its runs, absolute.
        artefact: the exported potential, absolute; None for a calculator.
        factory: `module:factory` of a calculator; None for a potential.
        metadata: of the potential.
        arguments: of the factory, by name, of kinds that JSON has.
    """

    label: str
    folder: Path
    artefact: Path | None = None
    factory: str | None = None
    metadata: dict = field(default_factory=dict)
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def calculator(self) -> str | None:
        """The factory and its arguments, if it has any, in letters; None for a potential."""
        return called(self.factory, self.arguments) if self.factory and self.arguments else self.factory

    def side(self, temperature: float) -> str:
        """The name of its runs at a temperature in the report."""
        return f"{self.label}, {temperature:g} K"

    def runs_folder(self, temperature: float) -> Path:
        """Where they are."""
        return self.folder / f"{temperature:g}K"

    def check_elements(self, elements: Iterable[str]) -> None:
        """Refuse atoms that the potential does not know.

        Raises:
            DtmdError: names them.
        """
        missing = sorted(set(elements) - set(self.metadata.get("elements", elements)))
        if missing:
            raise DtmdError(f"{self.label}: knows {' '.join(self.metadata['elements'])}, and the starts hold "
                            f"{' '.join(missing)} too; leave this model out, or give starts of its elements")


def models_of(
    texts: Sequence[str], folder: Path, exporting: Callable[[str], None] = lambda label: None
) -> list[CrashModel]:
    """The models that the user names.

    Args:
        texts: exported potentials for `pair_style dtmd`, run folders, model files of dtmd or mace-torch, which are
            exported into `folder`, or `module:factory` of ASE calculators; each with `NAME=` before it or without.
        folder: of the crash test.
        exporting: told the label of each model before it is exported.

    Raises:
        DtmdError: no such file, not a model, one label twice, or a model that has changed since its runs.
    """
    return [_model(label, named, folder.resolve() / slug(label), exporting) for label, named in labelled(texts)]


def _model(label: str, named: str, folder: Path, exporting: Callable[[str], None]) -> CrashModel:
    if is_factory(named):
        return CrashModel(label, folder, factory=named)
    path = file_of(Path(named))
    kind = artefact.kind_of(path)
    if kind == "ML-IAP":
        raise DtmdError(f"{path}: is for pair_style mliap; give the model that it was exported from")
    exported = path.resolve() if kind else _exported(label, path, folder, exporting)
    return CrashModel(label, folder, artefact=exported, metadata=artefact.read_metadata(exported))


def _exported(label: str, path: Path, folder: Path, exporting: Callable[[str], None]) -> Path:
    """Once: exporting anew would give a file with another digest."""
    out, note = folder / EXPORTED, folder / _SOURCE
    if not path.is_file():
        raise DtmdError(f"{path}: no such file; give an exported potential, a run folder, a model file, or the "
                        "module:factory of an ASE calculator")
    digest = sha256([path])
    if out.exists() and note.exists():
        before = json.loads(note.read_text())["sha256"]
        if before != digest:
            raise DtmdError(f"{path}: is another model than that of the runs in {folder} (SHA-256 {digest[:12]}, "
                            f"before {before[:12]}); give another folder with -o, or another label: NAME=MODEL")
        return out
    exporting(label)
    export_torchscript(path, out)
    write_text(note, json.dumps({"model": str(path.resolve()), "sha256": digest}, indent=1) + "\n")
    return out
