"""The gain of INT8: size and latency before and after, measured in alternating blocks. A note says where INT8 is not faster."""

from collections.abc import Sequence
from typing import Any

from optkit.artifact import Artifact
from optkit.artifact.findings import FrontierPoint, Quantization, TriedTypes, Verdict
from optkit.artifact.tensors import batch_dim
from optkit.benchmark import BenchSettings, measure, this_machine
from optkit.checks import Prover
from optkit.choose.int8.accuracy_limit import LimitResult
from optkit.choose.int8.candidates import AnyQuantize
from optkit.errors import StageError
from optkit.stages import QuantizeStatic

_MB = 1e6
_NAMED = 4  # layers in a note; the record holds all


def gain(
    stage: AnyQuantize,
    kept: LimitResult,
    tried: Sequence[TriedTypes],
    source: Artifact,
    prover: Prover,
    *,
    for_cpu: bool,
) -> Artifact:
    """Return the artifact with its quantization record, and with notes on it.

    Args:
        stage: the stage that made the chosen candidate, without the layers that the accuracy limit keeps in float.
        kept: the chosen candidate.
        tried: the compared types.
        source: the FP32 model.
        prover: has the samples.
        for_cpu: whether the artifact is for CPUs; only then its latency here is meaningful.
    """
    found = Quantization(
        chosen=kept.name,
        tried=tuple(tried),
        metric=kept.metric.name if kept.metric else None,
        limit=kept.metric.limit if kept.metric else None,
        value=kept.value,
        failure=kept.failure,
        layers=kept.layers,
        frontier=kept.frontier,
        size_before_bytes=source.size_bytes,
        size_after_bytes=kept.artifact.size_bytes,
    )
    if for_cpu:
        found = _timed(found, source, kept.artifact, prover)
    notes = [
        *kept.artifact.notes,
        *_types_notes(found),
        *_layers_notes(found),
        *_gain_notes(found, kept.artifact, stage, for_cpu),
    ]
    return kept.artifact.model_copy(update={"quantization": found, "notes": tuple(notes)})


def at_opt(artifact: Artifact) -> dict[str, Any]:
    """Return the benchmark setting that measures only at opt."""
    dim = batch_dim(artifact.inputs)
    return {"batches": (artifact.dims[dim].opt,) if dim and dim in artifact.dims else ()}


def _timed(found: Quantization, source: Artifact, artifact: Artifact, prover: Prover) -> Quantization:
    """Add the latencies, and the predicted latencies of the points of the frontier."""
    settings = BenchSettings(
        min_blocks=6, max_blocks=20, time_limit_s=15, device=prover.requirements.device, **at_opt(source)
    )
    measured = measure({"fp32": source, "int8": artifact}, prover.samples, settings)
    if measured.interrupted:
        raise KeyboardInterrupt
    if measured.not_run:
        raise StageError(f"the model cannot be measured: {measured.not_run[0].reason}")
    before, after = (m.p50_ms for m in measured.measurements)
    share = next((p.float_share for p in found.frontier if p.kept == len(found.exclude)), 0.0)
    all_int8 = (after - before * share) / (1 - share) if share < 1 else after
    frontier = tuple(
        FrontierPoint(
            kept=p.kept,
            value=p.value,
            float_share=p.float_share,
            predicted_ms=all_int8 + (before - all_int8) * p.float_share,
        )
        for p in found.frontier
    )
    times = {
        "p50_before_ms": before,
        "p50_after_ms": after,
        "speed_up": measured.speed_ups[0],
        "frontier": frontier,
    }
    return found.model_copy(update=times)


def _types_notes(found: Quantization) -> list[str]:
    if len(found.tried) < 2:
        return []
    lost = [f"{one.name} {one.verdict}" for one in found.tried if one.name != found.chosen]
    return [f"chosen: {found.chosen}", *(f"not chosen: {text}" for text in lost)]


def _layers_notes(found: Quantization) -> list[str]:
    if found.metric is None:
        return []
    held = f"{found.metric}: {found.value:.6g}, limit {found.limit:.6g}" if found.value is not None else ""
    if found.failure:
        return [found.failure]
    if not found.layers:
        return [f"{held}; no layer stays in float"]
    named = ", ".join(found.exclude[:_NAMED]) + (", ..." if len(found.exclude) > _NAMED else "")
    return [f"{held}; {len(found.exclude)} of {len(found.layers)} layers stay in float to reach it: {named}"]


def _gain_notes(found: Quantization, artifact: Artifact, stage: AnyQuantize, for_cpu: bool) -> list[str]:
    before, after = found.size_before_bytes, found.size_after_bytes
    size = f"size {before / _MB:.3g} -> {after / _MB:.3g} MB"
    if not for_cpu or found.speed_up is None:
        return [f"{size}: the file keeps FP32 weights; TensorRT converts them to INT8 when it builds the engine"]
    speed = found.speed_up
    interval = f" ({speed.low:.2f} to {speed.high:.2f})" if speed.low and speed.high else ""
    times = f"p50 at batch {speed.batch} {found.p50_before_ms:.3g} -> {found.p50_after_ms:.3g} ms: {speed.ratio:.2f}x{interval}"
    if speed.busy:
        times += f", measured while the machine was busy in {speed.cpu_contended_blocks} of {speed.blocks} blocks"
    match speed.verdict:
        case Verdict.FASTER if speed.busy:
            return [f"{size}, {times}. Measure again on a quiet machine"]
        case Verdict.FASTER:
            return [f"{size}, {times} as fast as FP32"]
        case Verdict.TOO_NOISY:
            plain = "The measurement is too noisy to say whether INT8 is faster here"
        case _:
            plain = "INT8 is not faster here"
    left = stage.model_copy(update={"exclude": (*stage.exclude, *found.exclude)}).float_ops(artifact.path)
    return [f"{size}, {times}. {plain}; {f'stayed in float: {left}' if left else _all_in_int8(stage)}"]


def _all_in_int8(stage: AnyQuantize) -> str:
    """Return the likely reason why a model is not faster although every heavy operator is in INT8."""
    every = "every heavy operator is in INT8"
    if isinstance(stage, QuantizeStatic) and (stage.format, stage.activation_type) == ("qoperator", "int8"):
        return f"{every}, but ONNX Runtime has no fast kernel for QOperator convolutions with signed activations"
    if this_machine().vnni is False:
        return f"{every}, but this processor has no VNNI; without VNNI, INT8 matrix products are hardly faster"
    return f"{every}; the layers may be too small, or this processor has no fast kernel for these types"
