"""The choice of INT8 types: among the types within tolerance, the fastest on this processor.

The model is prepared and calibrated once, and the candidates share the ranges. A quick measurement comes first; only candidates near
the fastest are measured with more blocks. The record gives the reason for each candidate that was not chosen.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.findings import TriedTypes
from optkit.benchmark import BenchSettings, measure, this_machine
from optkit.checks import TOLERANCES, Prover
from optkit.checks.parity import compare_outputs
from optkit.choose.int8.accuracy_limit import accurate_enough
from optkit.choose.int8.candidates import AnyQuantize, CandidateBuilder
from optkit.choose.int8.gain import at_opt, gain
from optkit.errors import StageError
from optkit.quantization.ort_quantizer import quantizing
from optkit.runners import open_runner
from optkit.stages import QuantizeDynamic, QuantizeStatic
from optkit.stages.quantizing import has_attention
from optkit.system.temporary import temporary_folder
from optkit.tensorrt.qdq_rules import broken_rules

_NEAR = 1.25  # a candidate whose latency is a larger multiple of the smallest is not measured again
_SAME = 1.03  # latencies within this ratio count as equal; the first candidate in the list is chosen
_SMOOTH = 0.75  # SmoothQuant's alpha: on MiniLM 0.7 gained most, 0.5 lost (benchmarks/results/int8_accuracy.md)
_GAIN_DB = 1.0  # the gain that SmoothQuant must reach
_SMOOTH_COST = 1.1  # the largest ratio of latencies that this gain may cost
_SHORT = {"uint8": "u8", "int8": "s8"}


def quantize(stage: AnyQuantize, source: Artifact, out_dir: Path, prover: Prover, filename: str) -> Artifact:
    """Quantize with the fastest types, leave layers in float where the accuracy limit requires it, and measure the gain.

    Args:
        stage: the settings; types that are `auto` are chosen here.
        source: the FP32 model.
        out_dir: the stage's own folder, created.
        prover: its samples are run and measured; its evaluation function measures the accuracy.
        filename: the name of the artifact.

    Raises:
        StageError: no candidate could be made, or the file breaks a rule of TensorRT.
        OptkitError: the data or the evaluation function is at fault.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    plain = _settled(stage)
    try:
        plain.check_source(source)
        with (
            temporary_folder(out_dir, "types") as folder,
            quantizing(source, out_dir) as prepared,
        ):
            builder = CandidateBuilder(source, prepared, folder.absolute(), filename)
            builder.prepare(plain)
            candidates = _candidates(plain, prepared)
            made, tried = _ordered(candidates, builder, prover)
            if isinstance(plain, QuantizeStatic) and _may_be_smoothed(plain, prepared):
                candidates, made, tried = _with_smoothing(plain, candidates, made, tried, builder, prover)
            kept = accurate_enough(stage, {name: candidates[name] for name in made}, made, builder, prover)
            if stage.target == "tensorrt":
                _check_rules(kept.artifact)
            calibration = builder.base(candidates[kept.name]).calibration
            if isinstance(plain, QuantizeStatic) and calibration:
                kept = dataclasses.replace(kept, artifact=plain.described(kept.artifact, calibration))
            measured = gain(candidates[kept.name], kept, tried, source, prover, for_cpu=stage.target == "cpu")
            return _moved_up(measured, out_dir)
    except StageError as e:
        raise StageError(f"{stage.step}: {e}") from e


def _settled(stage: AnyQuantize) -> AnyQuantize:
    """Return the stage without accuracy limits, and with `reduce_range` decided for this processor."""
    narrow = stage.reduce_range
    if narrow is None:
        # Products with unsigned weights are not added in 16 bits, so nothing overflows.
        narrow = stage.target == "cpu" and stage.weight_type == "int8" and this_machine().vnni is False
    return stage.model_copy(update={"max_drop": None, "min_cosine": None, "reduce_range": narrow})


def _candidates(stage: AnyQuantize, prepared: Path) -> dict[str, AnyQuantize]:
    """Return name -> a stage with fixed types; the one expected to be fastest on x86 first."""
    if isinstance(stage, QuantizeDynamic):
        return {"dynamic": stage}
    if stage.target == "tensorrt":
        return {"s8s8 symmetric qdq": stage}
    graph = onnx_file.load(prepared, weights=False).graph
    # ONNX Runtime has no kernel for signed activations with unsigned weights.
    either = ("uint8",) if stage.weight_type == "uint8" else ("uint8", "int8")
    types = either if stage.activation_type == "auto" else (stage.activation_type,)
    formats = ("qdq", "qoperator") if stage.format == "auto" else (stage.format,)
    if has_attention(graph) and stage.format == "auto":
        formats = ("qdq",)  # QOperator has no INT8 matrix product with a float result
    found: dict[str, AnyQuantize] = {
        f"{_SHORT[activation]}{_SHORT[stage.weight_type]} {form}": stage.model_copy(
            update={"activation_type": activation, "format": form}
        )
        for form in formats
        for activation in types
    }
    if stage.or_dynamic:
        keys = set(QuantizeDynamic.model_fields) - {"stage", "target"}
        found["dynamic"] = QuantizeDynamic(**{key: getattr(stage, key) for key in keys})
    return found


def _ordered(
    candidates: Mapping[str, AnyQuantize], builder: CandidateBuilder, prover: Prover
) -> tuple[dict[str, Artifact], list[TriedTypes]]:
    """Make the candidates; return the eligible ones, the best first, and the verdict on each candidate.

    Raises:
        StageError: no candidate could be made; has the reason of the first.
    """
    made: dict[str, Artifact] = {}
    refused: dict[str, StageError] = {}
    for name, stage in candidates.items():
        try:
            made[name] = builder.make(stage, name)
        except StageError as e:
            refused[name] = e
    if not made:
        raise next(iter(refused.values()))
    tried = [TriedTypes(name=name, verdict=f"could not be made: {e}") for name, e in refused.items()]
    if len(made) == 1:
        return made, tried
    checked = {name: _noise(artifact, builder.source, prover) for name, artifact in made.items()}
    p50 = _latencies(made, prover, quick=True)
    right = [name for name in made if checked[name][1] is None] or list(made)
    fastest = min(p50[name] for name in right)
    near = [name for name in right if p50[name] <= _NEAR * fastest]
    if len(near) > 1:
        p50 |= _latencies({name: made[name] for name in near}, prover, quick=False)
        fastest = min(p50[name] for name in near)
    best = next(name for name in near if p50[name] <= _SAME * fastest)
    order = [best, *sorted((name for name in near if name != best), key=p50.__getitem__)]
    for name in made:
        sqnr, wrong = checked[name]
        verdict = f"outside tolerance: {wrong}" if wrong else _verdict(name, best, p50[name] / p50[best])
        tried.append(TriedTypes(name=name, p50_ms=p50[name], sqnr_db=sqnr, verdict=verdict))
    return {name: made[name] for name in order}, tried


def _may_be_smoothed(stage: QuantizeStatic, prepared: Path) -> bool:
    """Whether `smooth` is not set, and the model has attention, which can gain from SmoothQuant."""
    return stage.smooth is None and has_attention(onnx_file.load(prepared, weights=False).graph)


def _with_smoothing(
    stage: QuantizeStatic,
    candidates: Mapping[str, AnyQuantize],
    made: Mapping[str, Artifact],
    tried: Sequence[TriedTypes],
    builder: CandidateBuilder,
    prover: Prover,
) -> tuple[dict[str, AnyQuantize], dict[str, Artifact], list[TriedTypes]]:
    """Try the best candidate with SmoothQuant too, and put it first where it is clearly more accurate and hardly slower."""
    best = next(iter(made))
    name = f"{best} smooth"
    try:
        builder.prepare(stage.model_copy(update={"smooth": _SMOOTH}))
        smooth = candidates[best].model_copy(update={"smooth": _SMOOTH})
        artifact = builder.make(smooth, name)
    except StageError as e:
        return dict(candidates), dict(made), [*tried, TriedTypes(name=name, verdict=f"could not be made: {e}")]
    before, before_wrong = _noise(made[best], builder.source, prover)
    after, wrong = _noise(artifact, builder.source, prover)
    for_cpu = stage.target == "cpu"  # the speed of a TensorRT model cannot be measured on a CPU
    p50 = _latencies({best: made[best], name: artifact}, prover, quick=False) if for_cpu else {}
    ratio = p50[name] / p50[best] if for_cpu else 1.0
    gain = math.inf if before is None or before_wrong else (after or 0.0) - before
    good = wrong is None and gain >= _GAIN_DB and ratio <= _SMOOTH_COST
    cost = f"{gain:+.1f} dB SQNR" + (f", {ratio:.2f} times the latency of {best}" if for_cpu else "")
    verdict = (
        f"outside tolerance: {wrong}" if wrong else f"more accurate: {cost}" if good else f"gain too small: {cost}"
    )
    entry = TriedTypes(name=name, p50_ms=p50.get(name), sqnr_db=after, verdict=verdict)
    plain = TriedTypes(name=best, p50_ms=p50.get(best), sqnr_db=before, verdict="the fastest within tolerance")
    known = list(tried) or [plain]
    if good:
        known = [one.model_copy(update={"verdict": "less accurate"}) if one.name == best else one for one in known]
    files = {name: artifact, **made} if good else {**made, name: artifact}
    return {**candidates, name: smooth}, files, [*known, entry]


def _verdict(name: str, best: str, ratio: float) -> str:
    if name == best:
        return "the fastest within tolerance"
    found = f"{ratio:.2f} times the latency of {best}"
    return f"slower: {found}" if ratio > _SAME else f"no faster: {found}"


def _latencies(made: Mapping[str, Artifact], prover: Prover, *, quick: bool) -> dict[str, float]:
    """Return name -> latency in ms at opt, by the ratios within shared blocks; infinite for a candidate that cannot be run."""
    blocks = (
        {"min_blocks": 1, "max_blocks": 1, "block_s": 0.02, "block_calls": 3, "drop_s": 0.0}
        if quick
        else {"min_blocks": 6, "max_blocks": 12, "time_limit_s": 15.0}
    )
    settings = BenchSettings.model_validate(
        {"device": prover.requirements.device, **at_opt(prover.reference), **blocks}
    )
    measured = measure(made, prover.samples, settings)
    if measured.interrupted:
        raise KeyboardInterrupt
    first = measured.measurements[0]
    ratios = {found.candidate: found.ratio for found in measured.speed_ups} | {first.artifact: 1.0}
    return {name: first.p50_ms / ratios[name] if name in ratios else math.inf for name in made}


def _noise(artifact: Artifact, source: Artifact, prover: Prover) -> tuple[float | None, str | None]:
    """Return the SQNR in dB of the worst output at opt, and the first failure of tolerance, if any."""
    tolerance = prover.requirements.tolerances.get(artifact.precision) or TOLERANCES[artifact.precision]
    sizes = {name: r.opt for name, r in source.dims.items()}
    feed = prover.samples.at(sizes)
    with (
        open_runner(source, prover.requirements.device) as right,
        open_runner(artifact, prover.requirements.device) as candidate,
    ):
        found = compare_outputs(right.infer(feed), candidate.infer(feed), sizes, tolerance)
    sqnr = min((output.sqnr_db for output in found if output.sqnr_db is not None), default=None)
    return sqnr, next((f"output {output.output!r}: {output.failure}" for output in found if output.failure), None)


def _check_rules(artifact: Artifact) -> None:
    """Refuse a file that TensorRT would reject.

    Raises:
        StageError: names each rule with the first node that breaks it.
    """
    broken = broken_rules(artifact.path)
    if broken:
        raise StageError("TensorRT would reject the file:\n" + "\n".join(f"  - {rule}" for rule in broken))


def _moved_up(artifact: Artifact, out_dir: Path) -> Artifact:
    """Move the files of the chosen candidate to the stage's own folder."""
    for file in artifact.all_files:
        file.replace(out_dir / file.name)
    return artifact.model_copy(update={"path": out_dir.absolute() / artifact.path.name})
