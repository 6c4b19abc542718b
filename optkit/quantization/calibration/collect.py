"""Streaming collection: the model runs on one batch at a time, and only extremes and histograms of its activations are stored.

The data is read once. Memory is bounded by the activations of one batch, for any number of samples. The result does not depend on the
sizes of the feeds: the samples are regrouped into batches, and extremes and histograms are exact sums over them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optkit.artifact.tensors import Feed
from optkit.errors import FeedError
from optkit.progress import track
from optkit.quantization.calibration.activations import Activations
from optkit.quantization.calibration.batches import in_batches, rows_of
from optkit.quantization.calibration.histogram import Histogram
from optkit.quantization.calibration.inputs import InputStatistics
from optkit.quantization.calibration.ranges import Range, moving_average, observed, percentile
from optkit.quantization.calibration.search import entropy, mse
from optkit.quantization.calibration.settings import CalibrationMethod, CalibrationSettings


@dataclass(frozen=True)
class Statistics:
    """The statistics of the data and of the activations.

    Attributes:
        lows: tensor -> the smallest value of each sample, (samples,); infinity where the tensor was empty.
        highs: tensor -> the largest value of each sample, (samples,).
        histograms: tensor -> its histogram; empty where histograms are not collected.
        inputs: mean and deviation of the inputs.
        digests: a hash of each sample; equal samples have equal hashes.
    """

    lows: Mapping[str, np.ndarray]
    highs: Mapping[str, np.ndarray]
    histograms: Mapping[str, Histogram]
    inputs: InputStatistics
    digests: Sequence[int]


class Calibration(NamedTuple):
    """The ranges, and the statistics behind them."""

    ranges: dict[str, Range]
    statistics: Statistics


def calibrate(
    model: Path,
    ops: Sequence[str],
    feeds: Iterable[Feed],
    settings: CalibrationSettings,
    *,
    excluded: Collection[str] = (),
    histograms: bool = False,
) -> Calibration:
    """Run the model over the feeds and choose the range of every float tensor that a node of `ops` reads or writes.

    Args:
        model: an ONNX file with inferred shapes; a temporary file is beside it while it is opened.
        ops: operators whose activations are wanted.
        feeds: read once.
        settings: how ranges are chosen.
        excluded: names of nodes that stay in float.
        histograms: collect them also where the method does not need them.

    Raises:
        StageError: the model cannot be run on a feed, or has no such node.
        FeedError: there are fewer than two samples, or a tensor is not finite.
    """
    with Activations(model, ops, excluded=excluded, symmetric=settings.symmetric) as run:
        wants_histograms = histograms or settings.method.needs_histogram
        statistics = _collect(run, feeds, settings.sample if wants_histograms else None)
    names = track(statistics.lows, "choose ranges", len(statistics.lows))
    ranges = {name: _range(name, statistics, settings) for name in names}
    ranges |= {name: ranges[other] for name, other in run.same_as.items() if other in ranges}
    return Calibration(ranges, statistics)


def _range(name: str, statistics: Statistics, settings: CalibrationSettings) -> Range:
    lows, highs = statistics.lows[name], statistics.highs[name]
    match settings.method:
        case CalibrationMethod.MINMAX:
            return observed(float(lows.min()), float(highs.max()), settings.symmetric)
        case CalibrationMethod.MOVING_AVERAGE:
            seen = np.isfinite(lows)
            return moving_average(lows[seen], highs[seen], settings.symmetric)
        case CalibrationMethod.PERCENTILE:
            return percentile(statistics.histograms[name], settings.percentile, settings.symmetric)
        case CalibrationMethod.ENTROPY:
            return entropy(statistics.histograms[name], settings.symmetric)
        case CalibrationMethod.MSE:
            return mse(statistics.histograms[name], settings.symmetric)


def _collect(run: Activations, feeds: Iterable[Feed], every: int | None) -> Statistics:
    """Run the model over the feeds; histograms count one element in `every`, None leaves them out."""
    collector = _Collector(run.names, every)
    batches, total = in_batches(feeds, run) if run.has_batch else (iter(feeds), None)
    for feed in track(batches, "calibrate", total):
        collector.add(feed, run(feed))
    check_enough(collector.samples)
    return collector.statistics()


def check_enough(samples: int) -> None:
    """Refuse too few samples for a range.

    Raises:
        FeedError: there are fewer than two.
    """
    if samples < 2:
        found = "one sample" if samples else "no sample"
        raise FeedError(f"calibration data: {found}; ranges need at least two, and 64 or more are usual")


class _Collector:
    """Collects statistics batch by batch."""

    def __init__(self, names: Sequence[str], every: int | None) -> None:
        self.samples = 0
        self._names = names
        self._every = every
        self._lows: list[np.ndarray] = []  # each (rows, tensors)
        self._highs: list[np.ndarray] = []
        self._histograms = {name: Histogram() for name in names} if every else {}
        self._inputs = InputStatistics()
        self._digests: list[int] = []

    def add(self, feed: Feed, activations: Mapping[str, np.ndarray]) -> None:
        """Add the statistics of one batch.

        Raises:
            FeedError: a tensor is not finite.
        """
        rows = rows_of(feed)
        lows = np.full((rows, len(self._names)), np.inf, np.float32)
        highs = np.full((rows, len(self._names)), -np.inf, np.float32)
        for column, name in enumerate(self._names):
            values = activations.get(name)
            if values is None:
                continue
            by_row = values.reshape(rows if len(values) == rows else 1, -1) if values.ndim else values.reshape(1, 1)
            lows[:, column], highs[:, column] = by_row.min(axis=1), by_row.max(axis=1)
            self._check_finite(name, np.isfinite(lows[:, column]) & np.isfinite(highs[:, column]))
            if self._every:
                low, high = float(lows[:, column].min()), float(highs[:, column].max())
                self._histograms[name].add(values, low, high, self._every)
        self._lows.append(lows)
        self._highs.append(highs)
        self._inputs.add(feed)
        by_sample = [array.reshape(rows, -1) for array in feed.values()]
        self._digests += [hash(tuple(array[row].tobytes() for array in by_sample)) for row in range(rows)]
        self.samples += rows

    def _check_finite(self, name: str, finite: np.ndarray) -> None:
        if not finite.all():
            number = self.samples + int(np.argmin(finite))
            raise FeedError(f"sample {number}: tensor {name!r} is not finite; a range needs finite numbers")

    def statistics(self) -> Statistics:
        """Return the statistics; tensors that never had a value are left out."""
        lows, highs = np.concatenate(self._lows), np.concatenate(self._highs)
        seen = {name: column for column, name in enumerate(self._names) if np.isfinite(lows[:, column]).any()}
        return Statistics(
            lows={name: lows[:, column] for name, column in seen.items()},
            highs={name: highs[:, column] for name, column in seen.items()},
            histograms={name: self._histograms[name] for name in seen} if self._every else {},
            inputs=self._inputs,
            digests=self._digests,
        )
