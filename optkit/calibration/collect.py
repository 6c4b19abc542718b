"""Streaming collection: the model runs on one feed at a time and only extremes and histograms are kept.

Memory is bounded by the activations of one feed, whatever their number, and the result does not depend on how the data is cut
into feeds: the first pass finds the extremes of every tensor, the second counts into bins that these fix.
"""

import operator
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optkit import onnx_file
from optkit.calibration.methods import BINS, Histogram, Method, Range, entropy, observed, percentile
from optkit.errors import FeedError, StageError, first_line
from optkit.progress import track
from optkit.tensors import Feed

if TYPE_CHECKING:
    import onnx


def collect_ranges(
    model: Path,
    ops: Sequence[str],
    feeds: Iterable[Feed],
    method: Method,
    percent: float = 99.999,
    *,
    excluded: Collection[str] = (),
) -> dict[str, Range]:
    """Run the model over the feeds and return the range of every float tensor that a node of `ops` reads or writes.

    Args:
        model: an ONNX file with its shapes inferred.
        ops: operators whose activations are wanted.
        feeds: read once for min-max, twice for the other methods.
        method: how ranges are chosen.
        percent: what the percentile method keeps, of 100.
        excluded: names of nodes that stay in float.

    Raises:
        StageError: the model cannot be run on a feed, or has no such node.
        FeedError: a tensor is not finite.
    """
    with _Activations(model, ops, excluded) as run:
        low, high = _extremes(run, feeds)
        if method is Method.MINMAX:
            return {name: observed(low[name], high[name]) for name in low}
        histograms = _histograms(run, feeds, low, high, zeros=method is not Method.ENTROPY)
    if method is Method.PERCENTILE:
        return {name: percentile(h, percent) for name, h in histograms.items()}
    return {name: entropy(h) for name, h in track(histograms.items(), "search ranges", len(histograms))}


def _extremes(run: "_Activations", feeds: Iterable[Feed]) -> tuple[dict[str, float], dict[str, float]]:
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for number, feed in enumerate(track(feeds, "calibrate: ranges", operator.length_hint(feeds) or None)):
        for name, values in run(feed).items():
            smallest, largest = float(values.min()), float(values.max())
            if not (np.isfinite(smallest) and np.isfinite(largest)):
                raise FeedError(f"feed {number}: tensor {name!r} is not finite there; a range needs finite numbers")
            low[name] = min(low.get(name, smallest), smallest)
            high[name] = max(high.get(name, largest), largest)
    return low, high


def _histograms(
    run: "_Activations", feeds: Iterable[Feed], low: dict[str, float], high: dict[str, float], *, zeros: bool
) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS, np.int64) for name in low}
    for feed in track(feeds, "calibrate: histograms", operator.length_hint(feeds) or None):
        for name, values in run(feed).items():
            width = (high[name] - low[name]) / BINS
            if width > 0:
                counted = values.ravel() if zeros else values[values != 0]
                bins = ((counted - low[name]) / width).astype(np.int64)
                counts[name] += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
            else:
                counts[name][0] += values.size  # a constant tensor
    return {name: Histogram(low[name], high[name], counts[name]) for name in low}


class _Activations:
    """A session that returns the wanted activations of a feed: tensor name -> array, empty ones left out."""

    def __init__(self, model: Path, ops: Sequence[str], excluded: Collection[str]) -> None:
        self._model = model
        self._excluded = frozenset(excluded)
        self._ops = frozenset(ops)

    def __enter__(self) -> "_Activations":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Fusion would do away with the very tensors that are asked for.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        graph, self._names, self._from_feed = self._with_outputs()
        augmented = self._model.with_name("augmented.onnx")
        onnx_file.save(graph, augmented)
        try:
            self._session = onnxruntime.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's exceptions share no base but Exception
            raise StageError(f"the model cannot be run for calibration: {first_line(e)}") from e
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        try:
            arrays = self._session.run(self._names, dict(feed))
        except Exception as e:
            raise StageError(f"the model cannot be run on the calibration data: {first_line(e)}") from e
        found = {name: feed[name] for name in self._from_feed} | dict(zip(self._names, arrays, strict=True))
        return {name: array for name, array in found.items() if array.size}

    def _with_outputs(self) -> "tuple[onnx.ModelProto, list[str], list[str]]":
        """Return the model with every wanted tensor as an output, their names, and the wanted inputs of the model."""
        import onnx

        model = onnx_file.load(self._model, weights=False)  # external data is beside it, and is read from there
        graph = model.graph
        floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        known = {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}
        weights = {tensor.name for tensor in graph.initializer}
        # In the order of the graph, so that the first tensor of which an error speaks is the one where it begins.
        wanted = dict.fromkeys(
            name
            for node in graph.node
            if node.op_type in self._ops and node.name not in self._excluded
            for name in (*node.input, *node.output)
            if name in known and name not in weights and known[name].type.tensor_type.elem_type in floats
        )
        if not wanted:
            raise StageError("the model has no operator that can be quantized")
        fed = {v.name for v in graph.input}
        already = {v.name for v in graph.output}
        graph.output.extend(known[name] for name in wanted if name not in fed | already)
        return model, [name for name in wanted if name not in fed], [name for name in wanted if name in fed]
