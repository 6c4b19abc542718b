"""The calibration doctor: a diagnosis of the data and its size, from the statistics of the collection."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from optkit.artifact.calibration import Diagnosis, Growth, LongTail, Outlier
from optkit.quantization.calibration.collect import Statistics
from optkit.quantization.calibration.histogram import Histogram
from optkit.quantization.calibration.ranges import Range

_STRETCH = 1.5  # an outlier makes a range at least this many times as wide as all other samples need
_SETTLED = 0.99  # of its final width; from here on a range has stopped growing
_MOST = 0.95  # of the tensors; the extremes of the last few are random
_INNER = 0.999  # of the values
_LONG_TAIL = 0.25  # of the range; a tensor with _INNER of its values in a smaller part has a long tail
_STEP = 32  # suggestions are multiples of this
_FEWEST = 8  # samples; with fewer, no outlier is reported


def diagnose(statistics: Statistics, ranges: Mapping[str, Range]) -> Diagnosis:
    """Return the diagnosis of the data that gave these ranges."""
    widths = _running_widths(statistics)
    samples = len(statistics.digests)
    settled = _settled_after(widths)
    return Diagnosis(
        samples=samples,
        growth=_growth(widths),
        settled_after=settled,
        suggested_samples=_suggested(samples, settled),
        outliers=_outliers(statistics) if samples >= _FEWEST else (),
        duplicates=_duplicates(statistics.digests),
        constants=statistics.inputs.constants(),
        moments=statistics.inputs.moments(),
        long_tails=_long_tails(statistics.histograms, ranges) if statistics.histograms else None,
    )


def _running_widths(statistics: Statistics) -> np.ndarray:
    """Return the width of each range after each sample, as a share of its final width, (samples, tensors)."""
    shares = []
    for name, lows in statistics.lows.items():
        low = np.minimum.accumulate(np.minimum(lows, 0).astype(np.float64))
        high = np.maximum.accumulate(np.maximum(statistics.highs[name], 0).astype(np.float64))
        final = high[-1] - low[-1]
        shares.append((high - low) / final if final > 0 else np.ones(len(low)))
    return np.stack(shares, axis=1)


def _growth(widths: np.ndarray) -> tuple[Growth, ...]:
    points = sorted({min(2**k, len(widths)) for k in range(len(widths).bit_length() + 1)})
    return tuple(Growth(samples=n, share=float(widths[n - 1].mean())) for n in points)


def _settled_after(widths: np.ndarray) -> int:
    """Return the number of samples after which most ranges had stopped growing."""
    share = (widths >= _SETTLED).mean(axis=1)  # (samples,) never falls
    return int(np.argmax(share >= _MOST)) + 1


def _suggested(samples: int, settled: int) -> int:
    """Return the suggested number of samples: twice the given number where ranges grew in the last quarter."""
    if settled > 0.75 * samples:
        return 2 * samples
    return min(samples, math.ceil(settled / _STEP) * _STEP)


def _outliers(statistics: Statistics) -> tuple[Outlier, ...]:
    stretched: dict[int, list[tuple[float, str]]] = {}
    for name, lows in statistics.lows.items():
        low, high = np.minimum(lows, 0), np.maximum(statistics.highs[name], 0)
        final = float(high.max() - low.min())
        for sample in {int(low.argmin()), int(high.argmax())}:
            others = np.arange(len(low)) != sample
            without = float(high[others].max() - low[others].min())
            if without > 0 and final >= _STRETCH * without:
                stretched.setdefault(sample, []).append((final / without, name))
    found = []
    for sample, tensors in stretched.items():
        stretch, worst = max(tensors)
        found.append(Outlier(sample=sample, tensors=len(tensors), worst=worst, stretch=stretch))
    return tuple(sorted(found, key=lambda outlier: (-outlier.stretch, outlier.sample)))


def _duplicates(digests: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    groups: dict[int, list[int]] = {}
    for sample, digest in enumerate(digests):
        groups.setdefault(digest, []).append(sample)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _long_tails(histograms: Mapping[str, Histogram], ranges: Mapping[str, Range]) -> tuple[LongTail, ...]:
    found = []
    for name, histogram in histograms.items():
        whole = max(histogram.high, 0.0) - min(histogram.low, 0.0)
        inner = _inner_width(histogram)
        if whole > 0 and inner < _LONG_TAIL * whole:
            centres, range_ = histogram.centres, ranges[name]
            outside = histogram.counts[(centres < range_.low) | (centres > range_.high)].sum()
            clipped = float(outside / histogram.total)
            found.append(LongTail(tensor=name, inner_share=inner / whole, clipped_share=clipped))
    return tuple(sorted(found, key=lambda tail: tail.inner_share))


def _inner_width(histogram: Histogram) -> float:
    """Return the width of the range around zero that contains most of the values; the same share is outside at either end."""
    cumulated = np.cumsum(histogram.counts)
    tail = cumulated[-1] * (1 - _INNER) / 2
    first = np.searchsorted(cumulated, tail, side="right")
    last = np.searchsorted(cumulated, cumulated[-1] - tail, side="left")
    centres = histogram.centres
    return float(max(centres[last], 0.0) - min(centres[first], 0.0))
