"""`optkit build-engine`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.passport import show_passport
from optkit.cli.values import pairs, parse_args, parse_dims

Precision = Literal["fp32", "fp16", "int8", "int8+fp16"]
Runtime = Literal["auto", "tensorrt", "tensorrt-rtx"]
HardwareCompatible = Literal["ampere-plus", "same-compute-capability"]


@with_output
def build_engine(
    out: Output,
    model: Annotated[
        str,
        typer.Argument(
            help="ONNX model, or a source as `optkit export onnx` takes it, which is exported and verified first.",
            show_default=False,
        ),
    ],
    output: options.OutputFile,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision to convert the ONNX model to before the build: fp32, fp16, int8 or int8+fp16.",
            show_default="precision of the model",
        ),
    ] = None,
    calibration: options.Calibration = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            help='Optimization profile as "input=min,opt,max;other=min,opt,max", each shape as 1x3x224x224; repeat for each profile.',
            show_default="declared ranges",
        ),
    ] = None,
    runtime: Annotated[
        Runtime,
        typer.Option(
            help="Runtime: tensorrt (builds on a GPU), tensorrt-rtx (builds ahead of time), or auto (the one that is available)."
        ),
    ] = "auto",
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Target GPUs, for example sm86,sm89 or T4,A10,RTX 4090.", show_default="default of the runtime"
        ),
    ] = None,
    tensorrt_python: Annotated[
        Path | None,
        typer.Option("--tensorrt-python", help="Python interpreter with TensorRT installed.", show_default="this one"),
    ] = None,
    workspace_mib: Annotated[
        int | None, typer.Option(help="Maximum workspace memory of a layer, in MiB.", show_default="no limit")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="Builder optimization level, 0 (fast build) to 5.", show_default="3")
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Allow TF32 (10-bit mantissa) for FP32 math on sm80 and newer.")
    ] = False,
    timing_cache: Annotated[
        str,
        typer.Option(help="Timing cache: auto (one for each GPU, release and driver), none, or the path of a file."),
    ] = "auto",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Build an engine that later TensorRT releases can load.")
    ] = False,
    hardware_compatible: Annotated[
        HardwareCompatible | None,
        typer.Option(
            help="Build an engine that other GPUs can load: ampere-plus or same-compute-capability.", show_default=False
        ),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Build an engine whose weights can be replaced later.")
    ] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Omit weights that are refitted later.")] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="Minimum fraction of layers that compute in a precision, for example fp16=0.9 (needs a GPU).",
            show_default=False,
        ),
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
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    allow_batch_dependence: options.AllowBatchDependence = False,
    force: options.Force = False,
) -> None:
    """Build a TensorRT engine, and verify it if a GPU is available; otherwise the passport records that it is unverified.

    Example: optkit build-engine model.onnx -o model.plan --dim batch=1:8:64 --precision fp16 --runtime tensorrt-rtx
    """
    from optkit.api.build_engine import build_engine as run

    with out.show_progress():
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
    show_passport(out, made, output, (("inspect", output), ("doctor", output)))
