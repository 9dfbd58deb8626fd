"""The exported potential: one file, of TorchScript or of machine code, that Python and LAMMPS read alike.

The contract, mirrored by lammps_plugin/, is `dtmd.models.layered` for one structure. In TorchScript:

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

In machine code of AOTInductor, tensors only, as graphs of these names, k = 0, 1, … counting the layers but the last:

    whole(species, edge_index, edge_vec) -> energies, their gradient by edge_vec
    forward_k(own, species, edge_index, *before) -> nodes of the first n_atoms, edges, what is kept for the way back
    backward_k(own, species, edge_index, *before, *kept, *by_after) -> gradient by each of `before`
    last(own, species, edge_index, *before) -> energies, gradient by each of `before`

with own int64 [n_atoms] the species of the first n_atoms, `before` what the layer reads, nodes and then edges (of the
first layer edge_vec alone), and `by_after` the gradients by what it gives. `whole` serves a single rank; where only
the sum of the energies has a meaning there is nothing else. Such a file is a program: whoever runs it trusts it.

The archive carries, as extra files: dtmd/format, dtmd/elements ("H C Pd"), dtmd/masses (u, standard
ones, in the order of the elements; LAMMPS checks its types against them), dtmd/cutoff (Å),
dtmd/dtype ("float32" or "float64"), dtmd/per_atom_energy ("yes", or "no" where only the sum has a
meaning), dtmd/exchanged ("128 128": numbers per atom in the nodes after each layer but the last),
dtmd/closest (Å, where the metadata have `closest_pairs`: smallest distance of each pair of elements in the training
data, the upper triangle row by row; the cutoff for pairs that are not within it) and dtmd/metadata.json (everything
else). Those of machine code say what can run it: dtmd/torch ("2.13.0"), dtmd/machine ("x86_64") and dtmd/instructions
("avx2 fma", as /proc/cpuinfo calls them), dtmd/node_tensors and dtmd/kept_tensors ("1 1": how many tensors the
nodes are after each layer but the last, and how many it keeps).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_masses, atomic_numbers
from torch import Tensor
from torch.export.pt2_archive._package import AOTICompiledModel, package_pt2

from dtmd.errors import DtmdError
from dtmd.files import torch_writing, written_whole

FORMAT = "3"

MLIAP_FORMAT = "mliap 1"
"""Of a file for `pair_style mliap unified` (dtmd/mliap.py), which carries the same extra files."""

_LABELS = ("elements", "cutoff", "dtype", "per_atom_energy", "exchanged", "compiled")

_LISTS = "instructions", "node_tensors", "kept_tensors"

Graphs = Mapping[str, Callable[..., list[Tensor]]]
"""Compiled graphs by their names."""


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


def save_compiled(files: Mapping[str, list[str]], metadata: dict[str, Any], path: str | Path) -> None:
    """Write compiled graphs atomically.

    Args:
        files: of each graph, as AOTInductor wrote them.
        metadata: as for `save`, with `compiled`: a dictionary of `torch` and `machine` (strings), `instructions`
            (list of strings), `node_tensors` and `kept_tensors` (lists of numbers).
        path: where to write.

    Raises:
        DtmdError: the file cannot be written.
    """
    with written_whole(Path(path)) as temporary, torch_writing(), open(temporary, "wb") as file:
        package_pt2(file, aoti_files=dict(files), extra_files=_extra_files(metadata))


def load(path: str | Path) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], dict[str, Any]]:
    """Read a TorchScript potential onto the CPU.

    Returns:
        The function (species, edge_index, edge_vec) → per-atom energies, and the metadata as given to `save`.

    Raises:
        DtmdError: as `read_metadata`, or the TorchScript part is damaged.
    """
    metadata = read_metadata(path)
    _raise_if_damaged(path, "dtmd export model.pt")
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


def load_compiled(path: str | Path) -> tuple[Graphs, dict[str, Any]]:
    """Read the graphs of a potential in machine code, which is not loaded unless it was made for this torch.

    Returns:
        The graphs, and the metadata as given to `save_compiled`.

    Raises:
        DtmdError: as `read_metadata`, or for another version of torch, or damaged.
    """
    metadata = read_metadata(path)
    made_for, version = metadata["compiled"]["torch"], torch.__version__.partition("+")[0]
    if made_for != version:
        raise DtmdError(f"{path}: compiled for torch {made_for}, this is torch {version}; "
                        "export it again: dtmd export model.pt --format aotinductor")
    _raise_if_damaged(path, "dtmd export model.pt --format aotinductor")
    node_tensors = metadata["compiled"]["node_tensors"]
    names = ["whole"]
    if metadata["per_atom_energy"]:
        names += [f"{sweep}_{k}" for k in range(len(node_tensors)) for sweep in ("forward", "backward")] + ["last"]
    try:
        loaders = {name: torch._C._aoti.AOTIModelPackageLoader(str(path), name, True, 1, -1) for name in names}
        return {name: AOTICompiledModel(loader) for name, loader in loaders.items()}, metadata
    except RuntimeError as error:
        raise DtmdError(f"{path}: damaged: {error}; write it again with: "
                        "dtmd export model.pt --format aotinductor") from error


def kind_of(path: str | Path) -> str | None:
    """TorchScript, AOTInductor or ML-IAP, by the list of contents of a file alone; none if it is not exported."""
    names = members(path)
    kinds = {"TorchScript": "/code/", "AOTInductor": "/data/aotinductor/", "ML-IAP": "/extra/dtmd/"}
    return next((kind for kind, folder in kinds.items() if any(folder in name for name in names)), None)


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
    compiled = {} if "torch" not in files else {"compiled": {
        "torch": files["torch"],
        "machine": files["machine"],
        "instructions": files["instructions"].split(),
        **{name: [int(number) for number in files[name].split()] for name in ("node_tensors", "kept_tensors")},
    }}
    return {
        "elements": files["elements"].split(),
        "cutoff": float(files["cutoff"]),
        "dtype": files["dtype"],
        "per_atom_energy": files["per_atom_energy"] == "yes",
        "exchanged": [int(width) for width in files["exchanged"].split()],
        **compiled,
        **json.loads(files["metadata.json"]),
    }


def every_closest_pair(known: Mapping[str, float], elements: list[str], cutoff: float) -> dict[str, float]:
    """`closest_pairs` of the metadata with the cutoff (Å) for pairs not in it, the upper triangle row by row."""
    names = map("-".join, combinations_with_replacement(elements, 2))
    return {name: float(known.get(name, cutoff)) for name in names}


def _raise_if_damaged(path: str | Path, command: str) -> None:
    """Compare the checksums, which torch does not."""
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
    if bad:
        raise DtmdError(f"{path}: damaged: {bad} does not have its checksum; write it again with: {command}")


def _extra_files(metadata: dict[str, Any]) -> dict[str, str]:
    elements = metadata["elements"]
    others = {key: value for key, value in metadata.items() if key not in _LABELS}
    compiled = metadata.get("compiled", {})
    known = {"dtmd/closest": _closest(metadata)} if "closest_pairs" in metadata else {}
    return known | {
        "dtmd/format": FORMAT,
        "dtmd/elements": " ".join(elements),
        "dtmd/masses": " ".join(f"{atomic_masses[atomic_numbers[element]]:.4f}" for element in elements),
        "dtmd/cutoff": repr(float(metadata["cutoff"])),
        "dtmd/dtype": metadata["dtype"],
        "dtmd/per_atom_energy": "yes" if metadata["per_atom_energy"] else "no",
        "dtmd/exchanged": " ".join(str(width) for width in metadata["exchanged"]),
        "dtmd/metadata.json": json.dumps(others, indent=1),
        **{f"dtmd/{name}": compiled[name] for name in ("torch", "machine") if compiled},
        **{f"dtmd/{name}": " ".join(map(str, compiled[name])) for name in _LISTS if compiled},
    }


def _closest(metadata: dict[str, Any]) -> str:
    closest = every_closest_pair(metadata["closest_pairs"], metadata["elements"], float(metadata["cutoff"]))
    return " ".join(map(repr, closest.values()))
