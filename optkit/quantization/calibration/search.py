"""The best range for a histogram, by the true quantization error of candidates or by their divergence.

A candidate gets scale and zero point as in ONNX Runtime: 256 levels for an asymmetric range, 255 levels around zero for a symmetric one.
With prefix sums over the bins, the time for a candidate depends on its levels, not on the number of bins and values.
"""

from collections.abc import Callable

import numpy as np

from optkit.quantization.calibration.histogram import SIDE, Histogram
from optkit.quantization.calibration.ranges import Range, observed

# Candidates are fractions of the observed range: first 56 down to 1/118, then 15 around the best of these.
_COARSE = 2.0 ** (-np.arange(56) / 8)
_FINE = 2.0 ** (np.arange(-7, 8) / 64)
_MAX_LOSS = (
    10**0.01
)  # 0.1 dB above the error of min-max; with the error of the bins the total stays below the promised 0.5 dB

Cost = Callable[[np.ndarray, np.ndarray], np.ndarray]  # lows (n,), highs (n,) -> costs (n,), smaller is better


def mse(histogram: Histogram, symmetric: bool) -> Range:
    """Return the range with the least mean squared quantization error.

    It balances clipping and rounding, as in R. Banner et al., "Post training 4-bit quantization of convolutional networks for
    rapid-deployment", 2019, but with the counts instead of a fitted density.
    """
    whole = _whole(histogram, symmetric)
    if whole.low == whole.high:
        return whole
    return _search(whole, symmetric, _Levels(histogram, histogram.counts, symmetric).squared_error)


def entropy(histogram: Histogram, symmetric: bool) -> Range:
    """Return the range whose quantized distribution is nearest to the observed one by Kullback-Leibler divergence.

    After S. Migacz, "8-bit Inference with TensorRT", GTC 2017. ReLU makes a spike at zero, which would dominate the divergence although
    every range represents zero exactly. Therefore its bin gets the sum of its neighbours (NVIDIA's pytorch-quantization overwrites the
    first bin for this reason). For peaked densities the divergence can prefer ranges that are far worse than min-max; candidates that
    are more than 0.1 dB worse than min-max are left out.
    """
    whole = _whole(histogram, symmetric)
    if whole.low == whole.high:
        return whole
    counts = histogram.counts.copy()
    counts[SIDE - 1] = counts[SIDE - 2] + counts[SIDE]
    exact = _Levels(histogram, histogram.counts, symmetric)
    smooth = _Levels(histogram, counts, symmetric)
    most = exact.squared_error(np.array([whole.low]), np.array([whole.high])) * _MAX_LOSS

    def cost(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        kept = exact.squared_error(lows, highs) <= most
        costs = np.full(len(lows), np.inf)
        costs[kept] = smooth.divergence(lows[kept], highs[kept])
        return costs

    return _search(whole, symmetric, cost)


def _whole(histogram: Histogram, symmetric: bool) -> Range:
    return observed(histogram.low, histogram.high, symmetric)


def _search(whole: Range, symmetric: bool, cost: Cost) -> Range:
    """Return the cheapest range: one threshold for both ends first, then each end alone, in coarse and then in fine steps."""
    largest = max(-whole.low, whole.high)
    ends = np.array([whole])  # (1, 2)
    least = float(cost(ends[:, 0], ends[:, 1])[0])

    def take_better(candidates: np.ndarray) -> None:
        nonlocal ends, least
        costs = cost(candidates[:, 0], candidates[:, 1])
        best = int(np.argmin(costs))
        if costs[best] < least:
            ends, least = candidates[best : best + 1], float(costs[best])

    take_better(np.clip(largest * _COARSE[:, None] * [-1, 1], whole.low, whole.high))
    if symmetric or whole.low == 0 or whole.high == 0:
        take_better(np.clip(ends * _FINE[:, None], whole.low, whole.high))
    else:
        for steps in (_COARSE, _FINE, _FINE):
            for end in (0, 1):
                candidates = np.repeat(ends, len(steps), axis=0)
                start = whole if steps is _COARSE else ends[0]
                candidates[:, end] = np.clip(start[end] * steps, whole.low, whole.high)
                take_better(candidates)
    return Range(float(ends[0, 0]), float(ends[0, 1]))


class _Levels:
    """The filled bins of a histogram as prefix sums, and the costs of candidate ranges."""

    def __init__(self, histogram: Histogram, counts: np.ndarray, symmetric: bool) -> None:
        filled = np.flatnonzero(counts)
        self._levels = 255 if symmetric else 256
        self._counts = counts[filled].astype(np.float64)
        self._centres = histogram.centres[filled]
        self._mass = _prefix(self._counts)
        self._first = _prefix(self._counts * self._centres)
        self._second = _prefix(self._counts * self._centres**2)
        self._self = _prefix(_x_log_x(self._counts))

    def squared_error(self, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        """Return the sum of (value - quantized value)**2 of each candidate, (n,)."""
        values = self._values(lows, highs)
        cuts = self._cuts(values)
        mass, first, second = (np.diff(sums[cuts]) for sums in (self._mass, self._first, self._second))
        errors: np.ndarray = np.sum(second - 2 * values * first + values**2 * mass, axis=1)
        return errors

    def divergence(self, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        """Return KL(observed, clipped to the range || the same, spread evenly over the filled bins of each level), (n,).

        Values outside count in the outermost filled bins inside. The divergence of n samples is too large by
        (filled bins - filled levels) / 2n, the bias of its two entropies (G. Miller, "Note on the bias of information estimates",
        1955); with few samples this bias alone would shrink the range.
        """
        start = np.searchsorted(self._centres, lows, side="left")  # (n,) bins start:end are inside
        end = np.searchsorted(self._centres, highs, side="right")
        possible = end - start >= 2
        start, end = np.where(possible, start, 0), np.where(possible, end, len(self._counts))
        cuts = np.clip(self._cuts(self._values(lows, highs)), start[:, None], end[:, None])
        mass, bins = np.diff(self._mass[cuts]), np.diff(cuts)  # (n, levels)
        total, below = self._mass[-1], self._mass[start]
        above = total - self._mass[end]
        spread = np.log(np.maximum(mass, 1) / np.maximum(bins, 1)) - np.log(self._mass[end] - below)[:, None]
        rows = np.arange(len(lows))
        first, last = np.argmax(bins > 0, axis=1), self._levels - 1 - np.argmax(bins[:, ::-1] > 0, axis=1)
        cross = (mass * spread).sum(axis=1) + below * spread[rows, first] + above * spread[rows, last]
        inner = self._self[end] - self._self[start]
        for outside, edge in ((below, self._counts[start]), (above, self._counts[end - 1])):
            inner += _x_log_x(edge + outside) - _x_log_x(edge)
        bias = (end - start - np.count_nonzero(bins, axis=1)) / 2
        found = (inner - total * np.log(total) - cross - bias) / total
        return np.where(possible, found, np.inf)

    def _values(self, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        """Return the real values of the integers of each candidate, (n, levels), ascending."""
        scale = (highs - lows) / (self._levels - 1)
        zero_point = np.rint(-lows / scale)
        values: np.ndarray = (np.arange(self._levels) - zero_point[:, None]) * scale[:, None]
        return values

    def _cuts(self, values: np.ndarray) -> np.ndarray:
        """Return the first bin of each level, and the end of the last level, (n, levels + 1)."""
        cuts = np.searchsorted(self._centres, (values[:, 1:] + values[:, :-1]) / 2)
        return np.pad(cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(self._counts))))


def _prefix(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(counts: np.ndarray) -> np.ndarray:
    product: np.ndarray = counts * np.log(np.maximum(counts, 1))  # a count is 0 or at least 1
    return product
