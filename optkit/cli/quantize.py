"""`optkit convert` and `optkit quantize`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.making import Proof, make_and_show
from optkit.cli.output import Output
from optkit.cli.values import open_file, settings
from optkit.errors import RecipeError

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
    with out.working():
        make_and_show(out, stage, open_file(model, dims), output, proof, force, (f"optkit bench {model} {output}",))


def quantize(
    model: Model,
    output: options.Output,
    mode: Annotated[
        str, typer.Option(help="auto (static with calibration data, else dynamic), dynamic or static.")
    ] = "auto",
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
    activation_type: Annotated[str, typer.Option(help="uint8 (fast on x86) or int8.")] = "uint8",
    per_channel: Annotated[bool, typer.Option(help="A scale for each channel of a weight.")] = True,
    reduce_range: Annotated[bool, typer.Option(help="7-bit weights, for x86 without VNNI.")] = False,
    dims: options.Dims = None,
    evaluation: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Quantize an ONNX model to INT8, and prove it against the model.

    Example: optkit quantize model.onnx -o model.int8.onnx --calibration data.py:calibration
    """
    from optkit.data import absolute_data
    from optkit.stages import QuantizeDynamic, QuantizeStatic, Stage

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    chosen = mode if mode != "auto" else "static" if calibration else "dynamic"
    if chosen == "dynamic" and (
        calibration or method != "minmax" or percentile != 99.999 or activation_type != "uint8"
    ):
        raise RecipeError(
            "--calibration, --method, --percentile and --activation-type are for --mode static. Give it --calibration DATA."
        )
    common = {"per_channel": per_channel, "reduce_range": reduce_range}
    stage: Stage
    match chosen:
        case "static":
            data = absolute_data(calibration, Path()) if calibration else None
            stage = settings(
                QuantizeStatic,
                calibration=data,
                method=method,
                percentile=percentile,
                sample=sample,
                doctor=doctor,
                activation_type=activation_type,
                **common,
            )
        case "dynamic":
            stage = settings(QuantizeDynamic, **common)
        case _:
            raise RecipeError(f"--mode {mode}: expected auto, dynamic or static")
    if not fresh:
        stage = stage.with_earlier(output)
    proof = Proof(data=calibration, evaluation=evaluation, max_drop=max_drop)
    hints = (f"optkit bench {model} {output}",)
    with out.working():
        make_and_show(out, stage, open_file(model, dims), output, proof, force, hints, doctor=doctor)
