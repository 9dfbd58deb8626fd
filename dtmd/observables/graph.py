"""What hangs together."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected(n_nodes: int, links: np.ndarray) -> np.ndarray:
    """The piece, from 0, that each node belongs to by links (L, 2); shape (n_nodes,)."""
    first, second = links.astype(np.int32).T  # csgraph takes no other integers
    graph = coo_array((np.ones(len(links)), (first, second)), shape=(n_nodes, n_nodes))
    return connected_components(graph, directed=False)[1]
