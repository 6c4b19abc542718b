"""The layers that stay in float: the fewest that bring an INT8 model within its accuracy limit.

Calibration data ranks the layers: each is quantized alone, and its noise in the outputs is measured. Holdout data decides how many
of them stay in float. Both use one mixed-precision model; the result is then written as a file and measured again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from optkit.artifact.findings import FrontierPoint, LayerEffect
from optkit.artifact.limits import at_least
from optkit.artifact.tensors import Feed
from optkit.checks.accuracy import Infer
from optkit.checks.parity import sqnr_db
from optkit.choose.int8.mixed_precision import Layer, MixedPrecisionModel
from optkit.progress import track


@dataclass(frozen=True)
class AccuracyMetric:
    """A metric of accuracy, and its limit."""

    name: str
    value: Callable[[Infer], float]  # larger is better
    limit: float

    def accepts(self, value: float) -> bool:
        """Whether a value reaches the limit; NaN does not."""
        return at_least(value, self.limit)


@dataclass
class SensitivitySearch:
    """The search for the layers to leave in float, and the values that it found."""

    model: MixedPrecisionModel
    metric: AccuracyMetric
    effects: Mapping[str, float | None]  # layer -> SQNR in dB of the outputs when it alone is in INT8
    time_shares: Mapping[str, float]  # layer -> its share of the time of all layers in float
    values: dict[frozenset[str], float] = field(default_factory=dict)

    @property
    def ranked(self) -> list[Layer]:
        """The layers, most harmful first."""
        return sorted(self.model.layers, key=lambda layer: _or_infinite(self.effects[layer.name]))

    def value(self, kept: Sequence[str]) -> float:
        """Return the accuracy of the model with these layers in float, measured once for each choice."""
        key = frozenset(kept)
        if key not in self.values:
            self.model.kept = key
            self.values[key] = self.metric.value(self.model.infer)
        return self.values[key]

    def fewest(self) -> list[str]:
        """Return the fewest layers, most harmful first, that must stay in float; all layers where even these miss the limit.

        A bisection finds how many of the most harmful layers are enough. Then each of these that is not needed returns to INT8.
        """
        names = [layer.name for layer in self.ranked]
        too_few, enough = -1, len(names)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self.metric.accepts(self.value(names[:middle])):
                enough = middle
            else:
                too_few = middle
        kept = names[:enough]
        if len(kept) == len(names):
            self.value(names)
            return kept
        for name in track(reversed(kept.copy()), "return layers to INT8", len(kept)):
            fewer = [other for other in kept if other != name]
            if self.metric.accepts(self.value(fewer)):
                kept = fewer
        return kept

    def failure(self, kept: Sequence[str]) -> str | None:
        """Return the reason why these layers give no INT8 model within the limit; None where they give one."""
        if len(kept) < len(self.model.layers):
            return None
        value, limit = self.value(kept), f"the limit is {self.metric.limit:.6g}"
        if self.metric.accepts(value):
            return f"{self.metric.name}: {limit}; only the model with every layer in float reaches it. Lower the limit, or keep FP32."
        return (
            f"{self.metric.name}: {value:.6g} even with every layer in float; {limit}. No choice of layers reaches it."
        )

    def table(self, kept: Sequence[str]) -> tuple[LayerEffect, ...]:
        """Return every layer with its effect, most harmful first."""
        return tuple(
            LayerEffect(
                layer=layer.name,
                op=layer.op,
                sqnr_db=self.effects[layer.name],
                size_bytes=layer.size_bytes,
                kept=layer.name in kept,
            )
            for layer in self.ranked
        )

    def frontier(self) -> tuple[FrontierPoint, ...]:
        """Return the best value found for each number of layers in float."""
        best: dict[int, FrontierPoint] = {}
        for kept, value in self.values.items():
            if len(kept) not in best or value > best[len(kept)].value:
                share = min(sum(self.time_shares[name] for name in kept), 1.0)
                best[len(kept)] = FrontierPoint(kept=len(kept), value=value, float_share=share)
        return tuple(best[count] for count in sorted(best))


def rank(model: MixedPrecisionModel, feeds: Sequence[Feed]) -> dict[str, float | None]:
    """Return layer -> SQNR in dB of the worst output when that layer alone is in INT8; None where nothing changes.

    Args:
        model: open.
        feeds: real data, without the holdout.
    """
    every = frozenset(layer.name for layer in model.layers)
    model.kept = every
    expected = _outputs(model.infer, feeds)
    effects: dict[str, float | None] = {}
    for layer in track(model.layers, "rank layers", len(model.layers)):
        model.kept = every - {layer.name}
        found = _outputs(model.infer, feeds)
        ratios = [sqnr_db(expected[name], found[name]) for name in expected]
        effects[layer.name] = min((ratio for ratio in ratios if ratio is not None), default=None)
    return effects


def cosine_metric(reference: Infer, feeds: Sequence[Feed], limit: float) -> AccuracyMetric:
    """Return the metric that is the smallest cosine of any output to the output of the float model.

    The mean of each is subtracted first, because a large constant would hide any error.
    """
    expected = _outputs(reference, feeds)

    def value(infer: Infer) -> float:
        found = _outputs(infer, feeds)
        return min(_cosine(expected[name], found[name]) for name in expected)

    return AccuracyMetric("cosine to the float outputs", value, limit)


def _outputs(infer: Infer, feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    """Return output name -> the values of all feeds, concatenated."""
    found = [infer(feed) for feed in feeds]
    return {name: np.concatenate([outputs[name].ravel() for outputs in found]) for name in found[0]}


def _cosine(reference: np.ndarray, candidate: np.ndarray) -> float:
    r, c = reference.astype(np.float64), candidate.astype(np.float64)
    r, c = r - r.mean(), c - r.mean()
    length = float(np.linalg.norm(r) * np.linalg.norm(c))
    return float(np.dot(r, c)) / length if length else float(np.array_equal(r, c))


def _or_infinite(ratio: float | None) -> float:
    return float("inf") if ratio is None else ratio
