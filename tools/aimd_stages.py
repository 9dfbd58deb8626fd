"""The stages of `make_aimd.py`, each kept in files: relaxed substrate, thermal states, trajectories."""

from __future__ import annotations

import importlib
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculatorError
from rich.progress import Progress, TaskID

from aimd_files import EnergyReport, energy_report, frame_text, read_state, write_state, write_trajectory
from aimd_protocol import (
    Protocol, Vibration, bond_potential, diatomic, heat, langevin, launch, nve, reduced_mass, relax,
)
from dtmd.errors import DtmdError
from dtmd.files import written_whole

THERMAL, FLIGHT = 0, 1  # streams of random numbers under one seed


@dataclass(frozen=True)
class Job:
    """What is made, with what and where.

    Attributes:
        folder: gets all files.
        protocol: what a trajectory is.
        calculator_name: "module:factory" of an ASE calculator.
        calculator_args: keyword arguments of the factory.
    """

    folder: Path
    protocol: Protocol
    calculator_name: str
    calculator_args: dict

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @property
    def relaxed(self) -> Path:
        return self.folder / "relaxed.traj"

    @property
    def bond_potential(self) -> Path:
        return self.folder / "bond_potential.txt"

    @property
    def n_equilibration(self) -> int:
        """Thermal states before the first one that is launched at."""
        return math.ceil(self.protocol.thermalise_steps / self.protocol.snapshot_steps)

    def state(self, index: int) -> Path:
        return self.folder / "thermal" / f"state_{index:03d}.traj"

    def trajectory(self, number: int) -> Path:
        return self.folder / f"traj_{number:03d}.extxyz.gz"

    @contextmanager
    def calculator(self, calculation: str) -> Iterator[BaseCalculator]:
        """A fresh calculator; what it leaves in its scratch folder goes when the calculation succeeds.

        Raises:
            DtmdError: the module or the factory is not there, or it does not take the arguments.
        """
        module, _, factory = self.calculator_name.partition(":")
        try:
            made = getattr(importlib.import_module(module), factory)(**self.calculator_args)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise DtmdError(
                f"--calculator {self.calculator_name} {self.calculator_args}: {error}; install the package "
                f"(pip install {module.partition('.')[0]}) or correct MODULE:FACTORY and --calculator-args"
            ) from error
        scratch = self.folder / "scratch" / calculation
        _remove(scratch)
        made.directory = str(scratch)
        yield made
        _remove(scratch)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def try_out(job: Job, substrate: Atoms) -> None:
    """Write the molecule's potential and see that a launch works, before anything long is begun.

    Raises:
        DtmdError: an option does not fit the calculator, the molecule or the substrate.
    """
    with job.calculator("bond") as calculator:
        table = bond_potential(diatomic(job.protocol.molecule), substrate.cell, substrate.pbc, calculator)
    with written_whole(job.bond_potential) as temporary:
        np.savetxt(temporary, table, fmt="%.10f", header="bond length (A)  energy (eV)")
    launch(substrate, _vibration(job), job.protocol, np.random.default_rng(job.protocol.seed))


def _vibration(job: Job) -> Vibration:
    lengths, energies = np.loadtxt(job.bond_potential, unpack=True)
    mass = reduced_mass(diatomic(job.protocol.molecule))
    return Vibration.in_potential(lengths, energies, mass, job.protocol.vibration_energy)


def prepare(job: Job, substrate: Atoms, progress: Progress) -> None:
    """Relaxed substrate and thermal states; what is there already is kept."""
    protocol = job.protocol
    if not job.relaxed.exists():
        progress.console.print("relaxing the substrate")
        with job.calculator("relax") as substrate.calc:
            relax(substrate, protocol.fmax)
            write_state(job.relaxed, substrate)
    n_states = job.n_equilibration + protocol.snapshots
    missing = [index for index in range(n_states) if not job.state(index).exists()]
    total = len(missing) * protocol.snapshot_steps
    task = progress.add_task("thermalise", total=total, visible=bool(missing))
    for index in missing:
        _thermalise(job, index, lambda: progress.advance(task))
        _say_progress(progress, task)


def _say_progress(progress: Progress, task: TaskID) -> None:
    """A line of its own where the bar cannot be seen: in a log, or under mpirun."""
    if progress.disable or progress.console.is_terminal:
        return
    state = next(item for item in progress.tasks if item.id == task)
    done = f"{state.completed:.0f} of {state.total:.0f} steps"
    left = timedelta(seconds=round(state.time_remaining or 0))
    progress.console.print(f"{state.description}: {done}, {left} left")


def _thermalise(job: Job, index: int, advance: Callable[[], None]) -> None:
    """Go on from the state before by `snapshot_steps`; its random numbers depend on seed and index only."""
    rng = np.random.default_rng([job.protocol.seed, THERMAL, index])
    atoms = read_state(job.state(index - 1) if index else job.relaxed)
    if index == 0:
        heat(atoms, job.protocol.temperature, rng)
    with job.calculator("thermalise") as atoms.calc:
        for step in langevin(atoms, job.protocol, rng):
            if step:
                advance()
        write_state(job.state(index), atoms)


def fly_all(job: Job, numbers: list[int], bound: float, progress: Progress) -> list[EnergyReport]:
    """Make those of the trajectories that are missing, and report on each that is complete.

    A calculation that fails is said and left out, so that the others are still made.

    Args:
        numbers: of the trajectories.
        bound: largest accepted deviation of the total energy from its start, eV.
    """
    todo = sum(not job.trajectory(number).exists() for number in numbers)
    task = progress.add_task("trajectories", total=todo * job.protocol.steps, visible=bool(todo))
    reports = []
    for number in numbers:
        try:
            if not job.trajectory(number).exists():
                _fly(job, number, lambda: progress.advance(task))
                _say_progress(progress, task)
        except CalculatorError as error:
            progress.console.print(f"{job.trajectory(number).name}: not made, calculation failed: {error}")
            continue
        report = energy_report(job.trajectory(number), bound)
        progress.console.print(str(report), highlight=False, soft_wrap=True)
        reports.append(report)
    return reports


def _fly(job: Job, number: int, advance: Callable[[], None]) -> None:
    """Make one trajectory; its random numbers depend on the seed and its number only."""
    protocol = job.protocol
    rng = np.random.default_rng([protocol.seed, FLIGHT, number])
    snapshot = read_state(job.state(job.n_equilibration + number % protocol.snapshots))
    atoms = launch(snapshot, _vibration(job), protocol, rng)
    frames = []
    with job.calculator(f"traj_{number:03d}") as atoms.calc:
        for step in nve(atoms, protocol):
            frames.append(frame_text(atoms, step, protocol.timestep))
            if step:
                advance()
    write_trajectory(job.trajectory(number), frames)
