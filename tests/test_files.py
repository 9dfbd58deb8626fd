"""Nothing half-written under a final name: full disk, kill −9."""

import resource
import signal
import subprocess
import sys

import pytest
import torch

from dtmd.checkpoint import save_tensors
from dtmd.errors import DtmdError
from dtmd.files import append_line, sha256, write_text, written_whole


def test_written_files_appear_whole_and_failures_leave_the_old_one(tmp_path):
    path = tmp_path / "sub" / "file.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "model.pt"
    save_tensors({"weights": torch.zeros(10)}, path)
    before = sha256([path])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel refuses to write more, as on a full disk
    try:
        with pytest.raises(DtmdError, match="model.pt: cannot be written"):
            save_tensors({"weights": torch.zeros(1_000_000)}, path)
        with pytest.raises(DtmdError, match="text.txt: cannot be written"):
            write_text(tmp_path / "text.txt", "x" * 200_000)
        with pytest.raises(DtmdError, match="metrics.jsonl: cannot be written"):
            append_line(tmp_path / "metrics.jsonl", "x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sha256([path]) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "model.pt"]


def test_a_folder_that_is_a_file_is_an_error_too(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DtmdError, match="report.html: cannot be written"):
        write_text(tmp_path / "file" / "report.html", "text")


def test_kill_in_the_middle_of_writing_leaves_nothing_under_the_name(tmp_path):
    script = (
        "import pathlib, sys, time\nfrom dtmd.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "report.html"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    write_text(path, "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]  # the leftover was taken over
