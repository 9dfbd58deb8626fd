"""The curriculum as a table of epochs."""

import math

from dtmd.config import CurriculumConfig
from dtmd.curriculum import after_epoch, begin, next_stage, stage_converged

CONFIG = CurriculumConfig(lengths=[1, 2, 4], patience=1, decay=0.1, learning_rate=1e-3,
                          reset_learning_rate=1e-4, minimum_learning_rate=5e-5)


def run(metrics, config=CONFIG):
    progress, history = begin(config), []
    for metric in metrics:
        progress = after_epoch(progress, metric, config)
        history.append((config.lengths[progress.stage], progress.learning_rate, progress.improved))
        if stage_converged(progress, config):
            progress = next_stage(progress, config)
    return progress, history


def test_the_rate_falls_on_a_plateau_then_the_subsequences_grow():
    progress, history = run([1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.8])
    assert history == [
        (1, 1e-3, True), (1, 1e-3, True), (1, 1e-3, False), (1, 1e-4, False), (1, 1e-4, False),
        (1, 5e-5, False), (1, 5e-5, True),
    ]
    assert progress.stage == 0 and progress.best == 0.8


def test_a_stage_ends_when_the_patience_runs_out_at_the_minimum_rate():
    progress, history = run([1.0] + [2.0] * 6)
    assert history[-1][1] == 5e-5
    assert progress.stage == 1 and progress.learning_rate == CONFIG.reset_learning_rate
    assert math.isinf(progress.best)


def test_diverged_validations_never_count_as_better():
    progress, _ = run([1.0, math.inf, math.nan])
    assert progress.best == 1.0 and not progress.improved


def test_small_gains_are_kept_but_cost_patience():
    config = CONFIG.model_copy(update={"improvement": 0.1})
    progress, history = run([1.0, 0.95, 0.92, 0.85], config)
    assert [improved for _, _, improved in history] == [True] * 4
    assert [rate for _, rate, _ in history] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert progress.best == 0.85 and progress.bad_epochs == 0


def test_epoch_limits_and_the_end():
    config = CONFIG.model_copy(update={"max_epochs": [2, 1, 1]})
    progress, history = run([3.0, 2.0, 1.0, 0.5], config)
    assert [length for length, _, _ in history] == [1, 1, 2, 4]
    assert progress.finished
