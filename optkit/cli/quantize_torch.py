"""`optkit quantize-torch`."""

from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.passport import show_passport
from optkit.cli.values import parse_args, parse_dims

Mode = Literal["auto", "dynamic", "static"]
Backend = Literal["auto", "x86", "fbgemm", "onednn", "qnnpack"]


@with_output
def quantize_torch(
    out: Output,
    source: options.Source,
    output: options.OutputFile,
    mode: Annotated[
        Mode, typer.Option(help="Mode: static, dynamic, or auto (static with calibration data, else dynamic).")
    ] = "auto",
    calibration: options.Calibration = None,
    backend: Annotated[
        Backend, typer.Option(help="Quantized engine of PyTorch: auto, x86, fbgemm, onednn, or qnnpack for Arm.")
    ] = "auto",
    per_channel: Annotated[bool, typer.Option(help="Use one scale per output channel of a weight.")] = True,
    reduce_range: Annotated[
        bool | None,
        typer.Option(help="Use 7-bit activations, for x86 processors without VNNI.", show_default="by processor"),
    ] = None,
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.DataOrCalibration = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    force: options.Force = False,
) -> None:
    """Quantize a PyTorch model to INT8 TorchScript for TorchServe and Triton, and verify the file against the model.

    Example: optkit quantize-torch recipes/digits.py:build -o digits.int8.pt --calibration recipes/digits.py:calibration
    --input "image:float32[batch,1,8,8]" --dim batch=1:8:64
    """
    from optkit.api.quantize import quantize_torch as run

    with out.show_progress():
        made = run(
            source,
            output,
            mode=mode,
            calibration=calibration,
            backend=backend,
            per_channel=per_channel,
            reduce_range=reduce_range,
            inputs=inputs,
            dims=parse_dims(dims),
            example=example,
            outputs=outputs,
            weights=weights,
            weights_key=weights_key,
            args=parse_args(args),
            data=data,
            evaluate=evaluate,
            max_drop=max_drop,
            allow_batch_dependence=allow_batch_dependence,
            force=force,
        )
    show_passport(out, made, output, (("bench", output), ("package", "torchserve", output, "-o", "model_store")))
