"""An exported potential inside LAMMPS, behind its `pair_style mliap unified` (packages ML-IAP and PYTHON).

LAMMPS unpickles the file, which gives a `MLIAPPotential`, and calls `compute_forces` on each step with a view of
its arrays (python/lammps/mliap/mliap_unified_abc.py and src/ML-IAP/mliap_unified_couple.pyx of its source):
owned atoms come first, then ghosts; `pair_i` is the centre, `pair_j` the neighbour of a pair, `rij` = r_j − r_i,
and each pair comes in both directions. It adds to F_i and subtracts from F_j what `update_pair_forces` gets.

What the layers of a model pass on between atoms must reach the ghosts:

- The Kokkos flavour has `forward_exchange` and `reverse_exchange`, for any number of MPI ranks.
- The other one has nothing of the kind. On one rank each ghost is an image of an owned atom, known by its id.

Ids, units and the number of ranks are not among those arrays. They come from LAMMPS's C library, through the
handle that its `python` command passes to `connect_dtmd`.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers
from torch import Tensor

from dtmd.errors import DtmdError
from dtmd.pieces import gradients, leaves

EXCHANGE_VERSION = 20260211
"""The first LAMMPS whose exchange is right, as its `lammps_version` counts; older ones give wrong features."""

HOST_COLUMNS = 3
"""Numbers per atom in one exchange on the CPU. LAMMPS makes its buffers there for its own, which are at least this
many, and writes beyond them if given more."""

MASS_TOLERANCE = 1.1  # u; wide enough for deuterium, narrow enough to notice elements in the wrong order

_ENERGY_PER_ATOM = 2  # LAMMPS's bit in eflag


def input_lines(path: str | Path, elements: Sequence[str]) -> str:
    """The lines of a LAMMPS input that use an exported potential; `elements` of the atom types, in their order."""
    return (f'python connect_dtmd input 1 SELF format p here "from dtmd.mliap import connect_dtmd"\n'
            f"python connect_dtmd invoke\n"
            f"pair_style mliap unified {path} 0\n"
            f"pair_coeff * * {' '.join(elements)}")


class Lammps:
    """What the C library of the running LAMMPS says of it.

    Args:
        capsule: the handle that its `python` command passes as SELF.

    Raises:
        DtmdError: its C library cannot be called.
    """

    def __init__(self, capsule: object) -> None:
        unwrap = ctypes.pythonapi.PyCapsule_GetPointer
        unwrap.restype, unwrap.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        self._handle = ctypes.c_void_p(unwrap(capsule, None))
        # Of this very process: the `lammps` package of the environment may hold another build.
        self._library = ctypes.CDLL(None)
        if not hasattr(self._library, "lammps_version"):
            raise DtmdError("this LAMMPS hides its C library from Python; build it with -D BUILD_SHARED_LIBS=yes or "
                            "-D PKG_PLUGIN=yes, or with tools/build_lammps_mliap.sh")
        self._library.lammps_extract_global.restype = ctypes.c_void_p
        self._library.lammps_extract_atom.restype = ctypes.c_void_p

    @property
    def version(self) -> int:
        """Such as 20260211."""
        return self._library.lammps_version(self._handle)

    @property
    def n_ranks(self) -> int:
        """MPI ranks of this run."""
        return self._library.lammps_extract_setting(self._handle, b"world_size")

    @property
    def units(self) -> str:
        """The style of units."""
        return ctypes.string_at(self._library.lammps_extract_global(self._handle, b"units")).decode()

    @property
    def device(self) -> torch.device:
        """Where Kokkos has the arrays, in a LAMMPS that was built with it."""
        on_gpu = any(self._library.lammps_config_accelerator(b"KOKKOS", b"api", api) for api in (b"cuda", b"hip"))
        return torch.device("cuda" if on_gpu else "cpu")

    @property
    def step(self) -> int:
        """The current step of the run."""
        pointer = self._library.lammps_extract_global(self._handle, b"ntimestep")
        return ctypes.c_int64.from_address(pointer).value

    def ids(self, n_atoms: int) -> np.ndarray | None:
        """Of owned atoms and ghosts; None if the atoms have none."""
        size = self._library.lammps_extract_setting(self._handle, b"tagint")
        return self._per_atom(b"id", ctypes.c_int32 if size == 4 else ctypes.c_int64, n_atoms)

    def masses(self, n_atoms: int) -> np.ndarray | None:
        """Of the types of the atoms, u; None if each atom has a mass of its own."""
        types = self._per_atom(b"type", ctypes.c_int32, n_atoms)
        n_types = self._library.lammps_extract_setting(self._handle, b"ntypes")
        masses = self._per_atom(b"mass", ctypes.c_double, n_types + 1)
        return None if masses is None or types is None else masses[types]

    def _per_atom(self, name: bytes, kind: type, length: int) -> np.ndarray | None:
        pointer = self._library.lammps_extract_atom(self._handle, name)
        return np.ctypeslib.as_array((kind * length).from_address(pointer)) if pointer else None


_connected: list[Lammps] = []


def connect_dtmd(capsule: object) -> None:
    """Tell the potentials that are loaded from now on which LAMMPS they run in; called by its `python` command."""
    _connected[:] = [Lammps(capsule)]


def load_in_lammps(archive: bytes, metadata: dict[str, Any]) -> MLIAPPotential:
    """What unpickling the file calls.

    Raises:
        DtmdError: `connect_dtmd` was not called, or the potential cannot run in this input.
    """
    if not _connected:
        raise DtmdError("LAMMPS has not said how many ranks it has; write before the pair style:\n"
                        + input_lines("model.mliap.pt", metadata["elements"]))
    return MLIAPPotential(archive, metadata, _connected[0])


class MLIAPPotential:
    """An artefact (see `dtmd.artefact`) with the methods and attributes of LAMMPS's MLIAPUnified.

    Args:
        archive: the artefact, a TorchScript file.
        metadata: what it says of itself.
        lammps: in which it runs.

    Raises:
        DtmdError: not `units metal`, or a pooled readout on several ranks.
    """

    interface = None  # set by LAMMPS
    ndescriptors = nparams = 1

    def __init__(self, archive: bytes, metadata: dict[str, Any], lammps: Lammps) -> None:
        if lammps.units != "metal":
            raise DtmdError(f"the potential is in eV and Angstrom, this run has `units {lammps.units}`; "
                            "write: units metal")
        if lammps.n_ranks > 1 and not metadata["per_atom_energy"]:
            raise DtmdError("the energy of a pooled readout comes from the sum over all atoms, which are on "
                            f"{lammps.n_ranks} MPI ranks here; run `lmp -in FILE` without mpirun, or train with "
                            "model: {readout: per_atom}")
        self.lammps, self.metadata = lammps, metadata
        self.element_types = metadata["elements"]
        self.rcutfac = 0.5 * metadata["cutoff"]  # LAMMPS multiplies it by the sum of two radii, which are 1
        self._standard_masses = atomic_masses[[atomic_numbers[element] for element in self.element_types]]
        self._archive = archive
        self._module: torch.jit.ScriptModule | None = None

    def compute_descriptors(self, data: Any) -> None:
        """Nothing: all is done in `compute_forces`."""

    def compute_gradients(self, data: Any) -> None:
        """Nothing: all is done in `compute_forces`."""

    def compute_forces(self, data: Any) -> None:
        """Energies, forces and virial of the atoms of this rank, handed to LAMMPS."""
        try:
            self._compute_forces(data)
        except Exception:
            if self.lammps.n_ranks == 1:
                raise
            # LAMMPS would wait here for the ranks that have no error; mpirun ends them when this one ends.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _compute_forces(self, data: Any) -> None:
        if data.eflag & _ENERGY_PER_ATOM and not self.metadata["per_atom_energy"]:
            raise DtmdError("this potential gives the energy of the whole system only (pooled readout), so there is "
                            "no energy per atom; remove compute pe/atom, or train a model with a per-atom readout")
        widths = self.metadata["exchanged"]
        exchange = self._exchange(data) if widths else None
        data.energy = 0.0
        if data.nlocal == 0:
            if exchange:
                exchange.pass_on(widths)
            return
        graph = self._graph(data, to_owners=bool(widths) and exchange is None)
        if self._module is None:
            self._check_masses(graph)
            self._module = torch.jit.load(io.BytesIO(self._archive), map_location=graph.edge_vec.device)
        # As in the plugin: the optimiser would change the rounding during the first steps, and gains nothing.
        with torch.jit.optimized_execution(False):
            energies, gradient = evaluate(self._module, len(widths) + 1, graph, exchange)
        self._check_finite(graph, energies, gradient)
        _hand_over(data, energies, gradient)

    def _exchange(self, data: Any) -> Exchange | None:
        """LAMMPS's own, if it has one; None where all atoms are on one rank.

        Raises:
            DtmdError: it is a wrong one, or there is none for these ranks.
        """
        lammps = self.lammps
        if not hasattr(data, "forward_exchange"):
            if lammps.n_ranks > 1:
                raise DtmdError(f"on {lammps.n_ranks} MPI ranks the layers of this potential need forward_exchange, "
                                "which pair_style mliap has with Kokkos only; run `lmp -in FILE` without mpirun, use "
                                "pair_style dtmd, or start a LAMMPS with KOKKOS with: -k on -sf kk")
            return None
        if lammps.version < EXCHANGE_VERSION:
            raise DtmdError(f"this is LAMMPS {lammps.version}, in which forward_exchange of pair_style mliap gives "
                            f"wrong features (lammps#4744, #4808); take {EXCHANGE_VERSION} (11 Feb 2026) or later, "
                            "or pair_style dtmd")
        return Exchange(data, lammps.device)

    def _graph(self, data: Any, to_owners: bool) -> Graph:
        elements = torch.as_tensor(data.elems).long()
        if elements.min() < 0 or data.nlistatoms != data.nlocal:
            raise DtmdError("pair_style mliap leaves out some atoms (NULL in pair_coeff, or pair_style hybrid), which "
                            "the potential needs; name an element for each atom type, or use hybrid/overlay")
        device = elements.device
        if data.npairs:
            edge_index = torch.stack([torch.as_tensor(data.pair_j), torch.as_tensor(data.pair_i)]).long()
            edge_vec = torch.as_tensor(data.rij).clone()
        else:
            edge_index = torch.zeros(2, 0, dtype=torch.int64, device=device)
            edge_vec = torch.zeros(0, 3, dtype=torch.float64, device=device)
        if to_owners:
            edge_index[0] = self._owners(data)[edge_index[0]]
            elements = elements[:data.nlocal]
        return Graph(elements, edge_index, edge_vec, data.nlocal)

    def _owners(self, data: Any) -> Tensor:
        """The owned atom of each atom and ghost, by their ids."""
        ids = self.lammps.ids(data.ntotal)
        if ids is None or not (ids > 0).all():
            raise DtmdError("the potential looks atoms up by their ids, and they have none; write: atom_modify id yes")
        own = ids[:data.nlocal]
        order = np.argsort(own)
        return torch.as_tensor(order[np.searchsorted(own[order], ids)])

    def _check_masses(self, graph: Graph) -> None:
        masses = self.lammps.masses(graph.n_atoms)
        if masses is None:
            return
        species = graph.species[:graph.n_atoms].cpu().numpy()
        wrong = np.flatnonzero(np.abs(masses - self._standard_masses[species]) > MASS_TOLERANCE)
        if len(wrong):
            k = wrong[0]
            raise DtmdError(f"an atom has mass {masses[k]:g} u, but pair_coeff says it is "
                            f"{self.element_types[species[k]]} ({self._standard_masses[species[k]]:g} u); check the "
                            "order of the elements in pair_coeff, or the mass of the type")

    def _check_finite(self, graph: Graph, energies: Tensor, gradient: Tensor) -> None:
        if energies.isfinite().all() and gradient.isfinite().all():
            return
        of_edges = graph.edge_index[1][~gradient.isfinite().all(dim=1)]
        atom = torch.cat([of_edges, torch.nonzero(~energies.isfinite())[:, 0]])[0].item()
        ids = self.lammps.ids(graph.n_atoms)
        name = "without id" if ids is None else ids[atom]
        raise DtmdError(f"step {self.lammps.step}: the energy or force of atom {name} "
                        f"({self.element_types[graph.species[atom]]}) is not a finite number. The atoms have left "
                        "what the potential was trained on; look at the last frames, try a smaller timestep, or "
                        "train on such configurations")


@dataclass(frozen=True)
class Graph:
    """Atoms of a rank, n_atoms of them, then what stands for atoms of others; full list of edges.

    Attributes:
        species: int64 (n_nodes,).
        edge_index: int64 (2, n_edges), neighbour and centre.
        edge_vec: Å, float64 (n_edges, 3), from the centre to the neighbour.
        n_atoms: the centres are among these.
    """

    species: Tensor
    edge_index: Tensor
    edge_vec: Tensor
    n_atoms: int


class Exchange:
    """Nodes of the owned atoms to their ghosts on all ranks, and the sum of what ghosts have back to their owners.

    Args:
        data: of LAMMPS with Kokkos.
        device: where its arrays are.
    """

    def __init__(self, data: Any, device: torch.device) -> None:
        self._data, self._device = data, device

    def from_owners(self, nodes: list[Tensor]) -> list[Tensor]:
        """Nodes of the owned atoms → those of all, (ntotal, …)."""
        own = _rows(nodes)
        rows = own.new_zeros(self._data.ntotal, own.shape[1])
        rows[:self._data.nlocal] = own
        return _nodes(self._passed(self._data.forward_exchange, rows), nodes)

    def to_owners(self, gradients: list[Tensor]) -> list[Tensor]:
        """Gradients by the nodes of all → by those of the owned atoms, (nlocal, …)."""
        rows = self._passed(self._data.reverse_exchange, _rows(gradients))
        return _nodes(rows[:self._data.nlocal], gradients)

    def pass_on(self, widths: Sequence[int]) -> None:
        """The part of a rank without atoms in all exchanges of a step; `widths` of the nodes after each layer."""
        forward, reverse = self._data.forward_exchange, self._data.reverse_exchange
        for exchange, width in [*((forward, w) for w in widths), *((reverse, w) for w in reversed(widths))]:
            self._passed(exchange, torch.zeros(self._data.ntotal, width, dtype=torch.float64, device=self._device))

    def _passed(self, exchange: Callable[[Tensor, Tensor, int], None], rows: Tensor) -> Tensor:
        columns = []
        for part in rows.split(rows.shape[1] if rows.is_cuda else HOST_COLUMNS, dim=1):
            given = part.contiguous()
            columns.append(torch.empty_like(given))
            exchange(given, columns[-1], given.shape[1])
        return torch.cat(columns, dim=1)


def evaluate(
    module: torch.jit.ScriptModule, n_layers: int, graph: Graph, exchange: Exchange | None
) -> tuple[Tensor, Tensor]:
    """Energies of the atoms, (n_atoms,), and the gradient of their sum by `edge_vec`, (n_edges, 3).

    The graph of autograd is cut where nodes are exchanged and swept back piece by piece from this thread: for a
    GPU, autograd has a thread of its own, from which MPI must not be called.
    """
    species, edge_index, n_atoms = graph.species, graph.edge_index, graph.n_atoms
    edge_vec = graph.edge_vec.requires_grad_()
    nodes, edges = module.embed(species, edge_index, edge_vec)
    cuts = []
    for k in range(n_layers):
        if k > 0 and exchange:
            before = [*nodes, *edges]
            nodes, edges = leaves(exchange.from_owners(nodes)), leaves(edges)
            cuts.append((before, nodes, edges))
        nodes, edges = module.layer(k, n_atoms, species, edge_index, nodes, edges)
    energies = module.energies(species[:n_atoms], nodes)

    outputs, by_outputs = [energies.sum()], [energies.new_ones(())]
    for before, nodes, edges in reversed(cuts):
        by_inputs = gradients(outputs, by_outputs, [*nodes, *edges])
        by_outputs = [*exchange.to_owners(by_inputs[:len(nodes)]), *by_inputs[len(nodes):]]
        outputs = before
    (gradient,) = gradients(outputs, by_outputs, [edge_vec])
    return energies.detach(), gradient


def _rows(nodes: list[Tensor]) -> Tensor:
    """All numbers of each node in a row, float64."""
    return torch.cat([node.detach().reshape(len(node), -1).to(torch.float64) for node in nodes], dim=1)


def _nodes(rows: Tensor, like: list[Tensor]) -> list[Tensor]:
    """The inverse, in the shapes and precisions of `like`."""
    parts = rows.split([math.prod(node.shape[1:]) for node in like], dim=1)
    return [part.reshape(len(rows), *node.shape[1:]).to(node.dtype) for part, node in zip(parts, like, strict=True)]


def _hand_over(data: Any, energies: Tensor, gradient: Tensor) -> None:
    data.energy = energies.sum().item()
    of_list = energies[torch.as_tensor(data.iatoms).long()]
    if hasattr(data, "forward_exchange"):  # with Kokkos, an array to write to; else a property to set
        torch.as_tensor(data.eatoms).copy_(of_list)
    else:
        data.eatoms = of_list.numpy()
    if data.npairs:
        data.update_pair_forces(gradient if gradient.is_cuda else gradient.numpy())
