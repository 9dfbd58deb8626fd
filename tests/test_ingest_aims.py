"""FHI-aims output and fhi-vibes trajectories: numbers read off the real files, and damaged copies of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from raw_runs import read_run

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers import fhi_aims, fhi_vibes
from dtmd.ingest.source import CutShort, candidate


@pytest.fixture
def water(shared_data) -> Path:
    return shared_data / "formats/nomad/fhiaims/HO_md/H2O_periodic_MD.out"


@pytest.fixture
def mgo(shared_data) -> Path:
    return shared_data / "formats/fhivibes/mgo_aims_nve.son"


def damaged(path: Path, target: Path, old: str, new: str, count: int = 1) -> Path:
    """A copy with the last `count` of all places of `old` changed."""
    parts = path.read_text().rsplit(old, count)
    assert len(parts) == count + 1
    target.write_text(new.join(parts))
    return target


def test_aims_numbers_of_a_periodic_run(water):
    run, frames = read_run(fhi_aims.FORMAT, water)
    assert (run.code, run.version) == ("FHI-aims", "151211")
    assert run.numbers.tolist() == [1, 1, 8] and run.masses.tolist() == [1.00794, 1.00794, 15.9994]
    assert run.pbc.all() and run.timestep == 0.001 * 1000 and run.fixed is None
    assert run.settings == {"XC": "Using PBE gradient-corrected functionals.", "k grid": "2         2         2",
                            "MD": "NVT ensemble with  Nose-Hoover thermostat"}
    assert [frame.step for frame in frames] == [0, 1, 2, 3, 4]
    first, last = frames[0], frames[-1]
    assert (first.cell == 4.0 * np.eye(3)).all()
    assert first.energy == -0.207847042902594e4 and last.energy == -0.207843959002456e4
    assert first.positions[2].tolist() == [2.0, 2.0, 2.0]
    assert first.forces[0].tolist() == [-0.138268558388624e1, -0.503728797971614, -0.891209922261007e-11]
    assert last.positions[1].tolist() == [1.30134741, 2.64886611, 1.95371611]
    assert last.forces[2].tolist() == [-0.160238539741093, -0.712215120406682e-1, 0.159637235936704e-1]
    assert first.velocities[0] == pytest.approx([-16.66642905e-3, 25.51588094e-3, -13.68976284e-3], abs=1e-15)
    assert last.velocities[2] == pytest.approx([-0.18777088e-3, -0.82245910e-3, 1.51204451e-3], abs=1e-15)


def test_aims_run_that_was_killed(shared_data):
    path = shared_data / "formats/fhiaims_dpdata/out_md"
    (source,) = fhi_aims.FORMAT.find([candidate(path)])
    run = fhi_aims.FORMAT.read(source)
    frames = [next(run.frames) for _ in range(3)]
    with pytest.raises(CutShort, match="line 1177"):
        next(run.frames)
    assert run.numbers.tolist() == [5, 7, 7] and run.masses.tolist() == [10.811, 14.0067, 14.0067]
    assert frames[0].cell.tolist() == [[0.0, 1.7916, 1.7916], [1.7916, 0.0, 1.7916], [1.7916, 1.7916, 0.0]]
    # The free energy, not "Total energy uncorrected" −0.355040311891987E+04.
    assert frames[0].energy == -0.355040333208137e4 and frames[2].energy == -0.359834704976848e4
    assert frames[1].forces[2].tolist() == [-0.216900065834719e2, -0.245261538540233e2, -0.225693906641451e2]
    assert frames[1].positions[0].tolist() == [3.50222351, 3.50601928, 3.51319338]
    x0, x1, x2 = (frame.positions for frame in frames)
    moved = units.ACCELERATION * frames[1].forces / run.masses[:, None] * run.timestep**2
    assert np.abs(x2 - 2 * x1 + x0 - moved).max() < 3e-8
    assert np.abs((x2 - x0) / 2 - frames[1].velocities * run.timestep).max() < 1e-8


def test_aims_cluster_with_a_fixed_atom(water, tmp_path):
    text = water.read_text()
    start = text.index("  | Unit cell:")
    cluster = text[:start] + text[text.index("  | Atomic structure:", start):]
    constraint = ("  Found relaxation constraint for atom      1: x coordinate fixed.\n"
                  "  Found relaxation constraint for atom      3: All coordinates fixed.\n")
    (tmp_path / "aims.out").write_text(cluster.replace("  Input geometry:\n", f"{constraint}  Input geometry:\n"))
    run, frames = read_run(fhi_aims.FORMAT, tmp_path / "aims.out")
    assert not run.pbc.any() and not frames[0].cell.any()
    assert run.fixed.tolist() == [[True, False, False], [False] * 3, [True] * 3]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("0.159637235936704E-01", "***", "line 1324: forces: expected three numbers"),
    ("        1.94637928  H", "        1.9463792.8  H", "line 1354: atom: expected three"),
    ("        1.94637928  H", "        1.94637928  O", "not the 3 atoms H H O"),
    ("     velocity         -20.98112073         11.76139323        -13.15238952\n", "", "2 velocities"),
    ("Total atomic forces", "Total forces", "no atomic forces"),
    ("| Time step number          :        4", "| Time step number          :        x", "no time step number"),
    ("  | Found nuclear charge :   8.0000\n", "", "no nuclear charge of species 'O'"),
    ("|    1: Species H ", "|    1: Sort H ", "not the 2 atoms H O"),
])
def test_aims_errors(water, tmp_path, old, new, message):
    path = damaged(water, tmp_path / "aims.out", old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(fhi_aims.FORMAT, path)


def test_aims_cut_inside_a_frame(water, tmp_path):
    text = water.read_text()
    for end, n_frames in ((text.rindex("  Total atomic forces"), 4), (text.rindex("     velocity"), 4),
                          (text.rindex("  Final output"), 5), (text.index("Initializing index lists"), 0)):
        (tmp_path / "aims.out").write_text(text[:end])
        (source,) = fhi_aims.FORMAT.find([candidate(tmp_path / "aims.out")])
        frames = fhi_aims.FORMAT.read(source).frames
        for _ in range(n_frames):
            next(frames)
        with pytest.raises(StopIteration if n_frames == 5 else CutShort):
            next(frames)


def test_aims_without_md_is_not_claimed(water, tmp_path):
    path = damaged(water, tmp_path / "aims.out", "Molecular dynamics time step", "Relaxation step")
    assert fhi_aims.FORMAT.find([candidate(path)]) == []


def test_vibes_numbers(mgo):
    run, frames = read_run(fhi_vibes.FORMAT, mgo)
    assert run.code == "fhi-vibes (Aims)" and run.notes == [] and run.settings["xc"] == "pbesol"
    assert run.numbers.tolist() == [12] * 32 + [8] * 32 and run.masses[[0, 63]].tolist() == [24.305, 15.999]
    assert run.pbc.all() and run.timestep == pytest.approx(3.92907791538562e-01 / 9.82269478846400e-02, abs=1e-12)
    assert [frame.step for frame in frames] == list(range(1, 32)) and all(frame.ab_initio for frame in frames)
    first, last = frames[0], frames[-1]
    assert first.cell[0].tolist() == [8.45239884, -2e-16, -2e-16]
    assert first.energy == -2.39666223238980e5 and last.energy == -2.39665674384442e5
    assert first.positions[0].tolist() == [-4.81275950547257e-02, -2.46637402763124e-02, 2.29105160001921e-02]
    assert first.forces[0].tolist() == [1.13076440668487e-01, -8.04591091006282e-01, -5.18662885920676e-03]
    assert last.positions[0].tolist() == [-5.32205208745160e-02, -8.15669425393079e-02, -4.99704399699994e-03]
    assert last.forces[0].tolist() == [2.92449325674293e-01, 3.09629874669890e-01, 3.08650869917999e-01]
    in_fs = 9.82269478846400e-02
    assert first.velocities[0] == pytest.approx(
        np.array([-3.18830254623419e-02, 1.71318684596906e-04, -3.23344562711890e-02]) * in_fs, abs=1e-15)
    assert last.velocities[0] == pytest.approx(
        np.array([-4.19170995945268e-02, -3.11312129935812e-02, -4.86920611972820e-02]) * in_fs, abs=1e-15)
    x = np.array([frame.positions for frame in frames])
    moved = units.ACCELERATION * frames[1].forces / run.masses[:, None] * run.timestep**2
    assert np.abs(x[2] - 2 * x[1] + x[0] - moved).max() < 1e-7 * np.abs(moved).max()
    assert np.abs((x[2] - x[0]) / 2 - frames[1].velocities * run.timestep).max() < 1e-12


def test_vibes_harmonic_model_is_not_ab_initio(shared_data):
    run, frames = read_run(fhi_vibes.FORMAT, shared_data / "formats/fhivibes/si8_HARMONIC_not_aimd.son")
    # The header's "dt": 5 is in fs, the frames' "dt" in ASE's unit.
    assert run.timestep == pytest.approx(5.0, abs=1e-12) and len(frames) == 1001
    assert not any(frame.ab_initio for frame in frames) and "names no calculator" in run.notes[0]
    assert frames[0].cell[1, 1] == 5.42606752582 and frames[-1].step == 1000


def test_vibes_calculator_that_is_a_model(mgo, tmp_path):
    path = damaged(mgo, tmp_path / "trajectory.son", '"calculator": "Aims"', '"calculator": "LennardJones"')
    run, frames = read_run(fhi_vibes.FORMAT, path)
    assert not frames[0].ab_initio and "LennardJones" in run.notes[0]


def test_vibes_runs_of_symbols(mgo, tmp_path):
    """Later versions write [[32, "Mg"], [32, "O"]]; the calculation is the same."""
    head, rest = mgo.read_text().split("\n===\n")
    header = json.loads(head)
    header["atoms"].update(symbols=[[32, "Mg"], [32, "O"]], masses=[[32, 24.305], [32, 15.999]])
    (tmp_path / "trajectory.son").write_text(f"{json.dumps(header)}\n===\n{rest}")
    run, _ = read_run(fhi_vibes.FORMAT, tmp_path / "trajectory.son")
    assert run.numbers.tolist() == [12] * 32 + [8] * 32 and run.masses[[31, 32]].tolist() == [24.305, 15.999]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("2.92449325674293e-01", "2.92.449325674293e-01", r"lines \d+-\d+ \(a frame\) are not JSON"),
    ("2.92449325674293e-01", '"2.9x"', "forces: not a table of numbers"),
    ("[ 2.92449325674293e-01,  3.09629874669890e-01,  3.08650869917999e-01],", "", r"forces: \(63, 3\) numbers"),
    ('"positions"', '"places"', "a frame without positions"),
    ('"energy": -2.39665674384442e+05', '"energy": "low"', "energy: not a number"),
    ("\n---\n{", "\n{", "are not JSON"),
])
def test_vibes_errors(mgo, tmp_path, old, new, message):
    path = damaged(mgo, tmp_path / "trajectory.son", old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(fhi_vibes.FORMAT, path)


def test_vibes_cut_inside_a_frame(mgo, tmp_path):
    text = mgo.read_text()
    path = tmp_path / "trajectory.son"
    path.write_text(text[:text.rindex('"forces"')])
    (source,) = fhi_vibes.FORMAT.find([candidate(path)])
    frames = fhi_vibes.FORMAT.read(source).frames
    for _ in range(30):
        next(frames)
    with pytest.raises(CutShort):
        next(frames)


def test_neither_claims_the_other(water, mgo):
    assert fhi_vibes.FORMAT.find([candidate(water)]) == [] and fhi_aims.FORMAT.find([candidate(mgo)]) == []
