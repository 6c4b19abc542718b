"""`optkit export`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli import options
from optkit.cli.making import Proof, Source, SourceModel, make_and_show
from optkit.cli.output import Output
from optkit.cli.values import settings
from optkit.untrusted.quoting import shell_line

if TYPE_CHECKING:
    from optkit.stages import ExportOnnx, ExportTorchScript


def torchscript(
    source: Source,
    output: options.Output,
    method: Annotated[str, typer.Option(help="auto (script, then trace), script or trace.")] = "auto",
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    output_names: options.OutputNames = None,
    weights: options.Weights = None,
    arguments: options.Arguments = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    may_mix: options.MayMix = False,
    strict: options.Strict = False,
    repro: options.Repro = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Export a model to TorchScript, and prove the file equal to the model.

    Example: optkit export torchscript recipes/digits.py:build -o digits.pt --input "image:float32[batch,1,8,8]" --dim
    batch=1:8:64
    """
    from optkit.stages import ExportTorchScript

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    stage = settings(ExportTorchScript, method=method, strict=strict)
    model = SourceModel(source, inputs, example, dims, output_names, weights, arguments)
    _export(out, stage, model, output, Proof(data=data, atol=atol, rtol=rtol, may_mix=may_mix), force, repro)


def onnx(
    source: Source,
    output: options.Output,
    opset: Annotated[int, typer.Option(help="The opset that the file must have.")] = 20,
    exporter: Annotated[
        str,
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
    output_names: options.OutputNames = None,
    weights: options.Weights = None,
    arguments: options.Arguments = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    may_mix: options.MayMix = False,
    strict: options.Strict = False,
    repro: options.Repro = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Export a model to ONNX, and prove the file equal to the model at every corner of its dimensions.

    Example: optkit export onnx recipes/digits.py:build -o digits.onnx --input "image:float32[batch,1,8,8]" --dim
    batch=1:8:64
    """
    from optkit.stages import ExportOnnx

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    stage = settings(ExportOnnx, opset=opset, exporter=exporter, strict=strict, dynamo_limit_s=dynamo_limit_s)
    model = SourceModel(source, inputs, example, dims, output_names, weights, arguments)
    _export(out, stage, model, output, Proof(data=data, atol=atol, rtol=rtol, may_mix=may_mix), force, repro)


def _export(
    out: Output,
    stage: "ExportOnnx | ExportTorchScript",
    model: SourceModel,
    output: Path,
    proof: Proof,
    force: bool,
    repro: Path | None,
) -> None:
    from optkit.api.make import check_output

    check_output(output, force)
    with tempfile.TemporaryDirectory(prefix="optkit-source-") as folder:
        with out.working():
            source = model.make(Path(folder))
            if repro:
                from optkit.api.repro import write_repro

                script = write_repro(source, stage, repro)
                out.hint(f"to repeat this without optkit: {shell_line('cd', repro)} && python {script.name}")
        make_and_show(
            out,
            stage,
            source,
            output,
            proof,
            force,
            hints=(
                shell_line("optkit", "quantize", output, "-o", "int8.onnx"),
                shell_line("optkit", "bench", output),
                shell_line("optkit", "package", "triton", output, "-o", "repo"),
            )
            if output.suffix == ".onnx"
            else (
                shell_line("optkit", "bench", output),
                shell_line("optkit", "package", "torchserve", output, "-o", "model_store"),
            ),
        )
