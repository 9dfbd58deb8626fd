"""Many tasks at once: failures, deaths and what is done already; on processes, MPI ranks and a Slurm array."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from dtmd.errors import DtmdError
from dtmd.files import locked
from dtmd.launcher import Outcome, launch
from dtmd.launcher.display import LaunchDisplay
from dtmd.launcher.processes import processes
from dtmd.launcher.slurm import slurm
from dtmd.plugin import environment_program


@dataclass(frozen=True)
class Toy:
    """Writes its name into a file, or does what its name says."""

    name: str
    folder: Path

    def work(self) -> None:
        if self.name == "refuse":
            raise DtmdError("the reason")
        if self.name == "mistake":
            raise ZeroDivisionError("by nought")
        if self.name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name != "nothing":
            (self.folder / self.name).write_text(str(os.getpid()))

    def done(self) -> bool:
        return (self.folder / self.name).exists()


NAMES = ["a", "refuse", "b", "mistake", "c", "die", "nothing", "d"]


def test_one_task_does_not_stop_the_others(tmp_path):
    (tmp_path / "b").write_text("before")
    seen = []
    with processes(3) as place:
        outcomes = launch([Toy(name, tmp_path) for name in NAMES], place, seen.append)
    assert outcomes == seen
    assert {outcome.name: outcome.problem for outcome in outcomes} == {
        "a": None, "c": None, "d": None, "refuse": "the reason", "mistake": "ZeroDivisionError: by nought",
        "die": "its process ended early: killed by SIGKILL", "nothing": "it ended without its result"}
    assert (tmp_path / "b").read_text() == "before"
    assert len({(tmp_path / name).read_text() for name in "acd"}) == 3, "tasks shared a process"


def test_all_done_starts_nothing(tmp_path):
    (tmp_path / "a").write_text("")
    assert launch([Toy("a", tmp_path)], None) == []


MPI_SCRIPT = """
import sys
from pathlib import Path
from test_launcher import Toy
from dtmd.launcher import launch
from dtmd.launcher.mpi import mpi

with mpi() as place:
    if place:
        first = launch([Toy(name, Path(sys.argv[1])) for name in ("a", "refuse")], place)
        outcomes = first + launch([Toy("b", Path(sys.argv[1]))], place)
        print(sorted((outcome.name, outcome.problem) for outcome in outcomes))
"""


def test_ranks_of_mpi(tmp_path):
    def run(n_ranks):
        command = [environment_program("mpirun"), "-np", n_ranks, sys.executable, "-c", MPI_SCRIPT, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    done = run("3")
    assert done.stdout.strip() == "[('a', None), ('b', None), ('refuse', 'the reason')]", done.stderr
    assert "start it as mpirun -np N+1" in run("1").stderr


def test_an_array_of_slurm(tmp_path, monkeypatch):
    """Run by submitit on this machine, as Slurm would."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    names = ["a", "refuse", "die"]
    with slurm(tmp_path / "jobs", 2, 1, {"time": "5"}, cluster="local") as place:
        problems = {outcome.name: outcome.problem for outcome in launch([Toy(n, tmp_path) for n in names], place)}
    assert problems["a"] is None and problems["refuse"] == "the reason"
    assert problems["die"].startswith("job ") and "ended with state" in problems["die"]
    with pytest.raises(DtmdError, match="Could not detect"), slurm(tmp_path, None, 1, {}):
        pass


def test_progress_names_failures_and_the_time_left(caplog):
    caplog.set_level("INFO", logger="dtmd")
    with LaunchDisplay(Console(quiet=True), 4, 1) as display:
        for name, problem in (("x", None), ("y", "out of disk"), ("z", None)):
            display.ended(Outcome(name, problem))
    assert [message.split(":")[0].partition(", about")[0] for message in caplog.messages] == [
        "2 of 4", "3 of 4, 1 failed", "4 of 4, 1 failed, all ended"]
    assert caplog.messages[1].endswith("y: out of disk") and caplog.messages[2].endswith("z finished")


def test_a_lock_has_one_holder(tmp_path):
    with locked(tmp_path / "new" / "lock"):
        with pytest.raises(DtmdError, match="new: another process works in this folder"):
            with locked(tmp_path / "new" / "lock", patience=0.2):
                pass
    with locked(tmp_path / "new" / "lock", patience=0.0):
        pass
