"""`optkit convert` and `optkit quantize`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.making import show_made
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_dims

Mode = Literal["auto", "static", "dynamic"]
Target = Literal["cpu", "tensorrt"]
Method = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
ActivationType = Literal["auto", "uint8", "int8"]
WeightType = Literal["int8", "uint8"]
Form = Literal["auto", "qdq", "qoperator"]
Model = Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)]


@with_output
def fp16(
    out: Output,
    model: Model,
    output: options.Output,
    keep_ops: Annotated[
        list[str] | None, typer.Option("--keep-op", help="An operator that stays in FP32.", show_default=False)
    ] = None,
    dims: options.Dims = None,
    data: options.Data = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    force: options.Force = False,
) -> None:
    """Cast an ONNX model to FP16; its inputs and outputs keep their types.

    Example: optkit convert fp16 model.onnx -o model.fp16.onnx
    """
    from optkit.api.quantize import convert_fp16

    with out.working():
        made = convert_fp16(
            model,
            output,
            keep_ops=keep_ops or (),
            dims=parse_dims(dims),
            data=data,
            evaluate=evaluate,
            max_drop=max_drop,
            atol=atol,
            rtol=rtol,
            force=force,
        )
    show_made(out, made, output, (("bench", model, output),))


@with_output
def quantize(
    out: Output,
    model: Model,
    output: options.Output,
    mode: Annotated[
        Mode,
        typer.Option(help="static, dynamic, or auto: with calibration data the faster of the two, else dynamic."),
    ] = "auto",
    target: Annotated[Target, typer.Option(help="cpu (types are measured and chosen) or tensorrt.")] = "cpu",
    calibration: Annotated[
        str | None, typer.Option(help="Real samples: file.py:function, .npz or images.yaml.", show_default=False)
    ] = None,
    method: Annotated[
        Method, typer.Option(help="How ranges are chosen: minmax, moving-average, percentile, entropy or mse.")
    ] = "minmax",
    percentile: Annotated[float, typer.Option(help="What the percentile method keeps, of 100.")] = 99.999,
    sample: Annotated[int, typer.Option(help="Count one element in so many in histograms.")] = 1,
    doctor: Annotated[bool, typer.Option("--doctor", help="Show what the calibration data is like.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Calibrate anew also where OUTPUT keeps ranges that still hold.")
    ] = False,
    activation_type: Annotated[
        ActivationType, typer.Option(help="uint8, int8, or auto: what is faster here.")
    ] = "auto",
    weight_type: Annotated[WeightType, typer.Option(help="int8 or uint8.")] = "int8",
    format: Annotated[Form, typer.Option("--format", help="qdq, qoperator, or auto: what is faster here.")] = "auto",
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
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Real samples for the proof.", show_default="those of --calibration, else random values"
        ),
    ] = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(help="The smallest cosine to the float outputs (needs --calibration).", show_default=False),
    ] = None,
    force: options.Force = False,
) -> None:
    """Quantize an ONNX model to INT8, prove it against the model, and say whether it is worth it.

    With --max-drop or --min-cosine the fewest layers stay in float that bring the model within it.

    Example: optkit quantize model.onnx -o model.int8.onnx --calibration data.py:calibration
    """
    from optkit.api.quantize import quantize as run

    with out.working():
        made = run(
            model,
            output,
            mode=mode,
            target=target,
            calibration=calibration,
            method=method,
            percentile=percentile,
            sample=sample,
            doctor=doctor,
            fresh=fresh,
            activation_type=activation_type,
            weight_type=weight_type,
            format=format,
            per_channel=per_channel,
            reduce_range=reduce_range,
            smooth=smooth,
            op_types=op_types or (),
            exclude=exclude or (),
            exclude_ops=exclude_ops or (),
            keep_first_last=keep_first_last,
            dims=parse_dims(dims),
            data=data,
            evaluate=evaluate,
            max_drop=max_drop,
            min_cosine=min_cosine,
            force=force,
        )
    # What is for TensorRT says nothing about its speed here.
    hints = (("bench", model, output),) if target == "cpu" else (("inspect", output),)
    show_made(out, made, output, hints)
