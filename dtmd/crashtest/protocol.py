"""What all runs of a crash test share, and the options that say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from dtmd.errors import DtmdError
from dtmd.presentation.numbers import duration
from dtmd.units import FS_PER_PS

DAMPING = 100.0
"""fs, of the thermostat."""

THERMOSTATS = ("csvr", "langevin", "nose-hoover", "none")
"""`none` is constant energy."""

MAX_FORCE = 1e3
"""eV/Å; a larger force on an atom ends a run."""

MAX_TEMPERATURE = 1e5
"""K; so does a higher temperature."""

_CONDITIONS = {
    "csvr": f"constant temperature by stochastic velocity rescaling (Bussi, damping time {duration(DAMPING)})",
    "langevin": f"constant temperature by Langevin dynamics (damping time {duration(DAMPING)}; for ASE calculators "
                "integrated as by Vanden-Eijnden and Ciccotti)",
    "nose-hoover": f"constant temperature by a Nosé–Hoover thermostat (chain of three, damping time "
                   f"{duration(DAMPING)})",
    "none": "constant energy",
}
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(fs|ps|ns)")
_UNITS = {"fs": 1.0, "ps": FS_PER_PS, "ns": 1000.0 * FS_PER_PS}
_WHOLE = 1e-6


@dataclass(frozen=True)
class Protocol:
    """The same for every model and start.

    Attributes:
        temperatures: K, distinct.
        n: runs of each model at each temperature.
        time: of each run, fs.
        timestep: fs.
        stride: steps from one written frame to the next.
        thermostat: one of `THERMOSTATS`.
        seed: of the choice of starts, the velocities and the thermostat.

    Raises:
        DtmdError: an unknown thermostat, a temperature twice or none, or a time that is not a whole number of strides.
    """

    temperatures: tuple[float, ...]
    n: int
    time: float
    timestep: float
    stride: int
    thermostat: str
    seed: int

    def __post_init__(self) -> None:
        if self.thermostat not in THERMOSTATS:
            raise DtmdError(f"--thermostat {self.thermostat}: unknown; the thermostats are: {', '.join(THERMOSTATS)}, "
                            "which is constant energy")
        if not self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise DtmdError(f"--temperatures {' '.join(f'{t:g}' for t in self.temperatures)}: give each temperature "
                            "once, at least one")
        strides = self.time / (self.timestep * self.stride)
        if round(strides) < 1 or abs(strides - round(strides)) > _WHOLE * strides:
            raise DtmdError(f"--time {self.time:g}fs: a run is written every {self.stride} steps of {self.timestep:g} "
                            f"fs, and this is {strides:.4g} times that; give a whole multiple of "
                            f"{self.stride * self.timestep:g} fs, or another --stride")

    @property
    def steps(self) -> int:
        """Of each run."""
        return round(self.time / self.timestep)

    @property
    def conditions(self) -> str:
        """What the thermostat keeps constant, and how, in words."""
        return _CONDITIONS[self.thermostat]

    @property
    def conserves_energy(self) -> bool:
        """Without a thermostat."""
        return self.thermostat == "none"

    def variables(self, temperature: float) -> dict[str, str]:
        """Those of inputs/crashtest.in that are the same for all runs at a temperature, in LAMMPS's units."""
        return {
            "steps": str(self.steps), "timestep": repr(self.timestep / FS_PER_PS), "stride": str(self.stride),
            "thermostat": self.thermostat.replace("-", "_"),  # LAMMPS compares no words with a hyphen
            "temperature": f"{temperature:g}", "damping": repr(DAMPING / FS_PER_PS), "max_force": f"{MAX_FORCE:g}",
            "max_temperature": f"{MAX_TEMPERATURE:g}",
        }


def parse_time(text: str) -> float:
    """A time such as 100ps, 5000fs or 1ns, in fs.

    Raises:
        DtmdError: another form, or zero.
    """
    found = _TIME.fullmatch(text.strip())
    if not found or float(found[1]) == 0.0:
        raise DtmdError(f"--time {text}: write a number and its unit, such as 100ps, 5000fs or 1ns")
    return float(found[1]) * _UNITS[found[2]]


def parse_temperatures(texts: Sequence[str]) -> tuple[float, ...]:
    """Temperatures in K, each text one or a list with commas or spaces.

    Raises:
        DtmdError: not a number, or not above zero.
    """
    found = []
    for word in " ".join(texts).replace(",", " ").split():
        try:
            value = float(word)
        except ValueError:
            value = 0.0
        if not (isfinite(value) and value > 0.0):
            raise DtmdError(f"--temperatures {' '.join(texts)}: {word} is not a temperature in K; write them as "
                            "300 500 700, or as 300,500,700")
        found.append(value)
    return tuple(found)


def one_option_each(arguments: Sequence[str], option: str) -> list[str]:
    """A command line in which `option 300 500 700` is written as `option 300 option 500 option 700`.

    Only numbers are taken for further values, so that a model may follow.
    """
    spread, taking = [], False
    for k, word in enumerate(arguments):
        value_of_option = k > 0 and arguments[k - 1] == option
        taking = value_of_option or (taking and bool(re.fullmatch(r"[\d.,]+", word)))
        spread += [option, word] if taking and not value_of_option else [word]
    return spread
