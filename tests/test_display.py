"""The time that is left."""

import logging

from rich.console import Console

from dtmd.config import CurriculumConfig
from dtmd.curriculum import Progress
from dtmd.display import TrainingDisplay

RECORD = {"epoch": 0, "S": 1, "learning_rate": 1e-3, "loss": 0.5, "validation": {"mepa": 0.25}, "best_of_stage": True}


def line_after_one_epoch(config: CurriculumConfig, monkeypatch, caplog) -> str:
    clock = iter([0.0] + [20.0] * 20)
    monkeypatch.setattr("dtmd.display.time.monotonic", lambda: next(clock))
    display = TrainingDisplay(Console(), config)
    for done in range(1, 11):
        display.batch_done(0, done, 10, Progress(stage=0, learning_rate=1e-3), float("inf"))
    with caplog.at_level(logging.INFO, "dtmd"):
        display.epoch_done(RECORD, 10, Progress(stage=0, learning_rate=1e-3, epochs_in_stage=1))
    return caplog.messages[-1]


def test_the_bound_counts_epochs_and_frames(monkeypatch, caplog):
    # 10 batches took 20 s: 2 s per batch and frame; left are 2 epochs of S = 1 and 1 of S = 4
    config = CurriculumConfig(lengths=[1, 4], max_epochs=[3, 1])
    line = line_after_one_epoch(config, monkeypatch, caplog)
    assert "at most 0:02:00 left" in line and "best of S" in line


def test_before_the_first_update_nothing_is_known(caplog):
    """As after an interruption in a validation, which then comes first."""
    display = TrainingDisplay(Console(), CurriculumConfig(lengths=[1]))
    with caplog.at_level(logging.INFO, "dtmd"):
        display.epoch_done(RECORD, 10, Progress(stage=0, learning_rate=1e-3, epochs_in_stage=1))
    assert "left" not in caplog.messages[-1]


def test_without_a_limit_the_epoch_is_what_is_known(monkeypatch, caplog):
    line = line_after_one_epoch(CurriculumConfig(lengths=[1, 2]), monkeypatch, caplog)
    assert "0:00:20 to the end of the epoch" in line
