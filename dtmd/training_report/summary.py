"""The page of a run: what was trained, how it went, what to do next; from the files of its folder alone."""

from __future__ import annotations

import shlex
from pathlib import Path

from dtmd.config import TrainConfig, dump_config, load_config
from dtmd.files import write_text
from dtmd.presentation.numbers import NOTHING, clock, now
from dtmd.presentation.page import render_page
from dtmd.training_report.about import read_about
from dtmd.training_report.curves import draw_learning_curves, learning_curves_for_page
from dtmd.training_report.records import best_of, elements_of, read_records, stages

CONFIG, SUMMARY = "config.yaml", "summary.html"
FIGURES = ("learning_curves.png", "learning_curves.svg")

_TEMPLATE = "training_report/summary.html"


def write_summary(run_dir: Path) -> list[Path]:
    """Write learning_curves.png, .svg and summary.html of a run, finished or not, each whole.

    Raises:
        DtmdError: no run of dtmd train, or one without an epoch; the folder cannot be written.
    """
    records, config, about = read_records(run_dir), load_config(run_dir / CONFIG), read_about(run_dir)
    paths = [run_dir / name for name in (*FIGURES, SUMMARY)]
    draw_learning_curves(records, paths[:2])
    write_text(paths[2], summary_html(records, config, about, run_dir))
    return paths


def summary_html(records: list[dict], config: TrainConfig, about: dict, run_dir: Path) -> str:
    """The page as one HTML text with figures and style inside.

    Args:
        records: of the epochs, at least one.
        about: see `dtmd.training_report.about`.
        run_dir: as the commands to go on with name it.
    """
    return render_page(
        _TEMPLATE, {"clock": clock, "error": _error}, stages=stages(records), best=best_of(records), last=records[-1],
        elements=elements_of(records), config=config, settings=dump_config(config), about=about,
        run=shlex.quote(str(run_dir)), created=now(), seconds=sum(record["seconds"] for record in records),
        figures=learning_curves_for_page(records),
    )


def _error(value: float | None) -> str:
    """An error in eV/Å for a table."""
    return NOTHING if value is None else f"{value:.4f}"
