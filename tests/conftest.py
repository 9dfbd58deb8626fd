"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtmd import cli
from dtmd.plugin import build_plugin, plugin_status

MLIAP_LAMMPS = os.environ.get("DTMD_LAMMPS_MLIAP")
NO_MLIAP = ("not run: no LAMMPS with ML-IAP; build one with tools/build_lammps_mliap.sh and name its lmp in "
            "DTMD_LAMMPS_MLIAP")


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The LAMMPS plugin, built unless a fitting one is there."""
    status = plugin_status()
    return build_plugin() if status.problem else status.library


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data beside the checkout; skips where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"reference data {folder} are not on this machine")
    return folder


@pytest.fixture
def dtmd_here(monkeypatch, tmp_path, capsys):
    """`dtmd` with these arguments in the test's folder, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dtmd", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    return run
