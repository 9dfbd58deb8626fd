"""Distances between distributions and their verdicts, survival curves, shares, and frames that are left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import CensoredData, ecdf, wasserstein_distance

from dtmd.observables.distributions import compare_distributions, distance_row, effective_number
from dtmd.observables.histograms import (
    jensen_shannon, normalised, share_outside, total_variation, wasserstein, wasserstein_on_circle,
)
from dtmd.observables.kaplan_meier import kaplan_meier, longest_common_time
from dtmd.observables.section import AIMD, Verdict
from dtmd.observables.statistics import difference, frame_weights, wilson_interval
from dtmd.observables.thinning import ThinnedSeries, Thinning


def runs(n, shift, seed, spread=0.3):
    """Histograms of runs whose means scatter about `shift`, in bins of 0.1 from −10."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(shift + rng.normal(scale=spread, size=(n, 1)), 1.0, size=(n, 500))
    return np.array([np.histogram(s, np.arange(-100, 101) * 0.1)[0] for s in samples], dtype=float)


def metric(p, q):
    return wasserstein(p, q, 0.1)


def test_equal_sides_agree_in_most_cases_whatever_their_sizes():
    """By the rule itself, 5 % are not called equal; 40 cases of each size, of which at least 80 % agree."""
    for n_md, n_aimd in ((20, 20), (5, 20), (20, 6)):
        verdicts = [
            compare_distributions(runs(n_md, 0.0, 2 * k), runs(n_aimd, 0.0, 2 * k + 1), metric, seed=k).verdict
            for k in range(40)
        ]
        assert verdicts.count(Verdict.AGREES) >= 32 and verdicts.count(Verdict.DIFFERS) <= 3


def test_sides_that_differ_are_found_and_too_few_are_not_judged():
    own, reference = runs(10, 2.0, 0), runs(10, 0.0, 1)
    found = compare_distributions(own, reference, metric, seed=0)
    assert found.verdict is Verdict.DIFFERS
    assert found.equal < found.limit < found.estimate.low < found.estimate.value < found.estimate.high
    assert found.estimate.value == pytest.approx(2.0, abs=0.4)
    few = compare_distributions(own, reference[:3], metric, seed=0)
    assert few.verdict is Verdict.UNDECIDED and few.equal is not None
    alone = compare_distributions(own[:1], reference[:1], metric, seed=0)
    assert alone.verdict is Verdict.UNDECIDED and alone.equal is None and alone.estimate.low is None
    again = compare_distributions(reference, reference, metric, seed=0)
    assert again.verdict is Verdict.AGREES and again.estimate.value == 0.0


def test_distances_between_halves_are_brought_to_the_numbers_of_both_sides():
    reference = runs(40, 0.0, 3)
    limits = [compare_distributions(runs(n, 0.0, 4), reference, metric, seed=0).limit for n in (40, 10)]
    assert limits[1] / limits[0] == pytest.approx(np.sqrt((1 / 10 + 1 / 40) / (1 / 40 + 1 / 40)), rel=0.02)
    assert effective_number(np.array([1.0, 1.0, 0.0])) == pytest.approx(2.0)


def test_rows_need_both_sides():
    own, reference = runs(5, 0.0, 0), runs(5, 0.0, 1)
    assert distance_row("x", "Å", {"MD": own}, metric, 0) is None
    assert distance_row("x", "Å", {AIMD: own}, metric, 0) is None
    row = distance_row("x", "Å", {"one": own, "two": own, AIMD: reference}, metric, 0)
    assert list(row.difference) == ["one", "two"] and row.aimd is None and row.equal > 0.0


def test_metrics_against_scipy():
    rng = np.random.default_rng(5)
    p, q = rng.random((2, 50))
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1.0)
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1.0
    around = min(
        wasserstein_distance(np.arange(50), np.arange(50), np.roll(p, k), np.roll(q, k)) for k in range(50))
    assert wasserstein_on_circle(p, q, 1.0) == pytest.approx(around)
    ends = np.eye(36)[[0, 35]]
    assert wasserstein_on_circle(*ends, 10.0) == pytest.approx(10.0)
    assert share_outside(np.array([[1.0, 2, 1], [0, 1, 0]]), np.array([0, 3.0, 1])).tolist() == [0.25, 0.0]
    assert normalised(np.array([1.0, 3.0])).tolist() == [0.25, 0.75]


def test_difference_of_shares_is_that_of_newcombe():
    """Examples a and b of his table II: 56/70 − 48/80 and 9/10 − 3/10."""
    found = difference(wilson_interval(56, 70), wilson_interval(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    found = difference(wilson_interval(9, 10), wilson_interval(3, 10))
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)


def test_survival_agrees_with_scipy():
    rng = np.random.default_rng(6)
    times, happened = np.round(rng.exponential(10.0, 60), 0) + 1.0, rng.random(60) < 0.6
    found = kaplan_meier(times, happened)
    expected = ecdf(CensoredData(uncensored=times[happened], right=times[~happened])).sf
    for time in (0.5, 1.0, 5.0, 12.3, 20.0):
        assert found.at(time).value == pytest.approx(float(expected.evaluate(time)))
    wide = expected.confidence_interval(method="log-log")
    point = found.at(10.0)
    assert point.low == pytest.approx(float(wide.low.evaluate(10.0)), abs=0.03)
    assert point.high == pytest.approx(float(wide.high.evaluate(10.0)), abs=0.03)


def test_survival_without_censoring_is_a_share_and_nothing_seen_is_not_certain():
    every = kaplan_meier(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4, bool))
    half, expected = every.at(2.5), wilson_interval(2, 4)
    assert (half.value, half.low, half.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert every.at(4.0).value == 0.0 and every.at(4.0).high > 0.1
    none = kaplan_meier(np.full(10, 50.0), np.zeros(10, bool))
    assert none.at(50.0).value == 1.0 and none.at(50.0).low == pytest.approx(wilson_interval(10, 10).low)
    x, y, low, high = every.steps()
    assert len(x) == len(y) == len(low) == len(high) and (np.diff(x) >= 0).all()


def test_survival_of_runs_that_were_followed_for_a_short_time():
    """Ten runs, half of them only until 5 fs: what comes later is known of five."""
    times, ends = np.repeat([5.0, 10.0], 5), np.repeat([False, True], 5)
    found = kaplan_meier(times, np.zeros(10, bool))
    assert found.at(2.0).low == wilson_interval(10, 10).low and found.at(7.0).low == wilson_interval(5, 5).low
    found = kaplan_meier(times, ends)
    assert (found.at(7.0).value, found.at(10.0).value, found.at(10.0).low) == (1.0, 0.0, 0.0)
    assert found.at(10.0).high == wilson_interval(0, 5).high
    single = kaplan_meier(np.array([3.0]), np.array([True]))
    assert single.times.tolist() == [0.0, 3.0] and single.at(3.0).high == wilson_interval(0, 1).high


def test_a_share_that_is_zero_stays_known():
    all_at_once, early = (kaplan_meier(np.full(n, time), np.ones(n, bool)) for n, time in ((4, 3.0), (3, 2.0)))
    followed = kaplan_meier(np.array([1.0, 8.0, 9.0]), np.array([True, False, False]))
    assert longest_common_time([all_at_once, followed]) == 9.0 and all_at_once.at(9.0).value == 0.0
    assert longest_common_time([all_at_once, early]) == 3.0
    assert longest_common_time([followed, kaplan_meier(np.array([4.0]), np.array([False]))]) == 4.0


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_survival_is_a_step_function_that_never_rises(n, seed, share):
    rng = np.random.default_rng(seed)
    times, happened = rng.integers(0, 8, n).astype(float), rng.random(n) < share
    found = kaplan_meier(times, happened)
    assert found.times[0] == 0.0 and found.times[-1] == times.max() and (np.diff(found.share) <= 0.0).all()
    assert (found.low <= found.share + 1e-12).all() and (found.share <= found.high + 1e-12).all()
    assert (found.low >= 0.0).all() and (found.high <= 1.0).all()
    for time in range(8):
        later = [1.0 - np.sum(happened & (times == t)) / np.sum(times >= t) for t in range(time + 1)
                 if (times >= t).any()]
        assert found.at(float(time)).value == pytest.approx(np.prod(later))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 400), n_all=st.integers(1, 30), size=st.integers(1, 60), seed=st.integers(0, 9))
def test_thinned_frames_stand_for_those_left_out(n, n_all, size, seed):
    times = np.cumsum(np.random.default_rng(seed).random(n) + 0.1)
    weights = frame_weights(times)
    whole = Thinning(n_all).weights(weights)
    thinning = Thinning(n_all)
    parts = np.concatenate([thinning.weights(weights[k : k + size]) for k in range(0, n, size)])
    np.testing.assert_allclose(parts, whole, atol=1e-9)
    used = np.flatnonzero(whole)
    np.testing.assert_allclose(whole[:n_all], weights[:n_all], atol=1e-9)
    np.testing.assert_allclose(np.cumsum(whole)[used], np.cumsum(weights)[used])
    assert len(used) <= n_all * (1 + np.log2(max(1.0, n / n_all)))
    assert len(np.unique(np.diff(used[used >= n // 2]))) <= 2
    series, values = ThinnedSeries(limit=20), np.arange(n)
    for k in range(0, n, size):
        series.add(times[k : k + size], values[k : k + size, None])
    kept = series.result()[1][:, 0]
    assert min(n, 10) <= len(kept) <= 20
    assert kept.tolist() == list(range(0, n, kept[1] if len(kept) > 1 else 1))[: len(kept)]
