"""Training on several ranks: the numbers of one process, one voice, and an end for all where one fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_train import CONFIG, SHORT, train_here, write_config

from dtmd.checkpoint import load_tensors
from dtmd.errors import DtmdError
from dtmd.ranks import Ranks, joined

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENDLESS = {"curriculum": CONFIG["curriculum"] | {"lengths": [1], "max_epochs": 10_000}}


def torchrun(n_ranks: int, *arguments) -> subprocess.CompletedProcess:
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", str(n_ranks), "-m", "dtmd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def two_ranks(*command) -> list[subprocess.Popen]:
    """Two ranks without torchrun, which would end all when it sees one end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen([sys.executable, *map(str, command)], text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]


def records_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same(one: Path, other: Path) -> None:
    """To the rounding of sums over the structures of a batch."""
    for a, b in zip(records_of(one), records_of(other), strict=True):
        assert (a["epoch"], a["S"], a["learning_rate"]) == (b["epoch"], b["S"], b["learning_rate"])
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-9)
        for key in ("mepa", "by_species", "first_frame", "last_frame", "energy_per_atom"):
            assert b["validation"][key] == pytest.approx(a["validation"][key], rel=1e-9)
    a, b = (load_tensors(run / "checkpoint.pt")["weights"] for run in (one, other))
    assert all(torch.allclose(a[name], b[name], rtol=1e-6, atol=1e-9) for name in a)


def test_the_shares_of_all_ranks_are_the_whole():
    for n in (0, 1, 2, 5, 12):
        shares = [Ranks(rank, 3).share(range(n)) for rank in range(3)]
        assert [k for share in shares for k in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_cores_are_divided_among_the_ranks_of_a_machine(monkeypatch):
    given = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(7))
    for ranks, threads in ((Ranks(), None), (Ranks(0, 6, 0, 3), None), (Ranks(0, 8, 0, 8), None), (Ranks(0, 2), 5)):
        ranks.set_threads(threads)
    assert given == [2, 1, 5]


def test_each_rank_of_a_machine_has_its_own_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    assert Ranks(3, 4, 1, 2).device("auto") == torch.device("cuda", 1) and chosen == [1]
    assert Ranks(3, 4, 1, 2).device("cpu") == torch.device("cpu")
    assert Ranks().device("auto") == torch.device("cuda")
    with pytest.raises(DtmdError, match="3 ranks on a machine where torch sees 2 GPUs; give .* --nproc-per-node 2"):
        Ranks(0, 3, 0, 3).device("cuda")


def test_two_ranks_do_what_one_process_does(tmp_path):
    """With batches of 11 and of 1 subsequences, which leave one rank with more, and one without any."""
    changes = {"optimizer": {"batch_size": 11, "ema_decay": 0.9}, "data": SHORT["data"] | {"validation_points": 3}}
    train_here(tmp_path, **changes)
    one = next(tmp_path.glob("run_*"))
    result = torchrun(2, "train", write_config(tmp_path, **(SHORT | changes)), "-o", tmp_path / "two")
    assert result.returncode == 0, result.stderr
    assert_same(one, tmp_path / "two")
    assert {p.name for p in one.iterdir()} | {"train.log"} == {p.name for p in (tmp_path / "two").iterdir()}
    assert result.stdout.count("best model: ") == 1 and result.stdout.count("epoch 0") == 1
    assert (tmp_path / "two" / "train.log").read_text().count("ranks: 2 on cpu") == 1


def test_a_bad_config_is_told_once(tmp_path):
    result = torchrun(2, "train", write_config(tmp_path, modle={}), "-o", tmp_path / "run")
    assert result.returncode != 0 and not (tmp_path / "run").exists()
    assert result.stderr.count("dtmd: ") == 1 and "unknown key modle; did you mean model?" in result.stderr
    assert result.stderr.count("exitcode  : 2") == 2  # torchrun's account of the ranks; it exits with 1 itself


def test_ranks_that_torchrun_did_not_start_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DtmdError, match="WORLD_SIZE is set, RANK, LOCAL_RANK, LOCAL_WORLD_SIZE not; start several"):
        with joined(print):
            pass


ON_RANK_1 = """
import os, sys
import dtmd.train, dtmd.training_data, dtmd.validation
from dtmd.cli import main
from dtmd.rollout import NonFiniteForces

def break_down(trainer, points, share):
    open("names", "w").write(points.names[0])
    raise NonFiniteForces(3)

def diverge(*_):
    raise NonFiniteForces(3)

if os.environ["RANK"] == "1":
    {}
main()
"""


@pytest.mark.parametrize(("change", "message"), [
    ("dtmd.train.Trainer._accumulate = break_down", "forces are not finite at step 3 of the rollout. Batch: {names}"),
    pytest.param("dtmd.validation._errors = diverge", "every validation rollout came to forces that are not finite",
                 marks=pytest.mark.slow),
    pytest.param("dtmd.training_data.digest_of = lambda _: 'other'", "rank 1 reads other AIMD than rank 0",
                 marks=pytest.mark.slow),
])
def test_what_goes_wrong_on_one_rank_stops_all_and_is_told_once(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text(ON_RANK_1.format(change))
    config = write_config(tmp_path, curriculum=CONFIG["curriculum"] | {"lengths": [1], "max_epochs": 1})
    ranks = two_ranks("script.py", "train", config, "-o", "run")
    told = "".join(rank.communicate(timeout=60)[1] for rank in ranks)
    assert [rank.returncode for rank in ranks] == [2, 2], told
    names = Path("names").read_text() if "names" in message else ""
    assert told.count("dtmd: ") == 1 and message.format(names=names) in told and "Traceback" not in told


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_ends_the_others_with_a_message(tmp_path, killed):
    ranks = two_ranks("-m", "dtmd", "train", write_config(tmp_path, **ENDLESS), "-o", tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoint.pt", ranks[0])
    ranks[killed].send_signal(signal.SIGKILL)
    told = ranks[1 - killed].communicate(timeout=60)[1]
    assert ranks[1 - killed].returncode == 2, told
    assert "dtmd: another rank of this training has ended" in told and "Traceback" not in told
    ranks[killed].communicate()


@pytest.mark.slow
def test_torchrun_ends_when_a_rank_is_killed(tmp_path):
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "dtmd", "train"]
    process = subprocess.Popen([*command, write_config(tmp_path, **ENDLESS), "-o", tmp_path / "run"], text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(tmp_path / "run" / "checkpoint.pt", process)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    told = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and "SIGKILL" in told


@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", [1, 3])
def test_a_run_killed_on_two_ranks_goes_on_with_another_number(tmp_path, n_ranks):
    """From a checkpoint within an epoch, and with what the stages hand on read by rank 0."""
    config = write_config(tmp_path, precision="float64")
    assert torchrun(1, "train", config, "-o", tmp_path / "undisturbed").returncode == 0
    run = tmp_path / "run"
    killed = two_ranks("-m", "dtmd", "train", config, "-o", run)
    while not (run / "checkpoint.pt").exists() or load_tensors(run / "checkpoint.pt")["epoch"] < 1:
        assert killed[0].poll() is None, killed[0].communicate()[1]
        time.sleep(0.002)
    for rank in killed:
        rank.send_signal(signal.SIGKILL)
    for rank in killed:
        rank.communicate()
    result = torchrun(n_ranks, "train", config, "-o", run)
    assert result.returncode == 0, result.stderr
    assert "continuing" in (run / "train.log").read_text()
    assert_same(tmp_path / "undisturbed", run)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
