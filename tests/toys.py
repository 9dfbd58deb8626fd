"""Small exported potentials whose energies are checked against ASE's neighbour list and autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor, nn

from dtmd import artefact

ELEMENTS = ["H", "C", "Pd"]
CUTOFF = 4.0


class Toy(nn.Module):
    """Smooth pair potential, a three-body term and two rounds of messages: reaches twice the cutoff."""

    def __init__(self, cutoff: float = CUTOFF, poison: float = 0.0, seed: int = 7) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("pair", 0.5 + torch.rand(3, 3, generator=generator, dtype=torch.float64))
        self.register_buffer("state", 0.5 + torch.rand(3, 4, generator=generator, dtype=torch.float64))
        self.register_buffer("mix", torch.randn(4, 4, generator=generator, dtype=torch.float64))
        self.cutoff = cutoff
        self.poison = poison  # pairs nearer than this give NaN

    @torch.jit.export
    def embed(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        vector = edge_vec.to(self.pair.dtype)
        distance = vector.square().sum(1).sqrt()
        envelope = (1.0 - (distance / self.cutoff) ** 2) ** 3
        strength = self.pair[species[edge_index[1]], species[edge_index[0]]]
        repulsion = envelope * strength * (torch.exp(3.0 * (1.0 - distance)) - 0.2)
        repulsion = repulsion + 0.0 * (distance - self.poison).sqrt()
        polar = vector.new_zeros([species.size(0), 3]).index_add(0, edge_index[1], vector * envelope[:, None])
        energy = vector.new_zeros([species.size(0)]).index_add(0, edge_index[1], repulsion)
        return [self.state[species], energy + 0.05 * polar.square().sum(1)], [envelope]

    @torch.jit.export
    def layer(
        self, k: int, n_atoms: int, species: Tensor, edge_index: Tensor, nodes: list[Tensor], edges: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        h, energy = nodes[0], nodes[1]
        message = torch.tanh(h[edge_index[0]] @ self.mix) * edges[0][:, None]
        summed = torch.zeros_like(h[:n_atoms]).index_add(0, edge_index[1], message)
        return [h[:n_atoms] + 0.3 * summed, energy[:n_atoms]], edges

    @torch.jit.export
    def energies(self, species: Tensor, nodes: list[Tensor]) -> Tensor:
        return (torch.tanh(nodes[0]).sum(1) + nodes[1]).to(torch.float64)


def write_toy(
    path: Path, dtype: str = "float64", per_atom_energy: bool = True, closest: dict[str, float] | None = None,
    **settings: float,
) -> Path:
    """Export a toy potential for H, C and Pd."""
    module = Toy(**settings).to(getattr(torch, dtype)).eval()
    labels = {
        "elements": ELEMENTS, "cutoff": settings.get("cutoff", CUTOFF), "dtype": dtype,
        "per_atom_energy": per_atom_energy, "exchanged": [5],
    }
    known = {} if closest is None else {"closest_pairs": closest}
    artefact.save(torch.jit.script(module), labels | known, path)
    return path


def crystal(cell: np.ndarray, n_atoms: int, pbc: tuple[bool, bool, bool], seed: int = 3) -> Atoms:
    """Random atoms of all three elements that are not closer than 1 Å, some of them outside the cell."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=cell, pbc=pbc)
    while len(atoms) < n_atoms:
        one_more = Atoms([ELEMENTS[len(atoms) % 3]], positions=[rng.random(3) @ cell])
        trial = atoms + one_more
        if not len(neighbor_list("i", trial, 1.0)):
            atoms = trial
    atoms.positions += (rng.integers(-1, 2, (n_atoms, 3)) * pbc) @ atoms.cell.array
    return atoms


def reference(path: Path, atoms: Atoms) -> dict[str, np.ndarray]:
    """Energies (n,), forces (n, 3) and virial −dE/dε (3, 3) in eV, through positions and strain."""
    energies_of, _ = artefact.load(path)
    i, j, shifts = neighbor_list("ijS", atoms, CUTOFF)
    positions = torch.tensor(atoms.positions, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    offsets = torch.tensor(shifts @ atoms.cell.array)
    edge_vec = (positions[j] - positions[i] + offsets) @ deformation.T
    species = torch.tensor([ELEMENTS.index(symbol) for symbol in atoms.symbols])
    energies = energies_of(species, torch.tensor(np.stack([j, i])), edge_vec)
    gradient, virial = torch.autograd.grad(energies.sum(), [positions, strain])
    return {"energies": energies.detach().numpy(), "forces": -gradient.numpy(), "virial": -virial.numpy()}
