"""Real files, damaged in every way: one clear error that names the file and the place, exit code 2, no traceback."""

import gzip
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small import AIMD
from typer.testing import CliRunner

from dtmd.cli import app
from dtmd.errors import DtmdError
from dtmd.store import read_store

EXTXYZ = "extxyz"


@dataclass(frozen=True)
class Victim:
    """A real run, the file that is damaged, and where the rows of its forces (or positions) are.

    Attributes:
        folder: below the reference data; EXTXYZ for an embedded trajectory.
        main: the file that is read.
        damaged: the file that is damaged.
        marker: pattern of a line that comes before the rows of a frame.
        skip: lines from there to the first row.
        column: a column of the row that holds a number.
    """

    folder: str
    main: str
    damaged: str
    marker: str
    skip: int
    column: int = -1


VICTIMS = {
    "extxyz": Victim(EXTXYZ, "run.extxyz", "run.extxyz", r"Properties=", 3),
    "vasprun": Victim("formats/vasp_dpdata", "vasprun.h2o.md.10.xml", "vasprun.h2o.md.10.xml", r'name="forces"', 2, 2),
    "outcar": Victim("formats/vasp_dpdata", "OUTCAR.h2o.md.10", "OUTCAR.h2o.md.10", r"TOTAL-FORCE", 3),
    "pwmat": Victim("aimd/ch4_pwmat_nve", "MOVEMENT", "MOVEMENT", r"^ Force", 2),
    "cp2k": Victim("aimd/c2h6_cp2k_nvt/sys_1", "test-pos-1.xyz", "test-frc-1.xyz", r"i =", 2),
    "cp2k-pos": Victim("aimd/c2h6_cp2k_nvt/sys_1", "test-pos-1.xyz", "test-pos-1.xyz", r"i =", 2),
    "cp2k-ener": Victim("aimd/c2h6_cp2k_nvt/sys_1", "test-pos-1.xyz", "test-1.ener", r"^ ", 1, 4),
    "pw.x": Victim("formats/nomad/quantumespresso/Si_md", "out.out", "out.out", r"Forces acting on atoms", 2),
    "cp.x": Victim("formats/qe_cp_dpdata", "traj6.pos", "traj6.for", r"^\s+\d+ +[\d.]+$", 1),
    "aims": Victim("formats/nomad/fhiaims/HO_md", "H2O_periodic_MD.out", "H2O_periodic_MD.out",
                   r"Total atomic forces", 2),
    "vibes": Victim("formats/fhivibes", "mgo_aims_nve.son", "mgo_aims_nve.son", r'"forces"', 2),
    "abacus": Victim("formats/abacus_dpdata_Sn_nve/OUT.Sn_nve", "MD_dump", "MD_dump", r"INDEX", 2),
    "siesta": Victim("formats/siesta_dpdata_aimd", "output", "output", r"siesta: Atomic forces", 2),
    "castep": Victim("formats/nomad/castep", "Si8-md-NPT.castep", "Si8-md-NPT.castep", r"\*+ Forces \*+", 7, -2),
    "gaussian": Victim("formats/gaussian_dpdata", "aimd_gaussian_CH4_output", "aimd_gaussian_CH4_output",
                       r"Forces \(Hartrees/Bohr\)", 4),
    "openmx": Victim("formats/nomad/openmx/C2H2_molecular_dynamics", "C2H2.md", "C2H2.md", r"time=", 2, 4),
    "qbox": Victim("formats/nomad/qbox", "13_h2o_64_bomd.r", "13_h2o_64_bomd.r", r"<atom name", 3, 2),
}


def run_of(victim: Victim, folder: Path) -> Path:
    """A copy of the run in `folder`; the path of its main file."""
    if victim.folder == EXTXYZ:
        import lzma
        text = lzma.decompress((AIMD / "train" / "h2pd6_007_from_000.extxyz.xz").read_bytes()).decode()
        (folder / victim.main).write_text("".join(text.splitlines(keepends=True)[: 59 * 12]))
        return folder / victim.main
    shared = Path(__file__).parents[2] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip(f"reference data {shared} are not on this machine")
    keep = victim.main if victim.main.startswith(("vasprun", "OUTCAR")) else ""
    for path in (shared / victim.folder).iterdir():
        if path.is_file() and path.name.startswith(keep):
            shutil.copyfile(path, folder / path.name)
    return folder / victim.main


def ingest(path: Path, *options: str):
    """The command, with everything that it prints; errors as a user meets them."""
    result = CliRunner().invoke(app, ["ingest", str(path), *options])
    if isinstance(result.exception, DtmdError):
        return 2, f"{result.output}\n{result.exception}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def described(store: Path, written: Path | None = None) -> list[list]:
    """The arrays of a store, which is written from the run first if that is given."""
    if written:
        assert ingest(store, "-o", str(written))[0] == 0
    return [array.tolist() for t in read_store(written or store) for array in (t.positions, t.forces, t.energies)]


def row_of(lines: list[bytes], victim: Victim) -> int:
    """Index of a row in the middle frame."""
    marks = [k for k, line in enumerate(lines) if re.search(victim.marker, line.decode("latin-1"))]
    return marks[len(marks) // 2] + victim.skip


def changed_field(line: bytes, column: int, new: bytes) -> bytes:
    """The line with the number in a column replaced, at the same place."""
    numbers = list(re.finditer(rb"(?<![\w.])[-+]?\d+\.?\d*(?:[EeDd][-+]?\d+)?", line))
    found = numbers[column] if -len(numbers) <= column < len(numbers) else numbers[-1]
    return line[: found.start()] + new.rjust(found.end() - found.start()) + line[found.end():]


def garbage(lines, victim):
    k = row_of(lines, victim)
    return lines[:k] + [changed_field(lines[k], victim.column, b"1.2x4")] + lines[k + 1:]


def not_a_number(lines, victim):
    k = row_of(lines, victim)
    return lines[:k] + [changed_field(lines[k], victim.column, b"NaN")] + lines[k + 1:]


def overflow(lines, victim):
    k = row_of(lines, victim)
    return lines[:k] + [changed_field(lines[k], victim.column, b"********")] + lines[k + 1:]


def lost_row(lines, victim):
    k = row_of(lines, victim)
    return lines[:k] + lines[k + 1:]


def other_bytes(lines, victim):
    k = row_of(lines, victim)
    return lines[:k] + [b"\x00\xff\xfe\x80 binary \x01\n"] + lines[k:]


def cut_in_a_row(lines, victim):
    k = row_of(lines, victim)
    return lines[:k] + [lines[k][: len(lines[k]) // 2]]


def cut_in_the_head(lines, victim):
    return [b"".join(lines)[:200]]


def larger(lines, victim):
    """One force is ten times what it was in each frame of the second half."""
    k, result = row_of(lines, victim), list(lines)
    for i in range(k - victim.skip, len(lines) - victim.skip):
        if re.search(victim.marker, lines[i].decode("latin-1")):
            row = i + victim.skip
            result[row] = changed_field(lines[row], victim.column, b"77.7777")
    return result


DAMAGES: dict[str, Callable[[list[bytes], Victim], list[bytes]]] = {
    f.__name__: f for f in (garbage, not_a_number, overflow, lost_row, other_bytes, cut_in_a_row, cut_in_the_head,
                            larger)
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", VICTIMS)
def test_each_damage_gives_one_clear_error(name, damage, tmp_path):
    victim = VICTIMS[name]
    main = run_of(victim, tmp_path)
    target = tmp_path / victim.damaged
    lines = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(DAMAGES[damage](lines, victim)))
    assert target.read_bytes() != b"".join(lines)
    code, output = ingest(main, "-o", str(tmp_path / "store.h5"))
    if damage == "cut_in_a_row" and victim.main.startswith(("vasprun", "OUTCAR")):
        # What VASP leaves when a job's time runs out: the whole frames are used, and the user is told.
        assert code == 0
        assert re.search(r"warning: .* ends .*whole frames can be used \[unfinished\]", output), output
        return
    if code == 0 and (damage == "other_bytes" or name == "cp2k-ener"):
        # Not among what is needed (energies stand in the comment lines too): nothing may be changed by it.
        target.write_bytes(b"".join(lines))
        assert described(tmp_path / "store.h5") == described(main, tmp_path / "sound.h5")
        return
    assert code == 2, output
    assert not (tmp_path / "store.h5").exists()
    assert any(str(tmp_path) in line for line in output.splitlines()), output
    assert "Traceback" not in output
    if damage not in ("cut_in_the_head", "larger"):
        assert re.search(r"(line|frame|step|configuration|iteration)s? \d+", output), output


@pytest.mark.parametrize("name", ["extxyz", "vasprun", "outcar", "pwmat", "pw.x", "siesta"])
def test_a_packed_file_that_is_cut_short(name, tmp_path):
    victim = VICTIMS[name]
    main = run_of(victim, tmp_path)
    packed = gzip.compress(main.read_bytes())
    main.unlink()
    path = tmp_path / "sub" / f"{victim.main}.gz"
    path.parent.mkdir()
    path.write_bytes(packed[: int(0.7 * len(packed))])
    code, output = ingest(path)
    assert code == 2 and path.name in output and "damaged or cut off, copy it again" in output


@pytest.mark.parametrize("name", sorted(VICTIMS.keys() - {"cp2k-pos", "cp2k-ener"}))
def test_the_name_of_the_file_does_not_matter(name, tmp_path):
    """Recognised by content: the same verdict under a misleading name, or, where companions need it, one error."""
    victim = VICTIMS[name]
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    main = run_of(victim, tmp_path / "right")
    wrong = tmp_path / "wrong" / "results.xlsx"
    shutil.copyfile(main, wrong)
    code, output = ingest(wrong)
    if victim.damaged == victim.main and name != "abacus":
        expected, _ = ingest(main)
        assert code == expected, output
    else:
        assert code == 2 and "results.xlsx" in output


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b"hello\n" * 100, bytes(range(256)) * 20,
                                     b"PK\x03\x04" + b"\0" * 500])
@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR", "run.extxyz", "run.traj", "run.lammpstrj", "data.h5",
                                  "x.extxyz.gz", "MOVEMENT"])
def test_files_that_are_something_else(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    code, output = ingest(path)
    assert code == 2 and name in output and "Traceback" not in output


def test_swapped_frames_and_changed_species_in_cp2k(tmp_path):
    victim = VICTIMS["cp2k-pos"]
    main = run_of(victim, tmp_path)
    lines = main.read_text().splitlines(keepends=True)
    frames = [lines[k:k + 10] for k in range(0, len(lines), 10)]
    swapped = [*frames[:50], frames[51], frames[50], *frames[52:]]
    main.write_text("".join(line for frame in swapped for line in frame))
    code, output = ingest(main)
    assert code == 2 and re.search(r"test-pos-1.xyz.*(50|51)", output, re.DOTALL)
    frames[40][2] = frames[40][2].replace("C", "N", 1)
    main.write_text("".join(line for frame in frames for line in frame))
    code, output = ingest(main)
    assert code == 2 and re.search(r"(frame 40|step 40|line 40\d)", output)


def test_damaged_deepmd_arrays(shared_data, tmp_path):
    shutil.copytree(shared_data / "aimd" / "water64_cp2k_npt", tmp_path / "npy", copy_function=shutil.copyfile)
    for name, change in {
        "force.npy": lambda a: a[:, :-3], "box.npy": lambda a: a[:-1], "energy.npy": lambda a: a[5:],
        "coord.npy": lambda a: np.where(np.arange(len(a))[:, None] == 7, np.nan, a),
    }.items():
        path = tmp_path / "npy" / "set.000" / name
        whole = path.read_bytes()
        np.save(path, change(np.load(path)))
        code, output = ingest(tmp_path / "npy")
        assert code == 2 and ("set.000" in output or "frame 7" in output), output
        path.write_bytes(whole[: len(whole) // 2])
        code, output = ingest(tmp_path / "npy")
        assert code == 2 and name in output, output
        path.write_bytes(whole)
    assert ingest(tmp_path / "npy")[0] == 0
