"""Scans for people and programs: a table, JSON, CSV, a figure, the structures with their energies and forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from ase import Atoms
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtmd.analysis import scan as scans
from dtmd.analysis.output import described, write_csv, write_json, write_structures
from dtmd.analysis.scan import Scan, TooNear
from dtmd.named_calculators import NamedCalculator
from dtmd.presentation.figures import CYCLE, PRINT_STYLE, legend_above, write_figure
from dtmd.presentation.numbers import NOTHING, fixed

NAME = "scan"

DEFINITION = (
    "ΔE: energy relative to the end of the path where the group is farther from the rest, eV; force: on the group "
    "along the path, −dE/ds, eV/Å; max |ΔΔE|: largest difference of ΔE from that of the first model, eV"
)


def scan_table(results: Sequence[Scan], path: scans.Path) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: one row per model."""
    titles = ["model", "lowest ΔE (eV)", "at (Å)", "highest ΔE (eV)", "at (Å)", "force at the far end (eV/Å)",
              "max |ΔΔE|"]
    rows = []
    for k, result in enumerate(results):
        low, high = int(result.energies.argmin()), int(result.energies.argmax())
        apart = fixed(np.abs(result.energies - results[0].energies).max(), 4) if k else NOTHING
        rows.append([
            result.label, fixed(result.energies[low], 4), fixed(path.values[low], 3), fixed(result.energies[high], 4),
            fixed(path.values[high], 3), fixed(result.forces[result.far], 4), apart,
        ])
    return titles, rows


def scan_notes(results: Sequence[Scan], path: scans.Path) -> list[str]:
    """What the table means, and where a model is asked for what it has not learned."""
    lines = [f"{path.name}, {len(path.values)} points from {path.values[0]:g} to {path.values[-1]:g} Å. {DEFINITION}"]
    for result in results:
        lines += [f"warning: {result.label}: {near.pair} as near as {near.nearest:.3f} Å, in its training data never "
                  f"nearer than {near.known:.3f} Å: {_where(near, path.values)}" for near in result.too_near or []]
    unknown = [result.label for result in results if result.too_near is None]
    if unknown:
        lines.append(f"distances in the training data are not known, and not looked at, of: {', '.join(unknown)}")
    return lines


def write_scan(
    results: Sequence[Scan], path: scans.Path, atoms: Atoms, named: Sequence[NamedCalculator],
    settings: Mapping[str, Any], folder: Path,
) -> list[Path]:
    """Write scan.json, .csv, .png, .svg and the path of each model as extxyz; raises as `written_whole`.

    Args:
        atoms: the structure that was scanned.
        named: what the models are, in the order of the results.
        settings: to be kept in the JSON.

    Returns:
        The files.
    """
    paths = [folder / f"{NAME}.{suffix}" for suffix in ("json", "csv", "png", "svg")]
    write_json(paths[0], {
        "units": "eV, Å", "definition": DEFINITION, "settings": dict(settings), "path": path.name,
        "group": (path.group + 1).tolist(), "direction": path.direction.tolist(), "values": path.values.tolist(),
        "models": [described(model) | _content(result) for model, result in zip(named, results, strict=True)],
        "notes": scan_notes(results, path),
    })
    write_csv(paths[1], ["model", "value_A", "energy_eV", "force_eV_per_A", "gap_A", "too_near"], [
        [result.label, *map(float, numbers), "" if result.too_near is None else int(unseen)] for result in results
        for *numbers, unseen in zip(path.values, result.energies, result.forces, result.gaps, result.unseen,
                                    strict=True)
    ])
    with mpl.rc_context(PRINT_STYLE):
        write_figure(_figure(results, path), paths[2:])
    for model, result in zip(named, results, strict=True):
        paths.append(folder / f"{NAME}_{model.slug}.extxyz")
        write_structures(paths[-1], _images(result, path, atoms))
    return paths


def _content(result: Scan) -> dict[str, Any]:
    return {
        "energies": result.energies.tolist(), "far_energy": result.far_energy, "forces": result.forces.tolist(),
        "gaps": result.gaps.tolist(),
        "too_near": None if result.too_near is None else [
            {"pair": near.pair, "nearest": near.nearest, "known": near.known,
             "points": np.flatnonzero(near.points).tolist()} for near in result.too_near
        ],
    }


def _where(near: TooNear, values: np.ndarray) -> str:
    there = values[near.points]
    return f"at {len(there)} of {len(values)} points, {there.min():g} to {there.max():g} Å"


def _images(result: Scan, path: scans.Path, atoms: Atoms) -> list[Atoms]:
    images = []
    for value, positions, energy, force in zip(
        path.values, result.positions, result.energies, result.forces, strict=True
    ):
        image = atoms.copy()
        image.set_constraint()
        image.positions = positions
        image.info = {"value_A": float(value), "relative_energy_eV": float(energy), "force_eV_per_A": float(force)}
        images.append(image)
    return images


def _figure(results: Sequence[Scan], path: scans.Path) -> Figure:
    """Energy, and below it the force along the path; hollow where a pair is nearer than in the training data."""
    figure = Figure(figsize=(6.6, 4.4), layout="constrained", dpi=300)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1.0))
    for k, result in enumerate(results):
        colour = CYCLE[k % len(CYCLE)]
        _draw(upper, path.values, result.energies, result.unseen, colour, result.label)
        _draw(lower, path.values, result.forces, result.unseen, colour, result.label)
    for axes in (upper, lower):
        axes.axhline(0.0, color="#000000", linewidth=0.5)
    upper.set_ylabel("ΔE (eV)")
    lower.set_ylabel("force (eV/Å)")
    lower.set_xlabel(f"{path.name} (Å)" + (
        "; hollow: nearer than in the training data" if any(result.unseen.any() for result in results) else ""))
    figure.align_ylabels([upper, lower])
    legend_above(upper, 4)
    return figure


def _draw(axes: Axes, x: np.ndarray, y: np.ndarray, unseen: np.ndarray, colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, label=label)
    axes.plot(x[~unseen], y[~unseen], color=colour, linestyle="none", marker="o", markersize=3.0)
    axes.plot(x[unseen], y[unseen], color=colour, linestyle="none", marker="o", markersize=3.0,
              markerfacecolor="white")
