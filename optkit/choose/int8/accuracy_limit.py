"""An INT8 model within the accuracy limit: other types first, then layers that stay in float."""

import dataclasses
from collections.abc import Mapping

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.findings import FrontierPoint, LayerEffect
from optkit.artifact.tensors import Feed
from optkit.checks import Prover, evaluate
from optkit.choose.int8.candidates import AnyQuantize, CandidateBuilder
from optkit.choose.int8.holdout import split
from optkit.choose.int8.mixed_precision import MixedPrecisionModel
from optkit.choose.int8.sensitivity import AccuracyMetric, SensitivitySearch, cosine_metric, rank
from optkit.errors import StageError
from optkit.runners import open_runner
from optkit.stages import QuantizeStatic


@dataclasses.dataclass(frozen=True)
class LimitResult:
    """The artifact within the limit, and its float layers; with a `failure`, the artifact that misses the limit."""

    name: str  # of the types
    artifact: Artifact
    metric: AccuracyMetric | None = None
    value: float | None = None  # by the metric
    layers: tuple[LayerEffect, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    failure: str | None = None


def accurate_enough(
    stage: AnyQuantize,
    candidates: Mapping[str, AnyQuantize],
    made: Mapping[str, Artifact],
    builder: CandidateBuilder,
    prover: Prover,
) -> LimitResult:
    """Return the first candidate within the accuracy limit; where none is, the first with the fewest layers in float that reach it.

    Args:
        stage: has the limit; without a limit the first candidate is returned.
        candidates: name -> the stage that makes it.
        made: name -> its artifact, in the order of preference.
        builder: makes further candidates.
        prover: has the samples, and the evaluation function where `max_drop` is the limit.

    Raises:
        StageError: there is no evaluation function, or there are no samples.
        ModelError: the evaluation function fails.
    """
    first = next(iter(made))
    if not stage.limited:
        return LimitResult(first, made[first])
    metric = _metric(stage, prover)
    values: dict[str, float] = {}
    for name, artifact in made.items():
        with open_runner(artifact, prover.requirements.device) as runner:
            values[name] = metric.value(runner.infer)
        if metric.accepts(values[name]):
            return LimitResult(name, artifact, metric, values[name])
    ranking, _ = split(prover.samples.real, holdout=stage.max_drop is None)
    whole = LimitResult(first, made[first], metric, values[first])
    return _with_float_layers(whole, values[first], candidates[first], metric, ranking, builder)


def _metric(stage: AnyQuantize, prover: Prover) -> AccuracyMetric:
    """Return the metric of the limit: the user's evaluation function, else the cosine to the float outputs."""
    with open_runner(prover.reference, prover.requirements.device) as reference:
        if stage.max_drop is None:
            _, holdout = split(prover.samples.real, holdout=True)
            return cosine_metric(reference.infer, holdout, stage.min_cosine or 0.0)
        function = prover.requirements.evaluation
        if function is None:
            raise StageError(
                f"max_drop {stage.max_drop:g}: nothing measures accuracy. Give --evaluate file.py:evaluate."
            )
        base = evaluate(function, reference.infer)
        return AccuracyMetric(base.function, lambda infer: evaluate(function, infer).value, base.value - stage.max_drop)


def _with_float_layers(
    whole: LimitResult,
    value: float,
    stage: AnyQuantize,
    metric: AccuracyMetric,
    ranking: list[Feed],
    builder: CandidateBuilder,
) -> LimitResult:
    """Search the layers to leave in float and make the file; add one more layer while the file itself misses the limit.

    Args:
        whole: the model with all layers in INT8, which misses the limit.
        value: its value by the metric.
        stage: the stage that made it.
        metric: has the limit.
        ranking: the feeds that rank the layers.
        builder: makes further candidates.
    """
    all_int8 = stage.model_copy(update={"format": "qdq"}) if isinstance(stage, QuantizeStatic) else stage
    quantized = builder.make(all_int8, "all int8")
    prepared = builder.base(stage).model
    nodes = stage.nodes(onnx_file.load(prepared, weights=False).graph)
    with MixedPrecisionModel(builder.source, prepared, quantized.path, [node.name for node in nodes]) as model:
        shares = model.time_shares(ranking[0])  # first, because profiling ends with it
        search = SensitivitySearch(model, metric, rank(model, ranking), shares)
        search.values[frozenset()] = value
        kept = search.fewest()
        rest = [layer.name for layer in search.ranked if layer.name not in kept]
        while not (failure := search.failure(kept)):
            artifact = builder.make(stage.model_copy(update={"exclude": (*stage.exclude, *kept)}), f"float {len(kept)}")
            with open_runner(artifact) as runner:
                found = metric.value(runner.infer)
            search.values[frozenset(kept)] = found  # of the file, not of the mixed-precision model
            if metric.accepts(found):
                return LimitResult(whole.name, artifact, metric, found, search.table(kept), search.frontier())
            kept = [*kept, rest.pop(0)]
        return dataclasses.replace(whole, layers=search.table(kept), frontier=search.frontier(), failure=failure)
