"""`dtmd run`: many LAMMPS runs from AIMD frames, and what can happen to them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from small import AIMD, example
from typer.testing import CliRunner

from dtmd.cli import app
from dtmd.comparison.comparing import noted_starts
from dtmd.comparison.sides import HeldRun
from dtmd.ensemble.record import Settings
from dtmd.ensemble.results import folder_runs
from dtmd.ensemble.runs import prepare, run_all
from dtmd.ensemble.starts import choose_starts, listed_starts, run_names
from dtmd.errors import DtmdError
from dtmd.launcher.display import LaunchDisplay
from dtmd.launcher.processes import processes
from dtmd.plugin import environment_program

# Without forces. Except in the trial it waits at its end while the file ${hold} is there.
INPUT = """
units metal
atom_modify map yes
read_data ${start}
pair_style zero 4.0
pair_coeff * *
timestep 0.0005
fix integrate all nve
dump frames all custom 1 ${out}.lammpstrj id element mass xu yu zu vx vy vz fx fy fz
dump_modify frames element H C Pd sort id units yes time yes format float %.12g
run ${steps}
variable hold index nothing
variable held equal is_file(${hold})
variable trial equal is_file(../in.trial)
label wait
if "${held} && !${trial}" then "shell sleep 0.1" "jump SELF wait"
"""
FRAMES = ("h2pd6_009_from_480@0", "h2pd6_009_from_480@60", "h2pd6_014_from_060@0")


@pytest.fixture(scope="module")
def aimd():
    return example()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my.in").write_text(INPUT)
    return tmp_path


def command(folder, *more, steps=5):
    return [sys.executable, "-m", "dtmd", "run", "my.in", "--starts", str(AIMD / "test"), "-o", "md", "--var",
            f"steps={steps}", "--var", f"hold={folder / 'hold'}", *map(str, more)]


def dtmd_run(folder, *more, **settings):
    return subprocess.run(command(folder, *more, **settings), capture_output=True, text=True, timeout=120, cwd=folder)


def starts(n):
    return [word for frame in FRAMES[:n] for word in ("--start", frame)]


def state(folder, name):
    return json.loads((folder / "md" / name / "state.json").read_text())


def lmp_of(folder):
    """Process ids of the `lmp` that run for a folder, by the name of the run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if words[0] == "lmp" and str(folder) in " ".join(words):
                found[(process / "cwd").resolve().name] = int(process.name)
        except OSError:
            continue  # ended meanwhile
    return found


def wait_for(condition, seconds=60):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.1)


def test_runs_end_in_a_comparison_from_their_exact_starts(folder):
    done = dtmd_run(folder, *starts(2), "--compare")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs finished; next: dtmd compare md" in done.stdout
    for name in FRAMES[:2]:
        names = {path.name for path in (folder / "md" / name).iterdir()}
        assert names == {".lock", "start.data", "state.json", "run.log", "run.lammpstrj", "lmp.out"}
    assert not list((folder / "md").glob("*trial*"))
    metrics = json.loads((folder / "md" / "comparison" / "metrics.json").read_text())
    rollout = next(section for section in metrics["sections"] if section["name"] == "rollout")
    assert [run[3:5] for run in rollout["tables"][0]["rows"]] == [["0", "5"], ["60", "5"]]
    log = (folder / "md" / "ensemble.log").read_text()
    assert "2 runs in md, 0 of them done before" in log and "2 of 2, all ended" in log


def test_a_killed_run_and_a_killed_launch(folder):
    """kill -9 of an `lmp` fails its run only; kill -9 of the launcher ends all, and the same command goes on."""
    first, second, third = FRAMES
    assert dtmd_run(folder, *starts(1)).returncode == 0
    finished = (folder / "md" / first / "state.json").stat().st_mtime_ns
    (folder / "hold").touch()
    launcher = subprocess.Popen(command(folder, *starts(3), "--jobs", "1"), cwd=folder, stdout=subprocess.PIPE)
    wait_for(lambda: set(lmp_of(folder)) == {second})
    refused = dtmd_run(folder, *starts(3))
    assert refused.returncode == 2 and "another process works in this folder" in refused.stderr
    os.kill(lmp_of(folder)[second], signal.SIGKILL)
    wait_for(lambda: set(lmp_of(folder)) == {third})
    assert state(folder, second)["state"] == "failed" and "killed by SIGKILL" in state(folder, second)["problem"]
    wait_for((folder / "md" / third / "run.lammpstrj").exists)
    launcher.kill()
    launcher.communicate()
    wait_for(lambda: not lmp_of(folder), seconds=5)
    assert state(folder, third)["state"] == "running"
    left = folder_runs(folder / "md").left_out
    assert [(Path(run).name, reason.split(";")[0]) for run, reason in left] == [
        (second, "LAMMPS failed: killed by SIGKILL"), (third, "it has not finished")]

    (folder / "hold").unlink()
    (folder / "md" / third / "leftover").touch()
    again = dtmd_run(folder, *starts(3))
    assert again.returncode == 0, again.stderr
    assert "3 runs in md, 1 of them done before" in again.stdout and "trial" not in again.stdout
    assert (folder / "md" / first / "state.json").stat().st_mtime_ns == finished
    assert not (folder / "md" / third / "leftover").exists()
    assert len(folder_runs(folder / "md").runs) == 3


def test_failed_runs_are_told_and_repeated(folder, aimd, caplog):
    """The input stops at the hottest of the starts."""
    caplog.set_level("INFO", logger="dtmd")
    kelvin = {start.name: start.trajectory.temperatures()[start.frame] for start in listed_starts(aimd, FRAMES)}
    *fine, hottest = sorted(FRAMES, key=kelvin.get)
    limit = (kelvin[fine[-1]] + kelvin[hottest]) / 2
    (folder / "my.in").write_text(INPUT.replace("variable held", f'if "$(temp) > {limit}" then "melt"\nvariable held'))
    settings, chosen = Settings(folder / "my.in", None, {"steps": "5"}), listed_starts(aimd, [*fine, hottest])
    for before in (0, 2):
        with processes(2) as place:
            failed = run_all(folder / "md", settings, chosen, 1, place, partial(LaunchDisplay, Console(quiet=True)))
        assert [outcome.name for outcome in failed] == [hottest]
        assert "ERROR: Unknown command: melt" in failed[0].problem
        assert f"3 runs in {folder / 'md'}, {before} of them done before" in caplog.text
    assert state(folder, hottest)["problem"] == failed[0].problem
    assert (folder / "md" / hottest / "run.lammpstrj").exists()


def test_other_settings_in_the_same_folder_are_refused(folder, aimd):
    def prepared(n=2, **changes):
        settings = Settings(folder / "my.in", None, {"steps": "5", "hold": "hold", **changes})
        return prepare(folder / "md", settings, listed_starts(aimd, FRAMES[:n]), threads=1)

    assert [run.name for run in prepared()] == list(FRAMES[:2])
    assert len(prepared(n=3)) == 3
    with pytest.raises(DtmdError, match="the variable steps was 5, now 6"):
        prepared(n=3, steps="6")
    with pytest.raises(DtmdError, match=r"1 of its starts are not among those chosen now, such as h2pd6_014"):
        prepared(n=2)
    (folder / "my.in").write_text(INPUT + "# changed")
    with pytest.raises(DtmdError, match=r"the input was \S*my.in \(SHA-256 \w+\), now it is"):
        prepared(n=3)


@pytest.mark.parametrize(("change", "variables", "message"), [
    (("fix integrate", "fox integrate"), {}, "a trial run failed, so none was started. LAMMPS failed: ERROR: Unknown "
     "command: fox integrate"),
    (("run ${steps}", "run 5"), {}, r"my.in: does not use \${steps}"),
    (("${start}", "some.data # ${start}"), {}, r"my.in: does not use \${start}"),
    (("my", "my"), {"color": "red"}, r"my.in: does not use \${color}"),
    (("my", "my"), {"out": "x"}, "--var out: `dtmd run` sets"),
], ids=["command", "steps", "start", "other variable", "own variable"])
def test_mistakes_in_the_input_are_told_once(folder, aimd, change, variables, message):
    (folder / "my.in").write_text(INPUT.replace(*change))
    settings = Settings(folder / "my.in", None, {"steps": "5", "hold": "hold", **variables})
    with pytest.raises(DtmdError, match=message):
        prepare(folder / "md", settings, listed_starts(aimd, FRAMES), threads=1)
    assert not (folder / "md" / "ensemble.json").exists() and not list((folder / "md").glob("h2pd6*"))


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "x.pt"], "my.in: does not use ${model}"),
    (["--var", "x"], "--var x: write NAME=VALUE"),
    (["--start", "009@320"], "has 320 frames"),
    (["--start", "test@0"], "2 trajectories with test in their name"),
    (["--start", "009@0", "--n", "3"], "--start lists the starts, and --n is for choosing"),
    (["--launcher", "pbs"], "--launcher pbs: unknown"),
    (["--launcher", "mpi", "--jobs", "3"], "mpirun -np says how many run at a time"),
    (["--slurm", "time=5"], "--slurm time: is for --launcher slurm"),
], ids=lambda value: value[-1] if isinstance(value, list) else "")
def test_mistakes_in_the_command_are_told(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, command(folder, *arguments)[3:])
    assert isinstance(done.exception, DtmdError) and message in str(done.exception)
    assert not (folder / "md" / "ensemble.json").exists()


def test_choices(aimd):
    sources = [trajectory.source for trajectory in aimd]

    def frames(how, n, follow=60, seed=0):
        starts = choose_starts(aimd, how, n, seed, follow)
        return [(sources.index(start.trajectory.source), start.frame) for start in starts]

    assert frames("first", 2) == [(0, 0), (1, 0)]
    assert frames("spread", 3) == [(0, 0), (1, 0), (1, 259)]
    assert frames("random", 5) == frames("random", 30)[:5] != frames("random", 5, seed=1)
    assert len(set(frames("random", 520))) == 520 and max(frame for _, frame in frames("random", 520)) == 259
    with pytest.raises(DtmdError, match="--n 521: there are 520 frames with 60 frames of AIMD after them"):
        frames("random", 521)
    with pytest.raises(DtmdError, match="there are 2 first frames"):
        frames("first", 3)
    with pytest.raises(DtmdError, match="--choose best: unknown"):
        frames("best", 3)


def test_names_of_runs_tell_the_trajectory(aimd):
    def names(*sources):
        return run_names([replace(aimd[0], source=source) for source in sources])

    assert names("a/x.extxyz.xz", "a/y.extxyz.xz") == ["x", "y"]
    assert names("a/r1/vasprun.xml", "a/r2/vasprun.xml") == ["r1_vasprun", "r2_vasprun"]
    assert names("v.xml[0:5]", "v.xml[7:9]") == ["v.xml_0_5", "v.xml_7_9"]
    assert names("d.h5:test/x y") == ["x_y"]
    assert [start.name for start in listed_starts(aimd, ["009@7"])] == ["h2pd6_009_from_480@7"]


def test_recorded_starts_hold_only_where_the_run_does_begin_there(aimd):
    run = replace(aimd[1].window(60, 70), source="md/x/run.lammpstrj")
    moved = replace(run, positions=run.positions + 0.1 * (run.numbers == 1)[:, None], source="md/y/run.lammpstrj")
    place = (aimd[1].origin.digest, float(aimd[1].times[60]))
    runs, firsts = [HeldRun(run, place), HeldRun(moved, place)], [run.window(0, 1), moved.window(0, 1)]
    assert noted_starts(runs, firsts, aimd) == {run.source: (aimd[1].source, 60)}
    assert noted_starts(runs, firsts, aimd[:1]) == {}


@pytest.mark.slow
def test_ranks_of_mpi(folder):
    mpirun = [environment_program("mpirun"), "-np", "3"]
    done = subprocess.run([*mpirun, *command(folder, *starts(3), "--launcher", "mpi")], capture_output=True, text=True,
                          timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 runs finished" in done.stdout and len(folder_runs(folder / "md").runs) == 3
