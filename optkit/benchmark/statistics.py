"""The statistics of a benchmark: percentiles that the number of calls supports, intervals of a ratio, and the verdict.

Every session has a bias (its memory layout, other load on the machine), so the calls of one session are not independent. Blocks with
fresh sessions nearly are. Therefore every interval is computed from one value a block: the log of the ratio of its two medians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optkit.artifact.findings import TRIMMED, Verdict

CONFIDENCE = 0.95
MIN_CALLS_ABOVE = 5  # with fewer calls above it, a percentile depends on one or two outliers


def percentile(times_ms: np.ndarray, percent: float) -> float | None:
    """Return a percentile; None where fewer than five calls are expected above it (p90: 50 calls, p95: 100, p99: 500)."""
    if round(len(times_ms) * (100 - percent) / 100, 9) < MIN_CALLS_ABOVE:
        return None
    return float(np.percentile(times_ms, percent))


@dataclass(frozen=True)
class Intervals:
    """A ratio with its two 95 % intervals; an end is None where there are too few blocks."""

    ratio: float
    low: float | None
    high: float | None
    free_low: float | None
    free_high: float | None


def intervals(log_ratios: Sequence[float]) -> Intervals:
    """Return the ratio and its intervals from the log ratio of each block.

    `ratio` comes from the trimmed mean, which leaves out a tenth of the blocks at either end, because the machine disturbs some blocks.
    `low` and `high` are its interval by Student's t with the winsorized variance (Tukey and McLaughlin 1963); below ten blocks nothing is
    trimmed, and it is the plain t interval. `free_low` and `free_high` are the order statistics that contain the median in at least 95 %
    of samples from any distribution (the inverted sign test).
    """
    from scipy.special import bdtr, stdtrit

    logs = np.sort(np.asarray(log_ratios, dtype=float))
    n, tail = len(logs), (1 - CONFIDENCE) / 2
    cut = int(TRIMMED * n)
    kept = logs[cut : n - cut]
    mean = float(np.mean(kept))
    low = high = free_low = free_high = None
    if n > 1:
        winsorized = np.clip(logs, kept[0], kept[-1])
        error = float(np.std(winsorized, ddof=1)) * n / (len(kept) * math.sqrt(n))
        half = float(stdtrit(len(kept) - 1, 1 - tail)) * error
        low, high = math.exp(mean - half), math.exp(mean + half)
    # The number of values outside at either end: at most so many of n fair coins show heads with a probability of at most 2.5 %.
    outside = sum(bdtr(k, n, 0.5) <= tail for k in range(n))
    if outside:
        free_low, free_high = math.exp(logs[outside - 1]), math.exp(logs[n - outside])
    return Intervals(math.exp(mean), low, high, free_low, free_high)


def verdict(found: Intervals, equal_within: float) -> Verdict:
    """Return the verdict of an interval.

    `faster` or `slower` when the t interval does not contain 1; `no difference` when all of it is within `equal_within` of 1;
    otherwise, or without an interval, `too noisy to say`.
    """
    if found.low is None or found.high is None:
        return Verdict.TOO_NOISY
    if found.low > 1:
        return Verdict.FASTER
    if found.high < 1:
        return Verdict.SLOWER
    near = 1 / (1 + equal_within) <= found.low and found.high <= 1 + equal_within
    return Verdict.NO_DIFFERENCE if near else Verdict.TOO_NOISY
