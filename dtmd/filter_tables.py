"""Do tables of the radial filters change the forces? Measured on the frames that travel with the model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dtmd.checkpoint import ModelFile, ProbeFrames
from dtmd.errors import DtmdError
from dtmd.models import EGNNConfig
from dtmd.neighbors import Edges
from dtmd.potential import Potential, predict

LARGEST_FORCE_CHANGE = 1e-4
"""eV/Å; tables that change a component of a force by as much are made finer."""

MOST_KNOTS = 16384


def with_fine_filters(model: ModelFile) -> ModelFile:
    """The model with as many knots, doubled as often as needed, that its tables keep the forces of exact filters.

    Returns:
        The model, with the number of knots and the largest change of a force in the metadata's `filters`; one
        without tables as it is.

    Raises:
        DtmdError: even the finest tables change the forces too much.
    """
    config = model.potential.config
    if not isinstance(config, EGNNConfig) or config.n_knots == 0:
        return model
    exact = _forces(_with_knots(model.potential, 0), model.probes)
    n_knots = config.n_knots
    while n_knots <= MOST_KNOTS:
        potential = _with_knots(model.potential, n_knots)
        change = (_forces(potential, model.probes) - exact).abs().max().item()
        if change < LARGEST_FORCE_CHANGE:
            filters = {"n_knots": n_knots, "largest_force_change_eV_per_A": change}
            return replace(model, potential=potential, metadata={**model.metadata, "filters": filters})
        n_knots *= 2
    raise DtmdError(
        f"tables of the radial filters change forces by {change:.1e} eV/Å, with {n_knots // 2} knots still (allowed "
        f"{LARGEST_FORCE_CHANGE:.0e}); train with a smaller model.frequency_std, or with model.n_knots 0"
    )


def _with_knots(potential: Potential, n_knots: int) -> Potential:
    config = potential.config.model_copy(update={"n_knots": n_knots})
    with torch.random.fork_rng(devices=[]):
        other = Potential(potential.elements, config, potential.reference_energies).to_precision(potential.precision)
    other.load_state_dict(potential.state_dict())
    return other


def _forces(potential: Potential, probes: ProbeFrames) -> Tensor:
    edges = Edges(probes.structures, potential.config.cutoff, skin=0.1).at(probes.positions)
    return predict(potential, probes.structures, probes.positions, edges).forces
