"""`optkit convert` and `optkit quantize`: convert a model to FP16 or INT8 and verify the file against the model."""

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
    Scalar,
    StrPath,
    ToFeed,
    Verification,
    call,
    open_model_file,
    settings,
)
from optkit.api.export import source_model
from optkit.api.make import check_output, make, temporary_source
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
    """Convert an ONNX model to FP16, and verify the file against the model; inputs and outputs keep their types.

    Args:
        model: ONNX model.
        output: file to write; its passport is written beside it.
        keep_ops: operators to keep in FP32.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; needed only if the passport has none.
        data: real samples for verification; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        evaluate: function that takes `predict` (feed -> output name -> array) and returns a number; larger is better.
        max_drop: largest allowed drop in accuracy, in the unit of `evaluate`; None sets no limit.
        atol: absolute tolerance for differences of outputs; None uses the default of the precision.
        rtol: relative tolerance for differences of outputs; None uses the default of the precision.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the file; if `failures` is not empty, a limit was exceeded and nothing was written.

    Raises:
        OptkitError: the model cannot be converted or the file cannot be written; nothing was changed.
    """
    stage = settings(ConvertFp16, keep_ops=tuple(keep_ops))
    with call(progress) as api_call:
        verification = Verification(api_call.data(data, to_feed), api_call.function(evaluate), max_drop, atol, rtol)
        return make(stage, open_model_file(model, dims), Path(output), verification, force=force)


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
    """Quantize an ONNX model to INT8, verify the file against the model, and measure whether it is faster.

    With `max_drop` or `min_cosine`, as few layers as possible are kept in float so that the model meets the limit.

    Args:
        model: FP32 ONNX model.
        output: file to write; its passport is written beside it.
        mode: static, dynamic, or auto (the faster of the two with calibration data, else dynamic).
        target: cpu (measures the INT8 types and uses the fastest) or tensorrt (a Q/DQ model for TensorRT).
        calibration: real samples for the calibration of activation ranges.
        method: calibration method: minmax, moving-average, percentile, entropy or mse.
        percentile: percentage of values inside the range, for the percentile method.
        sample: sampling interval for histograms: N counts every N-th element.
        doctor: add statistics of the calibration data to the notes of the passport.
        fresh: calibrate again even if the existing `output` has valid ranges to reuse.
        activation_type: uint8, int8, or auto (the faster one on this machine).
        weight_type: int8 or uint8.
        format: qdq, qoperator, or auto (the faster one on this machine).
        per_channel: use one scale per output channel of a weight.
        reduce_range: use 7-bit weights; None uses them on x86 processors without VNNI.
        smooth: alpha of SmoothQuant, 0 to disable it; None tries it on transformers and keeps it if it helps.
        op_types: the only operators to quantize; empty selects the operators that gain from it.
        exclude: patterns of node names to keep in float, for example `/encoder/layer.0/*`.
        exclude_ops: operators to keep in float.
        keep_first_last: keep the first and the last layer in float.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; needed only if the passport has none.
        data: real samples for verification; None uses the samples of `calibration`; without `calibration`, seeded random values.
        to_feed: function that converts one item of `calibration` or `data` to a feed.
        evaluate: function that takes `predict` (feed -> output name -> array) and returns a number; larger is better.
        max_drop: largest allowed drop in accuracy, in the unit of `evaluate`; None sets no limit.
        min_cosine: smallest allowed cosine similarity to the float outputs, on calibration samples; None sets no limit.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the file, with measurements; if `failures` is not empty, a limit was exceeded and nothing was written.

    Raises:
        OptkitError: the model cannot be quantized or the file cannot be written; nothing was changed.
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
    with call(progress) as api_call:
        samples = api_call.data(calibration, to_feed)
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
        verification = Verification(
            api_call.data(data, to_feed) if data is not None else samples, api_call.function(evaluate), max_drop
        )
        return make(stage, open_model_file(model, dims), Path(output), verification, force=force)


def _stage(mode: str, common: Mapping[str, object], static: Mapping[str, object]) -> QuantizeStatic | QuantizeDynamic:
    """Return the stage for a mode.

    Raises:
        RecipeError: the mode is unknown, or an option applies to another mode.
    """
    tensorrt, data = common["target"] == "tensorrt", static["calibration"]
    if mode == "static" or (mode == "auto" and (data or tensorrt)):
        return settings(QuantizeStatic, **common, **static, or_dynamic=mode == "auto" and not tensorrt)
    if mode not in ("auto", "dynamic"):
        raise RecipeError(f"--mode {mode}: expected auto, dynamic or static")
    defaults = QuantizeStatic(calibration=str(data) if data else None)
    static_only = [key for key, value in static.items() if value != getattr(defaults, key)]
    has_limit = common["max_drop"] is not None or common["min_cosine"] is not None
    if static_only or (data and not has_limit):
        named = f"--{(static_only or ['calibration'])[0].replace('_', '-')}"
        raise RecipeError(
            f"{named}: applies only to static quantization, which needs --calibration DATA. Dynamic quantization uses samples for "
            "verification, with --data, and to rank layers, with --max-drop or --min-cosine."
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
    """Quantize a PyTorch model to INT8 TorchScript for TorchServe and Triton, and verify the file against the model.

    Args:
        model: module in memory, or a source: `file.py:build`, `package.module:factory`, a Hugging Face folder.
        output: file to write; its passport is written beside it.
        mode: static, dynamic, or auto (static with calibration data, else dynamic).
        calibration: real samples for the calibration of activation ranges.
        backend: quantized engine of PyTorch: auto, x86, fbgemm, onednn, or qnnpack for Arm.
        per_channel: use one scale per output channel of a weight.
        reduce_range: use 7-bit activations, for x86 processors without VNNI; None decides by the processor.
        inputs: inputs of the model, for example `{"image": "float32[batch,3,224,224]"}`; None derives them from example inputs.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`.
        example: example inputs, or a function that returns them as `"file.py:function"`; used if `inputs` is not given.
        outputs: names of the outputs, in order; None derives them from the outputs of the model.
        weights: file with a state dict to load into the model.
        weights_key: key of the state dict in `weights`; None uses the one that fits the model.
        args: arguments of the factory function.
        data: real samples for verification; None uses the samples of `calibration`; without `calibration`, seeded random values.
        to_feed: function that converts one item of `calibration` or `data` to a feed.
        evaluate: function that takes `predict` (feed -> output name -> array) and returns a number; larger is better.
        max_drop: largest allowed drop in accuracy, in the unit of `evaluate`; None sets no limit.
        allow_batch_dependence: accept a model whose outputs for a sample depend on the other samples in the batch.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the file; if `failures` is not empty, a limit was exceeded and nothing was written.

    Raises:
        OptkitError: the model cannot be quantized or the file cannot be written; nothing was changed.
    """
    chosen = mode if mode != "auto" else "static" if calibration is not None else "dynamic"
    if chosen == "dynamic" and calibration is not None:
        raise RecipeError(
            "--calibration: applies only to --mode static; dynamic quantization computes ranges at each inference. Omit it."
        )
    check_output(Path(output), force)
    with call(progress) as api_call:
        samples = api_call.data(calibration, to_feed)
        common = {"backend": backend, "per_channel": per_channel, "reduce_range": reduce_range}
        stage = settings(QuantizeTorch, mode=chosen, calibration=samples, **common)
        verification = Verification(
            api_call.data(data, to_feed) if data is not None else samples,
            api_call.function(evaluate),
            max_drop,
            allow_batch_dependence=allow_batch_dependence,
        )
        found = source_model(
            api_call, model, inputs, dims, example, outputs, weights, weights_key, args, verification.data
        )
        with temporary_source(found) as source:
            return make(stage, source, Path(output), verification, force=force)
