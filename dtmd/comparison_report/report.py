"""Writes the report of a comparison into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dtmd.comparison_report.curves import side_names
from dtmd.comparison_report.data import file_names, metrics_json, write_csv
from dtmd.comparison_report.figures import draw
from dtmd.comparison_report.header import Header
from dtmd.comparison_report.page import report_html
from dtmd.files import write_text
from dtmd.observables.section import Section

REPORT, METRICS, FIGURES, CURVES = "report.html", "metrics.json", "figures", "curves"


def write_report(sections: Sequence[Section], header: Header, folder: Path | str) -> Path:
    """Write `report.html`, `metrics.json`, `figures/NAME.png` and `.svg`, `curves/NAME.csv`, each whole or not at all.

    Args:
        sections: in the order of the report.
        header: what was compared.
        folder: created if needed.

    Returns:
        The path of the report, which is written last.

    Raises:
        DtmdError: the folder cannot be written, or two plots have one name.
    """
    folder = Path(folder)
    sides = side_names(sections, header)
    plots = [plot for section in sections for plot in section.plots]
    names = file_names(plots)
    write_text(folder / METRICS, metrics_json(sections, header))
    for plot, name in zip(plots, names, strict=True):
        write_csv(plot, folder / CURVES / f"{name}.csv")
        draw(plot, sides, [folder / FIGURES / f"{name}.{suffix}" for suffix in ("png", "svg")])
    write_text(folder / REPORT, report_html(sections, header))
    return folder / REPORT
