"""ABACUS, SIESTA and CASTEP output: numbers read off the real files, and damaged copies of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from raw_runs import read_run

from dtmd import units
from dtmd.errors import DtmdError
from dtmd.ingest.readers import abacus, castep, siesta
from dtmd.ingest.source import CutShort, Format, candidate

BOHR = 0.529177210903


@pytest.fixture
def formats(shared_data) -> Path:
    return shared_data / "formats"


@pytest.fixture
def water(formats, tmp_path) -> Path:
    """A copy of an ABACUS run of version < 3.1.4 that may be changed: its OUT folder."""
    (tmp_path / "run/OUT.abacus").mkdir(parents=True)
    for name in ("INPUT", "STRU", "OUT.abacus/MD_dump", "OUT.abacus/running_md.log"):
        shutil.copyfile(formats / "abacus_dpdata_md" / name, tmp_path / "run" / name)
    return tmp_path / "run/OUT.abacus"


def change(path: Path, old: str, new: str, target: Path | None = None) -> Path:
    """The file with the last place of `old` changed, in place or as `target`."""
    before, after = path.read_text().rsplit(old, 1)
    target = target or path
    target.write_text(before + new + after)
    return target


def open_frames(form: Format, path: Path):
    sources = form.find([candidate(p) for p in sorted(path.parent.iterdir()) if p.is_file()])
    (source,) = [source for source in sources if path in source.files]
    return form.read(source).frames


def residual(frames, masses: np.ndarray, step: float, k: int, friction: bool = False) -> float:
    """Relative deviation of frame k from F/m·Δt², with a friction fitted if asked for; orthorhombic cells."""
    scaled = [np.linalg.solve(frame.cell.T, frame.positions.T).T for frame in frames[k - 1:k + 2]]
    back, forth = scaled[0] - scaled[1], scaled[2] - scaled[1]
    back, forth = ((d - np.round(d)) @ frames[k].cell for d in (back, forth))
    due = (units.ACCELERATION * frames[k].forces / masses[:, None] * step**2).ravel()
    rest = (forth + back).ravel() - due
    if friction:
        along = (forth - back).ravel()
        rest = rest - along * (rest @ along) / (along @ along)
    return float(np.linalg.norm(rest) / np.linalg.norm(due))


def test_abacus_numbers(formats):
    run, frames = read_run(abacus.FORMAT, formats / "abacus_dpdata_Sn_nve/OUT.Sn_nve/MD_dump")
    assert (run.code, run.version, run.timestep, run.timestep_from) == ("ABACUS", "v3.2", 1.0, "md_dt")
    assert run.numbers.tolist() == [50] * 64 and run.masses.tolist() == [118.71] * 64 and run.pbc.all()
    assert run.settings["md_type"] == "0" and run.settings["basis_type"] == "lcao" and run.notes == []
    assert [frame.step for frame in frames] == list(range(11)) and all(frame.ab_initio for frame in frames)
    first, last = frames[0], frames[-1]
    assert (first.cell == 12.411200939060 * np.eye(3)).all()
    assert first.energy == -6162.4375373 and frames[1].energy == -6162.43534757 and last.energy == -6162.22860931
    assert first.positions[1].tolist() == [0.0, 3.102800034079, 3.102800034079]
    assert first.forces[1].tolist() == [-0.000186795145, -0.000453823858, -0.000453823858]
    assert first.velocities[0].tolist() == [0.001244557166, -0.000346684288, 0.000768457739]
    assert last.positions[63].tolist() == [10.840273905154, 10.880921604828, 7.778386886220]
    assert last.forces[0].tolist() == [-0.260102638127, -0.102355292658, 0.275230298765]
    assert last.velocities[63].tolist() == [-0.001912556698, 0.002003145510, 0.001994826092]
    assert residual(frames, run.masses, 1.0, 5) < 1e-5
    moved = (frames[6].positions - frames[4].positions)[[1, 5, 13]] / 2
    assert np.abs(moved - frames[5].velocities[[1, 5, 13]]).max() < 1e-9


def test_abacus_old_version_in_bohr(formats):
    run, frames = read_run(abacus.FORMAT, formats / "abacus_dpdata_md/OUT.abacus/MD_dump")
    assert run.numbers.tolist() == [1, 1, 8] and run.masses.tolist() == [1.008, 1.008, 15.9994]
    assert run.timestep == 0.1 and [frame.step for frame in frames] == [0, 5, 10, 15, 20]
    first, last = frames[0], frames[-1]
    assert first.cell == pytest.approx(28.0 * BOHR * np.eye(3), abs=1e-12)
    assert first.positions[0] == pytest.approx(
        np.array([15.953212941138, 18.765586146743, 8.395247471322]) * BOHR, abs=1e-12)
    assert first.forces[2].tolist() == [-0.662377757533, -0.024871174127, 1.917943306741]
    assert last.forces[0].tolist() == [-0.812329959008, 0.587918500063, 0.000941318509]
    assert all(frame.velocities is None for frame in frames)
    # The energies that come before "STEP OF MOLECULAR DYNAMICS : 0", "5" and "20", with others between.
    assert [frame.energy for frame in frames[:2]] == [-466.692851174, -466.699290513689]
    assert last.energy == -466.697608297566
    assert residual(frames, run.masses, 0.5, 1) < 0.03


def test_abacus_log_without_dump_is_refused(formats):
    with pytest.raises(DtmdError, match="MD_dump, which is not in this folder"):
        read_run(abacus.FORMAT, formats / "nomad/abacus/Sn_md/running_md.log")


def test_abacus_alone(water):
    dump = shutil.move(water / "MD_dump", water.parent.parent / "anything.txt")
    run, frames = read_run(abacus.FORMAT, dump)
    assert run.timestep is None and run.masses is None and frames[0].energy is None
    assert frames[0].forces[2, 2] == 1.917943306741


def test_abacus_inputs_of_another_run_are_left_out(water):
    run, _ = read_run(abacus.FORMAT, water.rename(water.parent / "OUT.older") / "MD_dump")
    assert run.timestep is None and run.masses is None


def test_abacus_default_time_step_and_models(water):
    change(water.parent / "INPUT", "md_dt              0.1", "esolver_type dp // a potential")
    run, frames = read_run(abacus.FORMAT, water / "MD_dump")
    assert run.timestep == 1.0 and "default" in run.timestep_from
    assert not frames[0].ab_initio and "esolver_type dp" in run.notes[0]


@pytest.mark.parametrize(("name", "old", "new", "message"), [
    ("MD_dump", "0.449224729302", "0.4492.24729302", "line 78: MD step 20: expected index, label and 6 numbers"),
    ("MD_dump", "   0.449224729302", "", "line 78"),
    ("MD_dump", "   2   O ", "   2   H ", "not those of the first step"),
    ("MD_dump", "LATTICE_VECTORS\n", "", "no LATTICE_VECTORS"),
    ("MD_dump", "MDSTEP:  20\n", "", "expected 'MDSTEP: <number>'"),
    ("MD_dump", "FORCE (eV/Angstrom)", "FORCE (Ry/Bohr)", "FORCE in Ry/Bohr, expected eV/Angstrom"),
    ("running_md.log", "final etot is -466.697608297566", "final etot is -466.x", "line 2142"),
    ("running_md.log", "final etot is -466.697608297566", "convergence has NOT been achieved",
     "no self-consistent energy of MD step 20"),
    ("running_md.log", "MOLECULAR DYNAMICS : 15", "MOLECULAR DYNAMICS : 16", "no energy of MD step 15"),
    ("../INPUT", "0.1\nmd_tfirst", "0,1\nmd_tfirst", "md_dt is '0,1'"),
    ("../STRU", "O 15.9994", "O -", "mass in ATOMIC_SPECIES"),
])
def test_abacus_errors(water, name, old, new, message):
    change(water / name, old, new)
    with pytest.raises(DtmdError, match=message):
        read_run(abacus.FORMAT, water / "MD_dump")


def test_abacus_cut_inside_a_frame(water):
    dump, log = water / "MD_dump", water / "running_md.log"
    whole = dump.read_text()
    for text, n_log in ((whole[:-40], None), (whole[:whole.rindex("VIRIAL")], None), (whole, 2000)):
        dump.write_text(text)
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:n_log]))
        frames = open_frames(abacus.FORMAT, dump)
        assert [next(frames).step for _ in range(4)] == [0, 5, 10, 15]
        with pytest.raises(CutShort):
            next(frames)


def test_siesta_numbers(formats):
    run, frames = read_run(siesta.FORMAT, formats / "siesta_dpdata_aimd/output")
    assert (run.code, run.version, run.timestep) == ("SIESTA", "3.2-pl-5", 2.0)
    assert run.settings["dynamics"] == "Annealing MD run" and run.settings["mesh cutoff"] == "300.0000  Ry"
    assert run.numbers.tolist() == [14] * 64 and run.pbc.all()
    # 28.090 in the file, moved by SIESTA's 0.009579038 Å/fs² per eV/(Å·u).
    assert run.masses == pytest.approx(28.090 * 0.0096485333 / 0.009579038, abs=1e-5)
    assert [frame.step for frame in frames] == [1, 2, 3, 4, 5]
    first, last = frames[0], frames[-1]
    assert (first.cell == 10.937460 * np.eye(3)).all()
    assert first.energy == -8243.6085 and last.energy == -8243.0601
    assert first.positions[0].tolist() == [0.0, 0.0, 2.734365]
    assert last.positions[63].tolist() == [9.61430784, 9.61855358, 9.57757240]
    assert first.forces[0].tolist() == [0.000003, 0.000004, 0.000007]
    assert last.forces[63].tolist() == [-0.393608, -0.120856, 0.109334]
    assert all(frame.velocities is None for frame in frames)
    assert max(residual(frames, run.masses, 2.0, k, friction=True) for k in (1, 2, 3)) < 1e-3


def test_siesta_units_of_the_coordinates(formats, tmp_path):
    text = (formats / "siesta_dpdata_aimd/output").read_text()
    factors = {"Bohr": np.full(3, BOHR), "fractional": np.full(3, 10.937460)}
    for unit, factor in factors.items():
        (tmp_path / "md.out").write_text(text.replace("coordinates (Ang):", f"coordinates ({unit}):"))
        _, frames = read_run(siesta.FORMAT, tmp_path / "md.out")
        for frame, written in ((frames[0], [0.0, 0.0, 2.734365]), (frames[4], [0.02456440, -0.04353644, 2.74400313])):
            assert frame.positions[0] == pytest.approx(np.array(written) * factor, abs=1e-12)


def test_siesta_without_written_forces(formats, tmp_path):
    kept, inside = [], False
    for line in (formats / "siesta_dpdata_aimd/output").read_text().splitlines(keepends=True):
        inside = (inside or "siesta: Atomic forces" in line) and not line.startswith("---")
        if not inside or "siesta: Atomic forces" in line:
            kept.append(line)
    (tmp_path / "md.out").write_text("".join(kept))
    _, frames = read_run(siesta.FORMAT, tmp_path / "md.out")
    assert len(frames) == 5 and frames[4].forces is None and frames[4].energy == -8243.0601


def test_siesta_summary_at_the_end_is_no_frame(formats, tmp_path):
    text = (formats / "siesta_dpdata_aimd/output").read_text()
    end = "siesta: Atomic forces (eV/Ang):\nsiesta:      1    0.100000    0.000000    0.000000\n"
    (tmp_path / "md.out").write_text(text + end)
    assert len(read_run(siesta.FORMAT, tmp_path / "md.out")[1]) == 5


@pytest.mark.parametrize(("old", "new", "message"), [
    ("-0.120856    0.109334", "-0.120856    ********", "line 1454: the forces: expected three numbers"),
    ("    64   -0.393608   -0.120856    0.109334\n", "", "63 forces for 64 atoms"),
    ("9.57757240   1      64  Si", "9.57757240   1      64  Ge", "coordinates of atom 64, Si"),
    ("9.57757240   1      64  Si", "9.5775x240   1      64  Si", "the coordinates: expected three"),
    ("outcell: Unit cell vectors", "cell vectors", "MD step 5 has no unit cell"),
    ("outcoor: Atomic coordinates (Ang)", "coordinates", "MD step 5 has no coordinates"),
    ("outcoor: Atomic coordinates (Ang)", "outcoor: Atomic coordinates (scaled)", "AtomCoorFormatOut"),
    ("-8243.0601    -8243.0601  0.0000", "-8243.0601    -8243.x  0.0000", "free energy: no number"),
    ("Atomic number:          14", "Atomic number:         -14", "species 'Si' is no element"),
])
def test_siesta_errors(formats, tmp_path, old, new, message):
    path = change(formats / "siesta_dpdata_aimd/output", old, new, tmp_path / "output")
    with pytest.raises(DtmdError, match=message):
        read_run(siesta.FORMAT, path)


def test_siesta_cut_inside_a_frame(formats, tmp_path):
    text = (formats / "siesta_dpdata_aimd/output").read_text()
    for end in (text.rindex("siesta: Atomic forces"), text.rindex("outcoor:") + 500):
        (tmp_path / "output").write_text(text[:end])
        frames = open_frames(siesta.FORMAT, tmp_path / "output")
        assert [next(frames).step for _ in range(4)] == [1, 2, 3, 4]
        with pytest.raises(CutShort):
            next(frames)


def test_castep_numbers(formats):
    run, frames = read_run(castep.FORMAT, formats / "nomad/castep/Si8-md-NPT.castep")
    assert (run.code, run.version, run.timestep) == ("CASTEP", "16.1", 0.2e-2 * 1000)
    assert run.numbers.tolist() == [14] * 8 and run.masses.tolist() == [28.0855] * 8 and run.pbc.all()
    assert run.settings["ensemble"] == "NPT" and run.settings["using functional"] == "Local Density Approximation"
    assert run.precision == pytest.approx(5.43e-6)
    assert [frame.step for frame in frames] == list(range(11))
    first, last = frames[0], frames[-1]
    assert (first.cell == 5.43 * np.eye(3)).all() and (last.cell == 5.5475876 * np.eye(3)).all()
    assert first.energy == -855.473064 and last.energy == -855.482603
    assert first.positions[4] == pytest.approx([0.76 * 5.43, 0.25 * 5.43, 0.75 * 5.43], abs=1e-12)
    assert last.positions[7] == pytest.approx(
        [0.762740 * 5.5475876, 0.758907 * 5.5475876, 0.290032 * 5.5475876], abs=1e-12)
    assert first.forces[0].tolist() == [-0.24418, -0.33042, 0.32253]
    assert last.forces[7].tolist() == [0.64409, -0.26783, -1.36820]
    assert all(frame.velocities is None for frame in frames)
    assert max(residual(frames, run.masses, 2.0, k, friction=True) for k in range(1, 10)) < 0.01


def test_castep_fixed_cell(formats, tmp_path):
    """With a fixed cell the only cell is that at the start."""
    text = (formats / "nomad/castep/Si8-md-NPT.castep").read_text().replace(": NPT", ": NVT")
    head, *steps = text.split("        Real Lattice(A)   ")
    (tmp_path / "md.castep").write_text(f"{head}        Real Lattice(A)   {steps[0]}" + "".join(steps[1:]))
    _, frames = read_run(castep.FORMAT, tmp_path / "md.castep")
    assert len(frames) == 11 and (frames[10].cell == 5.43 * np.eye(3)).all()


def test_castep_constrained_forces(formats, tmp_path):
    """Held components are marked; where both kinds are written, the unconstrained ones are the gradient."""
    text = (formats / "nomad/castep/Si8-md-NPT.castep").read_text()
    start = text.rindex(" *****", 0, text.rindex("* Si        1     -0.24418"))
    start = text.rindex("\n", 0, text.index("Forces *", text.index("Starting MD"))) + 1
    end = text.index("Stress Tensor", start)
    block = text[start:end][:text[start:end].rindex("\n") + 1]
    held = block.replace("-0.24418      ", "0.0(cons'd)").replace(" Forces ", " Constrained Forces ")
    free = block.replace(" Forces ", " Unconstrained Forces ")
    (tmp_path / "held.castep").write_text(text.replace(block, held))
    (tmp_path / "both.castep").write_text(text.replace(block, held + free))
    assert read_run(castep.FORMAT, tmp_path / "held.castep")[1][0].forces[0].tolist() == [0.0, -0.33042, 0.32253]
    assert read_run(castep.FORMAT, tmp_path / "both.castep")[1][0].forces[0].tolist() == [-0.24418, -0.33042, 0.32253]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("0.64409             -0.26783", "0.64409             *******", "the forces: expected three numbers"),
    ("* Si        1     -0.24418", "* -0.24418", "the forces: expected three numbers|7 forces for 8 atoms"),
    ("0.762740   0.758907   0.290032", "0.762740   0.758907   0.29x", "fractional coordinates: expected three"),
    ("Si         8          0.762740", "Ge         8          0.762740", "not those of the first"),
    ("        Real Lattice(A)   ", "        Lattice   ", "no unit cell of MD iteration 10"),
    (" Starting MD iteration         10 ...", "", "without \"Starting MD iteration\""),
    ("Potential Energy:   -855.482603", "Potential: -855.482603", "no potential energy"),
    ("Potential Energy:   -855.482603", "Potential Energy:   ***********", "no number after 'Potential Energy:'"),
    ("output         length unit                     : A", "output         length unit                     : bohr",
     "length unit is bohr, dtmd reads A"),
    (": 0.2000E-02   ps", ": 0.2000E-02   aut", "expected a number of ps"),
    (" Finished MD\n", " | Welcome to Academic Release CASTEP version 16.1 |\n", "a second run begins here"),
])
def test_castep_errors(formats, tmp_path, old, new, message):
    path = change(formats / "nomad/castep/Si8-md-NPT.castep", old, new, tmp_path / "md.castep")
    with pytest.raises(DtmdError, match=message):
        read_run(castep.FORMAT, path)


def test_castep_cut_inside_a_frame(formats, tmp_path):
    text = (formats / "nomad/castep/Si8-md-NPT.castep").read_text()
    end = text.index("finished MD iteration         10")
    for cut in (text.rindex("Potential Energy", 0, end), text.rindex("Fractional", 0, end) + 200):
        (tmp_path / "md.castep").write_text(text[:cut])
        frames = open_frames(castep.FORMAT, tmp_path / "md.castep")
        assert [next(frames).step for _ in range(10)] == list(range(10))
        with pytest.raises(CutShort):
            next(frames)


def test_none_claims_what_is_no_md(formats, tmp_path):
    for form, name, old, new in ((siesta, "siesta_dpdata_aimd/output", "Annealing MD run", "CG coord. optimization"),
                                 (castep, "nomad/castep/Si8-md-NPT.castep", ": molecular dynamics", ": phonon")):
        path = change(formats / name, old, new, tmp_path / "output")
        assert form.FORMAT.find([candidate(path)]) == []
