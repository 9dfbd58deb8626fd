"""For how many steps neighbour lists may be kept: Jaccard similarity of neighbour sets (article eq. 15, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase.data import atomic_numbers
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.errors import DtmdError
from dtmd.files import write_text, written_whole
from dtmd.neighbor_sets import NeighborSets, jaccard
from dtmd.trajectory import Trajectory

SIMILAR = 0.95
"""Jaccard similarity above which a neighbour set is taken for another."""

FIGURE_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class NeighborSimilarity:
    """Neighbour sets (`NeighborSets`) against those k frames later; N atoms, K offsets.

    Attributes:
        symbols: of the atoms.
        cutoff: Å.
        jaccard: |A ∩ B| / |A ∪ B| (article eq. 15) of each atom at offsets 1 … K, mean over the start
            frames, (K, N).
        missing: share of the pairs within the cutoff that the earlier sets lack, mean over the start frames, (K,).
        skins: twice the largest displacement of an atom within so many frames, Å, (K,); a list with such a skin
            has all pairs while it is kept, in a constant cell.
        timestep: between frames, fs.
        n_starts, n_trajectories: start frames, spread evenly, and the trajectories that they are from.
    """

    symbols: list[str]
    cutoff: float
    jaccard: np.ndarray
    missing: np.ndarray
    skins: np.ndarray
    timestep: float
    n_starts: int
    n_trajectories: int

    @property
    def elements(self) -> list[str]:
        """By atomic number."""
        return sorted(set(self.symbols), key=atomic_numbers.__getitem__)

    @property
    def n_steps(self) -> int:
        """Frames for which lists may be kept: the similarity of no atom falls to SIMILAR up to there."""
        below = np.flatnonzero(self.jaccard.min(axis=1) <= SIMILAR)
        return int(below[0]) if len(below) else len(self.jaccard)

    def of_element(self, element: str) -> np.ndarray:
        """Similarities of the atoms of one element, (K, n)."""
        return self.jaccard[:, [symbol == element for symbol in self.symbols]]


def by_atoms(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Trajectories with the same atoms in the same order, together."""
    systems: dict[bytes, list[Trajectory]] = {}
    for trajectory in trajectories:
        systems.setdefault(trajectory.numbers.tobytes(), []).append(trajectory)
    return list(systems.values())


def neighbor_similarity(
    trajectories: Sequence[Trajectory], cutoff: float, n_offsets: int = 10, n_starts: int = 500
) -> NeighborSimilarity:
    """Compare the neighbour sets of frames with those of the `n_offsets` frames after them.

    Args:
        trajectories: with the same atoms.
        cutoff: Å.
        n_offsets: K.
        n_starts: start frames at most, spread evenly over all trajectories.

    Raises:
        DtmdError: other atoms, or no trajectory of more than `n_offsets` frames.
    """
    atoms = trajectories[0].numbers
    other = next((t for t in trajectories if not np.array_equal(t.numbers, atoms)), None)
    if other is not None:
        raise DtmdError(f"{other.source}: has other atoms than {trajectories[0].source}; give those of one system")
    used = [t for t in trajectories if len(t) > n_offsets]
    if not used:
        raise DtmdError(f"{trajectories[0].source}: no trajectory has more than {n_offsets} frames; "
                        "ask for fewer offsets")
    ends = np.cumsum([len(t) - n_offsets for t in used])
    chosen = np.unique(np.linspace(0, ends[-1] - 1, n_starts).round().astype(int))
    sets = NeighborSets(cutoff)
    similarities, missing, moved = np.zeros((n_offsets, len(atoms))), np.zeros(n_offsets), np.zeros(n_offsets)
    for start in chosen:
        which = int(np.searchsorted(ends, start, side="right"))
        first = int(start - (ends[which - 1] if which else 0))
        window = used[which].window(first, first + n_offsets + 1)
        found = [sets.of(window, k) for k in range(n_offsets + 1)]
        for k in range(n_offsets):
            similarity, lacking = jaccard(found[0], found[k + 1], len(atoms))
            similarities[k] += similarity
            missing[k] += lacking
        moves = np.linalg.norm(window.positions[1:] - window.positions[0], axis=2).max(axis=1)
        moved = np.maximum(moved, moves)
    return NeighborSimilarity(
        used[0].symbols, cutoff, similarities / len(chosen), missing / len(chosen),
        2.0 * np.maximum.accumulate(moved), used[0].timestep, len(chosen), len(used),
    )


def similarity_text(similarity: NeighborSimilarity) -> str:
    """The similarities by element, and for how long lists may be kept."""
    s = similarity
    lines = [f"Jaccard similarity of neighbour sets (neighbours with their periodic images, cutoff {s.cutoff:g} Å), "
             f"mean over {s.n_starts} start frames of {s.n_trajectories} trajectories",
             "frames later  " + "".join(f"{element + ' lowest':>12}{element + ' mean':>12}" for element in s.elements)
             + "  pairs missing  skin, Å"]
    for k, (missing, skin) in enumerate(zip(s.missing, s.skins, strict=True)):
        values = [(s.of_element(element)[k].min(), s.of_element(element)[k].mean()) for element in s.elements]
        lines.append(f"{k + 1:>12}  " + "".join(f"{low:12.4f}{mean:12.4f}" for low, mean in values)
                     + f"{100 * missing:13.3f} %{skin:9.3f}")
    k = s.n_steps
    if k == 0:
        lines.append(f"Build neighbour lists at every frame: one frame later an atom is at {SIMILAR} or below.")
    else:
        limit = "; more was not looked at" if k == len(s.jaccard) else ""
        lines.append(
            f"Neighbour lists may be kept for {k} frames ({k * s.timestep:g} fs): up to there the similarity of "
            f"every atom is above {SIMILAR}{limit}. A list with a skin of {s.skins[k - 1]:.2f} Å, twice the "
            "largest displacement, would have missed no pair.")
    return "\n".join(lines)


def write_similarity_csv(similarity: NeighborSimilarity, path: Path) -> None:
    """One row per atom, counted from 1, one column per offset; raises as `write_text`."""
    rows = ["atom,element," + ",".join(f"after_{k + 1}" for k in range(len(similarity.jaccard)))]
    for k, (symbol, values) in enumerate(zip(similarity.symbols, similarity.jaccard.T, strict=True)):
        rows.append(f"{k + 1},{symbol}," + ",".join(f"{value:.6f}" for value in values))
    write_text(path, "\n".join(rows) + "\n")


def draw_similarity(similarity: NeighborSimilarity, path: Path) -> None:
    """Similarity against the atoms, one curve per offset (article Fig. 5).

    Raises:
        DtmdError: an unknown kind of file, or one that cannot be written.
    """
    if path.suffix not in FIGURE_FORMATS:
        raise DtmdError(f"{path}: unknown kind of figure; end the name in {', '.join(FIGURE_FORMATS)}")
    with mpl.rc_context({"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained", dpi=150)
        axes = figure.add_subplot()
        edges = _edges(similarity.symbols)
        atoms = np.insert(np.arange(1.0, len(similarity.symbols) + 1), edges[1:-1], np.nan)
        offsets = np.unique(np.linspace(1, len(similarity.jaccard), 10).round().astype(int))
        colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.92, len(offsets)))
        for offset, colour in zip(offsets, colours, strict=True):
            values = np.insert(similarity.jaccard[offset - 1], edges[1:-1], np.nan)
            axes.plot(atoms, values, color=colour, linewidth=1.2, marker="o", markersize=2.2,
                      label=f"{offset} ({offset * similarity.timestep:g} fs)")
        axes.axhline(SIMILAR, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        _mark_elements(axes, similarity.symbols, edges)
        axes.set_xlim(0.0, len(similarity.symbols) + 1.0)
        axes.set_ylim(top=1.002)
        axes.set_xlabel("atom (counted from 1)")
        axes.set_ylabel(f"Jaccard similarity of neighbours within {similarity.cutoff:g} Å")
        axes.legend(title="frames later", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:])


def _edges(symbols: list[str]) -> list[int]:
    """Where each stretch of atoms of one element begins, and the end of the last."""
    return [0, *(k for k in range(1, len(symbols)) if symbols[k] != symbols[k - 1]), len(symbols)]


def _mark_elements(axes: Axes, symbols: list[str], edges: list[int]) -> None:
    """Name the stretches above the axes, every second one on grey."""
    for number, (begin, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        if number % 2 == 0:
            axes.axvspan(begin + 0.5, end + 0.5, color="#eeeeee", zorder=0, linewidth=0)
        if end - begin >= len(symbols) / 60:
            axes.text((begin + end + 1) / 2, 1.01, symbols[begin], transform=axes.get_xaxis_transform(), ha="center")
