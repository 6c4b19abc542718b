"""The statistics, held against scipy, against their definitions, and against simulated benchmarks whose truth is known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from optkit.artifact.findings import Verdict
from optkit.benchmark.statistics import Intervals, intervals, percentile, verdict


@pytest.mark.parametrize(("percent", "needed"), [(50, 10), (90, 50), (95, 100), (99, 500)])
def test_a_percentile_needs_five_calls_above_it(percent: float, needed: int) -> None:
    times = np.arange(1.0, needed + 1)
    assert percentile(times, percent) == pytest.approx(np.percentile(times, percent))
    assert percentile(times[:-1], percent) is None


def test_below_ten_blocks_the_t_interval_is_that_of_scipy() -> None:
    logs = np.random.default_rng(0).normal(0.1, 0.05, 9)
    found = intervals(list(logs))
    right = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert found.ratio == pytest.approx(math.exp(logs.mean()))
    assert (found.low, found.high) == (pytest.approx(math.exp(right.low)), pytest.approx(math.exp(right.high)))


@pytest.mark.parametrize("n", [10, 19, 20, 40])
def test_from_ten_blocks_it_is_that_of_the_trimmed_mean(n: int) -> None:
    logs = np.random.default_rng(n).normal(0.1, 0.05, n)
    found = intervals(list(logs))
    cut = n // 10
    assert (
        math.log(found.ratio)
        == pytest.approx(stats.trim_mean(logs, 0.1))
        == pytest.approx(np.sort(logs)[cut : n - cut].mean())
    )
    low, high = stats.mstats.trimmed_mean_ci(logs, limits=(cut / n + 1e-9, cut / n + 1e-9), alpha=0.05)
    assert (math.log(found.low or 0), math.log(found.high or 0)) == (pytest.approx(low), pytest.approx(high))


def test_one_bad_moment_in_ten_blocks_moves_little() -> None:
    logs = list(np.random.default_rng(0).normal(0, 0.01, 10))
    calm, struck = intervals(logs), intervals([*logs[:-1], 3.0])
    assert struck.ratio == pytest.approx(calm.ratio, abs=0.01)
    assert struck.high is not None
    assert struck.high < 1.03


@pytest.mark.parametrize("n", [6, 10, 17, 40])
def test_the_distribution_free_interval_is_the_narrowest_pair_of_order_statistics(n: int) -> None:
    found = intervals(list(range(n)))
    assert found.free_low is not None
    assert found.free_high is not None
    outside = round(math.log(found.free_low))  # as many values lie below the interval, and above
    assert round(math.log(found.free_high)) == n - 1 - outside
    missed = 2 * stats.binom.cdf(outside, n, 0.5)
    narrower = 2 * stats.binom.cdf(outside + 1, n, 0.5)
    assert missed <= 0.05 < narrower


def test_too_few_blocks_give_no_interval() -> None:
    assert intervals([0.5]) == Intervals(pytest.approx(math.exp(0.5)), None, None, None, None)
    five = intervals([0.1, 0.2, 0.3, 0.4, 0.5])
    assert five.low is not None
    assert five.free_low is None


def coverage(draws: np.ndarray, truth: float) -> tuple[float, float]:
    """Return how often the t interval and the distribution-free one hold the truth; draws are (trials, blocks)."""
    found = [intervals(list(row)) for row in draws]
    t = [i.low is not None and i.high is not None and i.low <= truth <= i.high for i in found]
    free = [i.free_low is not None and i.free_high is not None and i.free_low <= truth <= i.free_high for i in found]
    return float(np.mean(t)), float(np.mean(free))


def test_both_intervals_cover_the_truth_when_sessions_carry_a_bias_of_their_own() -> None:
    random = np.random.default_rng(1)
    bias = random.normal(0, 0.03, (2000, 12, 2))  # of each session of either model
    noise = random.normal(0, 0.01, (2000, 12, 2))  # of the median of its calls
    logs = (bias + noise) @ np.array([1, -1])
    t, free = coverage(logs, 1.0)
    assert 0.935 < t < 0.965
    assert free > 0.94


def test_calls_as_the_unit_would_not_cover_it() -> None:
    """What the unit is for: with one session each, an interval over the calls holds the truth in a minority of trials."""
    random = np.random.default_rng(2)
    bias = random.normal(0, 0.03, (500, 1, 2))
    calls = (bias + random.normal(0, 0.05, (500, 200, 2))) @ np.array([1, -1])
    assert coverage(calls, 1.0)[0] < 0.42


def test_the_distribution_free_interval_holds_where_the_other_does_not() -> None:
    random = np.random.default_rng(3)
    logs = random.exponential(1.0, (1000, 30)) ** 3  # a bad moment in some blocks, by an order of magnitude
    t, free = coverage(logs, math.exp(math.log(2) ** 3))  # the median
    assert t < 0.9
    assert free > 0.95


def test_stopping_at_a_width_costs_little_coverage() -> None:
    """Blocks end when the interval happens to be narrow, which is a bias; with ten of them at least it stays small."""
    random = np.random.default_rng(4)
    held = []
    for logs in random.normal(0, 0.03, (1000, 40)):
        for n in range(10, 41):
            found = intervals(list(logs[:n]))
            assert found.low is not None
            if n == 40 or math.log(found.ratio / found.low) <= 0.015:
                break
        held.append(found.low <= 1 <= (found.high or 0))
    assert 0.92 < np.mean(held) < 0.97


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (1.001, 1.2, Verdict.FASTER),
        (0.8, 0.999, Verdict.SLOWER),
        (0.99, 1.02, Verdict.NO_DIFFERENCE),
        (0.98, 1.05, Verdict.TOO_NOISY),
        (0.9, 1.01, Verdict.TOO_NOISY),
        (1.0, 1.2, Verdict.TOO_NOISY),  # it holds 1
        (None, None, Verdict.TOO_NOISY),
        (math.nan, math.nan, Verdict.TOO_NOISY),
    ],
)
def test_the_verdict_follows_the_interval(low: float | None, high: float | None, says: Verdict) -> None:
    assert verdict(Intervals(1.0, low, high, None, None), equal_within=0.03) is says


def test_more_blocks_give_a_narrower_interval() -> None:
    logs = list(np.random.default_rng(5).normal(0, 0.02, 40))
    widths = [(found.high or 0) - (found.low or 0) for found in (intervals(logs[:n]) for n in (5, 10, 20, 40))]
    assert all(a > b for a, b in pairwise(widths))
