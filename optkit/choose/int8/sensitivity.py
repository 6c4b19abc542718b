"""Which layers stay in float: the fewest that bring an INT8 model back under a limit on its accuracy.

The layers are ranked by what each does to the outputs when it alone is quantized, on calibration data; how many of them must stay is
judged on other data. Both run on one model with switches; what is found is then made and judged as a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from optkit.artifact.findings import FrontierPoint, LayerEffect
from optkit.artifact.tensors import Feed
from optkit.checks.parity import sqnr_db
from optkit.choose.int8.mixed_precision import Layer, Switchboard
from optkit.progress import track
from optkit.runners import Runner


@dataclass(frozen=True)
class Judge:
    """What says how accurate a model is, and how accurate it must be."""

    name: str
    value: Callable[[Runner], float]  # larger is better
    limit: float

    def accepts(self, value: float) -> bool:
        """Whether a value is good enough; NaN is not."""
        return value >= self.limit


@dataclass
class Search:
    """The layers, and what was found with some of them in float."""

    board: Switchboard
    judge: Judge
    effects: Mapping[str, float | None]  # layer -> SQNR in dB of the outputs when it alone is in INT8
    time_shares: Mapping[str, float]  # layer -> its share of the time of all layers in float
    values: dict[frozenset[str], float] = field(default_factory=dict)

    @property
    def ranked(self) -> list[Layer]:
        """The layers, most harmful first."""
        return sorted(self.board.layers, key=lambda layer: _or_infinite(self.effects[layer.name]))

    def value(self, kept: Sequence[str]) -> float:
        """Return how accurate the model is with these layers in float; it is judged once for each choice."""
        key = frozenset(kept)
        if key not in self.values:
            self.board.kept = key
            self.values[key] = self.judge.value(self.board)
        return self.values[key]

    def fewest(self) -> list[str]:
        """Return the fewest layers, most harmful first, that must stay in float; all of them where not even these are enough.

        A bisection finds how many of the most harmful are enough; then each of these that turns out not to be needed is put back.
        """
        names = [layer.name for layer in self.ranked]
        too_few, enough = -1, len(names)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self.judge.accepts(self.value(names[:middle])):
                enough = middle
            else:
                too_few = middle
        kept = names[:enough]
        if len(kept) == len(names):
            self.value(names)
            return kept
        for name in track(reversed(kept.copy()), "leave out fewer layers", len(kept)):
            fewer = [other for other in kept if other != name]
            if self.judge.accepts(self.value(fewer)):
                kept = fewer
        return kept

    def failure(self, kept: Sequence[str]) -> str | None:
        """Return why a choice of layers is no INT8 model within the limit; None where it is one."""
        if len(kept) < len(self.board.layers):
            return None
        value, limit = self.value(kept), f"at least {self.judge.limit:.6g} was asked for"
        if self.judge.accepts(value):
            return f"{self.judge.name}: {limit}, which only the model with every layer in float reaches. Ask for less, or keep FP32."
        return (
            f"{self.judge.name}: {value:.6g} even with every layer in float; {limit}. No choice of layers reaches it."
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


def rank(board: Switchboard, feeds: Sequence[Feed]) -> dict[str, float | None]:
    """Return layer -> SQNR in dB of the worst output when that layer alone is in INT8; None where nothing changes.

    Args:
        board: open.
        feeds: real ones, on which nothing is judged.
    """
    every = frozenset(layer.name for layer in board.layers)
    board.kept = every
    expected = _outputs(board, feeds)
    effects: dict[str, float | None] = {}
    for layer in track(board.layers, "rank layers", len(board.layers)):
        board.kept = every - {layer.name}
        found = _outputs(board, feeds)
        ratios = [sqnr_db(expected[name], found[name]) for name in expected]
        effects[layer.name] = min((ratio for ratio in ratios if ratio is not None), default=None)
    return effects


def cosine_judge(reference: Runner, feeds: Sequence[Feed], limit: float) -> Judge:
    """Return a judge by the smallest cosine of any output to that of the float model, both without the mean of the float one."""
    expected = _outputs(reference, feeds)

    def value(runner: Runner) -> float:
        found = _outputs(runner, feeds)
        return min(_cosine(expected[name], found[name]) for name in expected)

    return Judge("cosine to the float outputs", value, limit)


def _outputs(runner: Runner, feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    """Return output name -> the values of all feeds, one after the other."""
    found = [runner.infer(feed) for feed in feeds]
    return {name: np.concatenate([outputs[name].ravel() for outputs in found]) for name in found[0]}


def _cosine(reference: np.ndarray, candidate: np.ndarray) -> float:
    r, c = reference.astype(np.float64), candidate.astype(np.float64)
    r, c = r - r.mean(), c - r.mean()
    length = float(np.linalg.norm(r) * np.linalg.norm(c))
    return float(np.dot(r, c)) / length if length else float(np.array_equal(r, c))


def _or_infinite(ratio: float | None) -> float:
    return float("inf") if ratio is None else ratio
