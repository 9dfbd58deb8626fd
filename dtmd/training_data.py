"""From AIMD files to training and validation subsequences, and what the potential takes from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from vesin import NeighborList

from dtmd.checkpoint import ProbeFrames
from dtmd.config import TrainConfig
from dtmd.errors import DtmdError
from dtmd.ingest import Watch, read_aimd, unwatched
from dtmd.models.mace import MACEConfig
from dtmd.neighbors import Edges
from dtmd.potential import Potential, predict
from dtmd.store import in_slices
from dtmd.subsequences import Subsequences, by_run, check_labels, split, split_in_time
from dtmd.trajectory import Trajectory

N_PROBES = 4

MIXED = 1.0
"""eV/atom; chemistry changes energies per atom by less, other functionals or pseudopotentials by far more."""

SAME_TIMESTEP = 1.01
"""Ratio up to which time steps count as one: some are measured on the motion."""


@dataclass(frozen=True)
class TrainingData:
    """Whole trajectories for training and for validation, and a hash over their files.

    Attributes:
        in_time: those that rollouts follow, which have one Δt; single frames serve for the others.
    """

    training: list[Trajectory]
    validation: list[Trajectory]
    digest: str
    in_time: list[Trajectory]

    @property
    def elements(self) -> list[str]:
        """Chemical symbols in the data, by atomic number."""
        numbers = {z: symbol for t in self.training for z, symbol in zip(t.numbers, t.symbols, strict=True)}
        return [numbers[z] for z in sorted(numbers)]

    @property
    def timesteps(self) -> dict[float, str]:
        """The different Δt of the runs that rollouts follow, fs, ascending, each with one that has it."""
        different: dict[float, str] = {}
        for timestep, source in sorted((t.timestep, t.source) for t in self.in_time if len(t) > 1):
            if not different or timestep > SAME_TIMESTEP * max(different):
                different[timestep] = source
        return different

    def new_potential(self, config: TrainConfig) -> Potential:
        """A fresh potential with what its config and scales leave to the training data."""
        torch.manual_seed(config.seed)
        reference = fit_reference_energies(self.training, self.elements).values
        scale = float(np.sqrt(np.mean([_mean_square(t.forces) for t in self.training])))
        model = config.model
        if isinstance(model, MACEConfig) and model.avg_num_neighbors is None:
            model = model.model_copy(update={"avg_num_neighbors": mean_neighbors(self.training, model.cutoff)})
        potential = Potential(self.elements, model, torch.from_numpy(reference), scale)
        return potential.to_precision(getattr(torch, config.precision))

    def energy_offset(self, potential: Potential) -> float:
        """Mean energy per atom of some training frames less what a potential gives, eV/atom."""
        points = Subsequences(self.training, potential, length=1, stride=1, setting="curriculum.lengths")
        batch = points.batch(points.spread(N_PROBES), potential.reference_energies.device)
        structures, positions = batch.start.structures, batch.start.positions
        edges = Edges(structures, potential.config.cutoff, skin=0.1).at(positions)
        difference = batch.energies - predict(potential, structures, positions, edges).energies
        return (difference / torch.bincount(structures.graph_index)).mean().item()

    def training_points(self, potential: Potential, config: TrainConfig) -> Subsequences:
        """Subsequences of the longest length, so that every stage sees the same starts.

        Raises:
            DtmdError: too short trajectories, or a cutoff within which there are no atoms.
        """
        points = Subsequences(self.training, potential, max(config.curriculum.lengths), config.data.stride,
                              "curriculum.lengths")
        start = points.batch(points.spread(N_PROBES), torch.device("cpu")).start
        edge_index, _ = Edges(start.structures, potential.config.cutoff, config.optimizer.skin).at(start.positions)
        if not edge_index.shape[1]:
            raise DtmdError(f"model.cutoff {potential.config.cutoff:g} Å: no two atoms of the data are so near each "
                            "other, so that there is nothing to learn from; some 5 Å is usual")
        return points

    def validation_points(self, potential: Potential, config: TrainConfig) -> Subsequences:
        """Subsequences of S_val frames."""
        return Subsequences(self.validation, potential, config.curriculum.validation_length, stride=1,
                            setting="curriculum.validation_length")

    def probes(self, potential: Potential) -> ProbeFrames:
        """A few frames of the validation trajectories."""
        points = Subsequences(self.validation, potential, length=1, stride=1)
        start = points.batch(points.spread(N_PROBES), torch.device("cpu")).start
        return ProbeFrames(start.structures, start.positions)


def load_training_data(config: TrainConfig, watch: Watch = unwatched) -> TrainingData:
    """Read, check and split the AIMD that the config names; `watch` follows the reading.

    Raises:
        DtmdError: bad files; a run in both sets; runs of different Δt; labels of different origin; a stride longer than
            the runs.
    """
    data = config.data
    training = read_aimd(data.train, data.timestep, data.allow, watch)
    if data.validation is None and data.split == "time":
        training, validation = split_in_time(training, data.validation_share)
    elif data.validation is None:
        training, validation = split(training, data.validation_share, config.seed)
    else:
        validation = read_aimd(data.validation, data.timestep, data.allow, watch)
        seen = {t.origin.digest or t.source for t in training}
        both = [t.source for t in validation if (t.origin.digest or t.source) in seen]
        if both:
            raise DtmdError(f"{min(both)}: is in data.train and in data.validation; "
                            "validation needs unseen trajectories")
    parts = (training, max(config.curriculum.lengths) > 1), (validation, config.curriculum.validation_length > 1)
    for part, in_time in parts:
        for trajectory in part:
            check_labels(trajectory, in_time)
    longest = max(training, key=len)
    if data.stride > len(longest):
        raise DtmdError(f"data.stride {data.stride} is more than the {len(longest)} frames of the longest trajectory, "
                        f"{longest.source}; give the steps from one training subsequence to the next")
    read = TrainingData(training, validation, digest_of(training + validation),
                        [t for part, in_time in parts if in_time for t in part])
    if len(read.timesteps) > 1 and not data.mixed_timesteps:
        raise DtmdError("the runs have different Δt: "
                        + "; ".join(f"{dt:g} fs in {source}" for dt, source in list(read.timesteps.items())[:4])
                        + ". As many frames are then differently long times; leave some out or, if that is meant, set "
                        "data.mixed_timesteps: true")
    if not data.mixed_labels:
        _check_same_labels(training + validation)
    return read


def _check_same_labels(trajectories: list[Trajectory]) -> None:
    origins = {t.origin.labels or "AIMD": t.source for t in trajectories}
    if len(origins) > 1:
        raise DtmdError("energies and forces are of different origin: "
                        + "; ".join(f"{labels} in {source}" for labels, source in list(origins.items())[:4])
                        + ". Their levels of theory may differ; train on those of each apart, first on one and then, "
                        "with start_from, on the other, or, if their energies have been aligned, set "
                        "data.mixed_labels: true")


def digest_of(trajectories: list[Trajectory]) -> str:
    """One hash over what trajectories were read from, or over their arrays where that is not known.

    Names are left out, so that a run goes on after its data were moved.
    """
    digest = hashlib.sha256()
    from_files = all(t.origin.digest for t in trajectories)
    for t in trajectories:
        if from_files:
            digest.update(f"{t.origin.digest} {len(t)} {t.times[0]:.6f} {t.times[-1]:.6f}\n".encode())
            continue
        for array in (t.numbers, t.times, t.positions, t.velocities, t.forces, t.energies):
            for piece in in_slices(array) if array is not None else ():
                digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()


def mean_neighbors(trajectories: list[Trajectory], cutoff: float) -> float:
    """Neighbours of an atom within the cutoff (Å), mean over the atoms of the first frames of the trajectories."""
    search = NeighborList(cutoff=cutoff, full_list=True)
    n_pairs = [len(search.compute(t.positions[0], box=t.cells[0], periodic=t.pbc, quantities="i")[0])
               for t in trajectories]
    return max(sum(n_pairs), 1) / sum(len(t.numbers) for t in trajectories)


def closest_pairs(trajectories: list[Trajectory], elements: list[str], cutoff: float) -> dict[str, float]:
    """Smallest distance of each pair of elements over all frames, Å: {"H-Pd": 1.61, …}.

    Pairs that are never within the cutoff (Å) are left out. In a pair the elements stand in the given order.
    """
    index = {element: k for k, element in enumerate(elements)}
    closest = np.full((len(elements), len(elements)), cutoff)
    for t in trajectories:
        species = np.array([index[symbol] for symbol in t.symbols])
        present = np.ix_(np.unique(species), np.unique(species))
        for positions, cell in zip(t.positions, t.cells, strict=True):
            # Farther pairs than the farthest of the closest change nothing.
            search = NeighborList(cutoff=closest[present].max(), full_list=True)
            i, j, distance = search.compute(positions, box=cell, periodic=t.pbc, quantities="ijd")
            np.minimum.at(closest, (species[i], species[j]), distance)
    return {f"{a}-{b}": float(closest[index[a], index[b]]) for a, b in combinations_with_replacement(elements, 2)
            if closest[index[a], index[b]] < cutoff}


@dataclass(frozen=True)
class ReferenceEnergies:
    """Energy per atom of each element, fitted to the mean energies of the runs.

    Attributes:
        values: eV per atom of each element, (n_elements,).
        residuals: mean energy less what the fit gives, eV/atom, by run.
        ambiguous: elements whose values the compositions do not determine; theirs are those of smallest norm,
            and only their sums over whole structures mean something.
    """

    elements: list[str]
    values: np.ndarray
    residuals: dict[str, float]
    ambiguous: list[str]

    @property
    def worst(self) -> tuple[str, float]:
        """The run whose energy the fit meets worst, and the residual, eV/atom."""
        return max(self.residuals.items(), key=lambda item: abs(item[1]))

    @property
    def seems_mixed(self) -> bool:
        """Whether the runs look as if they were of several levels of theory or codes."""
        return abs(self.worst[1]) > MIXED


def fit_reference_energies(trajectories: list[Trajectory], elements: list[str]) -> ReferenceEnergies:
    """Least squares over the runs, each of which counts once however long it is.

    Raises:
        DtmdError: a trajectory without energies.
    """
    for t in trajectories:
        if t.energies is None:
            raise DtmdError(f"{t.source}: no energies to take reference energies from; leave the trajectory out")
    runs = by_run(trajectories)
    counts = np.array([[run[0].symbols.count(element) for element in elements] for run in runs.values()], dtype=float)
    means = np.array([np.concatenate([t.energies for t in run]).mean() for run in runs.values()])
    values = np.linalg.lstsq(counts, means, rcond=None)[0]
    residuals = (means - counts @ values) / [len(run[0].numbers) for run in runs.values()]
    _, sizes, directions = np.linalg.svd(counts)
    rank = int(np.sum(sizes > sizes[0] * np.finfo(float).eps * max(counts.shape)))
    free = np.abs(directions[rank:]).max(axis=0, initial=0.0) > 1e-6
    return ReferenceEnergies(
        elements, values, dict(zip(runs, residuals.tolist(), strict=True)),
        [element for element, is_free in zip(elements, free, strict=True) if is_free],
    )


def mixed_text(fit: ReferenceEnergies) -> str:
    """A warning on runs that do not seem to be of one level of theory."""
    run, residual = fit.worst
    return (f"the energy of {run} is {residual:+.2f} eV/atom off ΣE0 of its elements: the runs do not seem to be of "
            "one level of theory (code, functional, pseudopotentials); train on those of each level apart")


def _mean_square(array: np.ndarray) -> float:
    return sum(float(np.square(piece, dtype=float).sum()) for piece in in_slices(array)) / array.size
