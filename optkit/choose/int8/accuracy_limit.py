"""Hold an INT8 model to a limit on its accuracy: other types first, then layers that stay in float."""

import dataclasses
from collections.abc import Mapping

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.findings import FrontierPoint, LayerEffect
from optkit.artifact.tensors import Feed
from optkit.checks import Prover, evaluate
from optkit.choose.int8.candidates import AnyQuantize, Workshop
from optkit.choose.int8.holdout import split
from optkit.choose.int8.mixed_precision import Switchboard
from optkit.choose.int8.sensitivity import Judge, Search, cosine_judge, rank
from optkit.errors import StageError
from optkit.runners import open_runner
from optkit.stages import QuantizeStatic


@dataclasses.dataclass(frozen=True)
class Kept:
    """The artifact that holds the limit, and which layers of it are in float; with a `failure`, the one that does not hold it."""

    name: str  # of the types
    artifact: Artifact
    judge: Judge | None = None
    value: float | None = None  # by the judge
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
    if not stage.limited:
        return Kept(first, made[first])
    judge = _judge(stage, prover)
    values: dict[str, float] = {}
    for name, artifact in made.items():
        with open_runner(artifact, prover.asked.device) as runner:
            values[name] = judge.value(runner)
        if judge.accepts(values[name]):
            return Kept(name, artifact, judge, values[name])
    ranking, _ = split(prover.samples.real, judging=stage.max_drop is None)
    whole = Kept(first, made[first], judge, values[first])
    return _with_float_layers(whole, values[first], candidates[first], judge, ranking, shop)


def _judge(stage: AnyQuantize, prover: Prover) -> Judge:
    """Return what the limit is held against: the user's function, else the cosine to the float outputs."""
    with open_runner(prover.reference, prover.asked.device) as reference:
        if stage.max_drop is None:
            _, judging = split(prover.samples.real, judging=True)
            return cosine_judge(reference, judging, stage.min_cosine or 0.0)
        function = prover.asked.evaluation
        if function is None:
            raise StageError(
                f"max_drop {stage.max_drop:g}: nothing measures accuracy. Give --evaluate file.py:evaluate."
            )
        right = evaluate(function, reference)
        return Judge(right.function, lambda runner: evaluate(function, runner).value, right.value - stage.max_drop)


def _with_float_layers(
    whole: Kept, value: float, stage: AnyQuantize, judge: Judge, ranking: list[Feed], shop: Workshop
) -> Kept:
    """Search the layers to leave in float, make the file, and add one layer more as long as the file itself is not accurate enough.

    Args:
        whole: the model with all layers in INT8, which is not accurate enough.
        value: of that by the judge.
        stage: what made it.
        judge: says what is.
        ranking: the feeds to rank on.
        shop: makes others.
    """
    switched = stage.model_copy(update={"format": "qdq"}) if isinstance(stage, QuantizeStatic) else stage
    quantized = shop.make(switched, "switched")
    prepared = shop.base(stage).model
    nodes = stage.nodes(onnx_file.load(prepared, weights=False).graph)
    with Switchboard(shop.source, prepared, quantized.path, [node.name for node in nodes]) as board:
        shares = board.time_shares(ranking[0])  # first, since it profiles
        search = Search(board, judge, rank(board, ranking), shares)
        search.values[frozenset()] = value
        kept = search.fewest()
        rest = [layer.name for layer in search.ranked if layer.name not in kept]
        while not (failure := search.failure(kept)):
            artifact = shop.make(stage.model_copy(update={"exclude": (*stage.exclude, *kept)}), f"float {len(kept)}")
            with open_runner(artifact) as runner:
                found = judge.value(runner)
            search.values[frozenset(kept)] = found  # of the file, not of the switches
            if judge.accepts(found):
                return Kept(whole.name, artifact, judge, found, search.table(kept), search.frontier())
            kept = [*kept, rest.pop(0)]
        return dataclasses.replace(whole, layers=search.table(kept), frontier=search.frontier(), failure=failure)
