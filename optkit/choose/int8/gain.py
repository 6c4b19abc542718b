"""Is it worth it: size and latency before and after, measured in turns, and said plainly where INT8 is not faster."""

from collections.abc import Sequence
from typing import Any

from optkit.artifact import Artifact
from optkit.artifact.findings import FrontierPoint, Quantization, TriedTypes, Verdict
from optkit.artifact.tensors import batch_dim
from optkit.benchmark import BenchSettings, measure, this_machine
from optkit.checks import Prover
from optkit.choose.int8.accuracy_limit import Kept
from optkit.choose.int8.candidates import AnyQuantize
from optkit.errors import StageError
from optkit.stages import QuantizeStatic

_MB = 1e6
_NAMED = 4  # layers in a note; the record holds all


def worth(
    stage: AnyQuantize, kept: Kept, tried: Sequence[TriedTypes], source: Artifact, prover: Prover, *, for_cpu: bool
) -> Artifact:
    """Return the artifact with what was tried and measured, and notes that tell it.

    Args:
        stage: the one that made what was chosen, without the layers that accuracy keeps in float.
        kept: what was chosen.
        tried: the types that were compared.
        source: the FP32 model.
        prover: gives the samples.
        for_cpu: whether the artifact is to run on this processor, so that its latency here says something.
    """
    found = Quantization(
        chosen=kept.name,
        tried=tuple(tried),
        judged_by=kept.judge.name if kept.judge else None,
        limit=kept.judge.limit if kept.judge else None,
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
        *_worth_notes(found, kept.artifact, stage, for_cpu),
    ]
    return kept.artifact.model_copy(update={"quantization": found, "notes": tuple(notes)})


def at_opt(artifact: Artifact) -> dict[str, Any]:
    """Return the setting that measures a model at opt alone."""
    dim = batch_dim(artifact.inputs)
    return {"batches": (artifact.dims[dim].opt,) if dim and dim in artifact.dims else ()}


def _timed(found: Quantization, source: Artifact, artifact: Artifact, prover: Prover) -> Quantization:
    """Add the latencies, and from these what the points of the frontier would take."""
    settings = BenchSettings(min_blocks=6, max_blocks=20, time_limit_s=15, device=prover.asked.device, **at_opt(source))
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
    if found.judged_by is None:
        return []
    held = (
        f"{found.judged_by}: {found.value:.6g}, at least {found.limit:.6g} was asked for"
        if found.value is not None
        else ""
    )
    if found.failure:
        return [found.failure]
    if not found.layers:
        return [f"{held}; no layer had to stay in float"]
    named = ", ".join(found.exclude[:_NAMED]) + (", ..." if len(found.exclude) > _NAMED else "")
    return [f"{held}; {len(found.exclude)} of {len(found.layers)} layers stay in float for it: {named}"]


def _worth_notes(found: Quantization, artifact: Artifact, stage: AnyQuantize, for_cpu: bool) -> list[str]:
    before, after = found.size_before_bytes, found.size_after_bytes
    size = f"size {before / _MB:.3g} -> {after / _MB:.3g} MB"
    if not for_cpu or found.speed_up is None:
        return [f"{size}: the weights stay in FP32 in the file, and become INT8 when TensorRT builds the engine"]
    speed = found.speed_up
    interval = f" ({speed.low:.2f} to {speed.high:.2f})" if speed.low and speed.high else ""
    times = f"p50 at batch {speed.batch} {found.p50_before_ms:.3g} -> {found.p50_after_ms:.3g} ms: {speed.ratio:.2f}x{interval}"
    if speed.busy:
        times += f", measured while the machine was busy in {speed.starved_blocks} of {speed.blocks} blocks"
    match speed.verdict:
        case Verdict.FASTER if speed.busy:
            return [f"{size}, {times}: measure again on a quiet machine"]
        case Verdict.FASTER:
            return [f"{size}, {times} as fast as FP32"]
        case Verdict.TOO_NOISY:
            plain = "Whether INT8 is faster here is too noisy to say"
        case _:
            plain = "INT8 is not faster here"
    left = stage.model_copy(update={"exclude": (*stage.exclude, *found.exclude)}).float_ops(artifact.path)
    return [f"{size}, {times}. {plain}; {f'stayed in float: {left}' if left else _all_in_int8(stage)}"]


def _all_in_int8(stage: AnyQuantize) -> str:
    """Return why a model may be no faster although nothing heavy stayed in float."""
    every = "no heavy operator stayed in float"
    if isinstance(stage, QuantizeStatic) and (stage.format, stage.activation_type) == ("qoperator", "int8"):
        return f"{every}, but ONNX Runtime has no fast kernel of QOperator convolutions with signed activations"
    if this_machine().vnni is False:
        return f"{every}, but this processor has no VNNI, without which integer products gain little"
    return f"{every}, so that the layers are too small, or this processor has no fast kernel of these types"
