"""Harmonic modes for people and programs: tables, JSON, CSV, a figure of sticks, the modes as structures that move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from matplotlib.figure import Figure

from dtmd.analysis.harmonic import DEGENERATE, Match, Modes
from dtmd.analysis.output import described, write_csv, write_json, write_structures
from dtmd.named_calculators import NamedCalculator
from dtmd.presentation.figures import CYCLE, PRINT_STYLE, write_figure
from dtmd.presentation.numbers import NOTHING, fixed, number

NAME = "harmonic"
SWING = 0.3
"""Å that the atom moves at most which moves most; a matter of viewing alone."""
FRAMES = 20
"""Of one period."""

DEFINITION = (
    "wavenumbers in cm⁻¹, imaginary ones marked i (negative in the files); modes are paired by their overlap (e·e')², "
    f"summed over modes within {DEGENERATE:g} cm⁻¹; Δ: less the reference. ZPE: ½ Σ hcν over the real modes. rigid: "
    "the largest wavenumber of the translations and turns that were projected out, zero but for finite displacements"
)


@dataclass(frozen=True)
class Harmonic:
    """Modes of all models; the first is the reference, `matches` are of the others."""

    models: Sequence[Modes]
    matches: Sequence[Match]

    def differences(self, k: int) -> np.ndarray:
        """cm⁻¹, of the k-th match less the reference, NaN where a mode has no partner, (M,)."""
        partners = self.matches[k].partners
        own = np.append(self.models[k + 1].wavenumbers, np.nan)[partners]
        return own - self.models[0].wavenumbers


def mode_table(result: Harmonic) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: one row per mode of the reference, in cm⁻¹."""
    titles = ["mode", result.models[0].label]
    for other in result.models[1:]:
        titles += [other.label, "Δ", "overlap"]
    rows = [[str(k + 1), wavenumber_text(value)] for k, value in enumerate(result.models[0].wavenumbers)]
    for k, (other, match) in enumerate(zip(result.models[1:], result.matches, strict=True)):
        for row, partner, overlap, apart in zip(
            rows, match.partners, match.overlaps, result.differences(k), strict=True
        ):
            row += [wavenumber_text(other.wavenumbers[partner]), _signed(apart), fixed(overlap, 2)] if partner >= 0 \
                else [NOTHING] * 3
    return titles, rows


def model_table(result: Harmonic) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: one row per model."""
    titles = ["model", "energy (eV)", "steps", "largest force (eV/Å)", "modes", "imaginary", "ZPE (eV)",
              "rigid (cm⁻¹)", "mean |Δ|", "max |Δ|", "RMSD (Å)"]
    rows = []
    for k, modes in enumerate(result.models):
        compared = [NOTHING] * 3
        if k > 0:
            apart = np.abs(result.differences(k - 1))
            compared = [fixed(np.nanmean(apart), 1), fixed(np.nanmax(apart), 1), number(result.matches[k - 1].rmsd)]
        rows.append([
            modes.label, fixed(modes.energy, 4), NOTHING if modes.n_steps is None else str(modes.n_steps),
            f"{modes.largest_force:.1e}", str(len(modes.wavenumbers)), str(int((modes.wavenumbers < 0.0).sum())),
            fixed(modes.zero_point_energy, 4), fixed(np.abs(modes.rigid).max(initial=0.0), 1), *compared,
        ])
    return titles, rows


def harmonic_notes(result: Harmonic, fmax: float) -> list[str]:
    """What the tables mean, and what a reader must know; fmax in eV/Å is what a relaxed structure is below."""
    lines = [DEFINITION]
    for modes in result.models:
        if modes.largest_force > 1.1 * fmax:
            lines.append(f"warning: {modes.label}: forces up to {modes.largest_force:.2g} eV/Å: no minimum of the "
                         "energy, where low wavenumbers mean little")
        n_imaginary = int((modes.wavenumbers < 0.0).sum())
        if n_imaginary:
            lines.append(f"warning: {modes.label}: {n_imaginary} imaginary, the largest "
                         f"{wavenumber_text(modes.wavenumbers[0])} cm⁻¹: along them the energy falls")
    return lines


def write_harmonic(
    result: Harmonic, named: Sequence[NamedCalculator], settings: Mapping[str, Any], fmax: float, folder: Path
) -> list[Path]:
    """Write harmonic.json, .csv, .png, .svg and a folder of modes for each model; raises as `written_whole`.

    Args:
        named: what the models are, in the order of the result.
        settings: to be kept in the JSON.
        fmax: as of `harmonic_notes`.

    Returns:
        The files and folders.
    """
    paths = [folder / f"{NAME}.{suffix}" for suffix in ("json", "csv", "png", "svg")]
    write_json(paths[0], {
        "units": "cm⁻¹, eV, Å", "definition": DEFINITION, "settings": dict(settings),
        "models": [described(model) | _content(modes) for model, modes in zip(named, result.models, strict=True)],
        "reference": result.models[0].label,
        "matches": [{
            "label": modes.label, "rmsd": match.rmsd, "overlaps": match.overlaps.tolist(),
            "partners": [int(partner) + 1 if partner >= 0 else None for partner in match.partners],
        } for modes, match in zip(result.models[1:], result.matches, strict=True)],
        "notes": harmonic_notes(result, fmax),
    })
    write_csv(paths[1], *_csv(result))
    with mpl.rc_context(PRINT_STYLE):
        write_figure(_figure(result), paths[2:])
    for model, modes in zip(named, result.models, strict=True):
        paths.append(folder / f"modes_{model.slug}")
        _write_modes(modes, paths[-1])
    return paths


def wavenumber_text(value: float) -> str:
    """A wavenumber in cm⁻¹, an imaginary one with an i."""
    return fixed(value, 1) if value >= 0.0 else f"{fixed(-value, 1)}i"


def _signed(value: float) -> str:
    text = fixed(value, 1)
    return text if text.startswith("−") else f"+{text}"


def _content(modes: Modes) -> dict[str, Any]:
    return {
        "energy": modes.energy, "relaxation_steps": modes.n_steps, "largest_force": modes.largest_force,
        "wavenumbers": modes.wavenumbers.tolist(), "n_imaginary": int((modes.wavenumbers < 0.0).sum()),
        "zero_point_energy": modes.zero_point_energy, "rigid_wavenumbers": modes.rigid.tolist(),
        "hessian_asymmetry_eV_per_A2": modes.asymmetry, "positions": modes.atoms.positions.tolist(),
    }


def _csv(result: Harmonic) -> tuple[list[str], list[list[object]]]:
    """One line per model and mode; those of the reference that it is paired with are empty for the reference."""
    titles = ["model", "mode", "wavenumber_cm-1", "reference_mode", "reference_cm-1", "difference_cm-1", "overlap"]
    reference = result.models[0]
    rows = [[reference.label, k + 1, float(value), "", "", "", ""] for k, value in enumerate(reference.wavenumbers)]
    for modes, match in zip(result.models[1:], result.matches, strict=True):
        paired = {int(partner): k for k, partner in enumerate(match.partners)}
        for k, value in enumerate(modes.wavenumbers):
            row, there = [modes.label, k + 1, float(value)], paired.get(k)
            rows.append(row + ([""] * 4 if there is None else [
                there + 1, float(reference.wavenumbers[there]), float(value - reference.wavenumbers[there]),
                float(match.overlaps[there]),
            ]))
    return titles, rows


def _figure(result: Harmonic) -> Figure:
    """A panel of sticks for each model, imaginary modes dashed and left of zero."""
    n_models = len(result.models)
    figure = Figure(figsize=(6.6, 0.9 + 0.85 * n_models), layout="constrained", dpi=300)
    panels = figure.subplots(n_models, 1, sharex=True, squeeze=False)[:, 0]
    for k, (axes, modes) in enumerate(zip(panels, result.models, strict=True)):
        real = modes.wavenumbers >= 0.0
        colour = CYCLE[k % len(CYCLE)]
        axes.vlines(modes.wavenumbers[real], 0.0, 1.0, color=colour, linewidth=0.9)
        axes.vlines(modes.wavenumbers[~real], 0.0, 1.0, color=colour, linewidth=0.9, linestyle="dashed")
        axes.axvline(0.0, color="#000000", linewidth=0.5)
        axes.set_ylim(0.0, 1.0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(modes.label, loc="left", fontsize="medium", pad=2.0)
    imaginary = any((modes.wavenumbers < 0.0).any() for modes in result.models)
    panels[-1].set_xlabel("wavenumber (cm⁻¹)" + (", imaginary ones negative and dashed" if imaginary else ""))
    return figure


def _write_modes(modes: Modes, folder: Path) -> None:
    """The structure, and one file for each mode with a period of its motion and its direction as a vector."""
    structure = modes.atoms.copy()
    structure.calc = SinglePointCalculator(structure, energy=modes.energy)
    write_structures(folder / "structure.extxyz", [structure])
    phases = np.sin(2.0 * np.pi * np.arange(FRAMES) / FRAMES)
    for k, (value, direction) in enumerate(zip(modes.wavenumbers, modes.displacements, strict=True)):
        images = []
        for phase in phases:
            image = modes.atoms.copy()
            image.positions += SWING * phase * direction
            image.set_array("displacement", direction)
            image.info = {"mode": k + 1, "wavenumber_cm-1": float(value)}
            images.append(image)
        write_structures(folder / f"mode_{k + 1:03d}.extxyz", images)
