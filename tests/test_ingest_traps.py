"""All reference data in one go: every trap caught by its name, everything sound accepted, and trained on."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from dtmd.ingest.examination import examine
from dtmd.ingest.formats import find_runs
from dtmd.ingest.recording import record
from dtmd.store import read_store

REFUSED = {
    "aimd/c2h6_cp2k_nvt/sys_4/test-pos-1.xyz": ("work", r"29% .* bias .* \(metadynamics"),
    "formats/abacus_dpdata_md/OUT.abacus/MD_dump": ("kicks", "energies and the work"),
    "formats/cp2k_dpdata_aimd/DPGEN-pos-1.xyz": ("timestep", "not consecutive"),
    "formats/dynaphopy/XDATCAR": ("labels", "no forces and no energies"),
    "formats/dynaphopy/si.lammpstrj": ("", "columns x y z, and no 'id'"),
    "formats/fhiaims_dpdata/out_md": ("unfinished", "ends after line 1177"),
    "formats/fhivibes/si8_HARMONIC_not_aimd.son": ("ab_initio", "those of a machine-learned or other model"),
    "formats/nomad/abacus/Sn_md/running_md.log": ("", "MD_dump"),
    "formats/nomad/cp2k/molecular_dynamics/H2O-32-pos-1.xyz": ("labels", "no forces"),
    "formats/nomad/cpmd/md/output.out": ("labels", "no forces"),
    "formats/pwmat_dpdata/MOVEMENT_1": ("frames", "at most 2 consecutive frames"),
    "formats/qe_cp_aiida/aiida.pos": ("labels", "no forces"),
    "formats/qe_cp_dpdata/oh-md.pos": ("frames", "at most 2"),
    "formats/qe_cp_dpdata/si/si.pos": ("frames", "at most 2"),
    "formats/qe_cp_dpdata/traj6.pos": ("motion", "100% of all frames does not follow"),
    "formats/qe_pw_md_libra/x0.md.out": ("kicks", "stochastic thermostat"),
    "formats/vasp_dpdata/OUTCAR.ch4.ml": ("ab_initio", "6 of 10 frames"),
    "formats/vasp_dpdata/vasprun.h2o.md.tribox.xml": ("work", "differ by 5"),
    "formats/vasp_mlff/ML_AB.BaZrOYH": ("", "line 121"),
    "formats/vasp_mlff/ML_AB.H2": ("frames", "selected configurations"),
    "formats/vasp_mlff/mlff_outputs/OUTCAR.istart0": ("", "IBRION = 11"),
    "formats/vasp_mlff/mlff_outputs/OUTCAR.istart1": ("", "IBRION = 11"),
    "formats/vasp_mlff/mlff_outputs/OUTCAR.istart2": ("", "IBRION = 11"),
    "formats/vasp_pymatgen/XDATCAR.MD": ("labels", "no forces"),
    "formats/vasp_pymatgen/XDATCAR_4": ("labels", "no forces"),
    "formats/vasp_pymatgen/XDATCAR_5": ("labels", "no forces"),
    "formats/vasp_pymatgen/XDATCAR_6": ("labels", "no forces"),
    "formats/vasp_pymatgen/XDATCAR_monatomic.gz": ("labels", "no forces"),
    "formats/vasp_pymatgen/XDATCAR_traj": ("labels", "no forces"),
    "formats/vasp_pymatgen/vasprun.ml_md.xml.gz": ("ab_initio", "80 of 100 frames .* first frame 10"),
    "formats/vasp_xdatcar_pt_slab/XDATCAR": ("labels", "no forces"),
}
"""Refused runs: the failed check, and what the reason says."""

ACCEPTED = {
    "aimd/c2h6_cp2k_nvt/sys_1/test-pos-1.xyz": 1001, "aimd/c2h6_cp2k_nvt/sys_2/test-pos-1.xyz": 1001,
    "aimd/c2h6_cp2k_nvt/sys_3/test-pos-1.xyz": 1001, "aimd/ch4_pwmat_nve/MOVEMENT": 992,
    "aimd/water64_cp2k_npt/type.raw": 401, "formats/abacus_dpdata_Sn_nve/OUT.Sn_nve/MD_dump": 11,
    "formats/cp2k_cp2kdata/aimd_npt_f/cp2k-pos-1.xyz": 11,
    "formats/cp2k_cp2kdata/aimd_nvt_restart/H2O_restart-pos-1.xyz": 3, "formats/fhivibes/mgo_aims_nve.son": 31,
    "formats/gaussian_dpdata/aimd_gaussian_CH4_output": 22, "formats/nomad/castep/Si8-md-NPT.castep": 11,
    "formats/nomad/fhiaims/HO_md/H2O_periodic_MD.out": 5, "formats/nomad/nwchem/molecular_dynamics.out": 6,
    "formats/nomad/openmx/C2H2_molecular_dynamics/C2H2.md": 100, "formats/nomad/qbox/13_h2o_64_bomd.r": 10,
    "formats/nomad/quantumespresso/Si_md/out.out": 50, "formats/qe_pw_md_libra/x0_co2.xml": 500,
    "formats/siesta_dpdata_aimd/output": 5, "formats/vasp_atompronet/OUTCAR": 10,
    "formats/vasp_dpdata/Ti-aimd-nwrite0/vasprun.xml": 10, "formats/vasp_dpdata/vasprun.h2o.md.10.xml": 10,
    "formats/vasp_dpdata/vasprun.h2o.md.duplicate.xml": 3, "formats/vasp_pymatgen/vasprun.md.xml.gz": 10,
}
"""Accepted runs and their frames."""

NOTES = {
    "formats/nomad/qbox/13_h2o_64_bomd.r": "H has 2.014 u in this run, not 1.008 u: deuterium",
    "formats/nomad/openmx/C2H2_molecular_dynamics/C2H2.md": "positions with 5 decimals",
    "formats/vasp_xdatcar_pt_slab/XDATCAR": "one frame in 50 steps was written",
    "formats/cp2k_dpdata_aimd/DPGEN-pos-1.xyz": "the step numbers are used",
    "aimd/water64_cp2k_npt/type.raw": "the motion shows 1 fs",
}


def dtmd(*arguments, cwd) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dtmd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.fixture(scope="module")
def ingested(shared_data, tmp_path_factory):
    """The whole reference data in one store: (folder, what was printed)."""
    folder = tmp_path_factory.mktemp("all")
    result = dtmd("ingest", shared_data / "aimd", shared_data / "formats", "-o", "all.h5", cwd=folder)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"{len(REFUSED)} of {len(REFUSED) + len(ACCEPTED) + 1} runs were refused" in result.stderr
    return folder, result.stdout


@pytest.mark.parametrize("run", REFUSED)
def test_each_trap_is_caught_by_name(ingested, run):
    check, reason = REFUSED[run]
    (line,) = [line for line in ingested[1].splitlines() if line.startswith(f"refused: {run}:")]
    assert re.search(reason, line), line
    assert f"[{check}]" in line if check else "--allow" not in line


def test_all_that_is_sound_is_in_the_store(ingested):
    folder, _ = ingested
    frames = {t.source.removeprefix("all.h5:"): len(t) for t in read_store(folder / "all.h5")}
    assert {name.partition(":")[2]: n for name, n in frames.items()} == ACCEPTED


@pytest.mark.parametrize("run", NOTES)
def test_what_is_odd_is_said(ingested, run):
    assert any(line.startswith(f"note: {run}: ") and NOTES[run] in line for line in ingested[1].splitlines())


def test_one_run_in_two_files_is_named(ingested):
    folder = "formats/vasp_dpdata"
    assert f"left out: {folder}/vasprun.h2o.md.xml repeats {folder}/vasprun.h2o.md.duplicate.xml" in ingested[1]


@pytest.mark.parametrize(("pattern", "settings"), [
    ("aimd/ch4*", {"split": "time", "stride": 40}),
    ("aimd/c2h6*", {"stride": 100, "validation_points": 4}),
    ("formats/vasp_pymatgen/vasprun.md*", {"split": "time", "validation_share": 0.4}),
], ids=["CH4-PWmat", "C2H6-CP2K", "Si64-VASP"])
def test_training_straight_from_the_store(ingested, tmp_path, pattern, settings):
    folder, _ = ingested
    config = {
        "name": "small", "data": {"train": [f"{folder / 'all.h5'}:{pattern}"], **settings},
        "model": {"cutoff": 4.0, "width": 16, "n_layers": 2, "n_frequencies": 8, "n_knots": 64},
        "curriculum": {"lengths": [1, 3], "max_epochs": 1, "validation_length": 4},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    result = dtmd("train", "small.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "small" / "model.pt").exists()
    log = (tmp_path / "runs" / "small" / "train.log").read_text()
    assert ("it flatters the model" in log) == ("split" in settings) and "S 3" in log


@pytest.mark.parametrize("path", [
    "aimd/c2h6_cp2k_nvt/sys_1/test-pos-1.xyz", "formats/fhivibes/mgo_aims_nve.son",
    "formats/nomad/qbox/13_h2o_64_bomd.r",
])
def test_reconstructed_velocities_are_those_of_the_code(shared_data, path):
    """Held against the velocities that the run has, with the error that is stated; the ends are the worst frames."""
    ((form, source),) = find_runs([shared_data / path]).runs
    recording = record(source, form)
    bare = examine(replace(recording, velocities=None), None, (), False)
    stated = next(check.value for check in bare.checks if check.name == "velocities")
    given, found = recording.velocities, bare.trajectories[0].velocities
    errors = np.linalg.norm(found - given, axis=(1, 2)) / np.linalg.norm(given, axis=(1, 2))
    assert np.median(errors) < max(stated, 1e-12) and errors.max() < max(3.0 * stated, 1e-8)
