"""A histogram whose range grows with what it is given: one pass, and the same counts in whatever portions the values come."""

import math

import numpy as np

# Bins on either side of zero; the larger extreme lies in the outer half, so its side fills at least 8192. A value that many elements
# share is told from its neighbours to a 30th of an INT8 level, else the error of such a tensor could not be estimated to 0.5 dB.
SIDE = 16_384
_CHUNK = 131_072  # elements counted at a time, so that the temporary indices stay in a cache
_SMALLEST_EXPONENT = -100  # below 1e-30 every value counts as zero; float32 could not hold the scale
_FEW = 4096  # a tensor with fewer elements is never sampled

_INDEX = np.arange(1 - SIDE, SIDE)  # (2 * SIDE - 1,) of the bins; bin 0 is around zero and twice as wide as the others


class Histogram:
    """Counts of values in bins of width 2**k, cut towards zero.

    When a value falls outside, k grows and bins are added up in pairs. Products with powers of two are exact in floating point and
    cutting them twice is cutting them once, so the counts are those of the final width, whenever it became that wide.
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
        """The width of each bin but the one around zero."""
        return math.ldexp(1 / SIDE, self._exponent or 0)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def add(self, values: np.ndarray, low: float, high: float, every: int = 1) -> None:
        """Count the values of an array.

        Args:
            values: finite floats of any shape.
            low: their smallest.
            high: their largest.
            every: count one in so many; see `thinned`.
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
    """Return one element of each `every`, always at the same places; all where there are few.

    The step is one more than `every` and starts anew after `every` squared elements, so that rows of an image whose length is a
    multiple of `every` do not give the same column again and again.
    """
    if every == 1 or flat.size < _FEW:
        return flat
    block = every * every
    whole = flat.size // block * block
    diagonal = flat[:whole].reshape(-1, block)[:, :: every + 1]
    return np.concatenate([diagonal.reshape(-1), flat[whole :: every + 1]])
