"""A potential with fresh weights on a few atoms: step 0 of LAMMPS against Python, on any number of MPI ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from dtmd.checkpoint import ModelFile, ProbeFrames, save_model
from dtmd.export import export_torchscript
from dtmd.lammps import pair_coeff_lines, write_start
from dtmd.lmp import run_lammps
from dtmd.models import EGNNConfig
from dtmd.neighbors import Edges
from dtmd.potential import Potential, predict
from dtmd.structures import Structures
from dtmd.trajectory import Trajectory

TOLERANCE = 1e-9
"""A deviation below it is rounding; relative, in double precision."""

_TIME_LIMIT = 120.0  # s, of each run; a broken MPI may hang instead of failing
_CELL = np.array([[6.0, 0.0, 0.0], [1.0, 7.0, 0.0], [-1.0, 0.5, 8.0]])  # Å, smaller than twice the cutoff
_INPUT = """
{first}
units metal
atom_modify map yes
read_data start.data
{pair}
run 0
print "$(pe:%.17g)" file energy.txt
write_dump all custom forces.txt id fx fy fz modify sort id format float %.17g
"""


def deviations(ranks: Sequence[int], program: Path | None = None, library: Path | None = None) -> list[float]:
    """Largest difference of energy and forces between LAMMPS and Python, relative to the largest of them.

    Args:
        ranks: numbers of MPI ranks to run on, one after the other.
        program: another `lmp` than that of this environment, on one rank.
        library: the plugin that it is to load.

    Raises:
        DtmdError: the export or a run failed.
    """
    potential, structures, positions = _case()
    edges = Edges(structures, potential.config.cutoff, skin=0.1).at(positions)
    prediction = predict(potential, structures, positions, edges)
    expected = np.append(prediction.energies, prediction.forces)
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_model(ModelFile(potential, ProbeFrames(structures, positions), {}), folder / "model.pt")
        export_torchscript(folder / "model.pt")
        write_start(_as_trajectory(structures, positions), 0, folder / "start.data")
        (folder / "in.step0").write_text(_INPUT.format(
            first=f"plugin load {library}" if library else "",
            pair=pair_coeff_lines("model.lammps.pt", potential.elements)))
        found = [_in_lammps(folder, n, program) for n in ranks]
        return [float(np.abs(values - expected).max() / np.abs(expected).max()) for values in found]


def _case() -> tuple[Potential, Structures, torch.Tensor]:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3) / 3.0
    positions = torch.tensor(grid @ _CELL + rng.normal(0, 0.2, (27, 3)))
    species = torch.arange(27) % 2
    structures = Structures(
        species, torch.tensor([1.008, 12.011], dtype=torch.float64)[species], torch.zeros_like(species),
        torch.tensor(_CELL).unsqueeze(0), torch.ones(1, 3, dtype=torch.bool),
    )
    config = EGNNConfig(cutoff=4.0, width=16, n_layers=2, n_frequencies=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        potential = Potential(["H", "C"], config, torch.zeros(2)).to_precision(torch.float64)
    return potential, structures, positions


def _as_trajectory(structures: Structures, positions: torch.Tensor) -> Trajectory:
    return Trajectory(
        numbers=np.array([1, 6])[structures.species], masses=structures.masses.numpy(), pbc=np.ones(3, dtype=bool),
        cells=structures.cells.numpy(), times=np.zeros(1), positions=positions.numpy()[None],
        velocities=np.zeros((1, len(positions), 3)),
    )


def _in_lammps(folder: Path, ranks: int, program: Path | None) -> np.ndarray:
    run_lammps("in.step0", {}, cwd=folder, ranks=ranks, timeout=_TIME_LIMIT, program=program)
    energy = np.loadtxt(folder / "energy.txt")
    return np.append(energy, np.loadtxt(folder / "forces.txt", skiprows=9)[:, 1:])
