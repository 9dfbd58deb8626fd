"""The report as data: figures for the page, curves as CSV, everything as JSON."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from pathlib import Path

import numpy as np

from dtmd.comparison_report.curves import Group, groups, points_per_curve, thinned
from dtmd.comparison_report.header import Header
from dtmd.errors import DtmdError
from dtmd.files import written_whole
from dtmd.observables.section import AIMD, Curve, Map, Plot, Section

DIGITS = 7
_DIGITS_DRAWN = 6
"""Enough to zoom into a thousandth of an axis."""
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
N_COLOURS = 8


def metrics_json(sections: Sequence[Section], header: Header) -> str:
    """All numbers, curves, densities and texts; numbers that are not finite as null."""
    content = {"header": plain(header), "sections": plain(sections)}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def file_names(plots: Sequence[Plot | Map]) -> list[str]:
    """The name of each plot as that of a file: letters, digits, dashes, and underscores for all else.

    Raises:
        DtmdError: two plots come to one name.
    """
    names = [re.sub(r"[^\w-]+", "_", plot.name).strip("_") or "figure" for plot in plots]
    twice = [name for name, n in Counter(name.lower() for name in names).items() if n > 1]
    if twice:
        raise DtmdError(f"two figures would be written to {twice[0]}; give each figure of the report its own name")
    return names


def write_csv(plot: Plot | Map, path: Path) -> None:
    """All points of a plot, one a line; raises as `written_whole`."""
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if isinstance(plot, Map):
            writer.writerow(["side", plot.x_label, plot.y_label, "density"])
            x, y = (0.5 * (edges[1:] + edges[:-1]) for edges in (plot.x, plot.y))
            for side, density in plot.density.items():
                for (i, j), value in np.ndenumerate(density):
                    writer.writerow([side, *_texts((x[i], y[j], value))])
            return
        writer.writerow(["side", "run", "curve", plot.x_label, plot.y_label, "low", "high"])
        for curve in plot.curves:
            names = [curve.side, curve.run, curve.label]
            nothing = np.full(len(curve.x), np.nan)
            low, high = (nothing if band is None else band for band in (curve.low, curve.high))
            writer.writerows([*names, *_texts(point)] for point in zip(curve.x, curve.y, low, high, strict=True))


def figure_data(plot: Plot | Map, file_name: str, sides: Sequence[str]) -> dict[str, object]:
    """What the script of the page draws: points as many as can be seen, colours as names in its style."""
    texts = {"name": file_name, "caption": plot.caption, "xLabel": plot.x_label, "yLabel": plot.y_label}
    if isinstance(plot, Map):
        panels = [{"side": side, "density": _drawn(density, 4)} for side, density in plot.density.items()]
        return {**texts, "kind": "map", "x": _drawn(plot.x), "y": _drawn(plot.y), "panels": panels}
    limit = points_per_curve(len(plot.curves))
    marks = {"horizontal": plot.horizontal, "vertical": plot.vertical}
    return {
        **texts, "kind": "curves", "fromZero": plot.from_zero, "log": plot.log,
        "groups": [_group_data(group, limit) for group in groups(plot, sides)],
        **{kind: [[label, plain(float(at))] for label, at in by_label.items()] for kind, by_label in marks.items()},
    }


def colour_name(place: int | None) -> str:
    """Of a side's place in the style of the page; None is the AIMD."""
    return "var(--line-aimd)" if place is None else f"var(--line-{place % N_COLOURS})"


def side_colours(sides: Sequence[str]) -> dict[str, str]:
    """The colour of each side and of the AIMD in the style of the page."""
    return {AIMD: colour_name(None), **{side: colour_name(k) for k, side in enumerate(sides)}}


def plain(value: object) -> object:
    """Dataclasses, arrays and verdicts as JSON types; numbers with seven digits, None where not finite."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return None if value is None else str(value)


def _group_data(group: Group, limit: int) -> dict[str, object]:
    return {
        "label": group.label, "colour": colour_name(group.colour), "dash": _DASHES[group.dash % len(_DASHES)],
        "reference": group.colour is None, "thin": group.thin,
        "curves": [_curve_data(curve, limit) for curve in group.curves],
    }


def _curve_data(curve: Curve, limit: int) -> dict[str, object]:
    shown = thinned(curve, limit)
    made: dict[str, object] = {"run": curve.run, "x": _drawn(shown.x), "y": _drawn(shown.y)}
    if shown.low is not None and shown.high is not None:
        made |= {"low": _drawn(shown.low), "high": _drawn(shown.high)}
    return made


def _drawn(values: np.ndarray, digits: int = _DIGITS_DRAWN) -> list:
    """Numbers as short as they can be; whole ones without a point."""
    if np.ndim(values) > 1:
        return [_drawn(row, digits) for row in values]
    rounded = (float(f"{v:.{digits}g}") if isfinite(v) else None for v in np.asarray(values, dtype=float).tolist())
    return [int(v) if v is not None and v == int(v) else v for v in rounded]


def _texts(values: Sequence[float]) -> list[str]:
    return [f"{value:.{DIGITS}g}" if isfinite(value) else "" for value in values]
