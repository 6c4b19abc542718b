"""`optkit convert` and `optkit quantize`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli import options
from optkit.cli.making import Proof, make_and_show
from optkit.cli.output import Output
from optkit.cli.values import open_file, settings
from optkit.errors import RecipeError
from optkit.untrusted.quoting import shell_line

if TYPE_CHECKING:
    from optkit.stages import Stage

Model = Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)]


def fp16(
    model: Model,
    output: options.Output,
    keep_ops: Annotated[
        list[str] | None, typer.Option("--keep-op", help="An operator that stays in FP32.", show_default=False)
    ] = None,
    dims: options.Dims = None,
    data: options.Data = None,
    evaluation: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Cast an ONNX model to FP16; its inputs and outputs keep their types.

    Example: optkit convert fp16 model.onnx -o model.fp16.onnx
    """
    from optkit.stages import ConvertFp16

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    stage = settings(ConvertFp16, keep_ops=tuple(keep_ops or ()))
    proof = Proof(data=data, evaluation=evaluation, max_drop=max_drop, atol=atol, rtol=rtol)
    make_and_show(
        out, stage, open_file(model, dims), output, proof, force, (shell_line("optkit", "bench", model, output),)
    )


def quantize(
    model: Model,
    output: options.Output,
    mode: Annotated[
        str,
        typer.Option(help="static, dynamic, or auto: with calibration data the faster of the two, else dynamic."),
    ] = "auto",
    target: Annotated[str, typer.Option(help="cpu (types are measured and chosen) or tensorrt.")] = "cpu",
    calibration: Annotated[
        str | None, typer.Option(help="Real samples: file.py:function, .npz or images.yaml.", show_default=False)
    ] = None,
    method: Annotated[
        str, typer.Option(help="How ranges are chosen: minmax, moving-average, percentile, entropy or mse.")
    ] = "minmax",
    percentile: Annotated[float, typer.Option(help="What the percentile method keeps, of 100.")] = 99.999,
    sample: Annotated[int, typer.Option(help="Count one element in so many in histograms.")] = 1,
    doctor: Annotated[bool, typer.Option("--doctor", help="Show what the calibration data is like.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Calibrate anew also where OUTPUT keeps ranges that still hold.")
    ] = False,
    activation_type: Annotated[str, typer.Option(help="uint8, int8, or auto: what is faster here.")] = "auto",
    weight_type: Annotated[str, typer.Option(help="int8 or uint8.")] = "int8",
    form: Annotated[str, typer.Option("--format", help="qdq, qoperator, or auto: what is faster here.")] = "auto",
    per_channel: Annotated[bool, typer.Option(help="A scale for each channel of a weight.")] = True,
    reduce_range: Annotated[
        bool | None, typer.Option(help="7-bit weights.", show_default="on x86 without VNNI")
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            help="SmoothQuant's alpha, 0 for none (needs --calibration).", show_default="where a transformer gains"
        ),
    ] = None,
    op_types: Annotated[
        list[str] | None,
        typer.Option("--op", help="An operator to quantize, no others.", show_default="those that gain"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Nodes that stay in float, as a pattern: /encoder/layer.0/*", show_default=False),
    ] = None,
    exclude_ops: Annotated[
        list[str] | None, typer.Option("--exclude-op", help="An operator that stays in float.", show_default=False)
    ] = None,
    keep_first_last: Annotated[bool, typer.Option(help="Leave the first and the last layer in float.")] = False,
    dims: options.Dims = None,
    samples: Annotated[
        str | None,
        typer.Option(
            "--data", help="Real samples for the proof.", show_default="those of --calibration, else random values"
        ),
    ] = None,
    evaluation: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(help="The smallest cosine to the float outputs (needs --calibration).", show_default=False),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Quantize an ONNX model to INT8, prove it against the model, and say whether it is worth it.

    With --max-drop or --min-cosine the fewest layers stay in float that bring the model within it.

    Example: optkit quantize model.onnx -o model.int8.onnx --calibration data.py:calibration
    """
    from optkit.data import absolute_data

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    data = absolute_data(calibration, Path()) if calibration else None
    common = {
        "target": target,
        "weight_type": weight_type,
        "per_channel": per_channel,
        "reduce_range": reduce_range,
        "op_types": tuple(op_types or ()),
        "exclude": tuple(exclude or ()),
        "exclude_ops": tuple(exclude_ops or ()),
        "keep_first_last": keep_first_last,
        "max_drop": max_drop,
        "min_cosine": min_cosine,
    }
    static = {
        "calibration": data,
        "method": method,
        "percentile": percentile,
        "sample": sample,
        "doctor": doctor,
        "activation_type": activation_type,
        "format": form,
        "smooth": smooth,
    }
    stage = _stage(mode, common, static)
    if not fresh:
        stage = stage.with_earlier(output)
    proof = Proof(data=samples or calibration, evaluation=evaluation, max_drop=max_drop)
    # What is for TensorRT says nothing about its speed here.
    hint = ("bench", model, output) if target == "cpu" else ("inspect", output)
    hints = (shell_line("optkit", *hint),)
    make_and_show(out, stage, open_file(model, dims), output, proof, force, hints, doctor=doctor)


def _stage(mode: str, common: Mapping[str, object], static: Mapping[str, object]) -> "Stage":
    """Return the stage that a mode stands for.

    Raises:
        RecipeError: there is no such mode, or an option is given that is for another one.
    """
    from optkit.stages import QuantizeDynamic, QuantizeStatic

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
