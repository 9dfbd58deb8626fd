"""Is this really a trajectory? Each check gives a number and a verdict; a failed one can be allowed by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.motion import Motion
from dtmd.trajectory import Check

CHECKS = {
    "unfinished": "the file ends inside a frame",
    "labels": "forces or energies are missing",
    "frames": "no three consecutive frames, so nothing can be checked",
    "ab_initio": "frames whose labels are those of a model",
    "order": "frames out of order",
    "duplicates": "frames, or a whole run, that are there twice",
    "timestep": "the time step against the motion",
    "masses": "the masses against the motion",
    "motion": "r(t+1) − 2r(t) + r(t−1) against F/m·Δt²",
    "kicks": "sudden changes of the velocities, as of a stochastic thermostat",
    "rounding": "digits of the positions",
    "velocities": "the velocities against central differences",
    "work": "ΔE against the work of the forces",
    "net_force": "the sum of the forces",
}
"""What can be allowed, and what it is about."""

RESIDUAL = 0.25
"""Largest relative deviation of a frame from F/m·Δt², thermostat friction taken out; a missing frame is far above 1."""

FRICTION = 0.3
"""Largest share of its displacement per frame that a thermostat may take from all atoms; a frame that is
missing, doubled or swapped looks like a friction of about one."""

COARSE = 0.05
"""Relative deviation of all frames together from F/m·Δt² above which the user is warned."""

BAD_SHARE = 0.2
"""Above this share of bad frames they are not looked at one by one."""

TIMESTEP = 0.02
"""Largest relative deviation of the time step that the motion shows from the one that is said."""

SHOWN_TIMESTEP = 0.05
"""Largest median residual for a time step that only the motion shows."""

MASS = 0.05
"""Largest relative deviation of a species' mass."""

VELOCITY = 0.25
"""Largest relative deviation of a frame's velocities from central differences."""

WORK = (0.1, 0.2)
"""Deviation of ΔE from the work of the forces, relative to ΔE, root mean square: warning and failure. The
trapezoidal rule itself leaves about 1 % where H vibrates at 1 fs per frame."""

ROUNDING = 0.05
"""Share of the last digit in the second differences above which the checks of the motion are coarse."""

VELOCITY_ROUNDING = 0.25
"""Largest share of the last digit in velocities from central differences."""

EXACT = 0.02
"""Median residual of frames that follow from the forces, however many others do not."""

KICKED_SHARE = 0.7
"""Above this share of kicked frames nothing is left between the kicks."""

MANY = 3
"""Above this number of places, and the share above, kicks are what is there; files are not that shuffled in part."""

NET_FORCE = (0.1, 0.5)
"""|ΣF| relative to the root of the sum of squares: warning and failure."""

VERDICTS = ("ok", "warning", "failed")


def check_names(names: Collection[str]) -> frozenset[str]:
    """The names given to `--allow`.

    Raises:
        DtmdError: one that no check has.
    """
    unknown = sorted(set(names) - set(CHECKS))
    if unknown:
        raise DtmdError(f"--allow {unknown[0]}: no such check; the checks are {', '.join(CHECKS)}")
    return frozenset(names)


def graded(name: str, value: float, limits: tuple[float, float], text: str) -> Check:
    """A check whose number has a limit for a warning and one for failure; `text` only where it is not ok."""
    verdict = VERDICTS[sum(value > limit for limit in limits)]
    return Check(name, verdict, value, "" if verdict == "ok" else text)


def check_timestep(shown: float, timestep: float, error: float) -> Check:
    """The time step that is said against the one that the motion shows, both fs between frames; its relative error."""
    if abs(shown / timestep - 1.0) <= TIMESTEP + 4.0 * error:
        return Check("timestep", "ok", shown)
    ratio = shown / timestep
    reason = (f"one in {round(ratio)} steps was written" if ratio > 1.5 and abs(ratio / round(ratio) - 1.0) < 0.1
              else "or masses other than the standard ones")
    return Check("timestep", "failed", shown,
                 f"the time step is said to be {timestep:g} fs, the motion shows {shown:.4g} fs between frames "
                 f"({reason}); correct the time step")


def check_masses(motion: Motion, timestep: float, masses: dict[int, float]) -> Check:
    """The masses of the species against their motion; `masses` by atomic number, u."""
    wrong = wrong_masses(motion, timestep)
    if not wrong:
        return Check("masses", "ok", 1.0)
    found = ", ".join(f"{chemical_symbols[z]} moves as if it had {masses[z] / scale:.2f} u, not {masses[z]:.2f} u"
                      for z, scale in wrong.items())
    return Check("masses", "failed", max(wrong.values(), key=lambda scale: abs(scale - 1.0)),
                 f"{found}; give the masses that the run used (an isotope such as deuterium?), or look for "
                 "forces that are cut or constrained")


def wrong_masses(motion: Motion, timestep: float) -> dict[int, float]:
    """Species whose factor on F/m·Δt² is neither one nor that of all others: {atomic number: factor}."""
    scales = motion.scales(timestep)
    known = np.isfinite(scales) & (scales > 0.0) & (motion.rounding_of_species() < ROUNDING)
    if known.sum() < 2 or np.ptp(scales[known]) <= MASS * scales[known].min():
        return {}
    return {int(z): float(scale) for z, scale in zip(motion.numbers[known], scales[known], strict=True)
            if abs(scale - 1.0) > MASS}


@dataclass(frozen=True)
class Break:
    """A place where the motion does not go on.

    Attributes:
        kind: "gap", "duplicates", "kicks" or "order".
        last, next: the last frame before it and the first frame after it.
    """

    kind: str
    last: int
    next: int


def find_breaks(motion: Motion, positions: np.ndarray, timestep: float) -> list[Break] | None:
    """Where the motion breaks; None if it does not follow from the forces on the whole."""
    bad = _bad(motion, timestep)
    frames = motion.frames[bad]
    clusters = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if len(frames) else []
    if bad.mean() > BAD_SHARE and len(frames) > 2:
        if bad.mean() > KICKED_SHARE or np.median(motion.residuals(timestep)[~bad]) > EXACT:
            return None
        if len(clusters) > MANY:
            return [Break("kicks", int(k), int(k) + 1) for k in frames]
    return [_break(cluster, positions) for cluster in clusters]


def _bad(motion: Motion, timestep: float) -> np.ndarray:
    """Frames that do not follow from the forces, (M,), bool."""
    frictions = np.abs(motion.frictions(timestep)) - motion.friction_errors()
    return (motion.residuals(timestep) > RESIDUAL) | (frictions > FRICTION)


def _break(cluster: np.ndarray, positions: np.ndarray) -> Break:
    """What neighbouring bad frames show: a kick changes one second difference, a missing or doubled frame two."""
    first, last = int(cluster[0]), int(cluster[-1])
    if first == last:
        return Break("kicks", first, first + 1)
    if last == first + 1:
        before, across = positions[first] - positions[first - 1], positions[last] - positions[first]
        along = float(np.sum(before * across) / max(np.sum(before**2), np.finfo(float).tiny))
        if np.sum(across**2) < 1e-4 * np.sum(before**2):
            return Break("duplicates", first, last)
        if along > 1.4 and np.sum(across**2) < 2.0 * along**2 * np.sum(before**2):
            return Break("gap", first, last)
    return Break("order", first, last)


def check_breaks(breaks: list[Break]) -> list[Check]:
    """Verdicts on the order of the frames; gaps are only told, for the run is split there."""
    places = {kind: [b for b in breaks if b.kind == kind] for kind in ("gap", "order", "duplicates", "kicks")}
    checks = []
    if places["order"]:
        checks.append(Check("order", "failed", len(places["order"]),
                            f"the motion around frame {_listed(places['order'])} does not follow from the forces: "
                            "frames are out of order there; write the run again, or split the file there"))
    elif places["gap"]:
        checks.append(Check("order", "warning", len(places["gap"]),
                            f"frames are missing after frame {_listed(places['gap'])}: the motion jumps; split there"))
    else:
        checks.append(Check("order", "ok", 0))
    if places["duplicates"]:
        checks.append(Check("duplicates", "failed", len(places["duplicates"]),
                            f"the frame after frame {_listed(places['duplicates'])} repeats it; remove the doubled "
                            "frames"))
    if places["kicks"]:
        checks.append(Check("kicks", "failed", len(places["kicks"]),
                            f"the velocities change suddenly at frame {_listed(places['kicks'])}, as a stochastic "
                            "thermostat or a restart with new velocities does; allowed, the run is split there"))
    return checks


def _listed(breaks: list[Break]) -> str:
    shown = ", ".join(str(b.last) for b in breaks[:6])
    return shown + (f" and {len(breaks) - 6} more" if len(breaks) > 6 else "")


def check_motion(
    motion: Motion, timestep: float, breaks: list[Break] | None, precision: float | None
) -> Check:
    """The whole motion against the forces; single places are the business of `check_breaks`."""
    if motion.timestep is None:
        return Check("motion", "failed", None, "the atoms accelerate against the forces, or not along them at all; "
                     "the forces have the wrong sign, or belong to other frames or another system")
    residuals, bad = motion.residuals(timestep), _bad(motion, timestep)
    if breaks is None:
        return Check("motion", "failed", float(np.median(residuals)),
                     f"the motion around frame {motion.frames[np.argmax(bad)]} and in {bad.mean():.0%} of all frames "
                     "does not follow from the forces (r(t+1) − 2r(t) + r(t−1) is off F/m·Δt² by "
                     f"{np.median(residuals):.2f} times its size, median): forces of other frames, shuffled or "
                     "skipped frames, constraints, or a thermostat that kicks at every step")
    if bad.all():
        return Check("motion", "ok")
    value = motion.deviation(timestep, ~bad)
    digits = f"positions with {-round(np.log10(precision))} decimals, " if precision else ""
    return graded("motion", value, (COARSE, np.inf), (
        f"the motion follows from the forces only to {100 * value:.2g} %: {digits}coarse convergence or an integrator "
        "other than Verlet's; long rollouts cannot follow it better"))


def check_velocities(motion: Motion, timestep: float) -> Check:
    """Given velocities against the motion."""
    residuals = motion.velocity_residuals(timestep)
    worst = float(residuals.max())
    if worst <= VELOCITY:
        return Check("velocities", "ok", worst)
    k = int(np.argmax(residuals > VELOCITY))
    return Check("velocities", "failed", worst,
                 f"the velocities of frame {motion.frames[k]} differ from the motion by {100 * residuals[k]:.0f} % "
                 f"(they are {motion.velocity_unit(timestep):.4g} times the motion in Å/fs); write them in Å/fs, or "
                 "leave them out to have them reconstructed (allowed: reconstructed)")


def check_work(change: np.ndarray, work: np.ndarray, constant_cell: bool) -> Check:
    """Changes of the energy between frames against the work of the forces, −ΔE = ∫F·dr, both eV, (M,)."""
    if not change.any() and work.any():
        return Check("work", "failed", None, "the energy is the same in all frames although the forces do work")
    size = max(float(np.sqrt(np.mean(change**2))), np.finfo(float).tiny)
    value = float(np.sqrt(np.mean((change + work) ** 2))) / size
    slope = -float(np.sum(change * work) / max(np.sum(work**2), np.finfo(float).tiny))
    text = (f"the energies and the work of the forces differ by {value:.0%} (energies change {slope:.2f} times as "
            "much): ")
    if not constant_cell:
        return graded("work", value, (WORK[1], np.inf), text + "the work of the changing cell is not in the forces")
    return graded("work", value, WORK, text + (
        "a bias that is in the forces and not in the energy (metadynamics, restraint), energies of another kind or "
        "unit, or too coarse convergence"))


def check_rounding(motion: Motion, timestep: float, precision: float | None) -> Check:
    """How much of the motion is rounding of the written positions."""
    value, velocity = motion.rounding(timestep), motion.velocity_rounding()
    text = (f"the positions are written to {precision or 0.0:.0e} Å: rounding is {value:.0%} of F/m·Δt² and "
            f"{velocity:.1%} of the velocities; ")
    if velocity > VELOCITY_ROUNDING:
        return Check("rounding", "failed", value, text + "take an output with more digits")
    return graded("rounding", value, (ROUNDING, np.inf), text + (
        "the checks of the motion are as coarse, single wrong frames may escape them (vasprun.xml has more digits "
        "than OUTCAR)"))


def check_net_force(net: np.ndarray, size: np.ndarray, held: bool) -> Check:
    """|ΣF| and √ΣF² of each frame, eV/Å, (T,); atoms that are held take up a net force."""
    value = float(np.median(net / np.maximum(size, np.finfo(float).tiny)))
    check = graded("net_force", value, NET_FORCE, f"the forces of a frame sum up to {np.median(net):.2g} eV/Å "
                   f"({value:.0%} of their size): an external field, forces of held atoms left out, or a coarse grid")
    return Check("net_force", "ok", value) if held else check


def friction_note(motion: Motion, timestep: float) -> str | None:
    """A sentence on the thermostat that the motion shows, if it does."""
    typical = float(np.sqrt(np.mean(motion.frictions(timestep) ** 2)))
    if typical < 1e-5 or motion.friction_share(timestep) < 0.5:
        return None
    return (f"a thermostat takes or gives {100 * typical:.2g} % of the displacement per frame; rollouts are NVE, so "
            "long ones cannot follow it exactly")


def ase_velocities(motion: Motion, timestep: float) -> bool:
    """Whether given velocities are in ASE's unit in place of Å/fs."""
    return abs(motion.velocity_unit(timestep) / units.ASE_TIME - 1.0) < 0.1
