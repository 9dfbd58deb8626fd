"""Make short constant-energy ab initio trajectories of a molecule in vacuum from independent thermal starts.

    pip install pyscf tblite
    python tools/make_molecule_aimd.py OUT_DIR --workers 4
    python tools/make_molecule_aimd.py OUT_DIR --molecule CH3CH2OH --set train 300 20 12 --set test 500 4 200 \\
        --reference ase.calculators.psi4:Psi4 --reference-args method=pbe basis=def2-svp

Each piece starts from the molecule of that name in ASE: a cheap calculator (GFN1-xTB) thermalises it by Langevin
dynamics of its own, drift and rotation are taken out, then the reference (PBE/def2-SVP by PySCF) runs at constant
energy by velocity Verlet. OUT_DIR gets settings.json and FOLDER/MOLECULE_FOLDER_TEMPERATURE_NN.extxyz.gz: every frame
with positions (Å), forces (eV/Å), velocities (Å/fs, not ASE's unit), energy (eV), step and timestep_fs. The sets are
made in the order given; without --set they are those of the ethane example.

After an interruption give the same command again: finished pieces are kept. Set OMP_NUM_THREADS so that workers times
threads is the number of cores. The exit code is 1 if a piece failed or does not conserve its energy within
--max-energy-error, 2 if something is wrong with the input.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule as named_molecule
from ase.calculators.calculator import BaseCalculator, CalculatorError
from ase.collections import g2
from ase.md.velocitydistribution import Stationary, ZeroRotation

from aimd_files import frame_text, write_trajectory
from aimd_protocol import Protocol, heat, langevin, nve
from dtmd import units
from dtmd.errors import DtmdError
from dtmd.files import write_text
from dtmd.ingest import read_aimd
from dtmd.observables.conservation import MEV, total_energy_change
from make_aimd import GFN1, calculator_arguments

PYSCF = "pyscf_calculator:PySCF"
PYSCF_ARGS = {"xc": "PBE", "basis": "def2-svp", "grid": 2, "conv_tol": 1e-9}
ETHANE = [("train", 300.0, 10, 12), ("validation", 300.0, 4, 12), ("test", 300.0, 3, 121), ("test", 1000.0, 3, 121)]


@dataclass(frozen=True)
class Method:
    """How every piece is made.

    Attributes:
        molecule: name in ASE's collection.
        start, reference: "module:factory" of the ASE calculators that thermalise and that make the data.
        start_args, reference_args: keyword arguments of the factories.
        timestep: fs, of both.
        start_steps: of Langevin dynamics before the first frame.
        friction: of that, 1/fs.
        seed: a piece depends on it and on its own name only.
    """

    molecule: str
    start: str
    start_args: dict
    reference: str
    reference_args: dict
    timestep: float
    start_steps: int
    friction: float
    seed: int


@dataclass(frozen=True)
class Piece:
    """One trajectory: its file, the temperature of its start in K, and the number of its frames."""

    path: Path
    temperature: float
    frames: int

    @property
    def name(self) -> str:
        return self.path.name.partition(".")[0]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", metavar="OUT_DIR", type=Path)
    parser.add_argument("--molecule", default="C2H6", help="by its name in ASE, ase.build.molecule [C2H6]")
    parser.add_argument("--set", nargs=4, action="append", metavar=("FOLDER", "KELVIN", "PIECES", "FRAMES"),
                        dest="sets", help=f"may be repeated {ETHANE}")
    for name, default, task in (("start", GFN1, "thermalises"), ("reference", PYSCF, "is learned")):
        parser.add_argument(f"--{name}", default=default, metavar="MODULE:FACTORY",
                            help=f"ASE calculator that {task}; also one in a file of the current folder [{default}]")
        parser.add_argument(f"--{name}-args", nargs="*", default=None, metavar="KEY=VALUE",
                            help="Python literals or plain text [for the defaults: GFN1-xTB at 1000 K of the "
                                 "electrons; PBE/def2-SVP]")
    parser.add_argument("--timestep", type=float, default=0.5, help="time step, fs [0.5]")
    parser.add_argument("--start-steps", type=int, default=4000, help="steps of Langevin dynamics per piece [4000]")
    parser.add_argument("--friction", type=float, default=0.02, help="of the Langevin dynamics, 1/fs [0.02]")
    parser.add_argument("--seed", type=int, default=1, help="a piece depends on it and its own name only [1]")
    parser.add_argument("--workers", type=int, default=1, help="processes, one piece each at a time [1]")
    parser.add_argument("--max-energy-error", type=float, default=0.02,
                        help="largest accepted deviation of the total energy from its start, eV [0.02]")
    return parser.parse_args(argv)


def method_of(options: argparse.Namespace) -> Method:
    """The part of the command line that is the same for all pieces."""
    reference_args = calculator_arguments(options.reference_args, options.reference)
    if options.reference_args is None and options.reference == PYSCF:
        reference_args = dict(PYSCF_ARGS)
    return Method(
        options.molecule, options.start, calculator_arguments(options.start_args, options.start), options.reference,
        reference_args, options.timestep, options.start_steps, options.friction, options.seed,
    )


def pieces_of(options: argparse.Namespace) -> list[Piece]:
    """All pieces, in the order in which they are made.

    Raises:
        DtmdError: numbers that are none.
    """
    pieces = []
    for folder, kelvin, count, frames in options.sets or ETHANE:
        try:
            temperature, count, frames = float(kelvin), int(count), int(frames)
        except ValueError as error:
            raise DtmdError(f"--set {folder} {kelvin} {count} {frames}: {error}; "
                            "give FOLDER KELVIN PIECES FRAMES") from error
        stem = options.folder / folder / f"{options.molecule}_{folder}_{temperature:g}K"
        pieces += [Piece(Path(f"{stem}_{k:02d}.extxyz.gz"), temperature, frames) for k in range(count)]
    return pieces


def try_out(method: Method) -> None:
    """See that the names are right before anything is begun.

    Raises:
        DtmdError: the molecule or a calculator is not there.
    """
    calculator(method.start, method.start_args)
    calculator(method.reference, method.reference_args)
    if method.molecule not in g2.names:
        raise DtmdError(f"--molecule {method.molecule}: not one of those that ase.build.molecule knows: "
                        f"{', '.join(g2.names)}")


def claim(folder: Path, method: Method) -> None:
    """Note the method in a new folder, or compare it with that noted there.

    Raises:
        DtmdError: the folder was begun with another.
    """
    file, now = folder / "settings.json", json.dumps(vars(method), indent=1) + "\n"
    if not file.exists():
        write_text(file, now)
    if file.read_text() != now:
        raise DtmdError(f"{file}: begun with other options; give those, or another OUT_DIR")


def calculator(name: str, arguments: dict) -> BaseCalculator:
    """The calculator of "module:factory".

    Raises:
        DtmdError: the module or the factory is not there, or it does not take the arguments.
    """
    module, _, factory = name.partition(":")
    try:
        return getattr(importlib.import_module(module), factory)(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise DtmdError(f"{name} {arguments}: {error}; install what is missing (pip install pyscf tblite), or correct "
                        "MODULE:FACTORY and KEY=VALUE") from error


def thermal_start(method: Method, protocol: Protocol, rng: np.random.Generator) -> Atoms:
    """The molecule with thermal positions and velocities, centred, without drift and rotation."""
    atoms = named_molecule(method.molecule)
    atoms.calc = calculator(method.start, method.start_args)
    # Half of the kinetic energy goes into the bonds soon, for the molecule starts at its minimum.
    heat(atoms, 2.0 * protocol.temperature, rng)
    for _ in langevin(atoms, protocol, rng):
        pass
    Stationary(atoms, preserve_temperature=False)
    ZeroRotation(atoms, preserve_temperature=False)
    atoms.set_center_of_mass((0.0, 0.0, 0.0))
    return atoms


def make(method: Method, piece: Piece) -> tuple[float, float]:
    """Make one piece; its random numbers depend on the seed and its name only.

    Returns:
        What the start and each frame took, s.
    """
    began = time.monotonic()
    rng = np.random.default_rng([method.seed, zlib.crc32(piece.name.encode())])
    protocol = Protocol(timestep=method.timestep, temperature=piece.temperature, friction=method.friction,
                        snapshot_steps=method.start_steps, steps=piece.frames - 1)
    atoms = thermal_start(method, protocol, rng)
    started = time.monotonic()
    atoms.calc = calculator(method.reference, method.reference_args)
    scratch = piece.path.parent / "scratch" / piece.name  # of calculators that write files; stays after a failure
    atoms.calc.directory = str(scratch)
    write_trajectory(piece.path, [frame_text(atoms, step, method.timestep) for step in nve(atoms, protocol)])
    shutil.rmtree(scratch, ignore_errors=True)
    return started - began, (time.monotonic() - started) / piece.frames


def make_all(method: Method, pieces: list[Piece], workers: int) -> Iterator[Piece]:
    """Make what is missing, and say how it goes; yields the pieces that are there.

    A calculation that fails is said and left out, so that the others are still made.
    """
    missing = [piece for piece in pieces if not piece.path.exists()]
    yield from (piece for piece in pieces if piece not in missing)
    took = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        at_work = {pool.submit(make, method, piece): piece for piece in missing}
        try:
            for future in as_completed(at_work):
                piece = at_work.pop(future)
                try:
                    took.append(future.result())
                    yield piece
                except CalculatorError as error:
                    print(f"{piece.name}: not made, calculation failed: {error}", flush=True)
                if took:
                    start, frame = np.mean(took, axis=0)
                    seconds = sum(start + frame * other.frames for other in at_work.values()) / workers
                    print(f"{len(at_work)} pieces, {timedelta(seconds=round(seconds))} left", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # or an error would be told after the last piece only


def conserves(piece: Piece, bound: float) -> bool:
    """Say how a piece came out: whether it passes the checks of dtmd and its energy stays within the bound (eV)."""
    try:
        trajectory = read_aimd([piece.path])[0]
    except DtmdError as error:
        print(error, flush=True)
        return False
    n_atoms = len(trajectory.numbers)
    deviation = n_atoms * np.abs(total_energy_change(trajectory)).max()
    freedom = max(3 * n_atoms - 6, 1)
    temperature = 2.0 * trajectory.kinetic_energies().mean() / (freedom * units.BOLTZMANN)
    conserved = bool(deviation <= MEV * bound)
    mark = "" if conserved else "  <- ENERGY NOT CONSERVED"
    print(f"{piece.name}: max |ΔE| {deviation:.2f} meV, mean temperature {temperature:.0f} K{mark}", flush=True)
    return conserved


def main() -> None:
    """Run."""
    options = parse(sys.argv[1:])
    sys.path.append(os.getcwd())  # the workers get it from here
    try:
        method, pieces = method_of(options), pieces_of(options)
        try_out(method)  # first, so that a mistyped option does not bind the folder
        claim(options.folder, method)
        good = [conserves(piece, options.max_energy_error) for piece in make_all(method, pieces, options.workers)]
    except DtmdError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{sum(good)} of {len(pieces)} pieces are complete and conserve energy; see {options.folder}")
    sys.exit(0 if sum(good) == len(pieces) else 1)


if __name__ == "__main__":
    main()
