"""The force error of dynamic training: a sum over species (article eq. 11)."""

from __future__ import annotations

import numpy as np


def force_error_by_species(predicted: np.ndarray, reference: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Mean absolute force component of each species, in the order of the atomic numbers.

    Args:
        predicted: eV/Å, shape (…, N, 3).
        reference: eV/Å, same shape.
        numbers: atomic numbers, shape (N,).

    Returns:
        eV/Å, shape (…, n_species).
    """
    per_atom = np.abs(predicted - reference).mean(axis=-1)
    return np.stack([per_atom[..., numbers == z].mean(axis=-1) for z in np.unique(numbers)], axis=-1)
