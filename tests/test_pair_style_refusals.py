"""What pair_style dtmd says: the line in the log, and what to write when the input does not fit."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from lammps_cases import HEAD, MEASURE, WIDE, head, run, write_case
from toys import crystal

from dtmd.errors import DtmdError

FITTING = HEAD.format(boundary="p p p", elements="H C Pd")

REFUSALS = {
    "units": ("units metal", "units real", "write: units metal"),
    "newton": ("units metal", "units metal\nnewton off", "write: newton on"),
    "map": ("atom_modify map yes", "", "atom_modify map yes"),
    "unknown element": ("H C Pd", "H C Pt", "names Pt for atom type 3, but the potential knows only: H C Pd"),
    "no elements": ("H C Pd", "", "0 elements for 3 atom types"),
    "too few elements": ("H C Pd", "H C", "2 elements for 3 atom types"),
    "elements in the wrong order": ("H C Pd", "C H Pd",
                                    "type 1 has mass 1.008 u, but pair_coeff says it is C"),
    "no potential": ("* * model.lammps.pt H C Pd", "* *", "pair_coeff * * model.lammps.pt H C Pd"),
    "missing file": ("model.lammps.pt", "gone.lammps.pt", "write it with: dtmd export model.pt"),
    "not exported": ("model.lammps.pt", "model.pt", "run: dtmd export model.pt"),
    "foreign": ("model.lammps.pt", "start.data", "not a potential; write it again with: dtmd export"),
    "foreign TorchScript": ("model.lammps.pt", "foreign.pt", "was not written by `dtmd export`"),
    "truncated": ("model.lammps.pt", "half.lammps.pt", "cut short, or not a potential"),
    "keyword": ("device cpu", "gpu 1", "pair_style dtmd does not know `gpu 1`"),
    "no threads": ("device cpu", "threads 0", "at least 1 is needed"),
    "left out pairs": ("pair_style dtmd device cpu\npair_coeff * * model.lammps.pt H C Pd",
                       "pair_style hybrid lj/cut 4.0 dtmd\npair_coeff * * dtmd model.lammps.pt H C Pd\n"
                       "pair_coeff 1 1 lj/cut 1 1", "pair_style hybrid/overlay"),
    "centroid stress": ("Pd", "Pd\ncompute c all centroid/stress/atom NULL\n"
                        "dump d all custom 1 c.dump id c_c[1]", "does not support"),
}


@pytest.fixture(scope="module")
def refused_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    write_case(folder, crystal(WIDE, 6, (True, True, True)))
    torch.save({"weights": torch.zeros(3)}, folder / "model.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "foreign.pt"))
    whole = (folder / "model.lammps.pt").read_bytes()
    (folder / "half.lammps.pt").write_bytes(whole[:len(whole) // 2])
    return folder


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_and_says_what_to_write(plugin, refused_files, case):
    good, bad, message = REFUSALS[case]
    text = FITTING.replace(good, bad)
    with pytest.raises(DtmdError) as refusal:
        run(refused_files, text + "run 0\n")
    assert message in " ".join(str(refusal.value).split())


def test_device_cuda_without_a_gpu_is_refused(plugin, refused_files):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DtmdError, match="sees no GPU; write `device cpu`"):
        run(refused_files, FITTING.replace("device cpu", "device cuda"))


def test_deuterium_is_hydrogen(plugin, refused_files):
    run(refused_files, FITTING + "mass 1 2.014\nrun 0\n")


def test_pooled_model_gives_no_energy_per_atom(plugin, tmp_path):
    atoms = crystal(WIDE, 6, (True, True, True))
    write_case(tmp_path, atoms, per_atom_energy=False)
    run(tmp_path, head(atoms) + "run 0\n")
    with pytest.raises(DtmdError, match="no energy per atom; remove compute pe/atom"):
        run(tmp_path, head(atoms) + MEASURE.format(stride=1) + "run 0\n")


def test_not_a_number_stops_the_run_with_step_and_atom(plugin, tmp_path):
    atoms = Atoms("PdCH", positions=[[9, 9, 9], [1, 1, 1], [1, 1, 4.5]], cell=[12, 12, 12], pbc=True)
    write_case(tmp_path, atoms, poison=2.0)
    text = head(atoms) + "group h id 3\nvelocity h set 0 0 -100\nfix 1 all nve\ntimestep 0.001\n"
    message = r"step 1\d: the energy or force of atom [23] \([CH]\) is not a finite number"
    with pytest.raises(DtmdError, match=message):
        run(tmp_path, text + "run 100\n")


def test_log_says_what_runs_where(plugin, tmp_path):
    atoms = crystal(WIDE, 3, (True, True, True))
    write_case(tmp_path, atoms, dtype="float32")
    output = run(tmp_path, head(atoms).replace("device cpu", "device cpu threads 2") + "run 0\n")
    line = "potential model.lammps.pt, elements H C Pd, cutoff 4 Angstrom, float32, device cpu, 2 threads\n"
    assert "dtmd: " + line in output
