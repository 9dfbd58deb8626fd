"""VASP's files against numbers read off the real ones by eye, their physics, ASE, and damaged copies."""

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from numpy.testing import assert_allclose
from raw_runs import read_run

from dtmd.errors import DtmdError
from dtmd.ingest.readers import vasp, vasp_ml_ab, vasp_outcar, vasp_xdatcar, vasp_xml
from dtmd.ingest.source import CutShort, Source, candidate
from dtmd.units import ACCELERATION

XML, OUTCAR, XDATCAR, ML_AB = vasp_xml.FORMAT, vasp_outcar.FORMAT, vasp_xdatcar.FORMAT, vasp_ml_ab.FORMAT
WATER_CELL = np.array([[10, 0, 0], [-0.011409, 10, 0], [0.1411083, -0.0595569, 10]])


@pytest.fixture
def formats(shared_data) -> Path:
    return shared_data / "formats"


def found(form, *paths: Path) -> list[Source]:
    return form.find([candidate(path) for path in paths])


def copy(path: Path, folder: Path, *changes: tuple[str, str], name: str = "", end: int | None = None) -> Path:
    """A damaged copy: the first place of each text replaced, cut at `end`."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = raw.decode("latin-1")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    changed = folder / (name or path.name.removesuffix(".gz"))
    changed.write_text(text[:end], encoding="latin-1")
    return changed


def frames_before_error(form, path: Path) -> tuple[int, DtmdError]:
    n_frames = 0
    with pytest.raises(DtmdError) as caught:
        for _ in form.read(Source(path)).frames:
            n_frames += 1
    return n_frames, caught.value


def line_of(path: Path, text: str) -> int:
    lines = path.read_text("latin-1").split("\n")
    return next(k for k, line in enumerate(lines, 1) if text in line)


def motion_error(run, frames) -> float:
    """Largest relative difference of r(t+1) − 2r(t) + r(t−1) and F/m·Δt², the net force taken off, friction fitted.

    VASP moves the atoms without the net force, which it takes off by mass, but writes the forces with it.
    """
    cell, mass = frames[0].cell, run.masses[:, None]
    scaled = np.array([frame.positions for frame in frames]) @ np.linalg.inv(cell)
    moved = np.diff(scaled, axis=0)
    moved = (moved - np.round(moved)) @ cell
    errors = []
    for before, after, frame in zip(moved, moved[1:], frames[1:], strict=False):
        force = frame.forces - frame.forces.sum(0) * mass / mass.sum()
        expected = force / mass * ACCELERATION * run.timestep**2
        velocity, rest = before + after, after - before - expected
        rest -= (rest * velocity).sum() / (velocity**2).sum() * velocity
        errors.append(np.linalg.norm(rest) / np.linalg.norm(expected))
    return max(errors)


def test_vasprun_of_water(formats):
    run, frames = read_run(XML, formats / "vasp_dpdata/vasprun.h2o.md.xml")
    assert (run.code, run.version) == ("VASP", "5.4.4.18Apr17-6-g9f103f2a35")
    assert run.numbers.tolist() == [8, 8, 1, 1, 1, 1]
    assert run.masses.tolist() == [16, 16, 1, 1, 1, 1]
    assert (run.timestep, run.timestep_from) == (1.0, "POTIM")
    assert run.pbc.all() and run.fixed is None
    assert [frame.step for frame in frames] == [1, 2, 3]
    assert all(frame.ab_initio and frame.velocities is None for frame in frames)
    assert (frames[0].energy, frames[2].energy) == (-28.38622624, -28.46658469)
    assert_allclose(frames[2].cell, WATER_CELL)
    assert_allclose(frames[0].positions[1], np.array([0.23, 0.628, 0.113]) @ WATER_CELL, atol=1e-12)
    assert_allclose(frames[2].positions[5], np.array([0.2298254, 0.59008316, 0.02399668]) @ WATER_CELL, atol=1e-12)
    assert_allclose(frames[0].forces[0], [-0.14198623, -0.57372915, 0.35651545])
    assert_allclose(frames[2].forces[5], [-0.24949747, -0.11861001, -0.19768740])
    assert (run.settings["ENCUT"], run.settings["SMASS"], run.settings["NSW"]) == (800.0, -3.0, 3.0)
    assert run.settings["POTCAR"] == "PAW_PBE O 08Apr2002, PAW_PBE H 15Jun2001"


def test_energy_is_the_free_one_though_old_versions_write_the_others_wrongly(formats):
    # e_0_energy of the last step is the entropy term, -0.01737414; OUTCAR's TOTEN would be -14.41975610.
    _, frames = read_run(XML, formats / "vasp_dpdata/vasprun.h2o.md.tribox.xml")
    assert [frame.energy for frame in frames] == [6.29883446, -20.18934415, -14.41975610]


@pytest.mark.parametrize("name, limit", [
    ("vasp_dpdata/vasprun.h2o.md.10.xml", 1e-4), ("vasp_dpdata/vasprun.h2o.md.tribox.xml", 1e-5),
    ("vasp_dpdata/Ti-aimd-nwrite0/vasprun.xml", 6e-4), ("vasp_pymatgen/vasprun.md.xml.gz", 1e-4),
    ("vasp_pymatgen/vasprun.ml_md.xml.gz", 1e-4),
])
def test_atoms_move_as_the_forces_say(formats, name, limit):
    assert motion_error(*read_run(XML, formats / name)) < limit


def test_on_the_fly_vasprun_tells_its_ab_initio_steps(formats):
    run, frames = read_run(XML, formats / "vasp_pymatgen/vasprun.ml_md.xml.gz")
    assert [frame.step for frame in frames] == list(range(1, 101))
    learned = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 18, 25, 35, 42, 52, 62, 72, 82, 92]
    assert [frame.step for frame in frames if frame.ab_initio] == learned
    cell = np.array([[9.87288, 0, 0], [-4.93644, 8.550165, 0], [0, 0, 20]])
    assert_allclose(frames[14].positions[0], np.array([0.5747454, 0.11661293, 0.88205384]) @ cell)
    assert_allclose(frames[14].forces[0], [1.46131900, 1.15100472, 1.54346188])
    assert_allclose(frames[99].forces[0], [0.16903146, 0.18947903, 0.02395824])
    assert (frames[14].energy, frames[99].energy) == (-523.08311800, -524.69015916)
    assert run.masses[[0, 32, 64]].tolist() == [1, 12.011, 16]


def test_outcar_and_vasprun_of_one_run_agree(formats):
    for xml_name, name in [("vasprun.h2o.md.10.xml", "OUTCAR.h2o.md.10"), ("vasprun.h2o.md.xml", "OUTCAR.h2o.md")]:
        folder = formats / "vasp_dpdata"
        xml, expected = read_run(XML, folder / xml_name)
        run, frames = read_run(OUTCAR, folder / name)
        assert (run.version, run.timestep, run.timestep_from) == (xml.version, xml.timestep, "POTIM")
        assert run.numbers.tolist() == xml.numbers.tolist() and run.masses.tolist() == xml.masses.tolist()
        assert [(frame.step, frame.energy) for frame in frames] == [(e.step, e.energy) for e in expected]
        for frame, e in zip(frames, expected, strict=True):
            moved = (frame.positions - e.positions) @ np.linalg.inv(e.cell)
            assert_allclose((moved - np.round(moved)) @ e.cell, 0, atol=0.6e-5)
            assert_allclose(frame.forces, e.forces, atol=0.6e-6)
            assert_allclose(frame.cell, e.cell, atol=1e-8)


def test_outcar_of_water(formats):
    run, frames = read_run(OUTCAR, formats / "vasp_dpdata/OUTCAR.h2o.md.10")
    assert_allclose(frames[9].positions[[0, 5]], [[4.34920, 4.21721, 5.19943], [2.22797, 5.88179, 0.21684]])
    assert_allclose(frames[9].forces[[0, 5]], [[-0.211386, -1.770018, 0.507873], [0.321850, 0.505766, 1.049144]])
    assert (frames[0].energy, frames[9].energy, frames[9].step) == (-28.38622624, -28.39848822, 10)
    assert run.precision == 1e-5 and run.notes == []
    assert motion_error(run, frames) < 0.02


def test_outcar_of_an_on_the_fly_run_gives_each_step_once(formats):
    run, frames = read_run(OUTCAR, formats / "vasp_dpdata/OUTCAR.ch4.ml")
    assert [(frame.step, frame.ab_initio) for frame in frames] == [(k, k in (1, 2, 3, 6)) for k in range(1, 11)]
    assert [frames[k].energy for k in (0, 5, 9)] == [-24.12709802, -24.12697674, -24.12712228]
    assert_allclose(frames[0].forces[0], [-0.020999, 0.037724, 0.054091])
    assert_allclose(frames[5].positions[4], [5.03597, 4.66473, 4.45658])
    assert_allclose(frames[9].forces[4], [0.002665, 0.019943, -0.009192])
    assert_allclose(frames[9].cell, [[10.011776419, -0.021496755, 0.008079854], [0, 9.992079789, 0.002921446],
                                     [0, 0, 10.001923990]])
    assert run.masses.tolist() == [1, 1, 1, 1, 12.011]


def test_outcar_with_little_written_tells_what_it_lacks(formats):
    run, frames = read_run(OUTCAR, formats / "vasp_dpdata/Ti-aimd-nwrite0/OUTCAR")
    assert [(frame.step, frame.energy) for frame in frames] == [(1, -253.15557734), (10, -252.38626263)]
    assert_allclose(frames[1].positions[0], [0.19928, 0.46431, 1.11318])
    assert_allclose(frames[1].forces[31], [-0.159353, 0.130727, -0.465234])
    assert set(run.numbers) == {22} and set(run.masses) == {47.88} and run.timestep == 2.0
    assert "2 of 10 MD steps" in run.notes[0]


def test_xml_agrees_with_ase(formats):
    path = formats / "vasp_dpdata/vasprun.h2o.md.10.xml"
    _, frames = read_run(XML, path)
    for frame, atoms in zip(frames, ase.io.read(path, ":", format="vasp-xml"), strict=True):
        assert_allclose(frame.positions, atoms.positions, atol=1e-12)
        assert_allclose(frame.forces, atoms.get_forces(apply_constraint=False))
        assert_allclose(frame.energy, atoms.get_potential_energy(force_consistent=True))


def test_xdatcar_of_a_slab_with_a_stride(formats):
    run, frames = read_run(XDATCAR, formats / "vasp_xdatcar_pt_slab/XDATCAR")
    assert [frame.step for frame in frames] == list(range(50, 5001, 50))
    assert np.bincount(run.numbers)[[6, 17, 1, 8, 78]].tolist() == [16, 16, 54, 16, 64]
    cell = [[9.61158, -5.54925, 0], [0, 11.0985, 0], [0, 0, 18.865]]
    assert_allclose(frames[99].cell, cell)
    assert_allclose(frames[0].positions[0], np.array([0.30608513, 0.44413860, 0.47480219]) @ cell)
    assert_allclose(frames[99].positions[165], np.array([0.83333, 0.91667, 0.12010]) @ cell)
    assert frames[0].forces is None and frames[0].energy is None
    assert run.timestep is None and run.masses is None
    assert run.precision == pytest.approx(1e-8 * 18.865)


def test_xdatcar_with_a_changing_cell(formats):
    run, frames = read_run(XDATCAR, formats / "vasp_pymatgen/XDATCAR_6")
    assert [frame.step for frame in frames] == [1, 2, 3, 4]
    assert_allclose(frames[0].cell[1], [2.095, 2.095, -4.19])
    assert_allclose(frames[3].cell[1], [2.302301, 2.277650, -4.606973])
    assert_allclose(frames[3].positions[6], np.array([0.60458205, 0.20916409, 0.81078057]) @ frames[3].cell)
    assert run.numbers.tolist() == [26, 26, 8, 8, 8, 8, 22]


@pytest.mark.parametrize("name, steps, n_atoms, precision", [
    ("XDATCAR_4", [None] * 4, 3, None), ("XDATCAR_5", [1, 2, 3, 4], 3, None),
    ("XDATCAR_monatomic.gz", list(range(1, 11)), 4, 4.6e-6), ("XDATCAR_traj", list(range(1, 101)), 76, 1.0805799e-5),
    ("XDATCAR.MD", [1, 2, 3, 4, 5], 80, None),
])
def test_variants_of_xdatcar(formats, name, steps, n_atoms, precision):
    run, frames = read_run(XDATCAR, formats / "vasp_pymatgen" / name)
    assert [frame.step for frame in frames] == steps and len(run.numbers) == n_atoms
    assert run.precision == (precision if precision is None else pytest.approx(precision))
    assert bool(run.notes) == (steps[0] is None)


def test_ml_ab(formats):
    run, frames = read_run(ML_AB, formats / "vasp_mlff/ML_AB.H2")
    assert len(frames) == 43 and run.numbers.tolist() == [1, 1] and run.masses.tolist() == [1, 1]
    assert (frames[0].energy, frames[42].energy) == (-6.698149439246976, -6.700614533598497)
    assert_allclose(frames[42].positions[1], [7.990679999999999, 0.017569999999999999, 7.627839999999999])
    assert_allclose(frames[42].forces[0], [2.6216511783429680e-3, -5.0148780994938719e-3, 0.1604609940791120])
    assert_allclose(frames[0].cell, 8 * np.eye(3))
    assert frames[0].step is None and run.timestep is None and "not consecutive" in run.notes[0]


def test_ml_ab_whose_numbers_of_atoms_do_not_fit_is_refused(formats):
    n_frames, error = frames_before_error(ML_AB, formats / "vasp_mlff/ML_AB.BaZrOYH")
    assert n_frames == 0 and "line 121" in str(error) and "48 rows" in str(error)


def test_ml_ab_of_several_systems_is_refused(formats, tmp_path):
    path = formats / "vasp_mlff/ML_AB.H2"
    at = path.read_text().index("Configuration num.      2")
    types = path.read_text().index("     H       2", at)
    changed = tmp_path / "ML_AB"
    changed.write_text(path.read_text()[:types] + "     H       3" + path.read_text()[types + len("     H       2"):])
    n_frames, error = frames_before_error(ML_AB, changed)
    assert n_frames == 1 and "configuration 2" in str(error)
    assert isinstance(frames_before_error(ML_AB, copy(path, tmp_path, end=types))[1], CutShort)
    row = "    0.000000000000000         0.000000000000000        0.3685830000000010     \n"
    assert "more than 2 rows" in str(frames_before_error(ML_AB, copy(path, tmp_path, (row, 2 * row)))[1])


def test_interactive_mode_and_relaxations_are_refused(formats, tmp_path):
    for name in ("istart0", "istart1", "istart2"):
        _, error = frames_before_error(OUTCAR, formats / f"vasp_mlff/mlff_outputs/OUTCAR.{name}")
        assert "IBRION = 11" in str(error)
    water = formats / "vasp_dpdata/vasprun.h2o.md.xml"
    changes = [('"IBRION">     0', '"IBRION">     2')] * 2
    assert "IBRION = 2, a relaxation" in str(frames_before_error(XML, copy(water, tmp_path, *changes))[1])


def test_only_vasp_files_are_claimed_and_no_contcar(formats, shared_data):
    for folder in sorted({p.parent for p in shared_data.rglob("*") if p.is_file()}):
        others = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(("vasprun", "OUTCAR", "ML_AB",
                                                                                       "XDATCAR"))]
        for form in (XML, OUTCAR, XDATCAR, ML_AB):
            assert found(form, *others) == []
    for form, start in ((XML, "vasprun"), (OUTCAR, "OUTCAR"), (XDATCAR, "XDATCAR"), (ML_AB, "ML_AB")):
        paths = [p for p in formats.glob("*/*") if p.is_file() and "VASP" not in p.name]
        assert all(source.main.name.startswith(start) for source in found(form, *paths))


def test_files_of_one_run_are_companions_by_the_rest_of_their_names(formats, tmp_path):
    folder = formats / "vasp_dpdata"
    (source,) = found(XML, folder / "vasprun.h2o.md.10.xml", folder / "OUTCAR.h2o.md", folder / "OUTCAR.h2o.md.10")
    assert source.companions == {"OUTCAR": folder / "OUTCAR.h2o.md.10"}
    paths = [copy(folder / "OUTCAR.h2o.md", tmp_path, name="OUTCAR"),
             copy(formats / "vasp_pymatgen/XDATCAR_5", tmp_path, name="XDATCAR"), folder / "vasprun.h2o.md.xml"]
    (source,) = found(OUTCAR, *paths)
    assert source.companions == {"XDATCAR": tmp_path / "XDATCAR"}
    mixed = formats / "vasp_pymatgen"
    assert found(XML, mixed / "vasprun.md.xml.gz", mixed / "XDATCAR.MD")[0].companions == {}


def test_names_do_not_matter(formats, tmp_path):
    path = copy(formats / "vasp_dpdata/OUTCAR.h2o.md", tmp_path, name="water.dat")
    (source,) = found(OUTCAR, path)
    assert source.companions == {} and len(list(OUTCAR.read(source).frames)) == 3
    other = copy(formats / "vasp_pymatgen/XDATCAR_5", tmp_path, name="positions.dat")
    assert found(OUTCAR, path, other)[0].companions == {} and found(XDATCAR, path, other) == [Source(other)]


def test_selective_dynamics_of_a_vasprun(formats, tmp_path):
    path = formats / "vasp_dpdata/vasprun.h2o.md.xml"
    flags = ["T T T", "F F F", "T T F", "T F F", "T T T", "F T F"]
    rows = "".join(f"   <v type=\"logical\" > {row} </v>\n" for row in flags)
    added = f'  <varray name="selective" type="logical" >\n{rows}  </varray>\n  <varray name="velocities" >\n'
    run, _ = read_run(XML, copy(path, tmp_path, ('  <varray name="velocities" >\n', added)))
    # Flags count along the cell vectors: a is x, b has some x, and only c has z.
    assert run.fixed.tolist() == [[False] * 3, [True] * 3, [False, False, True], [False, True, True], [False] * 3,
                                  [False, False, True]]


def test_selective_dynamics_of_an_outcar_are_in_its_poscar(formats, tmp_path):
    outcar = formats / "vasp_atompronet/OUTCAR"
    run, frames = read_run(OUTCAR, outcar)
    assert len(frames) == 10 and run.fixed is None and "no POSCAR" in run.notes[0]
    copy(outcar, tmp_path)
    rows = "".join(f"0.1 0.2 0.3 {'F F F' if k < 5 else 'T T T'}\n" for k in range(80))
    (tmp_path / "POSCAR").write_text("Al2O3\n1.0\n9.5 0 0\n0 8.2 0\n0 0 14.0\nAl O\n32 48\nSelective\nDirect\n"
                                     + rows)
    run, _ = read_run(OUTCAR, tmp_path / "OUTCAR")
    assert run.fixed.all(axis=1).tolist() == [True] * 5 + [False] * 75 and run.notes == []


@pytest.mark.parametrize("chunk", [97, 4096])
def test_marks_across_the_ends_of_what_is_read_at_once(formats, monkeypatch, chunk):
    monkeypatch.setattr(vasp, "_CHUNK", chunk)
    for form, name in ((XML, "vasprun.h2o.md.xml"), (OUTCAR, "OUTCAR.h2o.md")):
        _, frames = read_run(form, formats / "vasp_dpdata" / name)
        assert [frame.energy for frame in frames] == [-28.38622624, -28.43874406, -28.46658469]


def test_scan_keeps_the_end_of_a_long_text_and_counts_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(vasp, "_CHUNK", 64)
    monkeypatch.setattr(vasp, "_KEPT", 256)
    path = tmp_path / "long"
    path.write_text("".join(f"{k:07}\n" for k in range(1, 1001)) + "mark\nbad\nmark")
    scan = vasp.Scan(Source(path))
    text = scan.until(b"mark")
    assert 128 <= len(text) < 512 and text.endswith(b"0001000\n")
    assert scan.start == int(text.split(b"\n")[1]) - 1
    assert "line 1000:" in str(scan.error("", text, len(text) - 1))
    assert scan.until(b"mark") == b"\nbad\n" and scan.start == 1001
    assert scan.until(b"mark") is None and scan.rest == b""


@pytest.mark.parametrize("cut, n_frames", [("</structure>\n  <varray name=\"forces\"", 0), ("<scstep>", 0),
                                           ("-28.4666", 2)])
def test_killed_vasprun(formats, tmp_path, cut, n_frames):
    path = formats / "vasp_dpdata/vasprun.h2o.md.xml"
    cut_path = copy(path, tmp_path, end=path.read_text().index(cut) + 3)
    n_read, error = frames_before_error(XML, cut_path)
    assert n_read == n_frames and isinstance(error, CutShort)
    if n_frames:
        assert "MD step 3" in str(error)


@pytest.mark.parametrize("cut, n_frames", [("  3.97071  ", 0), ("Iteration    3(   4)", 2),
                                           ("-28.46658469 eV\n\n  energy  without", 2)])
def test_killed_outcar(formats, tmp_path, cut, n_frames):
    path = formats / "vasp_dpdata/OUTCAR.h2o.md"
    n_read, error = frames_before_error(OUTCAR, copy(path, tmp_path, end=path.read_text().index(cut) + 9))
    assert n_read == n_frames and isinstance(error, CutShort) and f"MD step {n_frames + 1}" in str(error)


def test_runs_killed_between_steps_and_in_the_header(formats, tmp_path):
    folder = formats / "vasp_dpdata"
    for form, path, mark in ((XML, folder / "vasprun.h2o.md.xml", "<i name=\"nosekinetic\""),
                             (OUTCAR, folder / "OUTCAR.h2o.md", "% ion-electron")):
        text = path.read_text()
        between = copy(path, tmp_path, end=text.index("</calculation>" if form is XML else mark))
        assert len(list(form.read(Source(between)).frames)) == 1
        n_frames, error = frames_before_error(form, copy(path, tmp_path, end=3000))
        assert n_frames == 0 and "header" in str(error)


def test_cut_gzip(formats, tmp_path):
    whole = (formats / "vasp_pymatgen/vasprun.md.xml.gz").read_bytes()
    path = tmp_path / "vasprun.xml.gz"
    path.write_bytes(whole[:len(whole) // 2])
    assert "cannot be read beyond line" in str(frames_before_error(XML, path)[1])


@pytest.mark.parametrize("old, new, words", [
    ("-0.44650270       0.45327887", "-0.44650270       0.4532*887", "three numbers"),
    ("-0.44650270       0.45327887", "***************   0.45327887", "three numbers"),
    ("   <v>      -0.44650270       0.45327887       0.92197198 </v>\n", "", "5 rows"),
    ('<varray name="forces" >', '<varray name="strange" >', "forces"),
    ('<varray name="forces" >', '<varray name="forces" ', "XML"),
    ('   <i name="e_fr_energy">    -28.38622624 </i>\n   <i', '   <i', "e_fr_energy"),
    ("</energy>\n  <time name=\"totalsc\"", "</ener>\n  <time name=\"totalsc\"", "XML"),
])
def test_damaged_vasprun(formats, tmp_path, old, new, words):
    path = copy(formats / "vasp_dpdata/vasprun.h2o.md.xml", tmp_path, (old, new))
    n_frames, error = frames_before_error(XML, path)
    assert n_frames == 0 and not isinstance(error, CutShort) and words in str(error) and "MD step 1" in str(error)
    if words == "three numbers":
        assert f"line {line_of(path, new.split()[1])}:" in str(error)


def test_step_without_structure_in_a_vasprun(formats, tmp_path):
    path = copy(formats / "vasp_dpdata/vasprun.h2o.md.xml", tmp_path, ("<structure>", "<strange>"))
    assert "no <structure>" in str(frames_before_error(XML, path)[1])


@pytest.mark.parametrize("old, new, words", [
    ("-0.446503      0.453279", "-0.446503      0.4x3279", "six numbers"),
    ("-0.446503      0.453279", "**************0.453279", "six numbers"),
    ("      4.64061      3.49272      4.58000        -0.446503      0.453279      0.921972\n", "", "six numbers"),
    ("-0.412170      0.435811      1.203659\n", "-0.412170      0.435811      1.203659\n 1 2 3 4 5 6\n", "the end"),
    ("free  energy   TOTEN  =       -28.38622624", "free  energy   TOTEN  =    ***********", "free  energy"),
    ("free  energy   TOTEN  =       -28.38622624 eV", "free  energ", "no energy of MD step 1"),
    ("    10.000000000  0.000000000  0.000000000     0.100000000  0.000114090 -0.001410404\n    -0.011409000",
     "    ************* 0.000000000  0.000000000", "lattice"),
])
def test_damaged_outcar(formats, tmp_path, old, new, words):
    path = formats / "vasp_dpdata/OUTCAR.h2o.md"
    if words == "lattice":
        text = path.read_text()
        at = text.index("VOLUME and BASIS-vectors are now")
        path = tmp_path / "OUTCAR"
        path.write_text(text[:at] + text[at:].replace(old, new, 1))
        old, new = "POSITION   ", "POSITION   "
    path = copy(path, tmp_path, (old, new))
    n_frames, error = frames_before_error(OUTCAR, path)
    assert n_frames == 0 and not isinstance(error, CutShort) and words in str(error)
    if words == "six numbers" and new:
        assert f"line {line_of(path, new.split()[0])}:" in str(error)


def test_columns_that_touch_in_the_cell(formats, tmp_path):
    path = formats / "vasp_dpdata/OUTCAR.h2o.md"
    row = "    -0.011409000 10.000000000  0.000000000     0.000000000"
    text = path.read_text().replace(row, "     0.000000000-10.000000000-11.000000000     0.000000000")
    (tmp_path / "OUTCAR").write_text(text)
    assert read_run(OUTCAR, tmp_path / "OUTCAR")[1][0].cell[1].tolist() == [0, -10, -11]


def test_cell_that_is_printed_once(formats, tmp_path):
    path = formats / "vasp_dpdata/OUTCAR.h2o.md"
    before, first, second, third = path.read_text().split("VOLUME and BASIS-vectors are now")[-4:]
    once = path.read_text()
    for step in (second, third):
        once = once.replace(step, step.replace("direct lattice vectors", "", 1))
    (tmp_path / "OUTCAR").write_text(once)
    assert_allclose(read_run(OUTCAR, tmp_path / "OUTCAR")[1][2].cell, WATER_CELL, atol=1e-8)
    changing = copy(tmp_path / "OUTCAR", tmp_path, ("ISIF   =      2", "ISIF   =      3"), name="OUTCAR.npt")
    n_frames, error = frames_before_error(OUTCAR, changing)
    assert n_frames == 0 and "MD step 2 has no lattice vectors" in str(error)


def test_two_runs_in_one_outcar_are_refused(formats, tmp_path):
    text = (formats / "vasp_dpdata/OUTCAR.h2o.md").read_text()
    path = tmp_path / "OUTCAR"
    path.write_text(text + text)
    n_frames, error = frames_before_error(OUTCAR, path)
    assert "second run starts here" in str(error) and f"line {text.count(chr(10)) + 3}:" in str(error)
    assert n_frames <= 3


def test_steps_are_counted_where_their_numbers_overflow(formats, tmp_path):
    path = tmp_path / "OUTCAR"
    text = (formats / "vasp_dpdata/OUTCAR.h2o.md").read_text()
    path.write_text(text.replace("Iteration    2(", "Iteration ****(").replace("Iteration    3(", "Iteration ****("))
    assert [frame.step for frame in read_run(OUTCAR, path)[1]] == [1, 2, 3]


def test_masses_and_headers_that_do_not_fit(formats, tmp_path):
    path = formats / "vasp_dpdata/OUTCAR.h2o.md"
    heavy = copy(path, tmp_path, ("POMASS =  16.00  1.00", "POMASS =  16.00  2.01"))
    assert read_run(OUTCAR, heavy)[0].masses.tolist() == [16, 16, 2.01, 2.01, 2.01, 2.01]
    for old, new in (("ions per type =               2   4", "ions per type =               2   5"),
                     ("TITEL  = PAW_PBE O", "TITEL  = PAW_PBE ?"), ("IBRION =      0", "IBRIO")):
        assert frames_before_error(OUTCAR, copy(path, tmp_path, (old, new)))[0] == 0
    xml = formats / "vasp_dpdata/vasprun.h2o.md.xml"
    for old, new in (("<rc><c>   4</c>", "<rc><c>   x</c>"), ("<atoms>       6 ", "<atoms>       7 "),
                     ("<kpoints>", "<kpoint>"), ("PAW_PBE O 08Apr2002", "")):
        assert frames_before_error(XML, copy(xml, tmp_path, (old, new)))[0] == 0


def test_negative_scale_of_an_xdatcar_is_the_volume(formats, tmp_path):
    path = copy(formats / "vasp_pymatgen/XDATCAR_traj", tmp_path, ("\n1.0\n", "\n-27.0\n"), name="XDATCAR")
    assert_allclose(read_run(XDATCAR, path)[1][0].cell, 3 * np.eye(3))


@pytest.mark.parametrize("old, new, words", [
    ("Direct configuration=   100", "Direct configuration=   ***", "number"),
    ("0.45615487  0.51318021", "0.45615487  ********", "numbers in columns"),
    ("    16    16    54    16    64", "    16    16    54    16    63", "header"),
])
def test_damaged_xdatcar(formats, tmp_path, old, new, words):
    path = copy(formats / "vasp_xdatcar_pt_slab/XDATCAR", tmp_path, (old, new))
    n_frames, error = frames_before_error(XDATCAR, path)
    assert n_frames <= 1 and words in str(error) and ": line " in str(error)


def test_cut_and_joined_xdatcar(formats, tmp_path):
    path = formats / "vasp_pymatgen/XDATCAR_6"
    n_frames, error = frames_before_error(XDATCAR, copy(path, tmp_path, end=-20))
    assert n_frames == 3 and isinstance(error, CutShort)
    joined = tmp_path / "XDATCAR"
    joined.write_text(path.read_text() + (formats / "vasp_pymatgen/XDATCAR_5").read_text())
    n_frames, error = frames_before_error(XDATCAR, joined)
    assert n_frames == 4 and "other atoms" in str(error)


def test_pressure_is_not_part_of_the_energy(formats, tmp_path):
    # 10 kB on 1000 Å³ are 6.24151 eV.
    path = formats / "vasp_dpdata/vasprun.h2o.md.xml"
    pressure = [('"PSTRESS">      0.0', '"PSTRESS">     10.0')] * 2
    ends = ["-28.38622624 </i>\n   <i name=\"e_wo", "-28.43874406 </i>\n   <i name=\"e_wo"]
    enthalpy = [(ends[0], "-22.14471624 </i>\n   <i name=\"e_wo")]
    _, frames = read_run(XML, copy(path, tmp_path, *pressure, *enthalpy))
    assert_allclose([frame.energy for frame in frames], [-28.38622624, -28.43874406, -28.46658469], atol=1e-5)
