"""ASE trajectories and the DTEGNN layout: files that ASE writes, against the numbers that went in."""

import gzip
import pickle
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from raw_runs import read_run
from small import AIMD

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers import ase_traj, dtegnn
from dtmd.ingest.source import CutShort, Source, candidate

FILE = AIMD / "train" / "h2pd6_007_from_000.extxyz.xz"
N_FRAMES, N_ATOMS = 10, 57


@pytest.fixture
def structures() -> list[Atoms]:
    """The first frames of a real run, as ASE reads them; velocities in Å/fs beside them."""
    return ase.io.read(FILE, f":{N_FRAMES}")


def write(path: Path, structures: list[Atoms]) -> Path:
    with Trajectory(path, "w") as file:
        for atoms in structures:
            file.write(atoms)
    return path


def read(path: Path, form=ase_traj.FORMAT, **companions):
    run = form.read(Source(path, companions))
    return run, list(run.frames)


def copper(tmp_path: Path, dynamics, **options) -> tuple[Path, Atoms]:
    """A short MD run of four atoms, written by ASE's own dynamics."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    atoms.set_momenta(np.random.default_rng(0).normal(scale=1.3, size=(4, 3)))
    dynamics(atoms, trajectory=str(tmp_path / "md.traj"), **options).run(12)
    return tmp_path / "md.traj", atoms


def test_what_was_written_is_read(structures, tmp_path):
    for atoms in structures:
        atoms.set_masses(np.where(atoms.numbers == 1, 2.014, atoms.get_masses()))
        atoms.set_velocities(atoms.arrays["velocities"] / ase.units.fs)
        atoms.calc.results["free_energy"] = atoms.calc.results["energy"] - 1.0
    run, frames = read_run(ase_traj.FORMAT, write(tmp_path / "no.ending", structures))
    assert len(frames) == N_FRAMES and [frame.step for frame in frames] == list(range(N_FRAMES))
    assert run.numbers.tolist() == [1] * 2 + [6] * 49 + [46] * 6 and run.pbc.all() and run.fixed is None
    assert (run.timestep, run.timestep_from) == (0.5, "timestep_fs")  # from atoms.info
    assert run.masses[:3].tolist() == [2.014, 2.014, 12.011]
    first = frames[0]
    assert first.energy == -3583.713259682976 - 1.0
    assert first.cell.tolist() == [[12.3, 0, 0], [-6.15, 10.652112466548596, 0], [0, 0, 14]]
    assert first.positions[0].tolist() == [2.96972261, 2.82744800, 8.28851555]
    assert first.forces[1].tolist() == [0.10480899, 0.70460748, 0.41945632]
    np.testing.assert_allclose(first.velocities[0], [0.00665097, 0.04212321, -0.00691678], rtol=1e-7)
    for atoms, frame in zip(structures, frames, strict=True):
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(frame.forces, atoms.get_forces())
        np.testing.assert_allclose(frame.velocities, atoms.arrays["velocities"], rtol=1e-7)


@pytest.mark.parametrize("interval", [1, 3])
def test_md_by_ase_says_its_time_step(tmp_path, interval):
    path, atoms = copper(tmp_path, VelocityVerlet, timestep=2.0 * ase.units.fs, loginterval=interval)
    run, frames = read(path)
    assert len(frames) == 12 // interval + 1 and frames[0].step is None
    assert run.timestep == pytest.approx(2.0 * interval, rel=1e-8) and "ASE" in run.timestep_from
    assert run.code == "ASE" and run.version == ase.__version__
    assert run.settings["calculator"] == "emt" and run.settings["md-type"] == "VelocityVerlet"
    assert "'emt'" in run.notes[0]
    np.testing.assert_allclose(frames[-1].velocities, atoms.get_velocities() * ase.units.fs, rtol=1e-7)
    assert frames[-1].energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-12)


def test_motion_of_an_ase_run(tmp_path):
    run, frames = read(copper(tmp_path, VelocityVerlet, timestep=1.0 * ase.units.fs)[0])
    r, f, v = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "forces", "velocities"))
    expected = units.ACCELERATION * f[1:-1] / 63.546 * run.timestep**2
    assert np.linalg.norm(r[2:] - 2 * r[1:-1] + r[:-2] - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(v[1:-1] - (r[2:] - r[:-2]) / 2) < 1e-5 * np.linalg.norm(v)


def test_an_interval_that_is_not_written_leaves_the_time_step_open(structures, tmp_path):
    for atoms in structures:
        del atoms.info["timestep_fs"]
    with Trajectory(tmp_path / "old.traj", "w") as file:
        file.set_description({"type": "molecular-dynamics", "timestep": 0.5 * ase.units.fs})
        for atoms in structures:
            file.write(atoms)
    run, _ = read(tmp_path / "old.traj")
    assert run.timestep is None and "steps of 0.5 fs" in run.notes[0]
    assert read(write(tmp_path / "none.traj", structures))[0].timestep is None


def test_constraints_and_thermostat(tmp_path):
    held = [FixAtoms([0]), FixCartesian([2], (False, True, False)), FixBondLength(1, 3)]
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    free_forces = atoms.get_forces()
    atoms.set_constraint(held)
    Langevin(atoms, 1.0 * ase.units.fs, temperature_K=300, friction=0.01, fixcm=False,
             trajectory=str(tmp_path / "md.traj")).run(2)
    run, frames = read(tmp_path / "md.traj")
    assert np.argwhere(run.fixed).tolist() == [[0, 0], [0, 1], [0, 2], [2, 1]]
    np.testing.assert_allclose(frames[0].forces, free_forces, atol=1e-12)
    assert run.settings["md-type"] == "Langevin" and run.settings["temperature_K"] == pytest.approx(300)
    assert any("FixBondLength" in note for note in run.notes)


def test_structures_without_labels_and_a_relaxation(tmp_path):
    atoms = bulk("Cu", cubic=True)
    run, (frame,) = read(write(tmp_path / "bare.traj", [atoms]))
    assert frame.forces is None and frame.energy is None and frame.velocities is None
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    BFGS(atoms, trajectory=str(tmp_path / "opt.traj"), logfile=None).run(steps=3)
    assert "geometry optimisation" in read(tmp_path / "opt.traj")[0].notes[0]


def test_packed_and_watched(structures, tmp_path):
    path = write(tmp_path / "run.traj", structures)
    (tmp_path / "run.traj.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("run.traj", "run.traj.gz"):
        seen = []
        run = ase_traj.FORMAT.read(Source(tmp_path / name, watch=seen.append))
        assert sum(seen) == 0 and len(list(run.frames)) == N_FRAMES
        assert 0.8 < sum(seen) / (tmp_path / name).stat().st_size <= 1.0


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_unread(tmp_path):
    path, sign = tmp_path / "old.traj", tmp_path / "sign"
    path.write_bytes(b"PickleTrajectory" + pickle.dumps(Trap(sign)))
    (source,) = ase_traj.FORMAT.find([candidate(path)])
    with pytest.raises(DtmdError, match="old.traj.*pickle"):
        ase_traj.FORMAT.read(source)
    assert not sign.exists()


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s[4].calc.results.pop("forces"), "frame 4 has no forces"),
    (lambda s: s[4].calc.results.pop("energy"), "frame 4 has no energy"),
    (lambda s: s[4].symbols.__setitem__(0, "C"), "frame 4 has the atoms CHC49Pd6, frame 0 H2C49Pd6"),
    (lambda s: s.__setitem__(4, s[4][:-1]), "frame 4 has"),
    (lambda s: s[4].set_momenta(np.ones((N_ATOMS, 3))), "frame 4 has momenta, frame 0 has none"),
    (lambda s: s.clear(), "no frames"),
])
def test_odd_frames_are_named(structures, tmp_path, change, message):
    change(structures)
    with pytest.raises(DtmdError, match=message) as caught:
        read(write(tmp_path / "bad.traj", structures))
    assert str(caught.value).startswith(str(tmp_path / "bad.traj"))


def test_a_file_that_was_not_copied_to_its_end(structures, tmp_path):
    path = write(tmp_path / "cut.traj", structures)
    whole = path.read_bytes()
    for share, n_whole in ((0.999, 9), (0.75, 7), (0.55, 5)):
        path.write_bytes(whole[: int(share * len(whole))])
        got = []
        with pytest.raises(CutShort, match=f"ends inside frame {n_whole} of {N_FRAMES}"):
            for frame in ase_traj.FORMAT.read(Source(path)).frames:
                got.append(frame)
        assert len(got) == n_whole


def test_damaged_bytes_are_one_clear_error_or_none(structures, tmp_path):
    path, random = write(tmp_path / "bad.traj", structures[:2]), np.random.default_rng(0)
    whole, n_refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(whole[: random.integers(40, len(whole))] if random.random() < 0.3 else whole)
        for _ in range(5):
            damaged[random.integers(24, len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except DtmdError as error:
            n_refused += 1
            assert str(error).startswith(str(path))
    assert n_refused > 50


@pytest.fixture
def layout(structures, tmp_path) -> Path:
    """traj_3.traj and velall-3, as DTEGNN reads them, from the real run."""
    write(tmp_path / "traj_3.traj", structures)
    rows = [np.linalg.solve(atoms.cell.array.T, 0.5 * atoms.arrays["velocities"].T).T for atoms in structures]
    np.savetxt(tmp_path / "velall-3", np.concatenate(rows))
    return tmp_path


def test_dtegnn_velocities_are_per_step_in_the_lattice_basis(layout, structures):
    run, frames = read_run(dtegnn.FORMAT, layout / "velall-3")
    assert len(frames) == N_FRAMES and run.code == "DTEGNN" and "velall-3" in run.notes[-1]
    assert run.settings["velocities_per_step"] == "true"
    for atoms, frame in zip(structures, frames, strict=True):
        np.testing.assert_allclose(frame.velocities / 0.5, atoms.arrays["velocities"], atol=1e-14)
        np.testing.assert_array_equal(frame.forces, atoms.get_forces())


def test_trajectories_find_the_text_of_their_number(layout):
    for name in ("traj_4.traj", "run_12.traj", "alone.traj"):
        (layout / name).write_bytes((layout / "traj_3.traj").read_bytes())
    rows = (layout / "velall-3").read_text()
    (layout / "velocities_012.txt.gz").write_bytes(gzip.compress(rows.encode()))
    (layout / "velall-4").write_text("step 1\n" + rows)
    (layout / "velall-5").write_text(rows)
    sources = dtegnn.FORMAT.find([candidate(path) for path in sorted(layout.iterdir())])
    assert {s.main.name: s.companions["velocities"].name for s in sources} == {
        "traj_3.traj": "velall-3", "run_12.traj": "velocities_012.txt.gz"}
    (layout / "other_3.traj").write_bytes((layout / "traj_3.traj").read_bytes())
    sources = dtegnn.FORMAT.find([candidate(path) for path in sorted(layout.iterdir())])
    assert [s.main.name for s in sources] == ["run_12.traj"]


@pytest.mark.parametrize(("edit", "error", "message"), [
    (lambda rows: rows[:-1], CutShort, "ends after line 569 inside the velocities of frame 9"),
    (lambda rows: [*rows, rows[0]], DtmdError, "line 571: more velocities than traj_3.traj has"),
    (lambda rows: [*rows[:99], "0 ***** 0", *rows[100:]], DtmdError, r"line 100: the velocities of frame 1.*\*\*"),
    (lambda rows: [*rows[:99], "0 0", *rows[100:]], DtmdError, "line 100: the velocities of frame 1"),
])
def test_velocities_that_do_not_fit(layout, edit, error, message):
    path = layout / "velall-3"
    path.write_text("".join(row + "\n" for row in edit(path.read_text().splitlines())))
    with pytest.raises(error, match=message):
        read(layout / "traj_3.traj", dtegnn.FORMAT, velocities=path)
