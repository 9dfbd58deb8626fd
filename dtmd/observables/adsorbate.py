"""A molecule over a surface: its height, its angles with the surface, and the free energy along the height."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell

from dtmd.observables.bond_graph import BondSearch, molecules
from dtmd.observables.distances import frame_images, of_each_cell, pair_vectors
from dtmd.observables.distributions import RULE, density_curves, distance_row, mean_and_spread_rows, plot_name
from dtmd.observables.histograms import wasserstein
from dtmd.observables.observable import NotApplicable, Observable
from dtmd.observables.section import Curve, Map, Plot, Row, Section, sides
from dtmd.observables.selection import Selection, selected
from dtmd.trajectory import Trajectory
from dtmd.units import BOLTZMANN

HEIGHTS = np.arange(-1000, 5001) * 0.01
"""Å; edges of the bins of the height; the outer bins hold everything beyond."""

ANGLES = np.arange(-90.0, 91.0, 3.0)
"""Degrees; edges of the bins of the angles."""

_MERGED = 25  # bins of the height in one of the maps and of the profile
_GAP = 0.5  # of a cell vector; a surface with a wider one does not go all round the cell
_THIN = 1e-3  # Å²; a group with less variance in a direction has no extent in it


@dataclass(frozen=True)
class AdsorbateSettings:
    """What the user may set.

    Attributes:
        molecule, surface: the two groups; None for the only molecule that the first frame has beside its largest
            piece, and for the most frequent element of that piece.
        tilt, slant: axes fixed to the molecule, each from the centroid of one group to that of another; None for its
            longest and second longest principal axis.
        temperature: K, for the free energy in eV; None for units of kT.
        seed: of the bootstrap.
    """

    molecule: Selection | None = None
    surface: Selection | None = None
    tilt: tuple[Selection, Selection] | None = None
    slant: tuple[Selection, Selection] | None = None
    temperature: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class AdsorbateRun:
    """One run: the time, fs, in the bins of `HEIGHTS`, (n,), and of `ANGLES` and merged heights, (n_angles, n)."""

    heights: np.ndarray
    angles: dict[str, np.ndarray]


@dataclass(frozen=True)
class Axes:
    """Directions fixed to a molecule, as weights (n_atoms,) of its positions relative to its centre of mass.

    Attributes:
        plane: atoms that its plane is fitted to, or None where they lie on a line.
        signed: names of the axes whose sense matters.
    """

    axes: dict[str, np.ndarray]
    plane: np.ndarray | None
    signed: tuple[str, ...]


class _Group:
    """Atoms as seen from the first of them, each in its image next to that in the first frame.

    Later frames are unwrapped, so no atom of a sheet as wide as the cell jumps from one side to the other.
    """

    def __init__(self, first: Trajectory, atoms: np.ndarray) -> None:
        self._atoms = atoms
        pairs = np.stack([np.full(len(atoms), atoms[0]), atoms], axis=1)
        near = pair_vectors(first.window(0, 1), pairs)[0]
        places = first.positions[0, atoms]
        self._images = np.round((near - places + places[0]) @ np.linalg.inv(complete_cell(first.cells[0])))

    def vectors(self, frames: Trajectory) -> np.ndarray:
        """Å, (T, n, 3)."""
        places = frames.positions[:, self._atoms]
        return places - places[:, :1] + self._images @ frames.cells


class Geometry:
    """Where a molecule is over the plane through a group of atoms of a surface.

    Args:
        first: the first frame, which says to which face of the cell the surface is parallel.
        molecule, surface: indices of atoms.
    """

    def __init__(self, first: Trajectory, molecule: np.ndarray, surface: np.ndarray) -> None:
        self.molecule = molecule
        self._origins = surface[0], molecule[0]
        self._molecule, self._surface = _Group(first, molecule), _Group(first, surface)
        self._masses = first.masses[molecule] / first.masses[molecule].sum()
        _, normal = self._plane(first.window(0, 1))
        self._face = int(np.abs(_face_normals(first.cells[0]) @ normal[0]).argmax())
        self._all_round = self._goes_all_round(first)

    def _goes_all_round(self, first: Trajectory) -> bool:
        """Whether the surface is one that repeats along its face, and not a patch or a cluster."""
        along = np.delete(np.arange(3), self._face)
        if not first.pbc[along].all():
            return False
        scaled = self._surface.vectors(first.window(0, 1))[0] @ np.linalg.inv(complete_cell(first.cells[0]))
        places = np.sort(scaled[:, along] % 1.0, axis=0)
        return bool((np.diff(places, axis=0, append=places[:1] + 1.0).max(axis=0) < _GAP).all())

    def at(self, frames: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Height of the centre of mass over the plane, the normal and the molecule about its centre of mass.

        A surface that goes all round the cell cannot tilt, so its plane is parallel to the face, through its mean
        height: a fit would depend on the images taken. Of others, it is the total least squares fit, and the molecule
        is taken in its image nearest to their centre. The normal is on the side of the cell vector that leaves the
        plane; where the cell is periodic there, heights are modulo the period, from 0.

        Returns:
            Å (T,), unit vectors (T, 3), Å (T, n, 3).
        """
        faces = of_each_cell(frames.cells, _face_normals)[:, self._face]
        middle, normal = self._plane(frames)
        if self._all_round:
            normal = faces
        normal = normal * np.where(np.einsum("ti,ti->t", normal, faces) < 0.0, -1.0, 1.0)[:, None]
        atoms = self._molecule.vectors(frames)
        centre = np.einsum("n,tni->ti", self._masses, atoms)
        surface, molecule = (frames.positions[:, atom] for atom in self._origins)
        along_face = frames.pbc & (np.arange(3) != self._face)
        apart = frame_images(molecule + centre - surface - middle, frames.cells, along_face)
        height = np.einsum("ti,ti->t", apart, normal)
        if frames.pbc[self._face]:
            height = height % np.abs(np.einsum("ti,ti->t", frames.cells[:, self._face], normal))
        return height, normal, atoms - centre[:, None]

    def _plane(self, frames: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """Centre, from the first atom of the surface, and normal of the fitted plane, in any sense."""
        atoms = self._surface.vectors(frames)
        middle = atoms.mean(axis=1)
        return middle, _normals(atoms - middle[:, None])


def _normals(centred: np.ndarray) -> np.ndarray:
    """Direction of least extent of atoms (T, n, 3), (T, 3)."""
    return np.linalg.eigh(np.einsum("tni,tnj->tij", centred, centred))[1][:, :, 0]


def _face_normals(cell: np.ndarray) -> np.ndarray:
    """Unit normals of the faces that each cell vector leaves, (3, 3)."""
    reciprocal = np.linalg.inv(complete_cell(cell)).T
    return reciprocal / np.linalg.norm(reciprocal, axis=1, keepdims=True)


def molecule_axes(first: Trajectory, geometry: Geometry, settings: AdsorbateSettings) -> Axes:
    """What the angles are measured of.

    Σ m x (r − r_cm) with the coordinates x along a principal axis in the first frame is along that axis in any frame
    of a rigid molecule.
    """
    atoms, members = geometry.at(first.window(0, 1))[2][0], geometry.molecule
    masses = first.masses[members]
    extent, directions = np.linalg.eigh(np.einsum("n,ni,nj->ij", masses / masses.sum(), atoms, atoms))
    axes = {}
    for name, rank in (("tilt", 2), ("slant", 1)):
        named = getattr(settings, name)
        if named is not None:
            start, end = (np.isin(members, selected(group, first)) for group in named)
            if not start.any() or not end.any():
                raise NotApplicable(f"the groups of the {name} have no atom of the molecule")
            axes[name] = end / end.sum() - start / start.sum()
        elif extent[rank] > _THIN:
            axes[name] = masses * (atoms @ directions[:, rank])
    heavy = np.flatnonzero(first.numbers[members] > 1)
    flat = len(heavy) > 2 and np.linalg.eigvalsh(np.cov(atoms[heavy].T))[1] > _THIN
    return Axes(axes, heavy if flat else None, ("slant",) if settings.slant else ())


def molecule_angles(atoms: np.ndarray, normal: np.ndarray, axes: Axes) -> dict[str, np.ndarray]:
    """Incline, tilt and slant, degrees, (T,) each.

    Args:
        atoms: of the molecule about its centre of mass, Å, (T, n, 3).
        normal: of the surface, (T, 3).
    """
    angles = {}
    if axes.plane is not None:
        heavy = atoms[:, axes.plane]
        own = _normals(heavy - heavy.mean(axis=1, keepdims=True))
        cosine = np.abs(np.einsum("ti,ti->t", own, normal))
        angles["incline"] = np.degrees(np.arccos(np.minimum(cosine, 1.0)))
    for name, weights in axes.axes.items():
        axis = np.einsum("n,tni->ti", weights, atoms)
        sine = np.einsum("ti,ti->t", axis, normal) / np.linalg.norm(axis, axis=1)
        angle = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
        angles[name] = angle if name in axes.signed else np.abs(angle)
    return angles


class _AdsorbateAccumulator:
    def __init__(self, geometry: Geometry, axes: Axes) -> None:
        self._geometry, self._axes = geometry, axes
        names = ([] if axes.plane is None else ["incline"]) + list(axes.axes)
        self._heights = np.zeros(len(HEIGHTS) - 1)
        self._angles = {name: np.zeros((len(ANGLES) - 1, len(self._heights) // _MERGED)) for name in names}

    def add(self, frames: Trajectory, weights: np.ndarray) -> None:
        height, normal, atoms = self._geometry.at(frames)
        bins = np.clip(np.floor((height - HEIGHTS[0]) / 0.01).astype(np.int64), 0, len(self._heights) - 1)
        self._heights += np.bincount(bins, weights, len(self._heights))
        for name, angle in molecule_angles(atoms, normal, self._axes).items():
            counts = self._angles[name]
            at = np.minimum((angle - ANGLES[0]) / 3.0, len(counts) - 1).astype(np.int64)
            np.add.at(counts, (at, bins // _MERGED), weights)

    def result(self) -> AdsorbateRun:
        return AdsorbateRun(self._heights, self._angles)


class Adsorbate(Observable):
    """A molecule over a surface."""

    name = "adsorbate"
    windowed = True

    def __init__(self, settings: AdsorbateSettings = AdsorbateSettings()) -> None:
        self.settings = settings

    def start(self, first: Trajectory) -> _AdsorbateAccumulator:
        molecule, surface = self.settings.molecule, self.settings.surface
        found = _pieces(first) if molecule is None or surface is None else (None, None)
        molecule = found[0] if molecule is None else selected(molecule, first)
        surface = found[1] if surface is None else selected(surface, first)
        if len(surface) < 3:
            raise NotApplicable(f"{len(surface)} atoms of the surface; a plane needs three")
        geometry = Geometry(first, molecule, surface)
        return _AdsorbateAccumulator(geometry, molecule_axes(first, geometry, self.settings))

    def compare(self, md: Mapping[str, Sequence[AdsorbateRun]], aimd: Sequence[AdsorbateRun]) -> Section:
        runs, seed = sides(md, aimd), self.settings.seed
        heights = {side: np.stack([run.heights for run in results]) for side, results in runs.items()}
        centres = 0.5 * (HEIGHTS[1:] + HEIGHTS[:-1])
        rows: list[Row] = mean_and_spread_rows("height", "Å", heights, centres, seed)
        row = distance_row("W₁ of the height", "Å", heights, wasserstein, seed)
        rows += [row] if row else []
        merged = {side: h.reshape(len(h), -1, _MERGED).sum(axis=-1) for side, h in heights.items()}
        seen = np.flatnonzero(sum(h.sum(axis=0) for h in merged.values()))
        here = slice(seen[0], seen[-1] + 1)
        edges = HEIGHTS[::_MERGED][seen[0] : seen[-1] + 2]
        plots: list[Plot | Map] = [
            Plot(plot_name(self.name, "height"), "Height of the molecule over the surface", "D / Å", "density / Å⁻¹",
                 density_curves({side: h[:, here] for side, h in merged.items()}, edges, seed)),
            self._profile({side: h[:, here] for side, h in merged.items()}, edges),
        ]
        for name in dict.fromkeys(name for results in runs.values() for run in results for name in run.angles):
            found = {side: [run.angles[name] for run in results if name in run.angles]
                     for side, results in runs.items()}
            self._angle(name, {side: np.stack(h)[:, :, here] for side, h in found.items() if h}, edges, rows, plots)
        return Section(self.name, "Adsorbate", self._definition(), rows, plots, rule=RULE, caveats=[
            "The free energy is that of the frames seen, which are few where it is high; only differences have a "
            "meaning, and only in equilibrium."])

    def _angle(
        self, name: str, found: Mapping[str, np.ndarray], edges: np.ndarray, rows: list[Row], plots: list[Plot | Map]
    ) -> None:
        seed = self.settings.seed
        angles = {side: h.sum(axis=2) for side, h in found.items()}
        rows += mean_and_spread_rows(name, "°", angles, 0.5 * (ANGLES[1:] + ANGLES[:-1]), seed)
        row = distance_row(f"W₁ of the {name}", "°", angles, lambda p, q: wasserstein(p, q, 3.0), seed)
        rows += [row] if row else []
        first = 0 if any(h[:, : len(ANGLES) // 2].any() for h in angles.values()) else len(ANGLES) // 2
        plots.append(Plot(plot_name(self.name, name), f"Angle: {name}", f"{name} / °", "density / (1/°)",
                          density_curves({side: h[:, first:] for side, h in angles.items()}, ANGLES[first:], seed)))
        area = 3.0 * (edges[1] - edges[0])
        plots.append(Map(
            plot_name(self.name, name, "height"), f"Height and {name}", "D / Å", f"{name} / °", edges, ANGLES[first:],
            {side: (h.sum(axis=0)[first:] / h.sum() / area).T for side, h in found.items()}))

    def _profile(self, histograms: Mapping[str, np.ndarray], edges: np.ndarray) -> Plot:
        """−kT ln p(D) from its lowest value, where the side has been."""
        temperature, curves = self.settings.temperature, []
        scale, unit = (1.0, "kT") if temperature is None else (BOLTZMANN * temperature, "eV")
        for density in density_curves(histograms, edges, self.settings.seed):
            seen = density.y > 0.0
            energy, low, high = -scale * np.log(density.y[seen]), None, None
            energy -= energy.min()
            if density.high is not None:
                half_width = scale * (density.high[seen] / density.y[seen] - 1.0)
                low, high = energy - half_width, energy + half_width
            curves.append(Curve(density.label, density.x[seen], energy, low, high, density.side))
        return Plot(plot_name(self.name, "free-energy"), "Free energy along the height", "D / Å", f"F / {unit}", curves,
                    from_zero=False)

    def _definition(self) -> str:
        slant = ("the second longest principal axis, from 0° to 90°" if self.settings.slant is None else
                 "an axis named by the user, with its sign")
        return (
            "D is the height of the molecule's centre of mass over the plane of the surface, on the side of the cell "
            "vector that leaves it, modulo the period of the cell there. The plane of a surface that goes all round "
            "the cell is parallel to the face of the cell, through its mean height; to others it is fitted (total "
            "least squares, minimum images). Incline: angle between the planes of the molecule (without H) and of the "
            "surface. Tilt and slant: angles between axes of the molecule and the surface: its longest principal axis "
            f"or the axis named, from 0° to 90°, and {slant} (Poltavsky et al., Chem. Sci. 16, 3738, 2025, Fig. 3). "
            "Free energy F(D) = −kT ln p(D), from its lowest value."
        )


def _pieces(first: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """The only molecule beside the largest piece, and the atoms of the most frequent element of that."""
    if first.pbc.sum() < 2:
        raise NotApplicable("no surface: the cell is periodic in less than two directions; name molecule and surface")
    pieces = molecules(len(first.numbers), BondSearch(first.numbers).bonds(first, 0)[0])
    if len(pieces) != 2:
        raise NotApplicable(f"its first frame has {len(pieces) - 1} molecules beside its largest piece; name molecule "
                            "and surface")
    species, counts = np.unique(first.numbers[pieces[0]], return_counts=True)
    return pieces[1], pieces[0][first.numbers[pieces[0]] == species[counts.argmax()]]
