"""`optkit export`."""

from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.making import Source, show_made
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_args, parse_dims

Method = Literal["auto", "script", "trace"]
Exporter = Literal["auto", "best", "dynamo", "torchscript", "script"]


@with_output
def torchscript(
    out: Output,
    source: Source,
    output: options.Output,
    method: Annotated[Method, typer.Option(help="auto (script, then trace), script or trace.")] = "auto",
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    strict: options.Strict = False,
    repro: options.Repro = None,
    force: options.Force = False,
) -> None:
    """Export a model to TorchScript, and prove the file equal to the model.

    Example: optkit export torchscript recipes/digits.py:build -o digits.pt --input "image:float32[batch,1,8,8]" --dim
    batch=1:8:64
    """
    from optkit.api.export import export_torchscript

    with out.working():
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
    show_made(out, made, output, (("bench", output), ("package", "torchserve", output, "-o", "model_store")))


@with_output
def onnx(
    out: Output,
    source: Source,
    output: options.Output,
    opset: Annotated[int, typer.Option(help="The opset that the file must have.")] = 20,
    exporter: Annotated[
        Exporter,
        typer.Option(
            help="auto (dynamo, then torchscript, then script), best (the faster of the first two), dynamo, torchscript "
            "(traces), or script (keeps branches and loops)."
        ),
    ] = "auto",
    dynamo_limit_s: Annotated[
        float, typer.Option(help="Stop the dynamo exporter after so many seconds of processor time.")
    ] = 60.0,
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    strict: options.Strict = False,
    repro: options.Repro = None,
    force: options.Force = False,
) -> None:
    """Export a model to ONNX, and prove the file equal to the model at every corner of its dimensions.

    Example: optkit export onnx recipes/digits.py:build -o digits.onnx --input "image:float32[batch,1,8,8]" --dim
    batch=1:8:64
    """
    from optkit.api.export import export_onnx

    with out.working():
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
    show_made(out, made, output, hints)
