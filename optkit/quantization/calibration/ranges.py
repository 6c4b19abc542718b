"""The range of a tensor, and the methods without a search. Every range contains zero, which must be exact (padding, ReLU)."""

from typing import NamedTuple

import numpy as np

from optkit.quantization.calibration.histogram import Histogram

MOVING_AVERAGE_CONSTANT = (
    0.01  # the weight of the newest sample, as in PyTorch's observers and ONNX Runtime's calibrator
)


class Range(NamedTuple):
    """The smallest and largest value that the integers represent: low <= 0 <= high."""

    low: float
    high: float


def observed(low: float, high: float, symmetric: bool = False) -> Range:
    """Return the min-max range: all observed values, and zero; with `symmetric` both ends have the same magnitude."""
    if symmetric:
        largest = max(-low, high)
        return Range(0.0 - largest, largest)
    return Range(min(low, 0.0), max(high, 0.0))


def moving_average(lows: np.ndarray, highs: np.ndarray, symmetric: bool = False) -> Range:
    """Return the exponential moving average of the samples' extremes, in their order.

    The first sample sets the average; each later sample moves it by 0.01 of the distance to its own extremes. PyTorch's
    MovingAverageMinMaxObserver does the same with batches.

    Args:
        lows: the smallest value of each sample, (samples,).
        highs: the largest value of each sample, (samples,).
        symmetric: whether both ends have the same magnitude.
    """
    constant = MOVING_AVERAGE_CONSTANT
    weights = constant * (1 - constant) ** np.arange(len(lows), dtype=np.float64)[::-1]  # (samples,) newest last
    weights[0] /= constant
    return observed(float(lows @ weights), float(highs @ weights), symmetric)


def percentile(histogram: Histogram, percent: float, symmetric: bool = False) -> Range:
    """Return the range that excludes (100 - percent) / 2 % of the values at either end, up to the edge of a bin.

    A symmetric range excludes (100 - percent) % of the magnitudes, as in ONNX Runtime's PercentileCalibrater.
    """
    counts = histogram.counts + histogram.counts[::-1] if symmetric else histogram.counts
    cumulated = np.cumsum(counts)
    tail = cumulated[-1] * (1 - percent / 100) / 2
    first = int(np.searchsorted(cumulated, tail, side="right"))
    last = int(np.searchsorted(cumulated, cumulated[-1] - tail, side="left"))
    # The outer edges of these bins; the bin around zero contains only values near zero.
    low, high = histogram.centres[[first, last]] + np.array([-0.5, 0.5]) * histogram.width
    if symmetric:
        low = -high
    whole = observed(histogram.low, histogram.high, symmetric)
    return Range(max(min(float(low), 0.0), whole.low), min(max(float(high), 0.0), whole.high))
