"""The pair style for a LAMMPS that pip did not install: compiled with its headers, and tried out in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dtmd.agreement import TOLERANCE, deviations
from dtmd.errors import DtmdError
from dtmd.files import written_whole
from dtmd.plugin import LIBRARY_NAME, common_settings, compile_plugin


@dataclass(frozen=True)
class Lammps:
    """What a program says of itself.

    Attributes:
        program: its path.
        version: such as "4 Jul 2026".
        sizes: of its integers, such as "LAMMPS_SMALLBIG".
        has_mpi: whether it is linked with an MPI library.
    """

    program: Path
    version: str
    sizes: str
    has_mpi: bool


def build_for(program: Path, source: Path, mpicxx: str, out: Path) -> Path:
    """Compile the pair style for a LAMMPS, and write it if the LAMMPS computes what Python does with it.

    Args:
        program: its `lmp`.
        source: its source tree, or the folder of its headers.
        mpicxx: compiler of the MPI that it is linked with; not used if it has none.
        out: the file to write.

    Raises:
        DtmdError: a LAMMPS without plugins, headers of another version, as `dtmd.plugin.build_plugin`, or the trial
            run failed.
    """
    lammps = examine(program)
    headers = _headers(source, lammps)
    settings = common_settings() | {
        "LAMMPS_INCLUDE_DIR": str(headers), "LAMMPS_VERSION": lammps.version, "LAMMPS_SIZES": lammps.sizes,
    }
    if lammps.has_mpi:
        compiler = shutil.which(mpicxx)
        if compiler is None:
            raise DtmdError(f"{mpicxx}: not found; name the compiler of the MPI of {program} with --mpicxx")
        settings["MPI_CXX_COMPILER"] = compiler
    else:
        settings["MPI_INCLUDE_DIR"] = str(headers / "STUBS")
    with tempfile.TemporaryDirectory() as folder, written_whole(out) as temporary:
        compile_plugin(Path(folder), settings, log=out.with_suffix(".log"))
        library = Path(folder) / LIBRARY_NAME
        _try_out(lammps, library)
        shutil.copyfile(library, temporary)
    out.with_suffix(".log").unlink()
    return out


def examine(program: Path) -> Lammps:
    """Ask it for its version, sizes and packages.

    Raises:
        DtmdError: it does not run, is no LAMMPS, or cannot load plugins.
    """
    try:
        done = subprocess.run([program, "-h"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DtmdError(f"{program}: does not run: {error}") from error
    version = re.search(r"Massively Parallel Simulator - (\d+ \w+ \d+)", done.stdout)
    sizes = re.search(r"-D(LAMMPS_(?:SMALLBIG|BIGBIG|SMALLSMALL))", done.stdout)
    packages = re.search(r"Installed packages:\s*(.*?)\n\n", done.stdout + "\n\n", re.DOTALL)
    if not (version and sizes and packages):
        told = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["nothing"]
        raise DtmdError(f"{program}: is not LAMMPS, or does not run: `{program} -h` said: {told[0]}")
    if "PLUGIN" not in packages[1].split():
        raise DtmdError(f"{program}: was built without the package PLUGIN; build it with: -D PKG_PLUGIN=yes")
    return Lammps(program, version[1], sizes[1], "MPI STUBS" not in done.stdout)


def _headers(source: Path, lammps: Lammps) -> Path:
    folder = next((folder for folder in (source / "src", source) if (folder / "version.h").exists()), None)
    if folder is None:
        raise DtmdError(f"{source}: holds no src/version.h; give the source tree of LAMMPS {lammps.version}")
    version = re.search(r'LAMMPS_VERSION "(.*)"', (folder / "version.h").read_text())
    if not version or version[1] != lammps.version:
        found = version[1] if version else "unknown"
        raise DtmdError(f"{folder}: headers of LAMMPS {found}, but {lammps.program} is LAMMPS {lammps.version}; give "
                        "the source tree that it was built from")
    return folder


def _try_out(lammps: Lammps, library: Path) -> None:
    try:
        (found,) = deviations((1,), lammps.program, library)
    except DtmdError as error:
        advice = ("the MPI of the compiler must be that of LAMMPS: --mpicxx" if lammps.has_mpi
                  else "report this with the output")
        raise DtmdError(f"the pair style was compiled, but a trial run with {lammps.program} failed ({advice}). "
                        f"{error}") from error
    if not found < TOLERANCE:
        raise DtmdError(f"the pair style was compiled, but with {lammps.program} energy and forces differ from those "
                        f"of Python by {found:.0e}; was it built from these sources?")
