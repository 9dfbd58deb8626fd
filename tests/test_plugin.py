"""Building the LAMMPS plugin, and the hook that LAMMPS calls at every start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import dtmd.plugin
from dtmd.errors import DtmdError
from dtmd.plugin import build_plugin, lammps_plugin_folder, plugin_status


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """An environment without a plugin."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path / "lib" / "dtmd"


@pytest.fixture
def installed(elsewhere):
    """An environment with a plugin that fits; returns its stamp."""
    elsewhere.mkdir(parents=True)
    (elsewhere / "dtmdplugin.so").touch()
    stamp = elsewhere / "plugin.json"
    stamp.write_text(json.dumps(dtmd.plugin._versions()))
    return stamp


def test_hook_imports_nothing_heavy(plugin):
    probe = ("import sys; before = set(sys.modules); from dtmd.plugin import lammps_plugin_folder;"
             "print(lammps_plugin_folder()); print(*sorted({name.split('.')[0] for name in sys.modules}))")
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    folder, modules = done.stdout.splitlines()
    assert folder == str(plugin.parent)
    assert not {"torch", "numpy", "ase", "lammps"} & set(modules.split())
    assert done.stderr == ""


def test_hook_gives_a_plugin_that_fits(installed, capsys):
    assert lammps_plugin_folder() == str(installed.parent)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("package", ["torch", "lammps", "mpich", "dtmd", "plugin sources"])
def test_hook_refuses_a_plugin_built_for_something_else(installed, capsys, package):
    stamp = json.loads(installed.read_text())
    installed.write_text(json.dumps({**stamp, package: "0.1"}))
    assert lammps_plugin_folder() == ""
    message = capsys.readouterr().err
    assert f"built for {package} 0.1, now {stamp[package]}" in message
    assert message.count("\n") == 1 and message.endswith("Run: dtmd build-plugin\n")


def test_hook_says_that_nothing_is_built(elsewhere, capsys):
    assert lammps_plugin_folder() == ""
    assert "not built yet; pair_style dtmd is off. Run: dtmd build-plugin" in capsys.readouterr().err


def test_hook_never_raises(installed, capsys, monkeypatch):
    installed.write_text("{")
    assert lammps_plugin_folder() == ""
    assert "is damaged" in capsys.readouterr().err

    def broken(*_):
        raise RuntimeError("metadata gone")

    monkeypatch.setattr(dtmd.plugin, "plugin_status", broken)
    assert lammps_plugin_folder() == ""
    assert "metadata gone" in capsys.readouterr().err


def test_failed_compilation_keeps_the_log_and_installs_nothing(elsewhere, monkeypatch, tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES CXX)\n"
        "add_library(dtmdplugin MODULE a.cpp)\n"
    )
    (sources / "a.cpp").write_text("int f() { return undeclared; }\n")
    monkeypatch.setattr(dtmd.plugin, "embedded", lambda name: sources)
    with pytest.raises(DtmdError, match="undeclared") as failure:
        build_plugin()
    assert str(elsewhere / "build.log") in str(failure.value)
    assert sorted(file.name for file in elsewhere.iterdir()) == ["build.log"]
    assert plugin_status().problem


def test_no_compiler(elsewhere, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DtmdError, match="no C\\+\\+ compiler: no-such-compiler was not found; install one"):
        build_plugin()


def test_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "lib").write_text("a file where the folder should be")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(DtmdError, match="cannot write the LAMMPS plugin"):
        build_plugin()
