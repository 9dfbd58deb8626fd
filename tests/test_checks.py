"""The checks of a run: each finds what it is for, names it, and nothing else is blamed."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_runs import examined, frames_of, sound, with_forces, without_steps

from dtmd.errors import DtmdError
from dtmd.ingest import recording
from dtmd.ingest.checks import CHECKS, check_names
from dtmd.ingest.source import CutShort, Frame
from dtmd.units import ACCELERATION


@pytest.fixture(scope="module")
def frames():
    return frames_of(sound())


def verdicts(result) -> dict[str, str]:
    return {check.name: check.verdict for check in result.checks}


def failed(result) -> list[str]:
    return [check.name for check in result.failures]


def text(result, name) -> str:
    return next(check.text for check in result.checks if check.name == name)


def test_a_sound_run_passes_all_checks_with_their_numbers(frames):
    result = examined(frames)
    assert set(verdicts(result).values()) == {"ok"} and set(verdicts(result)) <= set(CHECKS)
    number = {check.name: check.value for check in result.checks}
    assert number["timestep"] == pytest.approx(0.5, abs=1e-6)
    assert number["motion"] < 1e-4 and number["velocities"] < 1e-5 and number["net_force"] < 1e-8
    assert 0.005 < number["work"] < 0.05  # what the trapezoidal rule leaves
    (trajectory,) = result.trajectories
    assert len(trajectory) == 60 and trajectory.timestep == 0.5 and trajectory.source == "toy.run"
    assert trajectory.origin.code == "toy" and trajectory.origin.timestep_from == "the test"


def test_the_motion_shows_the_time_step_that_the_file_lacks(frames):
    result = examined(without_steps(frames), timestep=None)
    assert not failed(result) and result.timestep == pytest.approx(0.5, abs=1e-6)
    assert result.timestep_from == "the motion"
    given = examined(without_steps(frames), timestep=None, given=0.5)
    assert given.timestep == 0.5 and given.timestep_from == "given"


def test_a_contradicting_time_step_is_refused_unless_insisted_on(frames):
    with pytest.raises(DtmdError, match=r"the file says 0.5 fs between frames \(the test\), you say 1 fs"):
        examined(frames, given=1.0)
    wrong_file = examined(frames, timestep=1.0, given=0.5, allow=["timestep"])
    assert not failed(wrong_file) and wrong_file.trajectories[0].timestep == 0.5


@pytest.mark.parametrize(("said", "stride", "message"), [
    (1.0, 1, r"said to be 1 fs, the motion shows 0.5 fs"),
    (0.25, 2, r"said to be 0.25 fs, the motion shows 0.98\d* fs between frames \(one in 4 steps was written\)"),
])
def test_a_wrong_time_step_is_the_only_failure(frames, said, stride, message):
    result = examined(without_steps(frames[::stride]), timestep=said)
    assert failed(result) == ["timestep"]
    assert re.search(message, text(result, "timestep"))


def test_strides_are_read_from_step_numbers(frames):
    result = examined(frames[::2])
    assert not failed(result) and result.timestep == 1.0


def test_a_heavy_isotope_is_named(frames):
    light = np.where(sound().numbers == 1, 2.0, 1.0)[:, None]
    result = examined([replace(f, energy=f.energy) for f in with_forces(frames, light)], allow=["work"])
    assert failed(result) == ["masses"]
    assert "H moves as if it had 2.02 u, not 1.01 u" in text(result, "masses")


def test_gaps_split_the_run_whether_numbered_or_only_seen(frames):
    missing_one = frames[:20] + frames[21:]
    for run in (missing_one, without_steps(missing_one)):
        result = examined(run)
        assert not failed(result)
        assert [t.source for t in result.trajectories] == ["toy.run[0:20]", "toy.run[20:59]"]
        assert len({t.origin.run for t in result.trajectories}) == 1
        first, second = (t.velocities for t in result.trajectories)
        assert np.array_equal(np.concatenate([first, second]), np.array([f.velocities for f in run]))
    assert "after frame 19" in text(examined(without_steps(missing_one)), "order")


def test_short_pieces_between_gaps_are_left_out_and_told(frames):
    result = examined(frames[:20] + frames[25:27] + frames[30:])
    assert [len(t) for t in result.trajectories] == [20, 30]
    assert any("2 frames between gaps left out" in note for note in result.notes)
    assert failed(examined(frames[::7] + [])) == ["motion"] or failed(examined(frames[::7]))
    scattered = [frames[k] for k in (0, 1, 5, 6, 20, 21, 30, 44)]
    assert failed(examined(scattered)) == ["frames"]


@pytest.mark.parametrize(("order", "name", "message"), [
    ([*range(20), 21, 20, *range(22, 60)], "order", "around frame 19"),
    ([*range(20), 19, *range(20, 60)], "duplicates", "the frame after frame 19 repeats it"),
])
def test_disorder_is_seen_in_the_motion_alone(frames, order, name, message):
    result = examined(without_steps([frames[k] for k in order]))
    assert failed(result) == [name] and message in text(result, name)


def test_disorder_is_seen_in_step_numbers(frames):
    assert "order" in failed(examined(frames[:5] + [frames[6], frames[5]] + frames[7:]))
    other = replace(frames[40], step=4)
    assert "duplicates" in failed(examined(frames[:5] + [other] + frames[5:]))
    two_runs_in_one_file = frames[:30] + [replace(f, step=k) for k, f in enumerate(frames[30:])]
    assert "order" in failed(examined(two_runs_in_one_file))


def test_of_steps_that_a_restart_repeats_the_later_ones_are_kept(frames):
    result = examined(frames[:25] + frames[20:])
    assert not failed(result) and verdicts(result)["duplicates"] == "warning"
    assert "frames 20 to 24 come again" in text(result, "duplicates")
    first, second = result.trajectories
    assert (first.source, second.source) == ("toy.run[0:20]", "toy.run[25:65]")
    assert np.array_equal(second.positions, sound().positions[20:]) and second.times[0] == 10.0


def test_shuffled_frames_flipped_forces_and_forces_of_other_frames(frames):
    order = np.random.default_rng(0).permutation(60)
    assert "motion" in failed(examined(without_steps([frames[k] for k in order])))
    flipped = examined(with_forces(frames, -1.0))
    assert "motion" in failed(flipped) and "against the forces" in text(flipped, "motion")
    foreign = [replace(f, forces=frames[(k + 11) % 60].forces) for k, f in enumerate(frames)]
    assert "motion" in failed(examined(foreign))


def test_kicks_are_named_and_allowed_ones_split_the_run(frames):
    """A run whose velocities change at frame 30: the rest is the time-reversed way back."""
    kicked = frames[:31] + [replace(frames[29 - k], step=31 + k, velocities=-frames[29 - k].velocities)
                            for k in range(30)]
    result = examined(kicked)
    assert failed(result) == ["kicks"] and "at frame 30" in text(result, "kicks")
    result = examined(kicked, allow=["kicks"])
    assert [len(t) for t in result.trajectories] == [31, 30]
    assert verdicts(result)["kicks"] == "allowed"
    assert result.trajectories[0].origin.checks == result.checks


def test_kicks_at_many_frames_are_kicks(frames):
    """Every third frame the way is turned back: exact in between, and far too many places to be accidents."""
    back_and_forth = [frames[k] for turn in range(12) for k in ((4, 5, 6) if turn % 2 == 0 else (5, 4, 3))]
    result = examined(without_steps([replace(f, velocities=None) for f in back_and_forth]))
    assert failed(result) == ["kicks"]


def test_energies_that_are_not_those_of_the_forces(frames):
    for wrong in ([replace(f, energy=2.0 * f.energy) for f in frames],
                  [replace(f, energy=-f.energy) for f in frames],
                  [replace(f, energy=f.energy + np.cos(k / 2.0)) for k, f in enumerate(frames)]):
        assert failed(examined(wrong)) == ["work"]
    assert "energies change 1.99 times" in text(examined([replace(f, energy=2.0 * f.energy) for f in frames]), "work")


def test_velocities_in_other_units_and_half_a_step_away(frames):
    ase_unit = examined([replace(f, velocities=f.velocities * 10.1805057) for f in frames])
    assert not failed(ase_unit) and "velocities converted from ASE's unit" in ase_unit.notes
    assert np.allclose(ase_unit.trajectories[0].velocities, sound().velocities, rtol=1e-6)
    r = sound().positions
    half = [replace(f, velocities=(r[k] - r[k - 1]) / 0.5) for k, f in enumerate(frames) if k]
    leapfrog = examined(half)
    assert not failed(leapfrog) and any("half a step before" in note for note in leapfrog.notes)
    inner = slice(1, -1)
    assert np.allclose(leapfrog.trajectories[0].velocities[inner], sound().velocities[1:][inner], atol=1e-6)
    foreign = examined([replace(f, velocities=f.velocities * 45.7) for f in frames])
    assert failed(foreign) == ["velocities"] and "45.7 times the motion" in text(foreign, "velocities")
    allowed = examined([replace(f, velocities=f.velocities * 45.7) for f in frames], allow=["velocities"])
    assert np.allclose(allowed.trajectories[0].velocities, sound().velocities, atol=1e-6)


def test_velocities_per_step_become_velocities(frames):
    per_step = [replace(f, velocities=f.velocities * 0.5) for f in frames]
    for timestep in (0.5, None):
        result = examined(without_steps(per_step), timestep=timestep, settings={"velocities_per_step": "true"})
        assert not failed(result)
        assert np.allclose(result.trajectories[0].velocities, sound().velocities, rtol=1e-6)


def test_model_labels_and_missing_labels(frames):
    mixed = examined([replace(f, ab_initio=k != 7) for k, f in enumerate(frames)])
    assert failed(mixed) == ["ab_initio"] and "1 of 60 frames" in text(mixed, "ab_initio")
    bare = examined([replace(f, forces=None, energy=None, velocities=None) for f in frames])
    assert failed(bare) == ["labels"] and "no forces and no energies" in text(bare, "labels")
    (trajectory,) = examined([replace(f, forces=None, energy=None, velocities=None) for f in frames],
                             allow=["labels"]).trajectories
    assert trajectory.forces is None and trajectory.velocities is None


@pytest.mark.parametrize(("digits", "verdict"), [(6, "ok"), (4, "warning"), (3, "warning"), (2, "failed")])
def test_coarse_positions_are_named_and_taken_into_account(frames, digits, verdict):
    rounded = [replace(f, positions=np.round(f.positions, digits), velocities=None) for f in frames]
    result = examined(rounded, precision=10.0**-digits)
    assert verdicts(result)["rounding"] == verdict
    assert failed(result) == (["rounding"] if verdict == "failed" else [])
    assert verdict == "ok" or f"1e-0{digits} Å" in text(result, "rounding")


def test_a_run_that_follows_its_forces_only_coarsely_still_gets_velocities(frames):
    random = np.random.default_rng(0)
    size = 0.15 * np.sqrt(np.mean([f.forces**2 for f in frames]))
    coarse = [replace(f, forces=f.forces + random.normal(scale=size, size=(57, 3)), velocities=None) for f in frames]
    result = examined(coarse, allow=["net_force", "work"])
    assert verdicts(result)["motion"] == "warning" and verdicts(result)["velocities"] == "ok" and not failed(result)
    assert np.allclose(result.trajectories[0].velocities[1:-1], sound().velocities[1:-1], atol=1e-5)
    wrong = examined([replace(f, velocities=3.0 * s.velocities) for f, s in zip(coarse, frames, strict=True)],
                     allow=["net_force", "work"])
    assert failed(wrong) == ["velocities"]


def test_held_atoms_are_found_and_left_out_of_the_checks(frames):
    held = np.arange(57) >= 51
    run = [replace(f, positions=np.where(held[:, None], frames[0].positions, f.positions),
                   velocities=np.where(held[:, None], 0.0, f.velocities)) for f in frames]
    result = examined(run, allow=["work"])
    assert not failed(result) and any("6 atoms never move" in note for note in result.notes)
    assert np.array_equal(result.trajectories[0].fixed, np.repeat(held[:, None], 3, axis=1))
    bare = examined([replace(f, velocities=None) for f in run], allow=["work"])
    assert not bare.trajectories[0].velocities[:, held].any()
    said = examined(run, fixed=np.repeat(held[:, None], 3, axis=1), allow=["work"])
    assert not failed(said) and not any("never move" in note for note in said.notes)


def test_values_that_are_not_finite_are_never_allowed(frames):
    broken = list(frames)
    broken[9] = replace(frames[9], forces=np.full_like(frames[9].forces, np.nan))
    with pytest.raises(DtmdError, match="toy.run: frame 9 has forces that are not finite"):
        examined(broken, allow=list(CHECKS))


def test_an_unfinished_file_fails_unless_that_is_usual(frames):
    def cut():
        yield from frames
        raise CutShort("toy.run: ends after line 12 inside frame 60")

    assert failed(examined(cut())) == ["unfinished"]
    result = examined(cut(), usual=True)
    assert verdicts(result)["unfinished"] == "warning" and len(result.trajectories[0]) == 60
    assert "line 12" in text(result, "unfinished") and "60 whole frames" in text(result, "unfinished")


def test_a_growing_cell_is_followed_in_scaled_coordinates(frames):
    """A stretched copy of the run: r' = r·h(t), whose physics holds in scaled coordinates with small corrections."""
    stretch = 1.0 + 1e-6 * np.arange(60)
    run = [replace(f, positions=f.positions * s, cell=f.cell * s, velocities=None)
           for f, s in zip(frames, stretch, strict=True)]
    result = examined(run)
    assert not failed(result)
    assert np.allclose(result.trajectories[0].velocities, sound().velocities, atol=2e-5)


def test_a_lone_bond_that_vibrates_along_its_forces():
    """Two atoms on a line: forces and motion are parallel in every frame, so no friction can be told from them."""
    stiffness, mass, timestep, r = 20.0, 28.085, 1.0, [0.1, 0.1]
    for _ in range(60):
        r.append(2.0 * r[-1] - r[-2] - 2.0 * ACCELERATION * stiffness * r[-1] / mass * timestep**2)
    axis = np.array([1.0, 1.0, 1.0]) / np.sqrt(3.0)
    frames = [Frame(np.outer([0.5, -0.5], axis) * (2.3 + x), np.zeros((3, 3)),
                    np.outer([-1.0, 1.0], axis) * stiffness * x, 0.5 * stiffness * x * x, step=k)
              for k, x in enumerate(r)]
    head = {"numbers": np.array([14, 14]), "masses": np.full(2, mass), "pbc": np.zeros(3, dtype=bool)}
    assert not failed(examined(frames, timestep=1.0, **head))
    assert failed(examined(frames, timestep=0.5, **head)) == ["timestep"]
    assert "motion" in failed(examined(with_forces(frames, -1.0), timestep=1.0, **head))


def test_unknown_checks_cannot_be_allowed():
    with pytest.raises(DtmdError, match="--allow physics: no such check"):
        check_names(["physics"])


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1.0, -1.0, 4.0]))
def test_rotation_wrapping_and_atom_order_do_not_change_the_verdicts(seed, scale):
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    order, t = random.permutation(57), sound()
    images = random.integers(-2, 3, size=(60, 57, 3)) * t.pbc
    changed = [
        replace(f, positions=((f.positions + images[k] @ f.cell) @ rotation)[order], cell=f.cell @ rotation,
                forces=(scale * f.forces @ rotation)[order], velocities=(f.velocities @ rotation)[order])
        for k, f in enumerate(frames_of(t))
    ]
    result = examined(changed, numbers=t.numbers[order], masses=t.masses[order])
    plain = examined(with_forces(frames_of(t), scale))
    assert verdicts(result) == verdicts(plain)
    for a, b in zip(result.checks, plain.checks, strict=True):
        assert a.value is None and b.value is None or a.value == pytest.approx(b.value, rel=1e-3, abs=2e-4)


def test_large_runs_are_kept_on_disk_with_the_same_findings(frames, monkeypatch):
    whole = examined(frames)
    monkeypatch.setattr(recording, "IN_MEMORY", 1000)
    spilled = examined(frames)
    (trajectory,) = spilled.trajectories
    assert isinstance(trajectory.positions, np.memmap) and isinstance(trajectory.forces, np.memmap)
    for name in ("positions", "velocities", "forces", "energies", "cells", "times"):
        assert np.array_equal(getattr(trajectory, name), getattr(whole.trajectories[0], name))
    assert spilled.checks == whole.checks


def test_cells_without_volume(frames):
    flat = [replace(f, cell=np.array([[12.0, 0, 0], [24.0, 0, 0], [0, 0, 14.0]])) for f in frames]
    with pytest.raises(DtmdError, match="toy.run: a cell without volume after frame 0"):
        examined(flat)
    open_direction = [replace(f, cell=np.diag([30.0 + 1e-6 * k, 30.0, 0.0])) for k, f in enumerate(frames)]
    assert not failed(examined(open_direction, pbc=np.array([True, True, False])))
