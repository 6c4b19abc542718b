"""The ONNX file that an engine is built from: quantized and cast first where its precision is not the requested one."""

from pathlib import Path

from optkit import onnx_file
from optkit.artifact import Artifact, Precision
from optkit.artifact.engine import EngineFacts
from optkit.checks import Prover
from optkit.errors import RunnerError, StageError
from optkit.runners import Device, why_not_runnable
from optkit.stages import BuildTensorRt, ConvertFp16, QuantizeStatic, Stage
from optkit.stages.build_tensorrt import engine_precision
from optkit.system.temporary import temporary_folder
from optkit.tensorrt.installed import why_no_gpu

_HALF_QDQ_OPSET = 19  # https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html


def build_engine(stage: BuildTensorRt, source: Artifact, out_dir: Path, prover: Prover, filename: str) -> Artifact:
    """Quantize and cast the model to the requested precision, build the engine, and read the precisions of its layers on a GPU.

    Raises:
        StageError: a step failed, this model cannot have the precision, or `require` cannot be checked here.
    """
    missing = _missing(stage, source)
    if stage.require:
        _refuse_unprovable(stage)
    out_dir.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out_dir, "onnx") as folder:
        notes: list[str] = []
        for step in missing:
            try:
                source = _made(step, source, folder / step.stage, prover)
            except StageError as e:
                raise StageError(f"{stage.step}: precision {stage.precision}: {e}") from e
            notes += [f"{step.stage}: {note}" for note in source.notes]
        engine = stage.run(source, out_dir, filename)
    try:
        return _inspected(stage, engine.model_copy(update={"notes": (*notes, *engine.notes)}), prover)
    except BaseException:
        engine.path.unlink(missing_ok=True)
        raise


def _made(step: Stage, source: Artifact, folder: Path, prover: Prover) -> Artifact:
    """Run a step before the build; a quantized file is checked against TensorRT's rules."""
    if isinstance(step, QuantizeStatic):
        from optkit.choose.int8.types import quantize

        return quantize(step, source, folder, prover, step.filename)
    return step.run(source, folder)


def _missing(stage: BuildTensorRt, source: Artifact) -> list[Stage]:
    """Return the stages from the precision of the file to the precision of the engine."""
    wanted = stage.precision
    have = engine_precision(source.path, source.precision) if wanted else None
    if wanted in (None, have):
        return []
    opset = onnx_file.facts(source.path).opset
    if wanted == "int8+fp16" and opset < _HALF_QDQ_OPSET:
        raise StageError(
            f"{stage.step}: precision {wanted}: {source.path.name} has opset {opset}, whose Q/DQ nodes take FP32 only; expected "
            f"{_HALF_QDQ_OPSET} or later. Export it again with --opset 20."
        )
    steps: list[Stage] = []
    if stage.quantizes and source.precision is not Precision.INT8:
        if not stage.calibration:
            raise StageError(
                f"{stage.step}: precision {wanted}: {source.path.name} is {have}; expected calibration data, because ranges are never "
                f"guessed. Give --calibration DATA."
            )
        steps.append(QuantizeStatic(calibration=stage.calibration, target="tensorrt").with_feeds(stage.feeds(source)))
    if wanted in ("fp16", "int8+fp16") and have != "int8+fp16":
        steps.append(ConvertFp16())
    if not steps or (wanted == "fp16" and source.precision is Precision.INT8):
        raise StageError(
            f"{stage.step}: {source.path.name} is {have}; an engine in {wanted} cannot be built from it. Start from the FP32 model."
        )
    return steps


def _refuse_unprovable(stage: BuildTensorRt) -> None:
    """Refuse `require` before the work where no engine can be inspected."""
    if no_gpu := why_no_gpu(Path(stage.python) if stage.python else None):
        raise StageError(f"{stage.step}: require: the engine inspector needs a GPU: {no_gpu}")


def _inspected(stage: BuildTensorRt, artifact: Artifact, prover: Prover) -> Artifact:
    """Return the engine with the shares of its layers, where it runs here.

    Raises:
        StageError: `require` is set, and the shares cannot be read here.
    """
    why_not = why_not_runnable(artifact)
    if why_not and stage.require:
        raise StageError(f"{stage.step}: require: the precisions of the layers cannot be read here: {why_not}")
    if why_not:
        return artifact
    from optkit.runners.tensorrt import TensorRtRunner

    if artifact.engine is None:
        raise AssertionError("an engine without facts")
    sizes = {name: r.opt for name, r in artifact.ranges[0].items()}
    with TensorRtRunner(artifact, Device.CUDA) as runner:
        try:
            shares = runner.layer_shares(prover.samples.at(sizes))
        except RunnerError as e:
            if stage.require:
                raise StageError(f"{stage.step}: require: the precisions of the layers cannot be read: {e}") from e
            # A build may take minutes; a failed inspection does not discard it.
            note = f"the precisions of the layers could not be read: {e}"
            return artifact.model_copy(update={"notes": (*artifact.notes, note)})
    engine = artifact.engine.model_copy(update={"layers": shares})
    return artifact.model_copy(update={"engine": engine, "notes": (*artifact.notes, *layer_notes(engine))})


def layer_notes(engine: EngineFacts) -> list[str]:
    """Return notes on the precisions of the layers, and on each requested precision that no layer computes in."""
    if not engine.layers:
        return ["the engine inspector reports no layer types, so the precisions of the layers are not known"]
    shares = (f"{s.layers:.0%} of the layers and {s.time:.0%} of their time in {s.precision}" for s in engine.layers)
    notes = [", ".join(shares)]
    seen = {s.precision for s in engine.layers}
    absent = [kind for kind in ("int8", "fp16") if kind in engine.precision and kind not in seen]
    chose = "" if engine.typed else f": {engine.built_by} chooses among the allowed types, and found others faster"
    return notes + [
        f"no layer computes in {kind}, although the precision includes it{chose}. --require {kind}=0.5 refuses such an engine"
        for kind in absent
    ]
