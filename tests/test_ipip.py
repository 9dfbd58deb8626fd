"""`dtmd ipip` from its config to the student: what it leaves, that it goes on, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from ipip_cases import CONFIG, HERE, SOFTER, command, environment, ipip, write_config, write_reference

from dtmd.calculator import DtmdCalculator
from dtmd.config import load_config
from dtmd.errors import DtmdError
from dtmd.ipip.config import load_ipip_config
from dtmd.ingest import unwatched
from dtmd.ipip.exploration import RunEnd, read_ends, structure_starts
from dtmd.ipip.pseudo_labels import atoms_of_frame, count
from dtmd.ipip.rounds import Pretraining, Reference
from dtmd.ipip.stages import read_state
from dtmd.store import read_store


def facts(folder, stage):
    state = read_state(folder / "run" / stage)
    assert state["state"] == "done"
    return state["facts"]


def table_of(result: subprocess.CompletedProcess) -> list[str]:
    return [line for line in result.stdout.splitlines() if "│" in line]


@pytest.fixture(scope="module")
def finished(plugin, tmp_path_factory):
    """A folder in which two rounds were done, and what the command printed."""
    folder = tmp_path_factory.mktemp("ipip")
    write_reference(folder)
    result = ipip(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result


def test_every_stage_leaves_its_outputs_and_facts(finished):
    folder, result = finished
    lines = table_of(result)
    assert len(lines) == 3 and "teacher" in lines[0] and "round 1" in lines[1] and "round 2" in lines[2]
    assert sum("*" in line for line in lines) == 1
    explored = facts(folder, "round_1/explore")
    assert explored["alive"] == {"300": [2, 2], "600": [2, 2]} and explored["broken"] == {} and explored["speed"] > 0
    assert explored["frames"] + explored["repeated"] == 4 * 21
    shift = facts(folder, "teacher")["shift"]
    assert -3.3 < shift["Cu"] < -2.7
    assert (folder / "run" / "report" / "report.html").stat().st_size > 10_000
    assert "Iterative pretraining: Cu" in (folder / "run" / "report" / "report.html").read_text()
    assert load_config(folder / "run/round_2/finetune/training/config.yaml").start_from.parts[-4:] == (
        "round_2", "pretrain", "training", "model.pt")


def test_labels_tell_who_gave_them_and_are_of_one_level(finished):
    folder, _ = finished
    run = folder / "run"
    explored, old, new = (read_store(run / path) for path in ("round_1/explore/frames.h5", "round_1/renew/old.h5",
                                                              "round_1/renew/new.h5"))
    (teacher,) = {t.origin.labels for t in explored}
    (student,) = {t.origin.labels for t in old}
    assert teacher.startswith("teacher EMT ") and student.startswith("student of round 1 ")
    assert {t.origin.labels for t in new} == {teacher} and all(t.source for t in new)
    renewed = facts(folder, "round_1/renew")
    assert renewed["kept"] == count(old) == round(0.9 * count(explored)) and renewed["new"] == count(new) <= 10
    assert renewed["forgotten"] == count(explored) - count(old)
    reference = [t.energies.mean() / 6 for t in read_store(folder / "train.h5")]
    for trajectories in (explored, old, new):
        assert abs(np.mean([t.energies.mean() / 6 for t in trajectories]) - np.mean(reference)) < 0.3
    assert all(str(folder) not in t.origin.run for t in (*explored, *old, *new))


def test_the_student_learns_the_reference_and_runs_in_python_and_lammps(finished):
    folder, _ = finished
    test = read_store(folder / "test.h5")[0]
    atoms = atoms_of_frame(test, 0)
    for name in ("student.pt", "student.lammps.pt"):
        atoms.calc = DtmdCalculator(folder / "run" / name)
        assert abs(atoms.get_potential_energy() - test.energies[0]) < 0.1 * 6
    ends = read_ends(folder / "run/round_2/probe/ends.json")
    assert len(ends) == 4 and {end.temperature for end in ends} == {300.0, 600.0} and all(end.speed for end in ends)
    errors = facts(folder, "teacher")["errors"]
    assert errors["force"]["value"] < 0.2 and SOFTER < 1.0  # the teacher's forces are off by the factor alone


def test_the_same_command_finds_all_done(finished):
    folder, before = finished
    states = {path: path.stat().st_mtime for path in (folder / "run").rglob("state.json")}
    again = ipip(folder)
    assert again.returncode == 0 and table_of(again) == table_of(before)
    assert {path: path.stat().st_mtime for path in (folder / "run").rglob("state.json")} == states


def test_another_config_is_refused_until_its_stage_is_done_again(finished):
    folder, _ = finished
    refused = ipip(folder, renew={"forget": 0.5})
    assert refused.returncode == 2
    told = " ".join(refused.stderr.split())
    assert "renew.forget was 0.1, now 0.5" in told and "--redo round_1/renew" in told
    redone = ipip(folder, "--redo", "round_1/renew", renew={"forget": 0.5}, pretrain={"weights": "student"})
    assert redone.returncode == 0, redone.stderr
    assert "removed, to be done again: round_1/renew, round_2/pretrain" in " ".join(redone.stdout.split())
    assert facts(folder, "round_1/renew")["kept"] == round(0.5 * facts(folder, "round_1/explore")["frames"])
    second = load_config(folder / "run/round_2/pretrain/training/config.yaml")
    assert second.start_from.parts[-4:] == ("round_1", "finetune", "training", "model.pt")


@pytest.mark.parametrize(("changes", "message"), [
    ({"pretrain": {"curriculum": {"max_epoch": 3}}},
     "unknown key pretrain.curriculum.max_epoch; did you mean max_epochs?"),
    ({"student": {"architecture": "painn", "widht": 8}}, "unknown key student.widht; did you mean width?"),
    ({"pretrain": {"curriculum": {"lengths": [1, 2]}}}, r"pretrain: .*curriculum.lengths must be \[1\]"),
    ({"md": {"thermostat": "berendsen"}}, "md.thermostat: .*'csvr', 'langevin'"),
    ({"renew": {"forget": 1.0}}, "renew.forget: Input should be less than 1"),
    ({"teachers": {}}, "unknown key teachers; did you mean teacher?"),
])
def test_mistakes_in_the_config_are_told_with_the_key(tmp_path, changes, message):
    with pytest.raises(DtmdError, match=message):
        load_ipip_config(write_config(tmp_path, **changes))


def test_paths_are_relative_to_the_config(tmp_path):
    (tmp_path / "mace.model").touch()
    config = load_ipip_config(write_config(tmp_path, teacher={"calculator": "mace.model"},
                                           md={"structures": ["a.xyz@3"]}))
    assert config.reference.train == [tmp_path / "train.h5"]
    assert config.teacher.calculator == str(tmp_path / "mace.model")
    assert config.md.structures == [str(tmp_path / "a.xyz@3")]
    assert config.finetune.curriculum.validation_length == 1 and CONFIG["finetune"]["threads"] == 1


def test_starts_from_structures(tmp_path):
    from ase.build import molecule

    molecule("C2H6").write(tmp_path / "ethane.xyz")
    (start,) = structure_starts([str(tmp_path / "ethane.xyz")])
    assert start.name == "ethane_xyz" and start.trajectory.symbols[:2] == ["C", "C"]
    with pytest.raises(DtmdError, match="md.structures: two of them have one name"):
        structure_starts([str(tmp_path / "ethane.xyz")] * 2)


HOT = {"md": {"temperatures": [90000], "timestep": 4.0, "stride": 1}}


@pytest.mark.parametrize(("changes", "message"), [
    ({"teacher": {"calculator": "ipip_factories:not_finite"}},
     "cannot calculate the start .*not finite.*see that it knows all elements, Cu"),
    ({"teacher": {"calculator": "ipip_factories:changed", "arguments": {"enery": 2.0}}}, r"changed\(enery=2.0\)"),
    (HOT, r"[01] of its 2 runs came to their end, and 2 are needed.* after .* fs. See that it is made for"),
])
def test_teachers_that_cannot_be_used(tmp_path, changes, message):
    write_reference(tmp_path)
    result = ipip(tmp_path, **changes)
    assert result.returncode == 2, result.stdout
    assert re.search(message, " ".join(result.stderr.split())), result.stderr
    assert not (tmp_path / "run" / "student.pt").exists()


def test_a_student_that_explodes_everywhere_ends_with_advice(finished, tmp_path, monkeypatch):
    folder, _ = finished
    config = load_ipip_config(write_config(folder))
    work = Pretraining(config, tmp_path, None, Reference.read(config, unwatched), None, None)
    exploded = [RunEnd("student/300K/a@0", 300.0, None, False, 1, 2.0, "temperature of 2e+05 K", None)] * 2
    monkeypatch.setattr(work, "_runs", lambda folder, model: exploded)
    with pytest.raises(DtmdError, match="explodes at once in all 2 runs.*a@0: temperature of .*Train it longer"):
        work.probe(1, folder / "run" / "student.pt")
    survivor = replace(exploded[0], name="student/300K/b@0", n_sound=5)
    monkeypatch.setattr(work, "_runs", lambda folder, model: [*exploded, survivor])
    _, found = work.probe(2, folder / "run" / "student.pt")
    assert found["alive"] == {"300": [0, 3]}


@pytest.mark.slow
def test_a_killed_pretraining_goes_on_and_the_student_is_compared(tmp_path, plugin):
    write_reference(tmp_path)
    for stage in ("round_1/explore", "round_1/pretrain", "round_1/probe", "round_1/renew"):
        process = subprocess.Popen(command(tmp_path), cwd=HERE, env=environment(), stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 120
        while read_state(tmp_path / "run" / stage).get("state") is None:
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    whole = ipip(tmp_path)
    assert whole.returncode == 0, whole.stderr
    states = [json.loads(path.read_text())["state"] for path in (tmp_path / "run").glob("round_?/*/state.json")]
    assert len(states) == 10 and set(states) == {"done"}
    other = tmp_path / "undisturbed"
    other.mkdir()
    write_reference(other)
    assert ipip(other).returncode == 0
    for path in ("round_1/explore/frames.h5", "round_2/finetune/training/model.pt"):
        mine, its = (folder / "run" / path for folder in (tmp_path, other))
        if path.endswith(".h5"):
            for a, b in zip(read_store(mine), read_store(its), strict=True):
                np.testing.assert_array_equal(a.positions, b.positions)
        else:
            errors = [DtmdCalculator(file) for file in (mine, its)]
            assert errors[0].closest_pairs == errors[1].closest_pairs
    runs = tmp_path / "run/round_2/probe/student/300K"
    compared = subprocess.run([sys.executable, "-m", "dtmd", "compare", str(runs), str(tmp_path / "test.h5"), "-o",
                               str(tmp_path / "comparison")], capture_output=True, text=True, timeout=300)
    assert compared.returncode == 0 and (tmp_path / "comparison" / "report.html").exists(), compared.stderr
