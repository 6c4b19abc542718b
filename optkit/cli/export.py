"""`optkit export`."""

from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.passport import show_passport
from optkit.cli.values import parse_args, parse_dims

Method = Literal["auto", "script", "trace"]
Exporter = Literal["auto", "best", "dynamo", "torchscript", "script"]


@with_output
def torchscript(
    out: Output,
    source: options.Source,
    output: options.OutputFile,
    method: Annotated[
        Method, typer.Option(help="Method: auto (script, then trace if scripting fails), script or trace.")
    ] = "auto",
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.VerificationData = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    strict: options.Strict = False,
    repro: options.Repro = None,
    force: options.Force = False,
) -> None:
    """Export a model to TorchScript, and verify the file against the model.

    Example: optkit export torchscript recipes/digits.py:build -o digits.pt --input "image:float32[batch,1,8,8]" --dim
    batch=1:8:64
    """
    from optkit.api.export import export_torchscript

    with out.show_progress():
        made = export_torchscript(
            source,
            output,
            inputs=inputs,
            dims=parse_dims(dims),
            example=example,
            outputs=outputs,
            weights=weights,
            weights_key=weights_key,
            args=parse_args(args),
            method=method,
            strict=strict,
            data=data,
            atol=atol,
            rtol=rtol,
            allow_batch_dependence=allow_batch_dependence,
            repro=repro,
            force=force,
        )
    show_passport(out, made, output, (("bench", output), ("package", "torchserve", output, "-o", "model_store")))


@with_output
def onnx(
    out: Output,
    source: options.Source,
    output: options.OutputFile,
    opset: Annotated[int, typer.Option(help="Opset version of the file.")] = 20,
    exporter: Annotated[
        Exporter,
        typer.Option(
            help="Exporter: auto (dynamo, then torchscript, then script), best (the faster of dynamo and torchscript), dynamo, "
            "torchscript (tracing), or script (keeps branches and loops)."
        ),
    ] = "auto",
    dynamo_limit_s: Annotated[
        float, typer.Option(help="Limit for the CPU time of the dynamo exporter, in seconds.")
    ] = 60.0,
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.VerificationData = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    strict: options.Strict = False,
    repro: options.Repro = None,
    force: options.Force = False,
) -> None:
    """Export a model to ONNX, and verify the file against the model at every corner of its dimensions.

    Example: optkit export onnx recipes/digits.py:build -o digits.onnx --input "image:float32[batch,1,8,8]" --dim
    batch=1:8:64
    """
    from optkit.api.export import export_onnx

    with out.show_progress():
        made = export_onnx(
            source,
            output,
            inputs=inputs,
            dims=parse_dims(dims),
            example=example,
            outputs=outputs,
            weights=weights,
            weights_key=weights_key,
            args=parse_args(args),
            opset=opset,
            exporter=exporter,
            dynamo_limit_s=dynamo_limit_s,
            strict=strict,
            data=data,
            atol=atol,
            rtol=rtol,
            allow_batch_dependence=allow_batch_dependence,
            repro=repro,
            force=force,
        )
    hints = ("quantize", output, "-o", "int8.onnx"), ("bench", output), ("package", "triton", output, "-o", "repo")
    show_passport(out, made, output, hints)
