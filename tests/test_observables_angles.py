"""Dihedrals, adsorbates and orientations against ASE, rigid rotors and maps whose clusters are known."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from observable_cases import SKEWED, assert_same, gather, trajectory, wandering
from scipy.spatial.transform import Rotation

from dtmd.errors import DtmdError
from dtmd.ingest import read_aimd
from dtmd.observables.adsorbate import Adsorbate, AdsorbateSettings, Geometry, molecule_angles, molecule_axes
from dtmd.observables.density_clusters import density_clusters, transitions
from dtmd.observables.dihedrals import Dihedrals, DihedralSettings
from dtmd.observables.observable import NotApplicable
from dtmd.observables.orientation import Orientation, OrientationSettings, directions
from dtmd.observables.section import Map, Verdict
from dtmd.observables.statistics import frame_weights
from dtmd.observables.torsions import dihedral_angles, rotatable_dihedrals

HEXAGONAL = np.array([[7.38, 0, 0], [-3.69, 6.39127, 0], [0, 0, 15.0]])


def test_dihedrals_agree_with_ase_across_boundaries():
    run = wandering(1, n_frames=40, scale=0.05)
    chain = [(0, 1, 2, 3), (2, 3, 4, 5), (5, 0, 3, 1)]
    found = dihedral_angles(run, chain)
    for k in range(len(run)):
        atoms = Atoms(numbers=run.numbers, positions=run.positions[k], cell=SKEWED, pbc=True)
        expected = atoms.get_dihedrals(chain, mic=True)
        np.testing.assert_allclose((found[k] - expected + 180) % 360, 180.0, atol=1e-6)


def test_bonds_that_a_molecule_turns_about():
    def found(name):
        atoms = molecule(name, vacuum=4.0)
        run = trajectory(atoms.positions[None], atoms.numbers, np.array(atoms.cell))
        return [tuple(atoms.get_chemical_symbols()[k] for k in d) for d in rotatable_dihedrals(run)]

    assert found("CH3CH2OH") == [] and found("C6H6") == [] and found("CH3CN") == []
    assert found("trans-butane") == [("C", "C", "C", "C")]
    assert found("CH3CONH2") == []
    assert found("HCOOCH3") in ([("O", "C", "O", "C")], [("C", "O", "C", "O")])


def butane(angles):
    """Butane with its dihedral at these angles, degrees."""
    atoms = molecule("trans-butane", vacuum=5.0)
    carbon = [k for k, s in enumerate(atoms.get_chemical_symbols()) if s == "C"]
    start = trajectory(atoms.positions[None], atoms.numbers, np.array(atoms.cell))
    chain = rotatable_dihedrals(start)[0]
    assert sorted(chain) == carbon
    end = [k for k in range(len(atoms)) if k == chain[3] or (
        k not in carbon and atoms.get_distance(k, chain[3]) < 1.2)]
    frames = []
    for angle in angles:
        atoms.set_dihedral(*chain, angle, indices=end)
        frames.append(atoms.positions.copy())
    return trajectory(frames, atoms.numbers, np.array(atoms.cell))


def test_a_turning_molecule():
    observable = Dihedrals()
    result = gather(observable, butane((182.0 + 5.0 * np.arange(72)) % 360.0), [7, 20])
    (counts,) = result.angles.values()
    assert (counts > 0.0).all() and counts.sum() == pytest.approx(result.duration)
    aimd = [gather(observable, butane(60.0 + np.random.default_rng(k).normal(scale=5.0, size=20))) for k in range(5)]
    md = [gather(observable, butane(-170.0 + np.random.default_rng(k).normal(scale=5.0, size=20))) for k in range(4)]
    section = observable.compare({"MD": md}, aimd)
    assert section.rows[0].difference["MD"].value == pytest.approx(130.0, abs=5.0)
    assert section.rows[0].verdict["MD"] is Verdict.DIFFERS


def test_clusters_across_the_boundary_and_the_way_between_them():
    density = np.zeros((36, 36))
    density[[0, 35, 0, 35], [0, 0, 35, 35]] = 3.0
    density[17:19, 17:19] = 1.0
    clusters = density_clusters(density)
    assert clusters.max() == 2
    assert clusters[0, 0] == clusters[35, 35] == clusters[0, 35] == 1 and clusters[18, 18] == 2
    assert clusters[9, 9] == 0
    path = np.array([1, 1, 0, 1, 0, 2, 2, 0, 0, 1, 2])
    assert transitions(path, 2).tolist() == [[0, 2], [1, 0]]
    assert transitions(np.zeros(5, dtype=int), 2).sum() == 0


def conformations(seed, share, n_frames=200):
    """Five atoms whose two dihedrals hop between two states."""
    rng = np.random.default_rng(seed)
    states = np.array([[-60.0, 140.0], [-60.0, -40.0]])[np.repeat(rng.random(n_frames // 20) < share, 20).astype(int)]
    angles = states + rng.normal(scale=8.0, size=(n_frames, 2))
    atoms = Atoms("C5", positions=[[0, 1.4, 0], [0, 0, 0], [1.4, 0, 0], [1.4, 1.4, 0], [2.8, 1.4, 0]])
    frames = []
    for first, second in angles:
        atoms.set_dihedral(0, 1, 2, 3, first, indices=[3, 4])
        atoms.set_dihedral(1, 2, 3, 4, second, indices=[4])
        frames.append(atoms.positions.copy())
    return trajectory(frames, [6] * 5, pbc=(False,) * 3), int((np.diff(states[:, 1]) != 0).sum())


def test_populations_and_transitions_of_known_conformations():
    observable = Dihedrals(DihedralSettings(dihedrals=((0, 1, 2, 3), (1, 2, 3, 4)), maps=((0, 1),)))
    aimd, md = ([conformations(k, 0.3) for k in range(6)], [conformations(10 + k, 0.3) for k in range(4)])
    results = [[gather(observable, run, [33]) for run, _ in side] for side in (md, aimd)]
    section = observable.compare({"MD": results[0]}, results[1])
    rows = {row.quantity: row for row in section.rows}
    first = next(row for name, row in rows.items() if name.startswith("population of cluster 1"))
    assert "(-55°, 145°)" in first.quantity or "(-65°, 145°)" in first.quantity or "135°" in first.quantity
    assert first.aimd.value == pytest.approx(0.65, abs=0.2)
    rate = rows["transitions between the clusters of 1–2–3–4 and 2–3–4–5"]
    duration = sum(run.times[-1] for run, _ in aimd) * 1e-6
    assert rate.aimd.value == pytest.approx(sum(n for _, n in aimd) / duration)
    counted = np.array([[int(x) for x in row[2:]] for row in section.tables[0].rows])
    assert counted.sum(axis=0).tolist() == [sum(n for _, n in aimd), sum(n for _, n in md)]
    ramachandran = next(plot for plot in section.plots if isinstance(plot, Map))
    for density in ramachandran.density.values():
        assert density.sum() * 100.0 == pytest.approx(1.0)


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5))
@pytest.mark.parametrize("observable", [
    Dihedrals(DihedralSettings(dihedrals=((0, 1, 2, 3), (2, 3, 4, 5)), maps=((0, 1),))),
    Adsorbate(AdsorbateSettings(molecule=(4, 5), surface=("H",))),
    Orientation(OrientationSettings(bonds=((0, 1), (3, 5)))),
], ids=["dihedrals", "adsorbate", "orientation"])
def test_blocks_of_any_size_give_the_result_of_one(observable, sizes):
    run = wandering(4, scale=0.05)
    assert_same(gather(observable, run, sizes), gather(observable, run))


def test_named_atoms_that_are_not_there_are_refused():
    run = wandering(1)
    with pytest.raises(DtmdError, match="give different atom ids between 1 and 6"):
        Dihedrals(DihedralSettings(dihedrals=((0, 1, 2, 2),))).start(run)
    with pytest.raises(DtmdError, match="no atoms 'Pt' among H, C, Pd"):
        Adsorbate(AdsorbateSettings(molecule=("Pt",), surface=("H",))).start(run)
    for observable in (Dihedrals(), Adsorbate(), Orientation()):
        with pytest.raises(NotApplicable):
            observable.start(trajectory([[[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0]]], [46, 46, 46], pbc=(False,) * 3))


FLAT = np.array([[1.3, 0, 0], [-1.3, 0, 0], [0, 1.0, 0], [0, -1.0, 0], [0, -2.0, 0]])
"""A rigid molecule: four atoms of carbon and one of hydrogen, long along x, with H at one end of y."""


def over_graphene(rotations, height, shift=(0.0, 0.0, 0.0), turn=None):
    """A rigid molecule with its centre of mass at a height over a rippled sheet that is itself anywhere in the cell."""
    sheet = graphene(size=(3, 3, 1), vacuum=0.0)
    masses = np.array([12.0] * len(sheet) + [12.0, 12.0, 12.0, 12.0, 1.0])
    centred = FLAT - masses[-5:] @ FLAT / masses[-5:].sum()
    flat = np.column_stack([sheet.positions[:, :2], np.zeros(len(sheet))])
    frames = [
        np.concatenate([flat, rotation.apply(centred) + [2.0, 1.0, height]]) + shift for rotation in rotations]
    cell = HEXAGONAL
    if turn is not None:
        frames, cell = np.array(frames) @ turn.as_matrix(), cell @ turn.as_matrix()
    return trajectory(frames, [6] * len(sheet) + [6, 6, 6, 6, 1], cell, masses=masses)


NAMED = AdsorbateSettings(molecule=(18, 19, 20, 21, 22), surface=tuple(range(18)), tilt=((19,), (18,)),
                          slant=((22,), (20,)))


@pytest.mark.parametrize("turn", [None, Rotation.from_rotvec([0.3, -0.8, 0.5])], ids=["upright", "rotated cell"])
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (3.0, -2.0, 14.0)], ids=["inside", "across the boundary"])
def test_angles_and_height_of_a_rigid_molecule(shift, turn):
    degrees = np.array([0.0, 20.0, -35.0, 80.0])
    about_x = over_graphene([Rotation.from_euler("x", a, degrees=True) for a in degrees], 9.5, shift, turn)
    about_y = over_graphene([Rotation.from_euler("y", a, degrees=True) for a in degrees], 9.5, shift, turn)
    for run, tilt, slant in ((about_x, 0.0 * degrees, degrees), (about_y, np.abs(degrees), 0.0 * degrees)):
        geometry = Geometry(run.window(0, 1), np.arange(18, 23), np.arange(18))
        axes = molecule_axes(run.window(0, 1), geometry, NAMED)
        height, normal, atoms = geometry.at(run)
        angles = molecule_angles(atoms, normal, axes)
        np.testing.assert_allclose(height, 9.5, atol=1e-9)
        np.testing.assert_allclose(angles["incline"], np.abs(degrees), atol=1e-5)
        np.testing.assert_allclose(angles["tilt"], tilt, atol=1e-5)
        np.testing.assert_allclose(angles["slant"], slant, atol=1e-5)
        unnamed = molecule_angles(atoms, normal, molecule_axes(run.window(0, 1), geometry, AdsorbateSettings()))
        np.testing.assert_allclose(unnamed["tilt"], tilt, atol=1e-5)
        np.testing.assert_allclose(unnamed["slant"], np.abs(slant), atol=1e-5)


@pytest.mark.parametrize("pbc", [(False,) * 3, (True,) * 3], ids=["cluster", "patch in a cell"])
def test_a_patch_that_is_tilted_takes_its_plane_with_it(pbc):
    """Height and angles against a plane fitted to a patch, in any image, are those before all was turned."""
    turns = [Rotation.from_euler("xy", (a, b), degrees=True) for a, b in ((0, 0), (20, -10), (-35, 25))]
    level = over_graphene([Rotation.from_euler("x", 20.0, degrees=True)], 4.0).positions[0]
    positions = np.array([turn.apply(level) for turn in turns])
    cell = np.diag([30.0, 31.0, 32.0])
    still = over_graphene(turns, 4.0)
    shifts = np.random.default_rng(2).integers(-1, 2, size=(len(level), 3)) * pbc @ cell
    run = trajectory(positions + shifts, still.numbers, cell, pbc, masses=still.masses)
    geometry = Geometry(run.window(0, 1), np.arange(18, 23), np.arange(18))
    height, normal, atoms = geometry.at(run)
    np.testing.assert_allclose(height, 4.0, atol=1e-9)
    np.testing.assert_allclose(normal, [turn.apply([0, 0, 1.0]) for turn in turns], atol=1e-9)
    angles = molecule_angles(atoms, normal, molecule_axes(run.window(0, 1), geometry, NAMED))
    assert angles["incline"] == pytest.approx([20.0] * 3) and angles["slant"] == pytest.approx([20.0] * 3)


def test_a_rippled_sheet_that_goes_all_round_does_not_tilt():
    """A wave along the cell would tilt a plane fitted to any one of its images."""
    still = over_graphene([Rotation.identity()] * 4, 4.0)
    wave = np.zeros_like(still.positions)
    phases = (still.positions[:, :18] @ np.linalg.inv(HEXAGONAL))[..., 0] + np.arange(4)[:, None] / 4.0
    wave[:, :18, 2] = 0.3 * np.sin(2.0 * np.pi * phases)
    height, normal, _ = Geometry(still.window(0, 1), np.arange(18, 23), np.arange(18)).at(
        trajectory(still.positions + wave, still.numbers, HEXAGONAL, masses=still.masses))
    np.testing.assert_allclose(height, 4.0, atol=1e-9)
    np.testing.assert_allclose(normal, np.broadcast_to([0.0, 0.0, 1.0], (4, 3)), atol=1e-12)


def test_the_molecule_and_the_sheet_are_found_and_the_profile_is_boltzmanns():
    observable = Adsorbate(AdsorbateSettings(temperature=300.0))
    rng = np.random.default_rng(3)

    def run():
        still = over_graphene([Rotation.identity()] * 200, 0.0)
        positions = still.positions.copy()
        positions[:, 18:, 2] += 5.0 + rng.normal(scale=0.5, size=(200, 1))
        return trajectory(positions, still.numbers, HEXAGONAL, masses=still.masses)

    aimd, md = ([gather(observable, run(), [60]) for _ in range(n)] for n in (6, 6))
    section = observable.compare({"MD": md}, aimd)
    rows = {row.quantity: row for row in section.rows}
    assert rows["mean height"].aimd.value == pytest.approx(5.0, abs=0.06)
    assert rows["spread of the height"].md["MD"].value == pytest.approx(0.5, abs=0.05)
    assert rows["W₁ of the height"].verdict["MD"] is not Verdict.DIFFERS
    profile = next(plot for plot in section.plots if "free-energy" in plot.name)
    curve = profile.curves[0]
    near = np.abs(curve.x - 5.0) < 1.0
    expected = 8.617e-5 * 300.0 * 0.5 * ((curve.x[near] - 5.0) / 0.5) ** 2
    np.testing.assert_allclose(curve.y[near] - curve.y[near].min(), expected - expected.min(), atol=0.018)
    assert profile.y_label == "F / eV" and (curve.low <= curve.y).all()


def test_directions_do_not_depend_on_the_cell_being_rotated():
    theta, phi = np.radians([30.0, 110.0, 75.0]), np.radians([-170.0, 20.0, 95.0])
    vectors = 1.5 * np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    positions = np.zeros((3, 2, 3))
    positions[:, 1] = vectors + HEXAGONAL[1] - HEXAGONAL[2]
    turn = Rotation.from_rotvec([1.0, 0.4, -2.0]).as_matrix()
    for cell, place in ((HEXAGONAL, positions), (HEXAGONAL @ turn, positions @ turn)):
        cosine, azimuth = directions(trajectory(place, [6, 7], cell), np.array([[0, 1]]))
        np.testing.assert_allclose(cosine[:, 0], np.cos(theta), atol=1e-9)
        np.testing.assert_allclose(azimuth[:, 0], np.degrees(phi), atol=1e-6)
        cosine, azimuth = directions(trajectory(place, [7, 7], cell), np.array([[0, 1]]))
        np.testing.assert_allclose(cosine[:, 0], np.abs(np.cos(theta)), atol=1e-9)
        assert azimuth[1, 0] == pytest.approx(-160.0)


def test_a_free_rotor_is_spread_evenly():
    rng = np.random.default_rng(5)
    observable = Orientation()

    def rotor(n_frames=3000):
        vectors = rng.normal(size=(n_frames, 3))
        positions = np.zeros((n_frames, 2, 3)) + 3.0
        positions[:, 1] += 1.15 * vectors / np.linalg.norm(vectors, axis=1)[:, None]
        return trajectory(positions, [7, 6], HEXAGONAL)

    results = [gather(observable, rotor(), [700]) for _ in range(6)]
    section = observable.compare({"MD": results[:2]}, results[2:])
    shares = [row for row in section.rows if row.quantity.startswith("share of C–N")]
    assert len(shares) == 4 and sum(row.aimd.value for row in shares) == pytest.approx(1.0)
    assert all(row.aimd.value == pytest.approx(0.25, abs=0.02) for row in shares)
    density = section.plots[0].density["AIMD"]
    assert density.mean() * 720.0 == pytest.approx(1.0)
    cosine = next(plot for plot in section.plots if "cos-theta" in plot.name).curves[0]
    np.testing.assert_allclose(cosine.y, 0.5, atol=0.2)


def test_ethane_of_cp2k_turns_and_points_as_ase_says(shared_data):
    """Staggered at 50 K: three dihedrals H–C–C–H of one H, 120° apart."""
    run = read_aimd([shared_data / "aimd" / "c2h6_cp2k_nvt" / "sys_1"])[0]
    with pytest.raises(NotApplicable, match="name dihedrals"):
        Dihedrals().start(run)
    ends = [[h for h in range(2, 8) if np.linalg.norm(run.positions[0, h] - run.positions[0, c]) < 1.3] for c in (0, 1)]
    named = tuple((ends[0][0], 0, 1, h) for h in ends[1])
    result = gather(Dihedrals(DihedralSettings(dihedrals=named)), run, [100])
    weights, cell = frame_weights(run.times), np.array(run.cells[0])
    frames = [Atoms(numbers=run.numbers, positions=p, cell=cell, pbc=True) for p in run.positions]
    angles = np.array([[atoms.get_dihedral(*d, mic=True) for d in named] for atoms in frames])
    for counts, values in zip(result.angles.values(), (angles.T + 180.0) % 360.0, strict=True):
        np.testing.assert_allclose(counts, np.histogram(values, np.arange(0.0, 361.0, 5.0), weights=weights)[0])
    assert np.abs(np.abs((angles + 60.0) % 120.0 - 60.0) - 60.0).max() < 25.0
    counts = gather(Orientation(OrientationSettings(bonds=((0, 2),))), run, [300])["C–H"]
    bonds = np.array([atoms.get_distance(0, 2, mic=True, vector=True) for atoms in frames])
    cosine = bonds[:, 2] / np.linalg.norm(bonds, axis=1)
    azimuth = np.degrees(np.arctan2(bonds[:, 1], bonds[:, 0]))
    expected = np.histogram2d(azimuth, cosine, [np.linspace(-180, 180, 73), np.linspace(-1, 1, 41)], weights=weights)
    np.testing.assert_allclose(counts, expected[0])


def test_hydrogen_over_the_graphene_of_the_reference_data(shared_data):
    """Named or found, the sheet is that of the carbon; the molecule is thrown back from 8.5 Å above it."""
    run = read_aimd([shared_data / "h2pd6_gfn1" / "traj_001.extxyz.gz"])[0]
    geometry = Geometry(run.window(0, 1), np.array([0, 1]), np.arange(2, 51))
    height, normal, atoms = geometry.at(run)
    c = run.cells[0, 2, 2]
    sheet = run.positions[:, 2:51, 2] - c * (run.positions[0, 2:51, 2] > c / 2)  # half of it is at the top of the cell
    np.testing.assert_allclose(height, run.positions[:, :2, 2].mean(axis=1) - sheet.mean(axis=1), atol=1e-9)
    assert (normal == [0.0, 0.0, 1.0]).all()
    assert height[0] == pytest.approx(8.5, abs=1e-6) and np.abs(np.diff(height)).max() < 0.05
    bond = run.positions[:, 1] - run.positions[:, 0]
    tilt = molecule_angles(atoms, normal, molecule_axes(run.window(0, 1), geometry, AdsorbateSettings()))["tilt"]
    np.testing.assert_allclose(
        tilt, np.degrees(np.arcsin(np.abs((bond * normal).sum(axis=1)) / np.linalg.norm(bond, axis=1))), atol=1e-6)
    found, named = (gather(Adsorbate(chosen), run, [90]) for chosen in (
        AdsorbateSettings(), AdsorbateSettings(molecule=("H",), surface=("C",))))
    assert_same(found, named)
