"""The time that is left, and the table of the last epochs."""

import io
import logging
import math

import pytest
from rich.console import Console

from dtmd.config import CurriculumConfig
from dtmd.curriculum import Progress
from dtmd.display import TrainingDisplay, epoch_table

RECORD = {
    "epoch": 0, "S": 1, "learning_rate": 1e-3, "loss": 0.5, "best_of_stage": True, "seconds": 83.0,
    "validation": {"mepa": 0.25, "by_species": {"H": 0.2, "Pd": 0.05}},
}
DIVERGED = RECORD | {"epoch": 1, "validation": {"mepa": None, "diverged": True}, "best_of_stage": False}
LIMITED = CurriculumConfig(lengths=[1, 4], max_epochs=[3, 1])


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr("dtmd.display.time.monotonic", lambda: now[0])
    return now


def one_epoch(display, clock, n_batches=10):
    """Ten batches of two seconds each, unless fewer are left, and a validation of five."""
    start = Progress(stage=0, learning_rate=1e-3)
    for done in range(11 - n_batches, 11):
        clock[0] += 2.0
        display.batch_done(0, done, 10, start, math.inf)
    display.validating()
    clock[0] += 5.0
    display.epoch_done(RECORD, 10, Progress(stage=0, learning_rate=1e-3, epochs_in_stage=1))


def lines(config, clock, caplog, **options):
    caplog.set_level(logging.INFO, "dtmd")
    display = TrainingDisplay(Console(file=io.StringIO()), config)
    clock[0] += 50.0  # the data are read in between
    with display:
        one_epoch(display, clock, **options)
    return caplog.messages[-1]


def test_the_bound_counts_epochs_frames_and_validations(clock, caplog):
    """2 s per batch and frame; left are 2 epochs of S = 1 and 1 of S = 4, and three validations of 5 s."""
    line = lines(LIMITED, clock, caplog)
    assert "at most 0:02:15 left" in line and "MEPA 0.2500 eV/Å" in line and "best of S" in line


def test_an_epoch_that_was_begun_by_a_killed_process_does_not_distort_the_bound(clock, caplog):
    assert "at most 0:02:15 left" in lines(LIMITED, clock, caplog, n_batches=3)


def test_a_run_that_goes_on_with_a_validation_has_no_bound_yet(clock, caplog):
    assert "left" not in lines(LIMITED, clock, caplog, n_batches=0)


def test_without_a_limit_the_epoch_is_what_is_known(clock, caplog):
    assert "0:00:20 to the validation" in lines(CurriculumConfig(lengths=[1, 2]), clock, caplog)


def test_a_terminal_has_a_table_and_no_lines(clock, caplog):
    caplog.set_level(logging.INFO, "dtmd")
    screen = io.StringIO()
    with TrainingDisplay(Console(file=screen, force_terminal=True, width=100), LIMITED) as display:
        one_epoch(display, clock)
    assert caplog.records[-1].shown  # the log file has the line, the console leaves it out
    assert "MEPA" in screen.getvalue() and "0:01:23" in screen.getvalue()


def test_the_table():
    screen = io.StringIO()
    Console(file=screen, width=80).print(epoch_table([DIVERGED, RECORD]))
    titles, _, first, second = [line.split() for line in screen.getvalue().splitlines() if line.strip()]
    assert titles == ["epoch", "S", "lr", "loss", "MEPA", "H", "Pd", "time"]
    assert first == ["1", "1", "1.0e-03", "0.5000", "diverged", "–", "–", "0:01:23"]
    assert second == ["0", "1", "1.0e-03", "0.5000", "0.2500", "0.2000", "0.0500", "0:01:23", "best"]
