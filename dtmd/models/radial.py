"""Functions of the distance alone that the architectures share."""

from __future__ import annotations

import torch
from torch import Tensor


def smooth_envelope(distance: Tensor, cutoff: float) -> Tensor:
    """Polynomial that falls from 1 to 0 at the cutoff, where its first two derivatives vanish.

    p = 6 of Gasteiger et al., Directional message passing, eq. 8. `distance` in Å, any shape.
    """
    u = torch.clamp(distance / cutoff, max=1.0)
    return 1.0 + u.pow(6) * (-28.0 + u * (48.0 - 21.0 * u))
