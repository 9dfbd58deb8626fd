"""Autograd in pieces: a graph is cut where values are handed over, and each piece is swept back on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same values where a piece begins; those that are floating-point require gradients."""
    return [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in tensors]


def gradients(outputs: Sequence[Tensor], by_outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """By the inputs of a piece, given those by its outputs; zero where nothing depends on an input."""
    roots = [k for k, output in enumerate(outputs) if output.requires_grad]
    wanted = [k for k, tensor in enumerate(inputs) if tensor.requires_grad]
    found: dict[int, Tensor | None] = {}
    if roots:
        by_wanted = torch.autograd.grad([outputs[k] for k in roots], [inputs[k] for k in wanted],
                                        [by_outputs[k] for k in roots], allow_unused=True)
        found = dict(zip(wanted, by_wanted, strict=True))
    return [torch.zeros_like(tensor) if found.get(k) is None else found[k] for k, tensor in enumerate(inputs)]
