"""`optkit package`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_dims, parse_sizes, parse_yaml_options
from optkit.errors import RecipeError

if TYPE_CHECKING:
    from optkit.api.package import PackageRecord

Name = Annotated[
    str | None, typer.Option("--name", help="Name of the model on the server.", show_default="name of the file")
]

Version = Annotated[int, typer.Option(help="Version folder.")]
Batching = Annotated[
    bool, typer.Option(help="Let the server batch requests, after a check that batching does not change the outputs.")
]
PreferredBatchSizes = Annotated[
    str | None, typer.Option(help="Preferred batch sizes, for example 8,64.", show_default="none")
]
MaxQueueDelayUs = Annotated[int, typer.Option(help="Maximum time that a request waits for a batch, in microseconds.")]
MaxBatchSize = Annotated[int | None, typer.Option(help="Largest batch size.", show_default="declared maximum")]
Warmup = Annotated[bool, typer.Option(help="Run a sample while the model loads.")]
Client = Annotated[bool, typer.Option(help="Write a Python client to OUTPUT_clients/NAME.")]

ScriptInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Input of a TorchScript model without a passport, for example "
        '"image:float32[batch,3,224,224]"; repeat for each input.',
        show_default=False,
    ),
]


@with_output
def triton(
    out: Output,
    models: Annotated[
        list[Path],
        typer.Argument(
            help="ONNX, TorchScript or .pt2 models; or TensorRT engines of one model, one for each GPU type.",
            show_default=False,
        ),
    ],
    output: options.OutputFolder,
    name: Name = None,
    version: Version = 1,
    batching: Batching = True,
    preferred_batch_sizes: PreferredBatchSizes = None,
    max_queue_delay_us: MaxQueueDelayUs = 0,
    instances: Annotated[int, typer.Option(help="Model instances on each device.")] = 1,
    gpus: Annotated[
        str | None, typer.Option(help="Numbers of the GPUs to run on, for example 0,1.", show_default="CPU")
    ] = None,
    keep_versions: Annotated[int, typer.Option(help="Number of latest versions to serve; 0 serves all.")] = 1,
    max_batch_size: MaxBatchSize = None,
    max_queue_size: Annotated[
        int | None, typer.Option(help="Maximum number of waiting requests.", show_default="no limit")
    ] = None,
    queue_timeout_us: Annotated[
        int | None,
        typer.Option(
            help="Maximum time that a request waits before it is rejected, in microseconds.", show_default="no limit"
        ),
    ] = None,
    response_cache: Annotated[bool, typer.Option(help="Let the server cache responses.")] = False,
    warmup: Warmup = True,
    client: Client = True,
    inputs: ScriptInputs = None,
    dims: options.ModelFileDims = None,
    data: options.PackageData = None,
    force: options.Force = False,
) -> None:
    """Write models to a Triton model repository. Existing versions stay.

    Example: optkit package triton model.onnx -o model_repository --name digits
    """
    from optkit.api.package import package_triton

    with out.show_progress():
        record = package_triton(
            models,
            output,
            name=name,
            version=version,
            batching=batching,
            preferred_batch_sizes=parse_sizes("--preferred-batch-sizes", preferred_batch_sizes),
            max_queue_delay_us=max_queue_delay_us,
            instances=instances,
            gpus=parse_sizes("--gpus", gpus),
            keep_versions=keep_versions,
            max_batch_size=max_batch_size,
            max_queue_size=max_queue_size,
            queue_timeout_us=queue_timeout_us,
            response_cache=response_cache,
            warmup=warmup,
            client=client,
            inputs=inputs,
            dims=parse_dims(dims),
            data=data,
            force=force,
        )
    _show(out, record)


@with_output
def triton_python(
    out: Output,
    function: Annotated[
        str,
        typer.Argument(
            help="Function that takes and returns a mapping of name to array, as file.py:function.", show_default=False
        ),
    ],
    output: options.OutputFolder,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help='Input of the function, for example "pixels:uint8[batch,8,8]"; repeat for each input.',
            show_default=False,
        ),
    ] = None,
    returns: Annotated[
        list[str] | None,
        typer.Option(
            "--returns",
            help='Output of the function, for example "image:float32[batch,1,8,8]"; repeat for each output.',
            show_default=False,
        ),
    ] = None,
    dims: options.Dims = None,
    data: options.PackageData = None,
    extra_files: Annotated[
        list[Path] | None,
        typer.Option(
            "--extra-file",
            help="File that the function reads from the folder of its code; repeat for each file.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model on the server.", show_default="name of the function")
    ] = None,
    version: Version = 1,
    batching: Batching = True,
    max_batch_size: MaxBatchSize = None,
    preferred_batch_sizes: PreferredBatchSizes = None,
    max_queue_delay_us: MaxQueueDelayUs = 0,
    instances: Annotated[int, typer.Option(help="Model instances.")] = 1,
    warmup: Warmup = True,
    client: Client = True,
    force: options.Force = False,
) -> None:
    """Write a Python function as a model to a Triton model repository, after a check that it matches its declaration.

    Example: optkit package triton-python steps.py:scale --input "pixels:uint8[batch,8,8]" --returns "image:float32[batch,1,8,8]"
    --dim batch=1:8:64 -o model_repository
    """
    from optkit.api.package import package_triton_python

    if not inputs or not returns:
        raise RecipeError('triton-python: expected --input "x:float32[batch,4]" and --returns "y:float32[batch,2]"')
    with out.show_progress():
        record = package_triton_python(
            function,
            output,
            inputs=inputs,
            returns=returns,
            dims=parse_dims(dims),
            data=data,
            extra_files=extra_files or (),
            name=name,
            version=version,
            batching=batching,
            max_batch_size=max_batch_size,
            preferred_batch_sizes=parse_sizes("--preferred-batch-sizes", preferred_batch_sizes),
            max_queue_delay_us=max_queue_delay_us,
            instances=instances,
            warmup=warmup,
            client=client,
            force=force,
        )
    _show(out, record)


@with_output
def torchserve(
    out: Output,
    model: Annotated[Path, typer.Argument(help="TorchScript, ONNX or .pt2 model.", show_default=False)],
    output: options.OutputFolder,
    name: Name = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0",
    handler: Annotated[Path | None, typer.Option(help="Your own handler file.", show_default="generated")] = None,
    extra_files: Annotated[
        list[Path] | None,
        typer.Option("--extra-file", help="File to add to the archive; repeat for each file.", show_default=False),
    ] = None,
    requirements: Annotated[
        Path | None, typer.Option(help="requirements.txt to add to the archive.", show_default=False)
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            help="Preprocessing of images, if requests are images, for example resize=256 or mean=[0.5]; repeat for each setting.",
            show_default=False,
        ),
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="Text file with one class per line.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of worker processes.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Maximum number of requests in a batch.")] = 1,
    max_batch_delay_ms: Annotated[
        int, typer.Option(help="Maximum time that a request waits for a batch, in milliseconds.")
    ] = 100,
    client: Client = True,
    inputs: ScriptInputs = None,
    dims: options.ModelFileDims = None,
    data: options.PackageData = None,
    force: options.Force = False,
) -> None:
    """Write a TorchServe archive (.mar) and its config.properties.

    Example: optkit package torchserve model.pt -o model_store --name digits
    """
    from optkit.api.package import package_torchserve

    with out.show_progress():
        record = package_torchserve(
            model,
            output,
            name=name,
            version=version,
            handler=handler,
            extra_files=extra_files or (),
            requirements=requirements,
            image=parse_yaml_options("--image", image),
            class_names=class_names,
            workers=workers,
            batch_size=batch_size,
            max_batch_delay_ms=max_batch_delay_ms,
            client=client,
            inputs=inputs,
            dims=parse_dims(dims),
            data=data,
            force=force,
        )
    _show(out, record)


def _show(out: Output, record: "PackageRecord") -> None:
    """Print the packages, and the command that serves the first one."""
    out.result(record)
    out.hint(*(f"next: {packaged.command}" for packaged in record.packages[:1]))
