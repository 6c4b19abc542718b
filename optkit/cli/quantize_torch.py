"""`optkit quantize-torch`."""

from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.making import Source, show_made
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_args, parse_dims

Mode = Literal["auto", "dynamic", "static"]
Backend = Literal["auto", "x86", "fbgemm", "onednn", "qnnpack"]


@with_output
def quantize_torch(
    out: Output,
    source: Source,
    output: options.Output,
    mode: Annotated[
        Mode, typer.Option(help="auto (static with calibration data, else dynamic), dynamic or static.")
    ] = "auto",
    calibration: Annotated[
        str | None, typer.Option(help="Real samples: file.py:function or a folder of .npz.", show_default=False)
    ] = None,
    backend: Annotated[Backend, typer.Option(help="auto, x86, fbgemm, onednn, or qnnpack for Arm.")] = "auto",
    per_channel: Annotated[bool, typer.Option(help="A scale for each channel of a weight.")] = True,
    reduce_range: Annotated[
        bool | None, typer.Option(help="7-bit activations, for x86 without VNNI.", show_default="by processor")
    ] = None,
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.Data = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    force: options.Force = False,
) -> None:
    """Quantize a PyTorch model to INT8 TorchScript for TorchServe and Triton, and prove it against the model.

    Example: optkit quantize-torch recipes/digits.py:build -o digits.int8.pt --calibration recipes/digits.py:calibration
    --input "image:float32[batch,1,8,8]" --dim batch=1:8:64
    """
    from optkit.api.quantize import quantize_torch as run

    with out.working():
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
    show_made(out, made, output, (("bench", output), ("package", "torchserve", output, "-o", "model_store")))
