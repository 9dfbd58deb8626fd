"""What pair_style dtmd says: the line in the log, and what to write when the input does not fit."""

from __future__ import annotations

import pytest
import torch
import toys
from ase import Atoms
from lammps_cases import HEAD, MEASURE, WIDE, head, run, write_case
from toys import Toy, crystal, write_toy

from dtmd import artefact
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
    "another format version": ("model.lammps.pt", "old.lammps.pt", "format 0, this plugin reads format"),
    "damaged": ("model.lammps.pt", "damaged.lammps.pt", "does not have its checksum"),
    "a second line": ("H C Pd", "H C Pd\npair_coeff * * model.lammps.pt H C Pd", "there are two pair_coeff lines"),
    "another cutoff in a committee": ("model.lammps.pt", "model.lammps.pt short.lammps.pt",
                                      "short.lammps.pt has a cutoff of 3.000000 Angstrom, model.lammps.pt one of 4"),
    "other elements in a committee": ("model.lammps.pt", "model.lammps.pt reordered.lammps.pt",
                                      "reordered.lammps.pt knows other elements than model.lammps.pt"),
    "excluded pairs": ("H C Pd", "H C Pd\nneigh_modify exclude type 1 2", "neigh_modify exclude takes away pairs"),
    "excluded group": ("H C Pd", "H C Pd\nneigh_modify exclude group all all", "setforce 0.0 0.0 0.0"),
    "included group": ("H C Pd", "H C Pd\ngroup some id 1 2\natom_modify first some\nneigh_modify include some",
                       "neigh_modify include takes away pairs"),
    "atoms not communicated": ("H C Pd", "H C Pd\ngroup some id 1 2\natom_modify first some\ncomm_modify group some",
                               "write: comm_modify group all"),
    "a cell too small to communicate": ("H C Pd", "H C Pd\ncomm_style tiled\nneighbor 6.0 bin",
                                        "Communication cutoff for comm_style tiled cannot exceed periodic box length"),
    "no force": ("device cpu", "max_force 0", "max_force 0: more than 0 eV/Angstrom is needed"),
    "a word for a number": ("device cpu", "max_force high", "max_force high"),
    "no value": ("device cpu", "device cpu max_force", "does not know `max_force nothing`"),
    "unknown value": ("device cpu", "extrapolation perhaps", "does not know `extrapolation perhaps`"),
    "unknown closest distances": ("device cpu", "extrapolation yes",
                                  "does not hold the closest distances of its training data; train it"),
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
    numbers = Toy().mix.numpy().tobytes()
    (folder / "damaged.lammps.pt").write_bytes(whole.replace(numbers, b"\0" + numbers[1:]))
    write_toy(folder / "short.lammps.pt", cutoff=3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefact, "FORMAT", "0")
        write_toy(folder / "old.lammps.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toys, "ELEMENTS", ["C", "H", "Pd"])
        write_toy(folder / "reordered.lammps.pt")
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
