"""`optkit compile`."""

from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.passport import show_passport
from optkit.cli.values import parse_args, parse_dims

Precision = Literal["fp32", "fp16", "bf16"]


@with_output
def compile_aoti(
    out: Output,
    model: Annotated[
        str,
        typer.Argument(
            help="A model source as `optkit export onnx` takes it, or the .pt2 file of an export-program step.",
            show_default=False,
        ),
    ],
    output: options.OutputFile,
    device: Annotated[options.Device, typer.Option(help="The device that runs the package.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="fp32 (never TF32), fp16 or bf16; inputs and outputs keep their types.")
    ] = "fp32",
    max_autotune: Annotated[
        bool, typer.Option("--max-autotune", help="Measure more ways to compute each operator; takes minutes.")
    ] = False,
    freezing: Annotated[
        bool, typer.Option("--freezing", help="Fold weights into constants, packed for the device.")
    ] = False,
    time_limit_s: Annotated[
        float | None, typer.Option(help="End the compiler after so many seconds.", show_default="none")
    ] = None,
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    outputs: options.OutputNames = None,
    weights: options.Weights = None,
    weights_key: options.WeightsKey = None,
    args: options.Arguments = None,
    data: options.VerificationData = None,
    evaluate: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    force: options.Force = False,
) -> None:
    """Compile a model to native code by AOTInductor, and verify the package against the model. Loading a package executes it.

    Example: optkit compile recipes/digits.py:build -o digits.pt2 --input "image:float32[batch,1,8,8]" --dim batch=1:8:64
    """
    from optkit.api.compile import compile_aoti as run

    with out.show_progress():
        made = run(
            model,
            output,
            device=device,
            precision=precision,
            max_autotune=max_autotune,
            freezing=freezing,
            time_limit_s=time_limit_s,
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
            atol=atol,
            rtol=rtol,
            allow_batch_dependence=allow_batch_dependence,
            force=force,
        )
    show_passport(out, made, output, (("bench", output), ("inspect", output)))
