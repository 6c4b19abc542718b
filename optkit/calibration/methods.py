"""From a histogram of a tensor's values to the range that is quantized: the calibration methods.

Every range holds zero, because zero must be exact in an affine quantization (padding, ReLU).
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np

BINS = 2048  # of a histogram; several times the 256 levels of INT8, else a search has nothing to choose
_LEVELS = 256
_STEPS = 64  # candidate ranges of the entropy search, from 1/64 to 64/64 of what was observed


class Method(StrEnum):
    """How a range is chosen."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


class Range(NamedTuple):
    """The smallest and largest value that the integers represent: low <= 0 <= high."""

    low: float
    high: float


class Histogram(NamedTuple):
    """Counts of values in `BINS` equal bins from `low` to `high`, for the entropy method without those that are exactly zero."""

    low: float
    high: float
    counts: np.ndarray  # (BINS,) int64


def observed(low: float, high: float) -> Range:
    """Return the min-max range: all that was observed, and zero."""
    return Range(min(low, 0.0), max(high, 0.0))


def percentile(histogram: Histogram, percent: float) -> Range:
    """Return the range that leaves (100 - percent) / 2 % of the values out at either end, to the edge of a bin."""
    total = int(histogram.counts.sum())
    tail = total * (1 - percent / 100) / 2
    cumulated = np.cumsum(histogram.counts)
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    first = int(np.searchsorted(cumulated, tail, side="right"))
    last = int(np.searchsorted(cumulated, total - tail, side="left"))
    return observed(float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1]))


def entropy(histogram: Histogram) -> Range:
    """Return the range whose quantized distribution is nearest to the observed one by Kullback-Leibler divergence.

    The range shrinks around zero in `_STEPS` steps; values outside count in the outermost bins that stay. The method is that of
    TensorRT's entropy calibration (S. Migacz, "8-bit Inference with TensorRT", GTC 2017), for asymmetric ranges.

    Zeros must not be in the histogram: every range represents them exactly, and the spike that ReLU leaves there, spread over its
    level, outweighs all else (NVIDIA's pytorch-quantization overwrites the first bin for that reason).
    """
    whole = observed(histogram.low, histogram.high)
    if whole.low == whole.high:
        return whole
    centres = histogram.low + (np.arange(BINS) + 0.5) * (histogram.high - histogram.low) / BINS  # (BINS,)
    best, least = whole, np.inf
    for step in range(_STEPS, 0, -1):
        candidate = Range(whole.low * step / _STEPS, whole.high * step / _STEPS)
        divergence = _divergence(histogram.counts, centres, candidate)
        if divergence < least:
            best, least = candidate, divergence
    return best


def _divergence(counts: np.ndarray, centres: np.ndarray, candidate: Range) -> float:
    """Return KL(observed, clipped to the range || the same spread evenly over the filled bins of each level).

    The divergence of n samples is too large by (filled bins - filled levels) / 2n, the bias of the two entropies in it
    (G. Miller, "Note on the bias of information estimates", 1955). With few samples that alone would shrink the range.
    """
    inside = (centres >= candidate.low) & (centres <= candidate.high)
    if inside.sum() < 2:
        return float(np.inf)
    first, last = np.flatnonzero(inside)[[0, -1]]
    p = counts[first : last + 1].astype(np.float64)
    q = p.copy()  # before clipping: the candidate knows nothing of what lies outside
    p[0] += counts[:first].sum()
    p[-1] += counts[last + 1 :].sum()
    scale = (candidate.high - candidate.low) / (_LEVELS - 1)
    level = np.rint((centres[first : last + 1] - candidate.low) / scale).astype(np.int64)
    filled = (q > 0).astype(np.float64)
    in_level = np.bincount(level, weights=q, minlength=_LEVELS)
    bins_of_level = np.bincount(level, weights=filled, minlength=_LEVELS)
    q = filled * (in_level / np.maximum(bins_of_level, 1))[level]
    if q.sum() == 0:
        return float(np.inf)
    p, q = p / p.sum(), q / q.sum()
    seen = p > 0
    bias = (np.count_nonzero(seen) - np.count_nonzero(in_level)) / (2 * counts.sum())
    # A clipped bin that q does not hold would be infinite; the smallest share keeps it finite and large.
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))) - bias)
