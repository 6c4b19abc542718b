"""`optkit convert` and `optkit quantize`: from an ONNX model to FP16 or INT8, proven against the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optkit.api.arguments import (
    Data,
    Dims,
    Evaluate,
    Inputs,
    ModelFile,
    Progress,
    Proof,
    Scalar,
    StrPath,
    ToFeed,
    call,
    open_model_file,
    settings,
)
from optkit.api.export import source_model
from optkit.api.make import check_output, make, making_source
from optkit.artifact import Passport
from optkit.errors import RecipeError
from optkit.stages import ConvertFp16, QuantizeDynamic, QuantizeStatic, QuantizeTorch

if TYPE_CHECKING:
    import torch


def convert_fp16(
    model: ModelFile,
    output: StrPath,
    *,
    keep_ops: Sequence[str] = (),
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Passport:
    """Cast an ONNX model to FP16, and prove it against the model; its inputs and outputs keep their types.

    Args:
        model: an ONNX file.
        output: the file to write; its passport goes beside it.
        keep_ops: operators that stay in FP32.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`, where no passport has it.
        data: real samples for the proof; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        evaluate: takes `predict` (a feed to output name -> array) and returns a number, larger is better.
        max_drop: how far accuracy may fall, in the unit of `evaluate`.
        atol: absolute tolerance; None takes that of the precision.
        rtol: relative tolerance; None takes that of the precision.
        force: replace `output` where it exists.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was made and proven; with `failures` it does not hold a limit, and nothing was written.

    Raises:
        OptkitError: it cannot be converted, or not be written; nothing was changed.
    """
    stage = settings(ConvertFp16, keep_ops=tuple(keep_ops))
    with call(progress) as given:
        proof = Proof(given.data(data, to_feed), given.function(evaluate), max_drop, atol, rtol)
        return make(stage, open_model_file(model, dims), Path(output), proof, force=force)


def quantize(
    model: ModelFile,
    output: StrPath,
    *,
    mode: Literal["auto", "static", "dynamic"] = "auto",
    target: Literal["cpu", "tensorrt"] = "cpu",
    calibration: Data | None = None,
    method: Literal["minmax", "moving-average", "percentile", "entropy", "mse"] = "minmax",
    percentile: float = 99.999,
    sample: int = 1,
    doctor: bool = False,
    fresh: bool = False,
    activation_type: Literal["auto", "uint8", "int8"] = "auto",
    weight_type: Literal["int8", "uint8"] = "int8",
    format: Literal["auto", "qdq", "qoperator"] = "auto",
    per_channel: bool = True,
    reduce_range: bool | None = None,
    smooth: float | None = None,
    op_types: Sequence[str] = (),
    exclude: Sequence[str] = (),
    exclude_ops: Sequence[str] = (),
    keep_first_last: bool = False,
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    min_cosine: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Passport:
    """Quantize an ONNX model to INT8, prove it against the model, and measure whether it is faster.

    With `max_drop` or `min_cosine` the fewest layers stay in float that bring the model within it.

    Args:
        model: an ONNX file in FP32.
        output: the file to write; its passport goes beside it.
        mode: static, dynamic, or auto: with calibration data the faster of the two, else dynamic.
        target: cpu measures the types and takes the fastest; tensorrt writes what TensorRT accepts.
        calibration: real samples, from which the ranges of activations are taken.
        method: how ranges are chosen.
        percentile: the share of values that the percentile method keeps, of 100.
        sample: count one element in so many in histograms.
        doctor: also describe the calibration data in the passport's notes.
        fresh: calibrate anew also where `output` keeps ranges that still hold.
        activation_type: uint8, int8, or auto: the faster one here.
        weight_type: int8 or uint8.
        format: qdq, qoperator, or auto: the faster one here.
        per_channel: a scale for each channel of a weight.
        reduce_range: 7-bit weights; None: on x86 processors without VNNI.
        smooth: SmoothQuant's alpha, 0 for none; None: where a transformer gains.
        op_types: operators to quantize, no others; none: those that gain.
        exclude: names of nodes that stay in float, as patterns such as `/encoder/layer.0/*`.
        exclude_ops: operators that stay in float.
        keep_first_last: leave the first and the last layer in float.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`, where no passport has it.
        data: real samples for the proof; without any those of `calibration`, else seeded random values.
        to_feed: makes a feed of one item of `calibration` and of `data`.
        evaluate: takes `predict` (a feed to output name -> array) and returns a number, larger is better.
        max_drop: how far accuracy may fall, in the unit of `evaluate`.
        min_cosine: the smallest cosine to the float outputs, on calibration samples.
        force: replace `output` where it exists.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was made, proven and measured; with `failures` it does not hold a limit, and nothing was written.

    Raises:
        OptkitError: it cannot be quantized, or not be written; nothing was changed.
    """
    common = {
        "target": target,
        "weight_type": weight_type,
        "per_channel": per_channel,
        "reduce_range": reduce_range,
        "op_types": tuple(op_types),
        "exclude": tuple(exclude),
        "exclude_ops": tuple(exclude_ops),
        "keep_first_last": keep_first_last,
        "max_drop": max_drop,
        "min_cosine": min_cosine,
    }
    with call(progress) as given:
        samples = given.data(calibration, to_feed)
        static = {
            "calibration": samples,
            "method": method,
            "percentile": percentile,
            "sample": sample,
            "doctor": doctor,
            "activation_type": activation_type,
            "format": format,
            "smooth": smooth,
        }
        stage = _stage(mode, common, static)
        if not fresh:
            stage = stage.with_earlier(Path(output))
        proof = Proof(given.data(data, to_feed) if data is not None else samples, given.function(evaluate), max_drop)
        return make(stage, open_model_file(model, dims), Path(output), proof, force=force)


def _stage(mode: str, common: Mapping[str, object], static: Mapping[str, object]) -> QuantizeStatic | QuantizeDynamic:
    """Return the stage that a mode stands for.

    Raises:
        RecipeError: there is no such mode, or an option is given that is for another one.
    """
    tensorrt, data = common["target"] == "tensorrt", static["calibration"]
    if mode == "static" or (mode == "auto" and (data or tensorrt)):
        return settings(QuantizeStatic, **common, **static, or_dynamic=mode == "auto" and not tensorrt)
    if mode not in ("auto", "dynamic"):
        raise RecipeError(f"--mode {mode}: expected auto, dynamic or static")
    usual = QuantizeStatic(calibration=str(data) if data else None)
    other = [key for key, value in static.items() if value != getattr(usual, key)]
    judged = common["max_drop"] is not None or common["min_cosine"] is not None
    if other or (data and not judged):
        named = f"--{(other or ['calibration'])[0].replace('_', '-')}"
        raise RecipeError(
            f"{named}: is for static quantization, which needs --calibration DATA; dynamic quantization takes samples for the "
            "proof, with --data, and to rank layers, with --max-drop or --min-cosine"
        )
    return settings(QuantizeDynamic, **common)


def quantize_torch(
    model: "torch.nn.Module | StrPath",
    output: StrPath,
    *,
    mode: Literal["auto", "dynamic", "static"] = "auto",
    calibration: Data | None = None,
    backend: Literal["auto", "x86", "fbgemm", "onednn", "qnnpack"] = "auto",
    per_channel: bool = True,
    reduce_range: bool | None = None,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    example: object = None,
    outputs: Sequence[str] | None = None,
    weights: StrPath | None = None,
    weights_key: str | None = None,
    args: Mapping[str, Scalar] | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    allow_batch_dependence: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Passport:
    """Quantize a PyTorch model to INT8 TorchScript for TorchServe and Triton, and prove it against the model.

    Args:
        model: a module in memory, or a source: `file.py:build`, `package.module:factory`, a Hugging Face folder.
        output: the file to write; its passport goes beside it.
        mode: static, dynamic, or auto: static with calibration data, else dynamic.
        calibration: real samples, from which the ranges of activations are taken.
        backend: PyTorch's quantized engine; qnnpack is for Arm.
        per_channel: a scale for each channel of a weight.
        reduce_range: 7-bit activations, for x86 without VNNI; None looks at the processor.
        inputs: what the model takes, as `{"image": "float32[batch,3,224,224]"}`; None reads it off example inputs.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}` for min, opt and max.
        example: example inputs, or `"file.py:function"` that gives some.
        outputs: names for the outputs, in order.
        weights: a state dict to load.
        weights_key: the key of the state dict, where the file has several; None takes the one that fits.
        args: arguments of the factory.
        data: real samples for the proof; without any those of `calibration`, else seeded random values.
        to_feed: makes a feed of one item of `calibration` and of `data`.
        evaluate: takes `predict` (a feed to output name -> array) and returns a number, larger is better.
        max_drop: how far accuracy may fall, in the unit of `evaluate`.
        allow_batch_dependence: allow a model whose answers depend on the other samples of a batch.
        force: replace `output` where it exists.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was made and proven; with `failures` it does not hold a limit, and nothing was written.

    Raises:
        OptkitError: it cannot be quantized, or not be written; nothing was changed.
    """
    chosen = mode if mode != "auto" else "static" if calibration is not None else "dynamic"
    if chosen == "dynamic" and calibration is not None:
        raise RecipeError("--calibration is for --mode static; dynamic quantization finds its ranges at each run")
    check_output(Path(output), force)
    with call(progress) as given:
        samples = given.data(calibration, to_feed)
        common = {"backend": backend, "per_channel": per_channel, "reduce_range": reduce_range}
        stage = settings(QuantizeTorch, mode=chosen, calibration=samples, **common)
        proof = Proof(
            given.data(data, to_feed) if data is not None else samples,
            given.function(evaluate),
            max_drop,
            allow_batch_dependence=allow_batch_dependence,
        )
        found = source_model(given, model, inputs, dims, example, outputs, weights, weights_key, args, proof.data)
        with making_source(found) as source:
            return make(stage, source, Path(output), proof, force=force)
