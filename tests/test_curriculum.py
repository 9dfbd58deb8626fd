"""The curriculum as a table of epochs."""

import math

import pytest

from dtmd.config import CurriculumConfig
from dtmd.curriculum import Progress, after_epoch, begin, ending, next_stage, stage_converged

CONFIG = CurriculumConfig(lengths=[1, 2, 4], patience=1, decay=0.1, learning_rate=1e-3,
                          reset_learning_rate=1e-4, minimum_learning_rate=5e-5)


def run(metrics, config=CONFIG):
    progress, history = begin(config), []
    for metric in metrics:
        progress = after_epoch(progress, metric, config)
        history.append((config.lengths[progress.stage], progress.learning_rate, progress.improved))
        if stage_converged(progress, config):
            progress = next_stage(progress, config)
        if progress.finished:
            break
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


ONE_EPOCH = CONFIG.model_copy(update={"lengths": [1, 2, 4, 8], "max_epochs": 1, "improvement": 0.01})


@pytest.mark.parametrize(("metrics", "stages"), [
    ([1.0, 0.9, 0.8, 0.7], 4),
    ([1.0, 1.1, 1.2, 0.7], 3),
    ([1.0, 1.1, 0.9, 1.0], 4),
    ([1.0, 0.995, 0.992, 0.7], 3),  # each gains something, none clearly more than the first
    ([1.0, 0.995, 0.98, 1.0], 4),  # two small gains together are clear
    ([math.inf, 1.0, 1.1, 1.0], 4),
], ids=str)
def test_stages_in_a_row_that_do_not_improve_end_the_training(metrics, stages):
    config = ONE_EPOCH.model_copy(update={"stop_after": 2})
    progress, history = run(metrics, config)
    assert progress.finished and len(history) == stages
    told = ending(progress, 10, 1.0, config)
    assert ("2 stages in a row gained less than 0.01" in told) == (progress.idle_stages == 2)


def test_without_the_rule_all_stages_are_trained():
    progress, history = run([1.0, 2.0, 3.0, 4.0], ONE_EPOCH)
    assert len(history) == 4 and ending(progress, 4, 0.1, ONE_EPOCH) == "the last stage is over"


def test_a_repeated_length_trains_on_and_keeps_the_best_of_both():
    config = CONFIG.model_copy(update={"lengths": [1, 1, 2], "max_epochs": [1, 2, 1]})
    progress, history = run([1.0, 1.1, 0.9, 1.0], config)
    assert history == [(1, 1e-3, True), (1, 1e-4, False), (1, 1e-4, True), (2, 1e-4, True)]


def test_budgets_of_updates_and_hours():
    config = CONFIG.model_copy(update={"max_updates": 100, "max_hours": 2.0})
    progress = Progress(stage=0, learning_rate=1e-3)
    assert ending(progress, 99, 1.9, config) is None
    assert ending(progress, 100, 1.9, config) == "curriculum.max_updates 100 is reached"
    assert ending(progress, 99, 2.0, config) == "curriculum.max_hours 2 is reached"
    assert ending(progress, 10**9, 1e9, CONFIG) is None
