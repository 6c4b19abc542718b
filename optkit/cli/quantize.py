"""`optkit convert` and `optkit quantize`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.passport import show_passport
from optkit.cli.values import parse_dims

Mode = Literal["auto", "static", "dynamic"]
Target = Literal["cpu", "tensorrt"]
Method = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
ActivationType = Literal["auto", "uint8", "int8"]
WeightType = Literal["int8", "uint8"]
Format = Literal["auto", "qdq", "qoperator"]
Model = Annotated[Path, typer.Argument(help="ONNX model.", show_default=False)]


@with_output
def fp16(
    out: Output,
    model: Model,
    output: options.OutputFile,
    keep_ops: Annotated[
        list[str] | None,
        typer.Option("--keep-op", help="Operator to keep in FP32; repeat for each operator.", show_default=False),
    ] = None,
    dims: options.ModelFileDims = None,
    data: options.VerificationData = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    force: options.Force = False,
) -> None:
    """Convert an ONNX model to FP16, and verify the file against the model; inputs and outputs keep their types.

    Example: optkit convert fp16 model.onnx -o model.fp16.onnx
    """
    from optkit.api.quantize import convert_fp16

    with out.show_progress():
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
    show_passport(out, made, output, (("bench", model, output),))


@with_output
def quantize(
    out: Output,
    model: Model,
    output: options.OutputFile,
    mode: Annotated[
        Mode,
        typer.Option(
            help="Mode: static, dynamic, or auto (the faster of the two with calibration data, else dynamic)."
        ),
    ] = "auto",
    target: Annotated[
        Target,
        typer.Option(
            help="Target: cpu (measures the INT8 types and uses the fastest) or tensorrt (a Q/DQ model for TensorRT)."
        ),
    ] = "cpu",
    calibration: options.Calibration = None,
    method: Annotated[
        Method, typer.Option(help="Calibration method: minmax, moving-average, percentile, entropy or mse.")
    ] = "minmax",
    percentile: Annotated[
        float, typer.Option(help="Percentage of values inside the range, for --method percentile.")
    ] = 99.999,
    sample: Annotated[int, typer.Option(help="Sampling interval for histograms: N counts every N-th element.")] = 1,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Add statistics of the calibration data to the notes of the passport.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Calibrate again even if the existing OUTPUT has valid ranges to reuse.")
    ] = False,
    activation_type: Annotated[
        ActivationType, typer.Option(help="Activation type: uint8, int8, or auto (the faster one on this machine).")
    ] = "auto",
    weight_type: Annotated[WeightType, typer.Option(help="Weight type: int8 or uint8.")] = "int8",
    format: Annotated[
        Format, typer.Option("--format", help="Format: qdq, qoperator, or auto (the faster one on this machine).")
    ] = "auto",
    per_channel: Annotated[bool, typer.Option(help="Use one scale per output channel of a weight.")] = True,
    reduce_range: Annotated[
        bool | None, typer.Option(help="Use 7-bit weights.", show_default="on x86 processors without VNNI")
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            help="Alpha of SmoothQuant, 0 to disable it (needs --calibration).",
            show_default="tried on transformers",
        ),
    ] = None,
    op_types: Annotated[
        list[str] | None,
        typer.Option(
            "--op",
            help="The only operator to quantize; repeat for each operator.",
            show_default="operators that gain from it",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Pattern of node names to keep in float, for example /encoder/layer.0/*; repeat for each pattern.",
            show_default=False,
        ),
    ] = None,
    exclude_ops: Annotated[
        list[str] | None,
        typer.Option("--exclude-op", help="Operator to keep in float; repeat for each operator.", show_default=False),
    ] = None,
    keep_first_last: Annotated[bool, typer.Option(help="Keep the first and the last layer in float.")] = False,
    dims: options.ModelFileDims = None,
    data: options.DataOrCalibration = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            help="Smallest allowed cosine similarity to the float outputs, on calibration samples (needs --calibration).",
            show_default="no limit",
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Quantize an ONNX model to INT8, verify the file against the model, and measure whether it is faster.

    With --max-drop or --min-cosine, as few layers as possible are kept in float so that the model meets the limit.

    Example: optkit quantize model.onnx -o model.int8.onnx --calibration data.py:calibration
    """
    from optkit.api.quantize import quantize as run

    with out.show_progress():
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
    # A model for TensorRT cannot be benchmarked meaningfully on the CPU.
    hints = (("bench", model, output),) if target == "cpu" else (("inspect", output),)
    show_passport(out, made, output, hints)
