"""Scans against Lennard-Jones by hand: groups, bonds, directions, relaxed rests, unseen distances, the command."""

import csv
import json
from functools import partial

import ase.io
import numpy as np
import pytest
from analysis_cases import Springs, Trap, called
from ase import Atoms
from ase.build import fcc111, graphene, molecule
from ase.calculators.lj import LennardJones
from test_analysis_harmonic import free, holding

from dtmd.analysis.scan import bond_path, group_path, scan, too_near
from dtmd.analysis.scan_report import scan_notes, scan_table
from dtmd.analysis.structures import RelaxationSettings
from dtmd.errors import DtmdError
from dtmd.named_calculators import named_calculators
from toys import write_toy

EPSILON, SIGMA = 0.01, 3.4
TRIMER = Atoms("Ar3", positions=[[0.0, 0.0, 0.0], [3.8, 0.0, 0.0], [1.9, 3.3, 0.0]])


def argon() -> LennardJones:
    """For `module:factory`."""
    return LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=1000.0)


def pair_energy(d):
    return 4 * EPSILON * ((SIGMA / d) ** 12 - (SIGMA / d) ** 6)


def pair_force(d):
    """−dE/dd."""
    return 4 * EPSILON * (12 * (SIGMA / d) ** 12 - 6 * (SIGMA / d) ** 6) / d


def scanned(atoms, path, **settings):
    return scan(called("lj", argon()), atoms, path, free(atoms), **settings)


def test_a_bond_follows_the_analytic_curve():
    atoms = Atoms("Ar2", positions=[[1.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    path = bond_path(atoms, (0, 1), None, 3.2, 9.0, 15)
    result = scanned(atoms, path)
    lengths = np.linspace(3.2, 9.0, 15)
    np.testing.assert_allclose(path.values, lengths)
    np.testing.assert_allclose(np.linalg.norm(result.positions[:, 1] - result.positions[:, 0], axis=1), lengths)
    np.testing.assert_allclose(result.gaps, lengths)
    np.testing.assert_allclose(result.energies, pair_energy(lengths) - pair_energy(9.0), atol=1e-10)
    np.testing.assert_allclose(result.forces, pair_force(lengths), atol=1e-10)
    assert result.far == 14 and result.energies[14] == 0.0
    back = scanned(atoms, bond_path(atoms, (0, 1), None, 9.0, 3.2, 15))
    np.testing.assert_allclose(back.energies, result.energies[::-1], atol=1e-12)


def test_a_group_moves_as_a_whole_against_the_rest():
    path = group_path(TRIMER, "3", "y", -0.5, 6.0, 27)
    result = scanned(TRIMER, path)
    distances = np.hypot(1.9, 3.3 + path.shifts)
    np.testing.assert_allclose(result.energies, 2 * (pair_energy(distances) - pair_energy(distances[-1])), atol=1e-10)
    np.testing.assert_allclose(result.forces, 2 * pair_force(distances) * (3.3 + path.shifts) / distances, atol=1e-10)
    np.testing.assert_allclose(result.positions[:, :2], np.broadcast_to(TRIMER.positions[:2], (27, 2, 3)))


@pytest.mark.parametrize("settings", [None, RelaxationSettings(fmax=1e-7, optimizer="fire")])
def test_the_force_is_the_slope_of_the_energy_also_where_the_rest_is_relaxed(settings):
    path = group_path(TRIMER, "3", "y", 0.48, 0.52, 5)
    result = scanned(TRIMER, path, relaxation=settings)
    slope = (result.energies[3] - result.energies[1]) / (path.shifts[3] - path.shifts[1])
    assert np.isclose(result.forces[2], -slope, rtol=1e-3)


def test_the_rest_relaxes_and_does_not_run_after_the_group():
    path = group_path(TRIMER, "3", "y", 0.0, 4.0, 9)
    result = scanned(TRIMER, path, relaxation=RelaxationSettings(fmax=1e-6))
    rigid = scanned(TRIMER, path)
    np.testing.assert_allclose(result.positions[:, :2].mean(axis=1), np.tile(TRIMER.positions[:2].mean(axis=0), (9, 1)),
                               atol=1e-9)
    np.testing.assert_allclose(result.positions[:, 2], rigid.positions[:, 2])
    alone = np.linalg.norm(result.positions[-1, 1] - result.positions[-1, 0])
    assert np.isclose(alone, 2 ** (1 / 6) * SIGMA, atol=5e-3)  # far from the group, that of the pair
    assert (result.energies + result.far_energy < rigid.energies + rigid.far_energy).all()


def test_the_other_end_of_a_bond_stays_where_the_rest_is_relaxed():
    result = scanned(TRIMER, bond_path(TRIMER, (0, 1), None, 3.6, 5.0, 8), relaxation=RelaxationSettings(fmax=1e-6))
    np.testing.assert_allclose(result.positions[:, 0], 0.0)
    lengths = np.linalg.norm(result.positions[:, 1] - result.positions[:, 0], axis=1)
    np.testing.assert_allclose(lengths, np.linspace(3.6, 5.0, 8))
    others = np.linalg.norm(result.positions[:4, 2, None] - result.positions[:4, :2], axis=2)
    np.testing.assert_allclose(others, 2 ** (1 / 6) * SIGMA, atol=1e-3)


def test_what_moves_with_a_bond():
    water = molecule("H2O")
    path = bond_path(water, (1, 0), "O,3", 1.0, 2.0, 3)
    assert path.group.tolist() == [0, 2] and path.held.tolist() == [1]
    places = path.positions(water)
    np.testing.assert_allclose(np.linalg.norm(places[:, 0] - places[:, 1], axis=1), [1.0, 1.5, 2.0])
    np.testing.assert_allclose(places[:, 0] - places[:, 2], np.tile(water.positions[0] - water.positions[2], (3, 1)))


def test_directions():
    sheet = graphene(size=(3, 3, 1), vacuum=4.0)
    sheet.rotate(40, (1, 2, 0), rotate_cell=True)
    normal = np.cross(*sheet.cell.array[:2])
    normal /= np.linalg.norm(normal)
    for side in (1.0, -1.0):
        above = sheet + Atoms("H2", positions=[sheet.positions[4] + side * h * normal for h in (2.0, 2.7)])
        above.pbc = True
        path = group_path(above, "H", "normal", 0.0, 3.0, 4)
        np.testing.assert_allclose(path.direction, side * normal, atol=1e-10)
    shifted = above.copy()
    shifted.set_scaled_positions((above.get_scaled_positions() + [0.2, 0.1, -0.5]) % 1.0)  # the sheet across the edge
    np.testing.assert_allclose(group_path(shifted, "H", "normal", 0, 1, 2).direction, -normal, atol=1e-8)
    assert group_path(TRIMER, "3", "z", 0, 1, 2).direction.tolist() == [0.0, 0.0, 1.0]
    np.testing.assert_allclose(group_path(TRIMER, "3", "1-2", 0, 1, 2).direction, [1.0, 0.0, 0.0])
    ring = Atoms("Ar2", positions=[[0.5, 0, 0], [9.5, 0, 0]], cell=[10, 10, 10], pbc=True)
    np.testing.assert_allclose(group_path(ring, "2", "1-2", 0, 1, 2).direction, [-1.0, 0.0, 0.0])  # the nearest image


@pytest.mark.parametrize(("make", "message"), [
    (lambda: group_path(TRIMER, "Ar", "x", 0, 1, 5), "these are all 3 atoms"),
    (lambda: group_path(TRIMER, "3", "up", 0, 1, 5), "--along up: write x, y, z, normal"),
    (lambda: group_path(TRIMER, "3", "1-4", 0, 1, 5), "--along 1-4: write x, y, z, normal"),
    (lambda: group_path(TRIMER, "3", "normal", 0, 1, 5), "span no plane"),
    (lambda: group_path(TRIMER, "3", "x", 1, 1, 5), "no path"),
    (lambda: bond_path(TRIMER, (0, 3), None, 3, 4, 5), "--bond 1-4: give two of the atoms 1 to 3"),
    (lambda: bond_path(TRIMER, (0, 1), "1,2", 3, 4, 5), "--move 1,2: has to hold atom 2 and not atom 1"),
    (lambda: bond_path(TRIMER, (0, 1), None, -1, 4, 5), "lengths of a bond are positive"),
])
def test_paths_that_do_not_exist(make, message):
    with pytest.raises(DtmdError, match=message):
        make()


def test_pairs_nearer_than_in_the_training_data_are_told():
    atoms = Atoms("HCPd", positions=[[0, 0, 0], [0, 0, 4.0], [3.0, 0, 0]])
    path = group_path(atoms, "H", "z", 0.0, 3.0, 4)
    model = called("net", Springs(1.0, {(0, 1): 2.0}), closest_pairs={"H-H": 0.7, "C-H": 1.5, "Pd-H": 2.9, "C-Pd": 4.9})
    result = scan(model, atoms, path, free(atoms))
    (near,) = result.too_near
    assert (near.pair, near.known) == ("C-H", 1.5) and np.isclose(near.nearest, 1.0)
    assert near.points.tolist() == [False, False, False, True]
    notes = scan_notes([result], path)
    assert "warning: net: C-H as near as 1.000 Å, in its training data never nearer than 1.500 Å" in notes[1]
    assert notes[1].endswith("at 1 of 4 points, 3 to 3 Å")
    unknown = scanned(atoms, path)
    assert unknown.too_near is None and not unknown.unseen.any()
    assert "not known, and not looked at, of: lj" in scan_notes([unknown], path)[1]
    same = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]])
    assert not too_near(same, same.positions[None], {"H-H": 0.7})


def test_models_side_by_side():
    atoms = Atoms("Ar2", positions=[[0.0, 0.0, 0.0], [3.8, 0.0, 0.0]])
    path = bond_path(atoms, (0, 1), None, 3.5, 8.0, 10)
    springs = scan(called("spring", Springs(0.1, {(0, 1): 3.5})), atoms, path, free(atoms))
    titles, rows = scan_table([scanned(atoms, path), springs], path)
    assert len(titles) == len(rows[0]) == len(rows[1]) and rows[0][-1] == "–"
    apart = np.abs(pair_energy(path.values) - pair_energy(8.0) - 0.05 * ((path.values - 3.5) ** 2 - 4.5**2)).max()
    assert rows[1][-1] == f"{apart:.4f}"


def test_failures_say_where():
    atoms = Atoms("HC", positions=[[5.0, 0, 0], [0.1, 0, 0]])
    path = group_path(atoms, "C", "x", 0.0, 1.0, 5)
    with pytest.raises(DtmdError, match="trap: energy or forces are not finite in structure 2 of 5"):
        scan(called("trap", Trap((1.0, 1.0, 1.0), poison=0.5)), atoms, path, free(atoms))
    settings = RelaxationSettings(fmax=1e-9, max_steps=1)
    with pytest.raises(DtmdError, match="lj: not relaxed after 1 steps of bfgs at 6 Å"):
        scanned(TRIMER, group_path(TRIMER, "3", "y", 0.0, 6.0, 3), relaxation=settings)


def test_held_atoms_stay_where_the_rest_is_relaxed():
    slab = fcc111("Ar", (2, 2, 2), a=5.2, vacuum=8.0)
    slab.pbc = False
    low = [atom.index for atom in slab if atom.tag == 2]
    moved = slab + Atoms("Ar", positions=[slab.positions[-1] + [0.0, 0.0, 3.6]])
    path = group_path(moved, "9", "z", 0.0, 2.0, 3)
    result = scan(called("lj", argon()), moved, path, holding(moved, low), RelaxationSettings(fmax=1e-4))
    np.testing.assert_allclose(result.positions[:, low], np.tile(moved.positions[low], (3, 1, 1)))
    assert np.abs(result.positions[:, 4:8] - moved.positions[4:8]).max() > 0.01


@pytest.fixture
def run(dtmd_here):
    return partial(dtmd_here, "analyze", "scan")


def test_the_command(run, tmp_path):
    write_toy(tmp_path / "toy.pt", closest={"H-C": 1.2, "H-Pd": 1.6, "H-H": 0.7, "C-Pd": 2.0})
    atoms = Atoms("HHCPd", positions=[[0, 0, 2.0], [0.8, 0, 2.0], [0, 0, 0], [2.5, 0, 0]])
    ase.io.write(tmp_path / "start.xyz", atoms)
    code, shown, errors = run("toy.pt", "lj=test_analysis_scan:argon", "--structure", "start.xyz", "--move", "H",
                              "--along", "z", "--from", -1, "--to", 8, "--steps", 10, "-o", "out")
    assert code in (0, None), errors
    assert "warning: toy: H-C as near as 1.000 Å" in shown and "lj" in shown
    found = json.loads((tmp_path / "out" / "scan.json").read_text())
    toy = found["models"][0]
    assert found["group"] == [1, 2] and found["values"] == list(range(-1, 9)) and toy["energies"][-1] == 0.0
    assert abs(toy["forces"][-1]) < 1e-12  # beyond the cutoff
    images = ase.io.read(tmp_path / "out" / "scan_toy.extxyz", index=":")
    (model,) = named_calculators(["toy.pt"])
    energy = model.calculator.get_potential_energy(images[2]) - model.calculator.get_potential_energy(images[-1])
    assert np.isclose(energy, toy["energies"][2], atol=1e-6)
    rows = list(csv.DictReader((tmp_path / "out" / "scan.csv").open()))
    assert len(rows) == 20 and rows[0]["too_near"] == "1" and rows[9]["too_near"] == "0" and rows[10]["too_near"] == ""
    assert (tmp_path / "out" / "scan.png").exists() and (tmp_path / "out" / "scan.svg").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--move", "1"], "give what moves and where to"),
    (["--along", "z", "--bond", "1-2"], "give what moves and where to"),
    (["--bond", "0-1"], "counted from 1"),
    (["--move", "Xe", "--along", "z"], "--move Xe: no Xe"),
])
def test_the_command_refuses(run, tmp_path, arguments, message):
    ase.io.write(tmp_path / "start.xyz", TRIMER)
    code, _, errors = run("test_analysis_scan:argon", "--structure", "start.xyz", "--from", 3, "--to", 5, *arguments)
    assert code == 2 and message in errors
    assert not (tmp_path / "scan").exists()
