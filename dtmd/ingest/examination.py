"""From a recording to checked trajectories: clock, segments, velocities, and the verdicts on all of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest import checks
from dtmd.ingest.clock import Segments, clock_of, segments_of
from dtmd.ingest.motion import Motion, measure, pieces, reconstructed_velocities, work
from dtmd.ingest.recording import Recording
from dtmd.trajectory import Check, Origin, Trajectory

SHORTEST = 3
"""Frames of a segment that can be checked."""


@dataclass(frozen=True)
class Examined:
    """A run with the verdicts on it.

    Attributes:
        recording: as read.
        checks: all checks that could be made.
        trajectories: one per segment; empty if a check has failed.
        timestep: fs between frames, None if unknown.
        timestep_from: where it is written, or "the motion".
        notes: what was decided.
    """

    recording: Recording
    checks: tuple[Check, ...]
    trajectories: list[Trajectory]
    timestep: float | None
    timestep_from: str
    notes: tuple[str, ...]

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.verdict == "failed"]


def examine(
    recording: Recording, timestep: float | None, allowed: Collection[str], unfinished_is_usual: bool
) -> Examined:
    """Check a run and make trajectories of its segments.

    Args:
        recording: the run.
        timestep: fs between frames, if the user says it.
        allowed: names of checks that may fail.
        unfinished_is_usual: a file that ends inside a frame is no failure.

    Raises:
        DtmdError: a time step that contradicts the file, or values that are not finite.
    """
    return _Examination(recording, frozenset(allowed)).run(timestep, unfinished_is_usual)


class _Examination:
    """One pass through the checks, in the order in which they depend on one another."""

    def __init__(self, recording: Recording, allowed: frozenset[str]) -> None:
        self.rec, self.allowed = recording, allowed
        self.checks: list[Check] = []
        self.notes: list[str] = []
        self.wrong_masses: dict[int, float] = {}
        self.moving = ~recording.run.fixed if recording.run.fixed is not None else np.ones_like(recording.still)

    def run(self, timestep: float | None, unfinished_is_usual: bool) -> Examined:
        rec = self.rec
        self._check_finite()
        if rec.cut:
            self._add(Check("unfinished", "warning" if unfinished_is_usual else "failed", len(rec),
                            f"{rec.cut.removeprefix(rec.name + ': ')}; the {len(rec)} whole frames can be used"))
        self._check_labels()
        self._check_ab_initio()
        self._note_masses()
        clock = clock_of(rec, timestep, insist="timestep" in self.allowed)
        steps, spacing, origin = clock.steps, clock.spacing, clock.origin
        segments, found = segments_of(steps, rec.forces)
        for check in found:
            self._add(check)
        self.notes += clock.notes
        velocities = rec.velocities
        if not rec.run.consecutive:
            self._add(Check("frames", "failed", 1, "selected configurations, no consecutive steps; allowed, each is a "
                            "trajectory of one frame, which S = 1 can learn from"))
            segments, spacing = [(k, k + 1) for k in range(len(rec))], spacing or 1.0
            velocities = np.zeros(rec.positions.shape) if velocities is None else velocities
        elif rec.forces is not None:
            self._hold_still_atoms(spacing)
            spacing, origin, segments, velocities = self._check_motion(spacing, origin, segments)
            self._check_net_force()
        elif spacing is None:
            self._add(Check("timestep", "failed", None, "the time step is not in the file; give it (--timestep)"))
        trajectories = []
        if not any(check.verdict == "failed" for check in self.checks) and spacing is not None:
            trajectories = self._trajectories(steps, spacing, origin, segments, velocities)
        return Examined(rec, tuple(self.checks), trajectories, spacing if rec.run.consecutive else None, origin,
                        (*rec.run.notes, *self.notes))

    def _add(self, check: Check) -> None:
        if check.verdict == "failed" and check.name in self.allowed:
            check = replace(check, verdict="allowed")
        self.checks.append(check)

    def _check_finite(self) -> None:
        for name in ("positions", "cells", "forces", "energies", "velocities"):
            values = getattr(self.rec, name)
            if values is None:
                continue
            for first, last in pieces([(0, len(values))], len(self.moving), overlap=0):
                finite = np.isfinite(values[first:last]).reshape(last - first, -1).all(axis=1)
                if not finite.all():
                    frame = first + int(np.argmin(finite))
                    raise DtmdError(f"{self.rec.name}: frame {frame} has {name} that are not finite; "
                                    "remove the frames from there on")

    def _check_labels(self) -> None:
        missing = [name for name in ("forces", "energies") if getattr(self.rec, name) is None]
        self._add(Check("labels", "failed", len(missing), f"no {' and no '.join(missing)} in this run; training and "
                        "rollout comparison need both in every frame") if missing else Check("labels", "ok", 0))

    def _check_ab_initio(self) -> None:
        n_model = int(np.sum(~self.rec.ab_initio))
        self._add(Check("ab_initio", "failed", n_model, (
            f"{n_model} of {len(self.rec)} frames have the labels of a machine-learned or other model, first frame "
            f"{int(np.argmin(self.rec.ab_initio))}, mixed in with ab initio ones" if n_model < len(self.rec) else
            "the labels of all frames are those of a machine-learned or other model, not of an ab initio code"))
            if n_model else Check("ab_initio", "ok", 0))

    def _note_masses(self) -> None:
        """Masses that the run sets itself."""
        numbers, masses = self.rec.run.numbers, self.rec.masses
        standard = atomic_masses[numbers]
        for z in np.unique(numbers[np.abs(masses / standard - 1.0) > checks.MASS]):
            k = int(np.argmax(numbers == z))
            self.notes.append(f"{chemical_symbols[z]} has {masses[k]:.4g} u in this run, not {standard[k]:.4g} u"
                              + (": deuterium" if z == 1 and abs(masses[k] - 2.014) < 0.01 else ""))

    def _hold_still_atoms(self, spacing: float | None) -> None:
        """Components that never move although a force acts on them are held."""
        rec = self.rec
        if len(rec) < 4 or not (rec.still & self.moving).any():
            return
        if rec.still.all():
            self._add(Check("duplicates", "failed", len(rec), "all frames have the same positions"))
            return
        strongest = np.zeros(rec.still.shape)
        for first, last in pieces([(0, len(rec))], len(rec.masses), overlap=0):
            strongest = np.maximum(strongest, np.abs(rec.forces[first:last]).max(axis=0))
        would_move = units.ACCELERATION * strongest / rec.masses[:, None] * (spacing or 0.5) ** 2
        held = rec.still & (would_move > 10.0 * (rec.run.precision or 1e-7))
        n_found = int((held & self.moving).any(axis=1).sum())
        if n_found:
            self.notes.append(f"{n_found} atoms never move although forces act on them; taken as held fixed")
            self.moving &= ~held

    def _check_motion(
        self, spacing: float | None, origin: str, segments: Segments
    ) -> tuple[float | None, str, Segments, np.ndarray | None]:
        rec = self.rec
        longest = max(end - begin for begin, end in segments)
        if longest < SHORTEST:
            self._add(Check("frames", "failed", longest, f"at most {longest} consecutive frames; at least {SHORTEST} "
                                                         "are needed to check the motion"))
            known = rec.velocities is not None or spacing is None
            return spacing, origin, segments, rec.velocities if known else self._reconstructed(segments, spacing)
        given = rec.velocities
        motion = self._measure(segments, given)
        if spacing is None:
            spacing, origin = self._timestep_of(motion), "the motion"
            if spacing is None:
                return None, "", segments, given
        if given is not None and rec.run.settings.get("velocities_per_step") == "true":
            given = np.asarray(given) / spacing
            motion = self._measure(segments, given)
        self._add(checks.check_rounding(motion, spacing, rec.run.precision))
        if rec.run.precision and rec.run.precision > 0.9e-5:
            self.notes.append(f"positions with {-round(np.log10(rec.run.precision))} decimals: rounding is "
                              f"{100 * motion.rounding(spacing):.2g} % of F/m·Δt²")
        if self.checks[-1].verdict == "failed":
            return spacing, origin, segments, given
        fitted, fit, breaks = self._check_forces(motion, spacing)
        if breaks:
            segments = _split(segments, breaks)
            motion = self._measure(segments, given)
        motion = motion.with_accelerations(self.wrong_masses)
        if len(motion) and (fitted or "motion" in self.allowed):
            if fitted and (note := checks.friction_note(motion, fit)):
                self.notes.append(note)
            given = self._check_velocities(motion, fit, segments, given)
        self._check_work(segments)
        return spacing, origin, segments, given

    def _check_forces(self, motion: Motion, spacing: float) -> tuple[bool, float, list[checks.Break]]:
        """The motion against the forces: (whether it fits at all, the Δt that it shows, where it breaks).

        A wrong time step or mass is one finding: all else is judged with the right one.
        """
        rec = self.rec
        masses = dict(zip(rec.run.numbers.tolist(), rec.masses.tolist(), strict=True))
        self.wrong_masses = checks.wrong_masses(motion, spacing)
        right = motion.with_accelerations(self.wrong_masses)
        shown = motion.timestep or spacing
        timestep = checks.check_timestep(shown, spacing, motion.timestep_error)
        fit = spacing if self.wrong_masses or timestep.verdict == "ok" else shown
        breaks = checks.find_breaks(right, rec.positions, fit)
        self._add(checks.check_motion(right, fit, breaks, rec.run.precision))
        if breaks is None or self.checks[-1].verdict in ("failed", "allowed"):
            self.wrong_masses = {}
            return False, spacing, []
        if self.checks[-1].verdict == "warning":
            # Too coarse a motion to tell a time step, a mass or single frames from it.
            self.wrong_masses = {}
            return True, spacing, []
        self._add(Check("timestep", "ok", shown) if self.wrong_masses else timestep)
        if self.checks[-1].verdict == "failed":
            return True, fit, []
        self._add(checks.check_masses(motion, spacing, masses))
        for found in checks.check_breaks(breaks):
            self._add(found)
        return True, fit, breaks

    def _measure(self, segments: Segments, velocities: np.ndarray | None) -> Motion:
        rec = self.rec
        return measure(rec.positions, rec.cells, rec.forces, velocities, rec.run.numbers, rec.masses, self.moving,
                       segments, rec.run.precision)

    def _timestep_of(self, motion: Motion) -> float | None:
        """Δt where nothing but the motion tells it."""
        shown = motion.timestep
        if shown is None or np.median(motion.residuals(shown)) > checks.SHOWN_TIMESTEP:
            self._add(Check("timestep", "failed", shown, "the time step is not in the file, and the motion does not "
                            "show it: the frames are not consecutive, or the forces not theirs; give it (--timestep)"))
            return None
        self.notes.append(f"the time step is not in the file; the motion shows {shown:.5g} fs")
        return shown

    def _check_velocities(
        self, motion: Motion, spacing: float, segments: Segments, given: np.ndarray | None
    ) -> np.ndarray:
        """The velocities to use: those given where they fit, else those of the motion."""
        if given is not None and checks.ase_velocities(motion, spacing):
            self.notes.append("velocities converted from ASE's unit")
            given = np.asarray(given) / units.ASE_TIME
            motion = self._measure(segments, given).with_accelerations(self.wrong_masses)
        if given is None:
            self._add(Check("velocities", "ok", motion.reconstruction_error(spacing)))
        else:
            worst = {shift: float(motion.velocity_residuals(spacing, shift).max()) for shift in (0.0, 0.5, -0.5)}
            shift = min(worst, key=worst.get)
            if shift == 0.0 or worst[shift] > min(checks.VELOCITY, 0.5 * worst[0.0]):
                self._add(checks.check_velocities(motion, spacing))
                if self.checks[-1].verdict == "ok":
                    return given
            else:
                self._add(Check("velocities", "ok", worst[shift]))
                self.notes.append(f"the velocities are those half a step {'after' if shift > 0 else 'before'} the "
                                  "positions; replaced by velocities reconstructed from the motion")
        return self._reconstructed(segments, spacing)

    def _reconstructed(self, segments: Segments, spacing: float) -> np.ndarray:
        rec = self.rec
        return reconstructed_velocities(rec.positions, rec.cells, rec.forces, rec.masses, self.moving, segments,
                                        spacing)

    def _check_work(self, segments: Segments) -> None:
        rec = self.rec
        if rec.energies is None:
            return
        starts, done = work(rec.positions, rec.cells, rec.forces, self.moving, segments)
        if len(starts):
            constant_cell = bool(np.all(rec.cells == rec.cells[0]))
            self._add(checks.check_work(rec.energies[starts + 1] - rec.energies[starts], done, constant_cell))

    def _check_net_force(self) -> None:
        rec, net, size = self.rec, [], []
        for first, last in pieces([(0, len(rec))], len(rec.masses), overlap=0):
            forces = np.asarray(rec.forces[first:last])
            net.append(np.linalg.norm(forces.sum(axis=1), axis=1))
            size.append(np.sqrt(np.sum(forces**2, axis=(1, 2))))
        self._add(checks.check_net_force(np.concatenate(net), np.concatenate(size), not self.moving.all()))

    def _trajectories(
        self, steps: np.ndarray, spacing: float, origin: str, segments: Segments, velocities: np.ndarray | None
    ) -> list[Trajectory]:
        rec, run = self.rec, self.rec.run
        shortest = SHORTEST if rec.forces is not None and "frames" not in self.allowed else 1
        kept = [(begin, end) for begin, end in segments if end - begin >= shortest]
        if not kept:
            self._add(Check("frames", "failed", 0, f"no {shortest} consecutive frames are left between the breaks"))
        n_left_out = sum(end - begin for begin, end in segments) - sum(end - begin for begin, end in kept)
        if n_left_out:
            self.notes.append(f"{n_left_out} frames between gaps left out: fewer than {shortest} consecutive ones")
        whole = kept == [(0, len(rec))]
        ordered = all((np.diff(steps[begin:end]) > 0.0).all() for begin, end in kept)
        return [
            Trajectory(
                numbers=run.numbers, masses=rec.masses, pbc=np.asarray(run.pbc), cells=rec.cells[begin:end],
                times=(steps[begin:end] if ordered else np.arange(begin, end)) * spacing,
                positions=rec.positions[begin:end],
                velocities=None if velocities is None else velocities[begin:end],
                forces=None if rec.forces is None else rec.forces[begin:end],
                energies=None if rec.energies is None else rec.energies[begin:end],
                source=rec.name if whole else f"{rec.name}[{begin}:{end}]",
                notes=(*run.notes, *self.notes), fixed=None if self.moving.all() else ~self.moving,
                origin=Origin(
                    run=rec.name, code=run.code, version=run.version, timestep_from=origin,
                    files=tuple(str(path) for path in rec.source.files), settings=run.settings,
                    checks=tuple(self.checks)),
            ) for begin, end in kept
        ]


def _split(segments: Segments, breaks: list[checks.Break]) -> Segments:
    """Segments that end before and start again after each break."""
    result = []
    for begin, end in segments:
        for found in breaks:
            if begin <= found.last < end:
                result.append((begin, found.last + 1))
                begin = found.next
        result.append((begin, end))
    return [(begin, end) for begin, end in result if end > begin]
