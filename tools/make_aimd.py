"""Make ab initio molecular dynamics of a molecule that hits a surface, with any ASE calculator.

    python tools/make_aimd.py OUT_DIR --n 10
    mpirun -n 4 python tools/make_aimd.py OUT_DIR --n 100 --calculator ase.calculators.vasp:Vasp \\
        --calculator-args xc=PBE encut=400 kpts=[2,2,1] ispin=2 ismear=1 sigma=0.1

The substrate is relaxed and thermalised, then each trajectory launches the molecule at one of its
snapshots and runs at constant energy. OUT_DIR gets settings.json, relaxed.traj, bond_potential.txt,
thermal/, summary.tsv and one traj_NNN.extxyz.gz per trajectory: every frame with positions (Å), forces
(eV/Å), velocities (Å/fs, not ASE's unit), energy (eV), step and timestep_fs. The molecule starts without
rotation, at a random phase of the classical vibration of the given energy in the calculator's own potential.

After an interruption give the same command again: what is finished is kept. Ranks of mpirun share the
trajectories; set OMP_NUM_THREADS so that ranks times threads is the number of cores. The exit code is 1
if a trajectory failed or does not conserve its energy within --max-energy-error (summary.tsv says which),
2 if something is wrong with the input.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path

import ase.parallel
from ase import Atoms
from ase.io import read
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aimd_files import EnergyReport
from aimd_protocol import Protocol
from aimd_stages import Job, fly_all, prepare, try_out
from dtmd.errors import DtmdError
from dtmd.files import sha256, write_text
from dtmd.resources import embedded

GFN1 = "tblite.ase:TBLite"
GFN1_ARGS = {"method": "GFN1-xTB", "electronic_temperature": 1000.0, "verbosity": 0}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; every field of Protocol is an option."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", metavar="OUT_DIR", type=Path)
    parser.add_argument("--n", type=int, default=10, help="trajectories, 0 … n − 1; may be raised later [10]")
    parser.add_argument("--substrate", type=Path, default=embedded("inputs") / "substrate_relaxed.xyz",
                        help="structure with its cell, any format that ASE reads [Pd6 in a graphene vacancy]")
    parser.add_argument("--calculator", default=GFN1, metavar="MODULE:FACTORY",
                        help=f"also one in a file of the current folder [{GFN1}]")
    parser.add_argument("--calculator-args", nargs="*", default=None, metavar="KEY=VALUE",
                        help="Python literals or plain text [for the default: GFN1-xTB, 1000 K]")
    parser.add_argument("--max-energy-error", type=float, default=0.05,
                        help="largest accepted deviation of the total energy from its start, eV [0.05]")
    for option in fields(Protocol):
        parser.add_argument("--" + option.name.replace("_", "-"), type=type(option.default),
                            default=option.default, help=f"{option.metadata['help']} [{option.default}]")
    return parser.parse_args(argv)


def calculator_arguments(pairs: list[str] | None, calculator: str) -> dict:
    """key=value … as keyword arguments.

    Raises:
        DtmdError: an item without "=".
    """
    if pairs is None:
        return dict(GFN1_ARGS) if calculator == GFN1 else {}
    arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise DtmdError(f"--calculator-args {pair}: give key=value")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # not a literal, so a plain word such as PBE
            arguments[key] = value
    return arguments


def job_of(options: argparse.Namespace) -> Job:
    """The job that the command line asks for."""
    protocol = Protocol(**{option.name: getattr(options, option.name) for option in fields(Protocol)})
    arguments = calculator_arguments(options.calculator_args, options.calculator)
    return Job(options.folder, protocol, options.calculator, arguments)


def claim(job: Job, substrate: Path) -> None:
    """Note the settings in a new folder, or compare them with those noted there.

    Raises:
        DtmdError: the folder was begun with other settings.
    """
    settings = asdict(job.protocol) | {
        "substrate_sha256": sha256([substrate]),
        "calculator": job.calculator_name, "calculator_args": job.calculator_args,
    }
    text = json.dumps(settings, indent=1)
    if not job.settings.exists():
        write_text(job.settings, text + "\n")
    noted, now = json.loads(job.settings.read_text()), json.loads(text)
    for key in sorted(noted.keys() | now.keys()):
        if noted.get(key) != now.get(key):
            raise DtmdError(f"{job.settings}: begun with {key} = {noted.get(key)}, now it is {now.get(key)}; "
                            "give the old value or another OUT_DIR")


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, also when it is killed.

    Raises:
        DtmdError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DtmdError(f"{folder}: another make_aimd.py is at work here; let it finish") from error
        yield


def read_substrate(path: Path) -> Atoms:
    """The bare substrate.

    Raises:
        DtmdError: no such file, no cell, or atoms that are held fixed.
    """
    if not path.is_file():
        raise DtmdError(f"--substrate {path}: no such file")
    atoms = read(path)
    if atoms.cell.rank < 3:
        raise DtmdError(f"--substrate {path}: no cell; give a structure with three cell vectors")
    if atoms.constraints:
        raise DtmdError(f"--substrate {path}: some atoms are held fixed; free them, each has to move")
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def begin(options: argparse.Namespace, progress: Progress) -> list[int]:
    """What one rank does for all; the numbers of the trajectories in the order to deal them out."""
    for leftover in options.folder.rglob(".*.part"):  # of a run that was killed
        leftover.unlink()
    job = job_of(options)
    substrate = read_substrate(options.substrate)
    if not job.settings.exists():
        try_out(job, substrate)  # first, so that a mistyped option does not bind the folder
    claim(job, options.substrate)
    prepare(job, substrate, progress)
    # the unfinished ones first, so that each rank is dealt as many of them
    return sorted(range(options.n), key=lambda number: job.trajectory(number).exists())


def summarise(folder: Path, reports: list[EnergyReport]) -> None:
    """Write summary.tsv, a line per complete trajectory."""
    lines = ["file\tdrift_meV_per_atom_ps\tmax_deviation_meV\tspread_meV\tstart_K\tenergy_conserved\n"]
    for r in sorted(reports, key=lambda report: report.name):
        numbers = f"{r.drift:.3f}\t{r.deviation:.2f}\t{r.spread:.2f}\t{r.temperature:.1f}"
        lines.append(f"{r.name}\t{numbers}\t{'yes' if r.conserved else 'no'}\n")
    write_text(folder / "summary.tsv", "".join(lines))


def run(options: argparse.Namespace, comm) -> int:
    """The whole job on this rank of the MPI communicator; the exit code."""
    leads = comm.rank == 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps, left"),
               TimeRemainingColumn())
    with only_run_in(options.folder) if leads else nullcontext():
        with Progress(*columns, disable=not leads) as progress:
            order = comm.bcast(begin(options, progress) if leads else None)
            mine = order[comm.rank::comm.size]
            gathered = comm.gather(fly_all(job_of(options), mine, options.max_energy_error, progress))
        if not leads:
            return 0
        reports = sum(gathered, [])
        summarise(options.folder, reports)
    n_good = sum(report.conserved for report in reports)
    print(f"{n_good} of {options.n} trajectories are complete and conserve energy; see {options.folder}")
    return 0 if n_good == options.n else 1


def main() -> None:
    """Run; a rank that fails takes the others with it instead of leaving them waiting."""
    options = parse(sys.argv[1:])
    from mpi4py import MPI

    sys.path.append(os.getcwd())
    ase.parallel.world.comm = ase.parallel.DummyMPI()  # or ASE would take the ranks for one calculation
    try:
        code = run(options, MPI.COMM_WORLD)
    except Exception as error:
        if isinstance(error, DtmdError):
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        code = 2 if isinstance(error, DtmdError) else 1
        if MPI.COMM_WORLD.size > 1:
            MPI.COMM_WORLD.Abort(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
