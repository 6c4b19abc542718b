"""Which INT8 types: of those that keep the answers, the ones that run fastest on this processor.

The model is prepared and calibrated once, and the candidates share the ranges. A quick measurement comes first; only those near the
fastest are measured with care. Every one that lost is told with its reason.
"""

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.findings import TriedTypes
from optkit.benchmark import BenchSettings, measure, this_machine
from optkit.checks import TOLERANCES, Prover
from optkit.checks.parity import compare_outputs
from optkit.choose.int8.accuracy_limit import accurate_enough
from optkit.choose.int8.candidates import AnyQuantize, Workshop
from optkit.choose.int8.gain import at_opt, worth
from optkit.errors import StageError
from optkit.quantization.ort_quantizer import quantizing
from optkit.runners import open_runner
from optkit.stages import QuantizeDynamic, QuantizeStatic
from optkit.stages.quantizing import has_attention
from optkit.tensorrt.qdq_rules import broken_rules

_NEAR = 1.25  # a candidate that is slower than the fastest by more is not measured again
_SAME = 1.03  # latencies that differ by less are the same, and the first in the list is taken
_SMOOTH = 0.75  # SmoothQuant's alpha: on MiniLM 0.7 gained most, 0.5 lost (benchmarks/results/int8_accuracy.md)
_GAIN_DB = 1.0  # what smoothing must gain
_SMOOTH_COST = 1.1  # and the latency that it may cost for that
_SHORT = {"uint8": "u8", "int8": "s8"}


def quantize(stage: AnyQuantize, source: Artifact, out_dir: Path, prover: Prover, filename: str) -> Artifact:
    """Quantize with the types that are fastest here, leave layers in float where accuracy asks for it, and say whether it is worth it.

    Args:
        stage: what to quantize; types that are `auto` are chosen.
        source: the FP32 model.
        out_dir: the stage's own folder, created.
        prover: its samples are run and measured; its evaluation function says how accurate a model is.
        filename: of the artifact.

    Raises:
        StageError: no candidate could be made, or one for TensorRT breaks a rule of it.
        OptkitError: the data or the evaluation function is at fault.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    plain = _settled(stage)
    try:
        plain.check_source(source)
        with (
            tempfile.TemporaryDirectory(prefix=".types-", dir=out_dir) as folder,
            quantizing(source, out_dir) as prepared,
        ):
            shop = Workshop(source, prepared, Path(folder).absolute(), filename)
            shop.prepare(plain)
            candidates = _candidates(plain, prepared)
            made, tried = _ordered(candidates, shop, prover)
            if isinstance(plain, QuantizeStatic) and _may_be_smoothed(plain, prepared):
                candidates, made, tried = _with_smoothing(plain, candidates, made, tried, shop, prover)
            kept = accurate_enough(stage, {name: candidates[name] for name in made}, made, shop, prover)
            if stage.target == "tensorrt":
                _check_rules(kept.artifact)
            calibration = shop.base(candidates[kept.name]).calibration
            if isinstance(plain, QuantizeStatic) and calibration:
                kept = dataclasses.replace(kept, artifact=plain.described(kept.artifact, calibration))
            told = worth(candidates[kept.name], kept, tried, source, prover, for_cpu=stage.target == "cpu")
            return _moved_up(told, out_dir)
    except StageError as e:
        raise StageError(f"{stage.step}: {e}") from e


def _settled(stage: AnyQuantize) -> AnyQuantize:
    """Return the stage without what is answered here: limits on accuracy, and whether the processor wants 7-bit weights."""
    narrow = stage.reduce_range
    if narrow is None:
        # Two products of unsigned weights are not added in 16 bits: nothing overflows.
        narrow = stage.target == "cpu" and stage.weight_type == "int8" and this_machine().vnni is False
    return stage.model_copy(update={"max_drop": None, "min_cosine": None, "reduce_range": narrow})


def _candidates(stage: AnyQuantize, prepared: Path) -> dict[str, AnyQuantize]:
    """Return name -> a stage with fixed types; the one expected to be fastest on x86 first."""
    if isinstance(stage, QuantizeDynamic):
        return {"dynamic": stage}
    if stage.target == "tensorrt":
        return {"s8s8 symmetric qdq": stage}
    graph = onnx_file.load(prepared, weights=False).graph
    # ONNX Runtime has no products of signed activations with unsigned weights.
    either = ("uint8",) if stage.weight_type == "uint8" else ("uint8", "int8")
    types = either if stage.activation_type == "auto" else (stage.activation_type,)
    formats = ("qdq", "qoperator") if stage.format == "auto" else (stage.format,)
    if has_attention(graph) and stage.format == "auto":
        formats = ("qdq",)  # the other one has no product of INT8 with a float result
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
    candidates: Mapping[str, AnyQuantize], shop: Workshop, prover: Prover
) -> tuple[dict[str, Artifact], list[TriedTypes]]:
    """Make the candidates; return those that are worth choosing, the best first, and what became of each.

    Raises:
        StageError: none could be made; the reason of the first.
    """
    made: dict[str, Artifact] = {}
    refused: dict[str, StageError] = {}
    for name, stage in candidates.items():
        try:
            made[name] = shop.make(stage, name)
        except StageError as e:
            refused[name] = e
    if not made:
        raise next(iter(refused.values()))
    tried = [TriedTypes(name=name, verdict=f"could not be made: {e}") for name, e in refused.items()]
    if len(made) == 1:
        return made, tried
    checked = {name: _noise(artifact, shop.source, prover) for name, artifact in made.items()}
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
        verdict = f"wrong: {wrong}" if wrong else _verdict(name, best, p50[name] / p50[best])
        tried.append(TriedTypes(name=name, p50_ms=p50[name], sqnr_db=sqnr, verdict=verdict))
    return {name: made[name] for name in order}, tried


def _may_be_smoothed(stage: QuantizeStatic, prepared: Path) -> bool:
    """Whether smoothing is left open, and the model is one of those that can gain from it."""
    return stage.smooth is None and has_attention(onnx_file.load(prepared, weights=False).graph)


def _with_smoothing(
    stage: QuantizeStatic,
    candidates: Mapping[str, AnyQuantize],
    made: Mapping[str, Artifact],
    tried: Sequence[TriedTypes],
    shop: Workshop,
    prover: Prover,
) -> tuple[dict[str, AnyQuantize], dict[str, Artifact], list[TriedTypes]]:
    """Try the best candidate smoothed too, and put it first where it is clearly more accurate and hardly slower."""
    best = next(iter(made))
    name = f"{best} smooth"
    try:
        shop.prepare(stage.model_copy(update={"smooth": _SMOOTH}))
        smooth = candidates[best].model_copy(update={"smooth": _SMOOTH})
        artifact = shop.make(smooth, name)
    except StageError as e:
        return dict(candidates), dict(made), [*tried, TriedTypes(name=name, verdict=f"could not be made: {e}")]
    before, before_wrong = _noise(made[best], shop.source, prover)
    after, wrong = _noise(artifact, shop.source, prover)
    for_cpu = stage.target == "cpu"  # what is for TensorRT says nothing about its speed here
    p50 = _latencies({best: made[best], name: artifact}, prover, quick=False) if for_cpu else {}
    ratio = p50[name] / p50[best] if for_cpu else 1.0
    gain = math.inf if before is None or before_wrong else (after or 0.0) - before
    good = wrong is None and gain >= _GAIN_DB and ratio <= _SMOOTH_COST
    cost = f"{gain:+.1f} dB SQNR" + (f", {ratio:.2f} times the latency of {best}" if for_cpu else "")
    verdict = f"wrong: {wrong}" if wrong else f"more accurate: {cost}" if good else f"not worth it: {cost}"
    entry = TriedTypes(name=name, p50_ms=p50.get(name), sqnr_db=after, verdict=verdict)
    plain = TriedTypes(name=best, p50_ms=p50.get(best), sqnr_db=before, verdict="the fastest that is right")
    known = list(tried) or [plain]
    if good:
        known = [one.model_copy(update={"verdict": "less accurate"}) if one.name == best else one for one in known]
    files = {name: artifact, **made} if good else {**made, name: artifact}
    return {**candidates, name: smooth}, files, [*known, entry]


def _verdict(name: str, best: str, ratio: float) -> str:
    if name == best:
        return "the fastest that is right"
    found = f"{ratio:.2f} times the latency of {best}"
    return f"slower: {found}" if ratio > _SAME else f"no faster: {found}"


def _latencies(made: Mapping[str, Artifact], prover: Prover, *, quick: bool) -> dict[str, float]:
    """Return name -> latency in ms at opt, in the ratios that blocks of all of them gave; infinite for one that cannot be run."""
    blocks = (
        {"min_blocks": 1, "max_blocks": 1, "block_s": 0.02, "block_calls": 3, "drop_s": 0.0}
        if quick
        else {"min_blocks": 6, "max_blocks": 12, "time_limit_s": 15.0}
    )
    settings = BenchSettings.model_validate({"device": prover.asked.device, **at_opt(prover.reference), **blocks})
    measured = measure(made, prover.samples, settings)
    if measured.interrupted:
        raise KeyboardInterrupt
    first = measured.measurements[0]
    ratios = {found.candidate: found.ratio for found in measured.speed_ups} | {first.artifact: 1.0}
    return {name: first.p50_ms / ratios[name] if name in ratios else math.inf for name in made}


def _noise(artifact: Artifact, source: Artifact, prover: Prover) -> tuple[float | None, str | None]:
    """Return the SQNR in dB of the worst output at opt, and what is wrong with it, where something is."""
    tolerance = prover.asked.tolerances.get(artifact.precision) or TOLERANCES[artifact.precision]
    sizes = {name: r.opt for name, r in source.dims.items()}
    feed = prover.samples.at(sizes)
    with open_runner(source, prover.asked.device) as right, open_runner(artifact, prover.asked.device) as candidate:
        found = compare_outputs(right.infer(feed), candidate.infer(feed), sizes, tolerance)
    sqnr = min((output.sqnr_db for output in found if output.sqnr_db is not None), default=None)
    return sqnr, next((f"output {output.output!r}: {output.failure}" for output in found if output.failure), None)


def _check_rules(artifact: Artifact) -> None:
    """Refuse a file that TensorRT would refuse.

    Raises:
        StageError: names each rule with the first node that breaks it.
    """
    broken = broken_rules(artifact.path)
    if broken:
        raise StageError("TensorRT would refuse the file:\n" + "\n".join(f"  - {rule}" for rule in broken))


def _moved_up(artifact: Artifact, out_dir: Path) -> Artifact:
    """Move the files of the chosen candidate to the stage's own folder."""
    for file in artifact.all_files:
        file.replace(out_dir / file.name)
    return artifact.model_copy(update={"path": out_dir.absolute() / artifact.path.name})
