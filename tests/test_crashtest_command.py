"""`dtmd crashtest`: options, report, and what can happen to a launch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crash_cases import HERE
from small import AIMD
from typer.testing import CliRunner

from dtmd.cli import app
from dtmd.crashtest.protocol import Protocol, one_option_each, parse_temperatures, parse_time
from dtmd.errors import DtmdError

FEW = """observables: {distances: false, rdf: false, bonds: false, dihedrals: false, adsorbate: false,
  orientation: false, displacement: false, spectrum: false, elongation: false}
"""


def arguments(folder, *models, time="10fs", temperatures=("300",), n=1):
    (folder / "few.yaml").write_text(FEW)
    return ["crashtest", *models, "--starts", str(AIMD / "test"), "--time", time, "--temperatures", *temperatures,
            "--n", str(n), "--stride", "5", "--observables", str(folder / "few.yaml"), "-o", str(folder / "ct")]


def command(folder, *models, **settings):
    return [sys.executable, "-m", "dtmd", *arguments(folder, *models, **settings)]


def environment():
    return {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}


def wait_for(condition, seconds=120):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.1)


def calculators_of(folder):
    """Process ids of the Python processes with a calculator that run for a folder, by the path of the run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if "dtmd.crashtest.calculator_md" in (process / "cmdline").read_text().split("\0"):
                place = (process / "cwd").resolve()
                if folder in place.parents:
                    found[str(place.relative_to(folder / "ct"))] = int(process.name)
        except OSError:
            continue  # ended meanwhile
    return found


@pytest.mark.parametrize(("text", "fs"), [("100ps", 1e5), ("5000fs", 5000.0), ("0.5 ns", 5e5), (".5ps", 500.0)])
def test_times_with_units(text, fs):
    assert parse_time(text) == pytest.approx(fs)


@pytest.mark.parametrize("text", ["100", "100 s", "-1ps", "0fs", "1e3fs", "ps", "1ps2"])
def test_other_times_are_refused(text):
    with pytest.raises(DtmdError, match="write a number and its unit, such as 100ps, 5000fs or 1ns"):
        parse_time(text)


def test_temperatures_in_every_form():
    assert parse_temperatures(["300", "500"]) == parse_temperatures(["300,500"]) == parse_temperatures(["300 500"])
    for bad in ("warm", "-5", "0", "nan"):
        with pytest.raises(DtmdError, match=f"--temperatures 300 {bad}: {bad} is not a temperature in K"):
            parse_temperatures(["300", bad])
    spread = one_option_each(["a.pt", "--temperatures", "300", "500", "700", "b.pt", "5"], "--temperatures")
    assert spread == ["a.pt", *(word for t in ("300", "500", "700") for word in ("--temperatures", t)), "b.pt", "5"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"time": 12.0}, r"--time 12fs: a run is written every 10 steps of 0.5 fs, and this is 2.4 times that"),
    ({"temperatures": (300.0, 300.0)}, "--temperatures 300 300: give each temperature once"),
    ({"temperatures": ()}, "at least one"),
    ({"thermostat": "berendsen"}, "--thermostat berendsen: unknown; the thermostats are: csvr, langevin, nose-hoover, "
                                  "none"),
])
def test_protocols_that_make_no_sense_are_refused(changes, message):
    settings = {"temperatures": (300.0,), "n": 2, "time": 50.0, "timestep": 0.5, "stride": 10, "thermostat": "csvr",
                "seed": 0, **changes}
    with pytest.raises(DtmdError, match=message):
        Protocol(**settings)


@pytest.mark.parametrize(("more", "message"), [
    (["--nve", "--nvt"], "--nvt and --nve: at constant temperature or at constant energy; give one of the two"),
    (["--nvt", "--thermostat", "none"], "--nvt and --thermostat none: at constant temperature or at constant energy"),
    (["--nve", "--thermostat", "langevin"], "--nve and --thermostat langevin: constant energy has no thermostat"),
    (["--thermostat", "nose"], "--thermostat nose: unknown; the thermostats are: csvr, langevin, nose-hoover, none"),
    (["--time", "5 minutes"], "--time 5 minutes: write a number and its unit"),
    (["nowhere:nothing"], "no module nowhere"),
    (["crash_factories:nothing"], "has no function nothing"),
    (["nowhere.pt"], "nowhere.pt: no such file; give an exported potential, a run folder"),
    (["a=crash_factories:wells", "a=crash_factories:held"], "a: is given twice"),
])
def test_mistakes_in_the_command_are_told_before_any_run(tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(HERE)
    done = CliRunner().invoke(app, [*arguments(tmp_path, "crash_factories:wells"), *more])
    assert isinstance(done.exception, DtmdError) and message in str(done.exception)
    assert not list(tmp_path.glob("ct/*/300K"))


@pytest.mark.slow
def test_a_killed_run_and_a_killed_launch(tmp_path):
    """kill -9 of a calculator fails its run only; kill -9 of the launcher ends all, and the same command goes on."""
    typed = [*command(tmp_path, "held=crash_factories:held", "wells=crash_factories:wells", n=2), "--jobs", "1"]
    launcher = subprocess.Popen(typed, cwd=HERE, env=environment(), stdout=subprocess.PIPE)
    wait_for(lambda: list(tmp_path.glob("ct/held/300K/*/state.json")))
    (tmp_path / "hold").touch()
    wait_for(lambda: any(name.startswith("held/300K") for name in calculators_of(tmp_path)))
    (first, process), = calculators_of(tmp_path).items()
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: any(name.startswith("held/300K") and name != first for name in calculators_of(tmp_path)))
    (second,) = calculators_of(tmp_path)
    killed = json.loads((tmp_path / "ct" / first / "state.json").read_text())
    assert killed["state"] == "failed" and "killed by SIGKILL" in killed["problem"]
    wait_for((tmp_path / "ct" / second / "run.lammpstrj").exists)
    launcher.kill()
    launcher.communicate()
    wait_for(lambda: not calculators_of(tmp_path), seconds=10)
    finished = next((tmp_path / "ct" / "wells" / "300K").glob("*/state.json"))
    written = finished.stat().st_mtime_ns
    (tmp_path / "hold").unlink()
    again = subprocess.run(typed, cwd=HERE, env=environment(), capture_output=True, text=True, timeout=250)
    assert again.returncode == 0, again.stderr
    assert "4 runs in" in again.stdout and "trial" not in again.stdout
    assert finished.stat().st_mtime_ns == written
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("ct/*/300K/*/state.json")]
    assert states == ["finished"] * 4


def test_the_report_begins_with_what_became_of_the_runs(tmp_path):
    typed = command(tmp_path, "quiet=crash_factories:wells", "wild=crash_factories:exploding", time="50fs")
    done = subprocess.run(typed, cwd=HERE, env=environment(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "ct" / "report" / "metrics.json").read_text())
    first, *others = metrics["sections"]
    assert first["name"] == "crashtest" and {"rollout", "survival", "conservation"}.isdisjoint(
        section["name"] for section in others)
    alive = {side: found["value"] for side, found in first["rows"][0]["md"].items()}
    assert alive == {"quiet, 300 K": 1.0, "wild, 300 K": 0.0}
    failed, guidelines = first["tables"]
    assert [row[0] for row in failed["rows"]] == ["wild, 300 K"]
    assert all("above" in row[5] for row in failed["rows"])
    followed = {row[0]: row[1] for row in guidelines["rows"]}
    assert followed["Several temperatures"] == "no" and followed["A second model to check against (1)"] == "yes"
    assert followed["Energy conserved"] == "no" and followed["Several starts (12 there)"] == "no"
    assert (tmp_path / "ct" / "report" / "report.html").exists()
