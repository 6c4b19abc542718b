"""The range of a tensor, and the methods that need no search. Every range holds zero, which must be exact (padding, ReLU)."""

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
    """Return the min-max range: all that was observed, and zero; of equal ends where it shall be symmetric."""
    if symmetric:
        largest = max(-low, high)
        return Range(0.0 - largest, largest)
    return Range(min(low, 0.0), max(high, 0.0))


def moving_average(lows: np.ndarray, highs: np.ndarray, symmetric: bool = False) -> Range:
    """Return the exponential moving average of the samples' extremes, in their order.

    Each sample moves the average by 0.01 of the way to its own extremes; the first one sets it. As PyTorch's
    MovingAverageMinMaxObserver does with batches.

    Args:
        lows: the smallest value of each sample, (samples,).
        highs: the largest value of each sample, (samples,).
        symmetric: whether the ends shall be equal.
    """
    constant = MOVING_AVERAGE_CONSTANT
    weights = constant * (1 - constant) ** np.arange(len(lows), dtype=np.float64)[::-1]  # (samples,) newest last
    weights[0] /= constant
    return observed(float(lows @ weights), float(highs @ weights), symmetric)


def percentile(histogram: Histogram, percent: float, symmetric: bool = False) -> Range:
    """Return the range that leaves (100 - percent) / 2 % of the values out at either end, to the edge of a bin.

    A symmetric one leaves out (100 - percent) % of the magnitudes. As ONNX Runtime's PercentileCalibrater.
    """
    counts = histogram.counts + histogram.counts[::-1] if symmetric else histogram.counts
    cumulated = np.cumsum(counts)
    tail = cumulated[-1] * (1 - percent / 100) / 2
    first = int(np.searchsorted(cumulated, tail, side="right"))
    last = int(np.searchsorted(cumulated, cumulated[-1] - tail, side="left"))
    # The outer edges of these bins; the one around zero holds only what is nearly zero.
    low, high = histogram.centres[[first, last]] + np.array([-0.5, 0.5]) * histogram.width
    if symmetric:
        low = -high
    whole = observed(histogram.low, histogram.high, symmetric)
    return Range(max(min(float(low), 0.0), whole.low), min(max(float(high), 0.0), whole.high))
