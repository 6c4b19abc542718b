"""Statistics of the samples of a data set: mean and standard deviation of each, collected while the data is read."""

import math

import numpy as np

from optkit.artifact.calibration import Moments
from optkit.artifact.tensors import Feed
from optkit.quantization.calibration.batches import rows_of


class InputStatistics:
    """Mean and standard deviation of every sample of the float inputs, the usual parameters of normalization."""

    def __init__(self) -> None:
        self._means: dict[str, list[np.ndarray]] = {}
        self._deviations: dict[str, list[np.ndarray]] = {}

    def add(self, feed: Feed) -> None:
        """Add the samples of one feed; an input that is not finite is left out."""
        rows = rows_of(feed)
        for name, array in feed.items():
            if array.dtype.kind != "f":
                continue
            flat = array.reshape(rows, -1)
            low, high = flat.min(axis=1), flat.max(axis=1)  # (rows,) NaN where any element is
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                continue
            mean = flat.mean(axis=1, dtype=np.float64)
            square = np.einsum("ij,ij->i", flat, flat, dtype=np.float64) / flat.shape[1]
            # For a constant the difference may not be exactly 0.
            deviation = np.where(low < high, np.sqrt(np.maximum(square - mean**2, 0)), 0)
            self._means.setdefault(name, []).append(mean)
            self._deviations.setdefault(name, []).append(deviation)

    def constants(self) -> dict[str, tuple[int, ...]]:
        """Return input -> the samples in which it is constant; inputs without such a sample are left out."""
        found = {name: np.flatnonzero(np.concatenate(parts) == 0) for name, parts in self._deviations.items()}
        return {name: tuple(int(sample) for sample in samples) for name, samples in found.items() if len(samples)}

    def moments(self) -> tuple[Moments, ...]:
        """Return mean and deviation of each input over all samples."""
        return tuple(
            _moments(name, np.concatenate(parts), np.concatenate(self._deviations[name]))
            for name, parts in self._means.items()
        )


def _moments(name: str, means: np.ndarray, deviations: np.ndarray) -> Moments:
    mean = float(means.mean())
    return Moments(
        input=name,
        samples=len(means),
        mean=mean,
        deviation=math.sqrt(float((deviations**2 + (means - mean) ** 2).mean())),
        mean_error=float(means.std() / math.sqrt(len(means))),
    )
