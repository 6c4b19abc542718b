"""A histogram whose range grows with its values: one pass, with the same counts for any grouping of the values."""

import math

import numpy as np

# Bins on either side of zero. The larger extreme is in the outer half, so its side uses at least 8192 bins. A bin is then at most a 30th
# of an INT8 level wide; with wider bins the error of a tensor with many equal values could not be estimated to 0.5 dB.
SIDE = 16_384
_CHUNK = 131_072  # elements counted at once, so that the temporary indices fit in a cache
_SMALLEST_EXPONENT = -100  # values below 1e-30 count as zero, because float32 could not represent the scale
_FEW = 4096  # a tensor with fewer elements is never sampled

_INDEX = np.arange(1 - SIDE, SIDE)  # (2 * SIDE - 1,) of the bins; bin 0 is around zero and twice as wide as the others


class Histogram:
    """Counts of values in bins of width 2**k; indices are truncated towards zero.

    When a value is outside, k grows, and pairs of bins are merged. Products with powers of two are exact in floating point, and two
    truncations equal one, so the counts are those of the final width, independent of the moment when it was reached.
    """

    def __init__(self) -> None:
        self.low = math.inf  # the smallest and the largest value seen, exact
        self.high = -math.inf
        self.counts = np.zeros(len(_INDEX), np.int64)
        self._exponent: int | None = None  # all values are below 2**exponent; None while they are all zero

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, (bins,)."""
        return (_INDEX + 0.5 * np.sign(_INDEX)) * self.width

    @property
    def width(self) -> float:
        """The width of each bin except the one around zero."""
        return math.ldexp(1 / SIDE, self._exponent or 0)

    @property
    def total(self) -> int:
        """The number of counted values."""
        return int(self.counts.sum())

    def add(self, values: np.ndarray, low: float, high: float, every: int = 1) -> None:
        """Count the values of an array.

        Args:
            values: finite floats of any shape.
            low: their smallest.
            high: their largest.
            every: count one of this many elements; see `thinned`.
        """
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        flat = thinned(values.reshape(-1), every)
        if self._exponent is None:
            self.counts[SIDE - 1] += flat.size
            return
        scale = math.ldexp(SIDE, -self._exponent)
        first = int(low * scale)
        for start in range(0, flat.size, _CHUNK):
            bins = np.multiply(flat[start : start + _CHUNK], np.float32(scale), dtype=np.float32).astype(np.intp)
            if first:
                bins -= first
            found = np.bincount(bins)
            self.counts[SIDE - 1 + first :][: len(found)] += found

    def _widen(self, magnitude: float) -> None:
        if magnitude == 0:
            return
        exponent = max(math.frexp(magnitude)[1], _SMALLEST_EXPONENT)
        if self._exponent is not None and exponent > self._exponent:
            cut = np.trunc(_INDEX * 2.0 ** (self._exponent - exponent)).astype(np.intp)
            counts = np.bincount(cut + SIDE - 1, weights=self.counts, minlength=len(_INDEX))
            self.counts = counts.astype(np.int64)  # exact: sums stay far below 2**53
        self._exponent = max(exponent, exponent if self._exponent is None else self._exponent)


def thinned(flat: np.ndarray, every: int) -> np.ndarray:
    """Return one of `every` elements, always at the same positions; all elements of a small array.

    The step is `every` + 1, and the pattern restarts after `every` squared elements. So an image whose row length is a multiple of
    `every` does not always contribute the same column.
    """
    if every == 1 or flat.size < _FEW:
        return flat
    block = every * every
    whole = flat.size // block * block
    diagonal = flat[:whole].reshape(-1, block)[:, :: every + 1]
    return np.concatenate([diagonal.reshape(-1), flat[whole :: every + 1]])
