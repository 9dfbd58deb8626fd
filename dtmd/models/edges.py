"""Between atoms and edges, so that in float32 the order of the edges does not show: sums are float64."""

from __future__ import annotations

import torch
from torch import Tensor


def of_centres(features: Tensor, n_centres: int) -> Tensor:
    """Rows of the centres, which come first; in training all atoms are centres."""
    return features if n_centres == features.shape[0] else features[:n_centres]


def gather(features: Tensor, index: Tensor) -> Tensor:
    """Rows of the atoms at one end of each edge; the sums of its backward pass are float64."""
    return features.to(torch.float64).index_select(0, index).to(features.dtype)


def sum_at(centre: Tensor, messages: Tensor, n_atoms: int) -> Tensor:
    """Sum of the messages of the edges of each atom, (n_atoms, …)."""
    shape = list(messages.shape)
    shape[0] = n_atoms
    summed = torch.zeros(shape, dtype=torch.float64, device=messages.device)
    return summed.index_add(0, centre, messages.to(torch.float64)).to(messages.dtype)
