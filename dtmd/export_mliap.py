"""Model file → potential for `pair_style mliap unified` of a LAMMPS with ML-IAP and PYTHON."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from dtmd import artefact
from dtmd.checkpoint import file_of
from dtmd.errors import DtmdError
from dtmd.export import Exported, destination, export_torchscript
from dtmd.files import torch_writing, written_whole
from dtmd.mliap import load_in_lammps


class _InLammps:
    """What unpickles as a `dtmd.mliap.MLIAPPotential`."""

    def __init__(self, archive: bytes, metadata: dict) -> None:
        self._content = archive, metadata

    def __reduce__(self) -> tuple:
        return load_in_lammps, self._content


def export_mliap(
    model_path: Path, out: Path | None = None, precision: torch.dtype | None = None
) -> Exported:
    """Write `model.mliap.pt` beside the model, or `out`: the TorchScript artefact in the form that LAMMPS unpickles.

    Args:
        model_path, precision: as for `dtmd.export.export_torchscript`.

    Raises:
        DtmdError: as `dtmd.export.export_torchscript`; LAMMPS could not read a file of this name.
    """
    model_path = file_of(model_path)
    out = destination(model_path, out, ".mliap.pt")
    if out.suffix != ".pt":
        raise DtmdError(f"{out}: LAMMPS reads a potential for pair_style mliap as .pt; give such a name with -o")
    with tempfile.TemporaryDirectory() as folder:
        exported = export_torchscript(model_path, Path(folder) / "model.lammps.pt", precision)
        wrap(exported.path, out)
    return replace(exported, path=out)


def wrap(exported: Path, out: Path) -> None:
    """Write a TorchScript artefact in the form that LAMMPS unpickles."""
    metadata = artefact.read_metadata(exported)
    with written_whole(out) as temporary:
        with torch_writing():
            torch.save(_InLammps(exported.read_bytes(), metadata), temporary)
        artefact.label(temporary, metadata, artefact.MLIAP_FORMAT)
