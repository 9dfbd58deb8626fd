"""The neighbours of each atom in a frame, and how alike they are in another one (article eq. 15)."""

from __future__ import annotations

import numpy as np
from vesin import NeighborList

from dtmd.trajectory import Trajectory


class NeighborSets:
    """Finds who is within a cutoff of whom.

    A neighbour is an atom or a periodic image of one: in cells narrower than twice the cutoff an atom is
    several neighbours, in wider ones the sets are those of atom indices.

    Args:
        cutoff: Å.
    """

    def __init__(self, cutoff: float) -> None:
        self._search = NeighborList(cutoff=cutoff, full_list=True)

    def of(self, frames: Trajectory, k: int) -> np.ndarray:
        """The sets of all atoms in frame k: one number for each pair of an atom and a neighbour, ascending, led by
        the atom; positions are unwrapped, so that the same image has the same number in all frames."""
        i, j, images = self._search.compute(
            points=np.asarray(frames.positions[k]), box=np.asarray(frames.cells[k]), periodic=frames.pbc,
            quantities="ijS",
        )
        code = i.astype(np.int64) * len(frames.numbers) + j.astype(np.int64)
        for image in images.T.astype(np.int64):
            code = (code << 8) + (image & 255)
        return np.sort(code)


def jaccard(before: np.ndarray, after: np.ndarray, n_atoms: int) -> tuple[np.ndarray, float]:
    """|A ∩ B| / |A ∪ B| of the sets of each atom, (N,), and the share of the later pairs that the earlier ones lack.

    Args:
        before, after: sets as of `NeighborSets.of`.
        n_atoms: N.
    """
    common = np.intersect1d(before, after, assume_unique=True)
    n_before, n_after, n_common = (
        np.bincount((pairs >> 24) // n_atoms, minlength=n_atoms) for pairs in (before, after, common)
    )
    n_union = n_before + n_after - n_common
    # An atom without neighbours keeps its empty set.
    similarity = np.where(n_union > 0, n_common / np.maximum(n_union, 1), 1.0)
    return similarity, 1.0 - len(common) / max(len(after), 1) if len(after) else 0.0
