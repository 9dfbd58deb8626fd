"""An exported EGNN in LAMMPS gives the numbers of the Python model on frames it was not made from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lammps_cases import LAMMPS_BAR, as_tensor
from small import example, saved, small_potential, structures_of

from dtmd.export import export_torchscript
from dtmd.lammps import pair_coeff_lines, write_start
from dtmd.lmp import run_lammps
from dtmd.neighbors import Edges
from dtmd.potential import Potential, predict_with_virial

N_FRAMES = 20
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

INPUT = """
variable frame loop {n_frames}
label next_frame
clear
units metal
atom_style atomic
atom_modify map yes
boundary p p p
read_data frame${{frame}}.data
{pair}
compute virial all pressure NULL virial
thermo_style custom step pe c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] c_virial[6] vol
run 0 post no
print "$(pe:%.17g) $(c_virial[1]:%.17g) $(c_virial[2]:%.17g) $(c_virial[3]:%.17g) $(c_virial[4]:%.17g) &
$(c_virial[5]:%.17g) $(c_virial[6]:%.17g) $(vol:%.17g)" append numbers.txt screen no
write_dump all custom forces${{frame}}.txt id fx fy fz modify sort id format float %.17g
next frame
jump SELF next_frame
"""


def exported(potential: Potential, folder: Path) -> Path:
    return export_torchscript(saved(potential, folder / "model.pt")).path


def in_lammps(model: Path, folder: Path) -> list[dict[str, np.ndarray]]:
    pair = pair_coeff_lines(model, ["H", "C", "Pd"])
    (folder / "in.frames").write_text(INPUT.format(n_frames=N_FRAMES, pair=pair))
    run_lammps("in.frames", {}, cwd=folder)
    results = []
    for k, line in enumerate(np.loadtxt(folder / "numbers.txt"), start=1):
        forces = np.loadtxt(folder / f"forces{k}.txt", skiprows=9)[:, 1:]
        results.append({"energies": line[:1], "forces": forces,
                        "virials": as_tensor(line[1:7]) * line[7] / LAMMPS_BAR})
    return results


def in_python(potential: Potential, trajectory, frame: int) -> dict[str, np.ndarray]:
    structures = structures_of([0] * 2 + [1] * 49 + [2] * 6, trajectory.cells[frame], (True, True, True))
    positions = torch.tensor(trajectory.positions[frame])
    edges = Edges(structures, potential.config.cutoff, 0.1).at(positions)
    prediction = predict_with_virial(potential, structures, positions, edges)
    return {"energies": prediction.energies.numpy(), "forces": prediction.forces.numpy(),
            "virials": prediction.virials[0].numpy()}


@pytest.mark.parametrize("moved", [0.0, 0.37], ids=["as in AIMD", "across the boundary"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("readout", ["per_atom", "pooled"])
def test_same_energy_forces_and_virial_on_unseen_frames(plugin, tmp_path, precision, readout, moved):
    potential = small_potential(precision=getattr(torch, precision), width=32, cutoff=5.0, readout=readout)
    model = exported(potential, tmp_path)
    frames = [(trajectory, frame) for trajectory in example("test") for frame in range(0, 320, 32)]
    assert len(frames) == N_FRAMES
    for k, (trajectory, frame) in enumerate(frames, start=1):
        displacement = moved * trajectory.cells[frame].sum(axis=0)
        write_start(replace(trajectory, positions=trajectory.positions + displacement), frame,
                    tmp_path / f"frame{k}.data")
    for (trajectory, frame), got in zip(frames, in_lammps(model, tmp_path), strict=True):
        expected = in_python(potential, trajectory, frame)
        for name in ("energies", "forces", "virials"):
            difference = np.abs(got[name] - expected[name]).max() / np.abs(expected[name]).max()
            assert difference < TOLERANCE[precision], (name, trajectory.source, frame)
