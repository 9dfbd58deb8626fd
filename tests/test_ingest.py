"""Reading AIMD: numbers read off the real file, and everything that can be wrong with it."""

from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from raw_runs import FILE, first_lines, write
from small import AIMD

from dtmd import ingestion
from dtmd.errors import DtmdError
from dtmd.ingest import ingest, read_aimd
from dtmd.ingest.formats import find_runs
from dtmd.ingestion import run_ingest
from dtmd.store import read_store

@pytest.fixture(scope="module")
def frames() -> list[list[str]]:
    """The first frames of a real file, as lines."""
    return first_lines()


def read(path: Path):
    (trajectory,) = read_aimd([path])
    return trajectory


def test_numbers_read_off_the_file():
    trajectory = read(FILE)
    assert len(trajectory) == 320 and trajectory.timestep == 0.5
    assert trajectory.symbols == ["H"] * 2 + ["C"] * 49 + ["Pd"] * 6
    assert trajectory.energies[0] == -3583.713259682976
    assert trajectory.positions[0, 0].tolist() == [2.96972261, 2.82744800, 8.28851555]
    assert trajectory.forces[0, 1].tolist() == [0.10480899, 0.70460748, 0.41945632]
    assert trajectory.velocities[0, 0].tolist() == [0.00665097, 0.04212321, -0.00691678]
    assert trajectory.origin.code == "extended XYZ" and len(trajectory.origin.digest) == 64
    assert {check.verdict for check in trajectory.origin.checks} == {"ok"}


def test_all_embedded_trajectories_are_sound():
    assert len(read_aimd([AIMD])) == 10


def test_velocities_are_reconstructed_where_the_file_has_none(frames, tmp_path):
    full = read(write(tmp_path / "full.extxyz", frames))
    bare = [[frame[0], frame[1].replace(":velocities:R:3", "")] + [" ".join(line.split()[:7]) for line in frame[2:]]
            for frame in frames]
    trajectory = read(write(tmp_path / "bare.extxyz", bare))
    assert np.abs(trajectory.velocities - full.velocities).max() < 1e-6


def test_velocities_as_ase_writes_them(frames, tmp_path):
    original = write(tmp_path / "original.extxyz", frames)
    structures = ase.io.read(original, ":")
    for atoms in structures:
        atoms.set_velocities(atoms.arrays.pop("velocities") / ase.units.fs)
    ase.io.write(tmp_path / "momenta.extxyz", structures)
    difference = read(tmp_path / "momenta.extxyz").velocities - read(original).velocities
    assert np.abs(difference).max() < 1e-6
    for atoms in structures:
        atoms.arrays["velocities"] = atoms.get_velocities()
        del atoms.arrays["momenta"]
    ase.io.write(tmp_path / "velocities.extxyz", structures)
    trajectory = read(tmp_path / "velocities.extxyz")
    assert "velocities converted from ASE's unit" in trajectory.notes
    assert np.abs(trajectory.velocities - read(original).velocities).max() < 1e-6


def test_wrapped_positions_are_unwrapped(frames, tmp_path):
    original = write(tmp_path / "original.extxyz", frames)
    structures = ase.io.read(original, ":")
    for atoms in structures:
        atoms.wrap()
    ase.io.write(tmp_path / "wrapped.extxyz", structures)
    moved = read(tmp_path / "wrapped.extxyz").positions - read(original).positions
    assert np.allclose(moved, moved[0], atol=1e-7)


def replaced(frames, k, edit):
    return [edit(frame) if i == k else frame for i, frame in enumerate(frames)]


def without_forces(frame):
    header = frame[1].replace("forces:R:3:", "")
    return [frame[0], header] + [" ".join(line.split()[:4] + line.split()[7:]) for line in frame[2:]]


def with_nan(frame):
    fields = frame[5].split()
    fields[5] = "nan"
    return frame[:5] + [" ".join(fields)] + frame[6:]


def other_atom(frame):
    return frame[:2] + ["C" + frame[2][1:]] + frame[3:]


@pytest.mark.parametrize(("damage", "message"), [
    (lambda f: replaced(f, 4, without_forces), "frame 4 has no forces"),
    (lambda f: replaced(f, 4, with_nan), "frame 4 has forces that are not finite"),
    (lambda f: replaced(f, 3, lambda frame: [line.replace("energy=", "entropy=") for line in frame]),
     "frame 3 has no energy"),
    (lambda f: replaced(f, 6, other_atom), "frame 6 has the atoms"),
    (lambda f: f[:5] + [f[6], f[5]] + f[7:], "frame 6 has a step number before that of frame 5.*--allow order"),
    (lambda f: [[frame[0], frame[1].replace("timestep_fs=0.5", "timestep_fs=1.0")] + frame[2:] for frame in f],
     "said to be 1 fs, the motion shows 0.5 fs"),
    (lambda f: f[:-1] + [f[-1][:20]], "frame 11.*the 11 whole frames can be used.*--allow unfinished"),
    (lambda f: [], "not recognised as AIMD output"),
])
def test_bad_files_are_refused_with_the_place(frames, tmp_path, damage, message):
    path = write(tmp_path / "bad.extxyz", damage(frames))
    with pytest.raises(DtmdError, match=message) as caught:
        read(path)
    assert "bad.extxyz" in str(caught.value)


def without_steps(frames):
    return [[frame[0], " ".join(w for w in frame[1].split(" ") if not w.startswith("step="))] + frame[2:]
            for frame in frames]


@pytest.mark.parametrize(("order", "message"), [
    ([0, 1, 2, 4, 3, 5, 6, 7, 8, 9], "around frame 2 does not follow.*out of order"),
    ([0, 1, 2, 3, 3, 4, 5, 6, 7], "the frame after frame 3 repeats it"),
], ids=["swapped", "doubled"])
def test_the_motion_shows_a_wrong_order_without_step_numbers(frames, tmp_path, order, message):
    path = write(tmp_path / "shuffled.extxyz", without_steps([frames[k] for k in order]))
    with pytest.raises(DtmdError, match=message):
        read(path)


def test_a_missing_last_line_end_is_no_damage(frames, tmp_path):
    path = write(tmp_path / "joined.extxyz", frames)
    path.write_text(path.read_text().rstrip("\n"))
    assert len(read(path)) == len(frames)
    path.write_text(path.read_text()[:-3])
    with pytest.raises(DtmdError, match="frame 11.*--allow unfinished"):
        read(path)


def test_gaps_split_a_file_into_trajectories_of_one_run(frames, tmp_path):
    path = write(tmp_path / "gap.extxyz", frames[:5] + frames[6:])
    first, second = read_aimd([path])
    assert (first.source, second.source) == (f"{path}[0:5]", f"{path}[5:11]")
    assert first.origin.run == second.origin.run == str(path)
    assert second.times.tolist() == [3.0, 3.5, 4.0, 4.5, 5.0, 5.5]


def test_kinds_of_energy_are_never_mixed(frames, tmp_path):
    mixed = [[frame[0], frame[1].replace("energy=", "free_energy=") if k < 3 else frame[1]] + frame[2:]
             for k, frame in enumerate(frames)]
    with pytest.raises(DtmdError, match="frame 3 has no free_energy"):
        read(write(tmp_path / "mixed.extxyz", mixed))


def runs_among(paths: list[Path]) -> list[Path]:
    return [source.main for _, source in find_runs(paths).runs]


def test_a_file_that_is_named_twice_is_read_once():
    found = runs_among([AIMD / "test", AIMD / "test" / ".." / "test", AIMD / "train"])
    assert found == runs_among([AIMD / "test"]) + runs_among([AIMD / "train"])


def test_one_run_in_two_files_is_read_once(frames, tmp_path):
    write(tmp_path / "a.extxyz", frames)
    write(tmp_path / "b.extxyz", frames[:9])
    reports = list(ingest(find_runs([tmp_path])))
    assert [report.left_out for report in reports] == [
        None, f"repeats {tmp_path / 'a.extxyz'} (--allow duplicates takes both)"]
    assert len(read_aimd([tmp_path])) == 1
    assert len(read_aimd([tmp_path], allow=["duplicates"])) == 2


def test_single_structures_in_a_folder_are_no_trajectories(frames, tmp_path):
    write(tmp_path / "run.extxyz", frames)
    single = write(tmp_path / "relaxed.extxyz", frames[:1])
    assert [t.source for t in read_aimd([tmp_path])] == [str(tmp_path / "run.extxyz")]
    (report,) = [r for r in ingest(find_runs([tmp_path])) if r.source.main == single]
    assert "single frame" in report.left_out
    with pytest.raises(DtmdError, match="at most 1 consecutive frames"):
        read_aimd([single])


def test_runs_that_belong_together_are_one_run_for_splits(frames, tmp_path):
    """A restart goes on where the first part ends; another start is another run."""
    write(tmp_path / "part1.extxyz", frames[:6])
    write(tmp_path / "part2.extxyz", frames[6:])
    first, second = read_aimd([tmp_path])
    assert second.origin.run == first.origin.run
    assert any("goes on from the end of" in note for note in second.notes)
    other = ase.io.read(AIMD / "train" / "h2pd6_010_from_330.extxyz.xz", index=":10")
    ase.io.write(tmp_path / "part3.extxyz", other)
    assert len({t.origin.run for t in read_aimd([tmp_path])}) == 2


def test_damaged_archive_and_missing_files(tmp_path):
    cut = tmp_path / "cut.extxyz.xz"
    cut.write_bytes(FILE.read_bytes()[:100_000])
    with pytest.raises(DtmdError, match=r"cut.extxyz.xz: cannot be read beyond line \d+.*damaged or cut off"):
        read(cut)
    with pytest.raises(DtmdError, match="no such file or folder"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DtmdError, match="no AIMD output in this folder"):
        find_runs([tmp_path / "empty"])
    (tmp_path / "OUTCAR").write_text("")
    with pytest.raises(DtmdError, match="OUTCAR: not recognised as AIMD output"):
        find_runs([tmp_path / "OUTCAR"])


def test_whole_trajectory_and_contradicting_step(shared_data):
    trajectory = read(shared_data / "h2pd6_gfn1" / "traj_001.extxyz.gz")
    assert len(trajectory) == 801
    with pytest.raises(DtmdError, match="says 0.5 fs between frames .*, you say 1 fs"):
        read_aimd([shared_data / "h2pd6_gfn1" / "traj_001.extxyz.gz"], timestep=1.0)


def rows_and_added(folder: Path, store: Path):
    result = run_ingest(find_runs([folder]), store)
    return [row.verdict for row in result.rows], result.added


def test_a_store_grows_with_its_folder(frames, tmp_path):
    """Files that are in it are not read again; a later part of a run belongs to the run; a changed run is refused."""
    folder, store = tmp_path / "aimd", tmp_path / "data.h5"
    folder.mkdir()
    write(folder / "part1.extxyz", frames[:5])
    assert rows_and_added(folder, store) == (["ok"], ("part1.extxyz",))
    write(folder / "part2.extxyz", frames[5:])
    assert rows_and_added(folder, store) == (["in the store", "ok"], ("part2.extxyz",))
    assert {t.origin.run for t in read_store(store)} == {"part1.extxyz"}
    before = store.read_bytes()
    write(folder / "part1.extxyz", frames[:7])
    result = run_ingest(find_runs([folder]), store)
    assert "holds this run with 5 frames, now it has 7" in result.refused[0]
    assert store.read_bytes() == before


def test_what_is_done_stays_done_when_the_command_is_killed(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(ingestion, "BATCH_BYTES", 1)
    store, folder = tmp_path / "data.h5", tmp_path / "aimd"
    folder.mkdir()
    for k in range(3):
        structures = ase.io.read(write(folder / f"run{k}.extxyz", frames[k:]), ":")
        for atoms in structures:
            atoms.positions[:, 2] += 0.01 * k  # another run
        ase.io.write(folder / f"run{k}.extxyz", structures)

    class Killed(BaseException):
        pass

    def killed(row, seen=[]):  # noqa: B006
        seen.append(row)
        if len(seen) == 3:
            raise Killed

    with pytest.raises(Killed):
        run_ingest(find_runs([folder]), store, done=killed)
    assert [t.source for t in read_store(store)] == [f"{store}:run0.extxyz"]
    assert rows_and_added(folder, store) == (["in the store", "ok", "ok"], ("run1.extxyz", "run2.extxyz"))
