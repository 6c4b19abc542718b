"""Hold an INT8 model to a limit on its accuracy: other types first, then layers that stay in float."""

from collections.abc import Mapping
from dataclasses import dataclass

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.check import Prover, evaluate
from optkit.choose.float_layers import Judge, Search, cosine_judge, rank, split
from optkit.choose.switches import Switchboard
from optkit.choose.workshop import AnyQuantize, Workshop
from optkit.errors import StageError
from optkit.findings import FrontierPoint, LayerEffect
from optkit.runners import open_runner
from optkit.stages import QuantizeStatic
from optkit.tensors import Feed


@dataclass(frozen=True)
class Kept:
    """The artifact that holds the limit, and which layers of it are in float; with a `failure`, the one that does not hold it."""

    name: str  # of the types
    artifact: Artifact
    judge: Judge | None = None
    value: float | None = None
    layers: tuple[LayerEffect, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    failure: str | None = None


def accurate_enough(
    stage: AnyQuantize,
    candidates: Mapping[str, AnyQuantize],
    made: Mapping[str, Artifact],
    shop: Workshop,
    prover: Prover,
) -> Kept:
    """Return the first candidate within the limit of the stage, else the first one with the fewest layers in float that bring it there.

    Args:
        stage: says the limit; without one the first candidate is returned.
        candidates: name -> the stage that makes it.
        made: name -> what it made; the one to prefer first.
        shop: makes others.
        prover: gives the samples, and the evaluation function where `max_drop` is the limit.

    Raises:
        StageError: there is nothing to judge with, or to rank on.
        ModelError: the evaluation function fails.
    """
    first = next(iter(made))
    if stage.max_drop is None and stage.min_cosine is None:
        return Kept(first, made[first])
    ranking, judging = split(prover.samples.real, judging=stage.max_drop is None)
    judge = _judge(stage, prover, judging)
    for name, artifact in made.items():
        with open_runner(artifact, prover.asked.device) as runner:
            value = judge.value(runner)
        if judge.accepts(value):
            return Kept(name, artifact, judge, value)
    return _with_float_layers(first, candidates[first], judge, ranking, shop)


def _judge(stage: AnyQuantize, prover: Prover, judging: list[Feed]) -> Judge:
    """Return what the limit is held against: the user's function, else the cosine to the float outputs."""
    with open_runner(prover.reference, prover.asked.device) as reference:
        if stage.max_drop is None:
            return cosine_judge(reference, judging, stage.min_cosine or 0.0)
        function = prover.asked.evaluation
        if function is None:
            raise StageError(
                f"max_drop {stage.max_drop:g}: nothing measures accuracy. Give --evaluate file.py:evaluate."
            )
        right = evaluate(function, reference)
        return Judge(right.function, lambda runner: evaluate(function, runner).value, right.value - stage.max_drop)


def _with_float_layers(name: str, stage: AnyQuantize, judge: Judge, ranking: list[Feed], shop: Workshop) -> Kept:
    """Search the layers to leave in float, make the file, and add one layer more as long as the file itself is not accurate enough."""
    quantized = shop.make(
        stage.model_copy(update={"format": "qdq"}) if isinstance(stage, QuantizeStatic) else stage, "switched"
    )
    nodes = stage.nodes(onnx_file.load(shop.prepared, weights=False).graph)
    with Switchboard(shop.source, shop.prepared, quantized.path, [node.name for node in nodes]) as board:
        search = Search(board, judge, rank(board, ranking), board.time_shares(ranking[0]))
        kept = search.fewest()
        rest = [layer.name for layer in search.ranked if layer.name not in kept]
        while not (failure := search.failure(kept)):
            artifact = shop.make(stage.model_copy(update={"exclude": (*stage.exclude, *kept)}), f"float {len(kept)}")
            with open_runner(artifact) as runner:
                value = judge.value(runner)
            if judge.accepts(value):
                return Kept(name, artifact, judge, value, search.table(kept), search.frontier())
            kept = [*kept, rest.pop(0)]
        return Kept(name, quantized, judge, search.value([]), search.table(kept), search.frontier(), failure)
