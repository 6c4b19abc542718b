"""`optkit build-engine`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.making import show_made
from optkit.cli.output import Output, with_output
from optkit.cli.values import pairs, parse_args, parse_dims

Precision = Literal["fp32", "fp16", "int8", "int8+fp16"]
Runtime = Literal["auto", "tensorrt", "tensorrt-rtx"]
HardwareCompatible = Literal["ampere-plus", "same-compute-capability"]


@with_output
def build_engine(
    out: Output,
    model: Annotated[
        str,
        typer.Argument(help="An ONNX model, or a model source as `optkit export onnx` takes it.", show_default=False),
    ],
    output: options.Output,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="fp32, fp16, int8 or int8+fp16; made in the ONNX file first.", show_default="that of the file"
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Real samples for int8: file.py:function or a folder of .npz.", show_default=False),
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            help='Shapes as "input=min,opt,max;other=min,opt,max", each as 1x3x224x224; once for each profile.',
            show_default="the declared ranges",
        ),
    ] = None,
    runtime: Annotated[
        Runtime, typer.Option(help="auto, tensorrt (on a GPU) or tensorrt-rtx (ahead of time).")
    ] = "auto",
    gpu: Annotated[
        str | None,
        typer.Option(help="What to build for, as sm86,sm89 or T4,A10,RTX 4090.", show_default="what the runtime takes"),
    ] = None,
    tensorrt_python: Annotated[
        Path | None,
        typer.Option("--tensorrt-python", help="The interpreter that has TensorRT.", show_default="this one"),
    ] = None,
    workspace_mib: Annotated[int | None, typer.Option(help="The most memory of one layer.", show_default="all")] = None,
    optimization_level: Annotated[int | None, typer.Option(help="0 (fast build) to 5.", show_default="3")] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Allow TF32 (10-bit mantissa) for FP32 math on sm80 and newer.")
    ] = False,
    timing_cache: Annotated[
        str, typer.Option(help="auto (kept for each GPU, release and driver), none, or a file.")
    ] = "auto",
    version_compatible: Annotated[bool, typer.Option("--version-compatible", help="Also for later releases.")] = False,
    hardware_compatible: Annotated[
        HardwareCompatible | None,
        typer.Option(help="Also for other GPUs: ampere-plus or same-compute-capability.", show_default=False),
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Weights can be replaced later.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Leave out weights that are refitted.")] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(help="The share of layers that must compute so, as fp16=0.9 (needs a GPU).", show_default=False),
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
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    force: options.Force = False,
) -> None:
    """Build a TensorRT engine, and prove it where a GPU is; without one the passport says what is not proven.

    Example: optkit build-engine model.onnx -o model.plan --dim batch=1:8:64 --precision fp16 --runtime tensorrt-rtx
    """
    from optkit.api.build_engine import build_engine as run

    with out.working():
        made = run(
            model,
            output,
            precision=precision,
            calibration=calibration,
            profiles=profiles or (),
            runtime=runtime,
            gpu=[part.strip() for part in gpu.split(",")] if gpu else (),
            tensorrt_python=tensorrt_python,
            workspace_mib=workspace_mib,
            optimization_level=optimization_level,
            tf32=tf32,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            refit=refit,
            strip=strip,
            require=pairs("--require", require),
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
    show_made(out, made, output, (("inspect", output), ("doctor", output)))
