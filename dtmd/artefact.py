"""The exported potential: one TorchScript file that Python and LAMMPS read alike.

The contract, mirrored by lammps_plugin/potential.cpp, is `dtmd.models.layered` for one structure:

    embed(species: int64 [n_nodes], edge_index: int64 [2, n_edges], edge_vec: float64 [n_edges, 3]) -> nodes, edges
    layer(k: int, n_atoms: int, species, edge_index, nodes, edges) -> nodes of the first n_atoms, edges
    energies(species: int64 [n_atoms], nodes) -> per-atom energies, eV, float64 [n_atoms]

with nodes and edges lists of tensors. Nodes beyond the first n_atoms are atoms of other MPI ranks; in Python
there are none. Layers are called in their order, k = 0, 1, … The caller may exchange nodes in between, and
sweeps back through the layers in the same way.

`species` counts into the metadata's `elements`. `edge_index[0]` is the neighbour j and
`edge_index[1]` the centre i of an edge, `edge_vec` = r_j − r_i in Å with the periodic image
included. The list is full: each pair appears in both directions. Forces and virial come from the
gradient of the summed energy with respect to `edge_vec`, taken by the caller; the module converts
to its own precision inside.

The archive carries, as extra files: dtmd/format, dtmd/elements ("H C Pd"), dtmd/masses (u, standard
ones, in the order of the elements; LAMMPS checks its types against them), dtmd/cutoff (Å),
dtmd/dtype ("float32" or "float64"), dtmd/per_atom_energy ("yes", or "no" where only the sum has a
meaning), dtmd/exchanged ("128 128": numbers per atom in the nodes after each layer but the last) and
dtmd/metadata.json (everything else).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_masses, atomic_numbers
from torch import Tensor

from dtmd.errors import DtmdError
from dtmd.files import torch_writing, written_whole

FORMAT = "2"

MLIAP_FORMAT = "mliap 1"
"""Of a file for `pair_style mliap unified` (dtmd/mliap.py), which carries the same extra files."""

_LABELS = ("elements", "cutoff", "dtype", "per_atom_energy", "exchanged")


def save(module: torch.jit.ScriptModule, metadata: dict[str, Any], path: str | Path) -> None:
    """Write an exported potential atomically.

    Args:
        module: follows the contract of this file.
        metadata: `elements` (list of symbols), `cutoff` (Å), `dtype`, `per_atom_energy` (bool), `exchanged`
            (list of numbers), and anything else that JSON holds.
        path: where to write.

    Raises:
        DtmdError: the file cannot be written.
    """
    path = Path(path)
    with written_whole(path) as temporary, torch_writing():
        torch.jit.save(module, str(temporary), _extra_files=_extra_files(metadata))


def load(path: str | Path) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], dict[str, Any]]:
    """Read an exported potential onto the CPU.

    Returns:
        The function (species, edge_index, edge_vec) → per-atom energies, and the metadata as given to `save`.

    Raises:
        DtmdError: as `read_metadata`, or the TorchScript part is damaged.
    """
    metadata = read_metadata(path)
    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise DtmdError(f"{path}: damaged: {error}; write it again with: dtmd export model.pt") from error

    def energies(species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> Tensor:
        nodes, edges = module.embed(species, edge_index, edge_vec)
        for k in range(len(metadata["exchanged"]) + 1):
            nodes, edges = module.layer(k, len(species), species, edge_index, nodes, edges)
        return module.energies(species, nodes)

    return energies, metadata


def label(path: Path, metadata: dict[str, Any], format: str) -> None:
    """Add to an archive of torch.save what `read_metadata` reads; see `save` for the metadata."""
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        for name, content in {**_extra_files(metadata), "dtmd/format": format}.items():
            archive.writestr(f"{folder}/extra/{name}", content)


def is_exported(path: str | Path) -> bool:
    """Whether a file says of itself what `read_metadata` reads."""
    return any("/extra/dtmd/" in name for name in members(path))


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive, by its list of contents alone."""
    return any("/code/" in name for name in members(path))


def members(path: str | Path) -> list[str]:
    """Names of the files in a zip archive, none if a file is no archive or a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read what a potential says of itself; no code of the file is run.

    Returns:
        The metadata as given to `save`.

    Raises:
        DtmdError: no such file, a foreign or truncated one, or one of another format version.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            files = {
                name.partition("/extra/dtmd/")[2]: archive.read(name).decode()
                for name in archive.namelist() if "/extra/dtmd/" in name
            }
    except FileNotFoundError:
        raise DtmdError(f"{path}: no such file; write it with: dtmd export model.pt") from None
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise DtmdError(
            f"{path}: cut short, or not a potential ({error}); write it again with: dtmd export model.pt"
        ) from error
    if "format" not in files:
        raise DtmdError(
            f"{path} was not written by `dtmd export`. If it is a trained model, run: dtmd export {path}"
        )
    if files["format"] not in (FORMAT, MLIAP_FORMAT):
        raise DtmdError(
            f"{path}: format {files['format']}, this dtmd reads format {FORMAT}; "
            "export the model again with this version: dtmd export model.pt"
        )
    return {
        "elements": files["elements"].split(),
        "cutoff": float(files["cutoff"]),
        "dtype": files["dtype"],
        "per_atom_energy": files["per_atom_energy"] == "yes",
        "exchanged": [int(width) for width in files["exchanged"].split()],
        **json.loads(files["metadata.json"]),
    }


def _extra_files(metadata: dict[str, Any]) -> dict[str, str]:
    elements = metadata["elements"]
    others = {key: value for key, value in metadata.items() if key not in _LABELS}
    return {
        "dtmd/format": FORMAT,
        "dtmd/elements": " ".join(elements),
        "dtmd/masses": " ".join(f"{atomic_masses[atomic_numbers[element]]:.4f}" for element in elements),
        "dtmd/cutoff": repr(float(metadata["cutoff"])),
        "dtmd/dtype": metadata["dtype"],
        "dtmd/per_atom_energy": "yes" if metadata["per_atom_energy"] else "no",
        "dtmd/exchanged": " ".join(str(width) for width in metadata["exchanged"]),
        "dtmd/metadata.json": json.dumps(others, indent=1),
    }
