"""`optkit package`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output
from optkit.cli.values import open_file, parse_dims, parse_image, parse_inputs, parse_sizes, settings
from optkit.errors import RecipeError

Name = Annotated[str | None, typer.Option("--name", help="The model's name on the server.", show_default="of the file")]

Version = Annotated[int, typer.Option(help="The version folder.")]
Batching = Annotated[bool, typer.Option(help="Let the server put requests together.")]
PreferredBatchSizes = Annotated[str | None, typer.Option(help="Preferred batch sizes, as 8,64.", show_default="none")]
MaxQueueDelayUs = Annotated[int, typer.Option(help="How long a request may wait for others.")]
MaxBatchSize = Annotated[int | None, typer.Option(help="The largest batch.", show_default="largest declared")]
Warmup = Annotated[bool, typer.Option(help="Run a sample when the model is loaded.")]
Client = Annotated[bool, typer.Option(help="Write a Python client to OUTPUT_clients/NAME.")]


def triton(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            help="ONNX or TorchScript models; TensorRT engines of one model, one for each GPU.", show_default=False
        ),
    ],
    output: options.Output,
    name: Name = None,
    version: Version = 1,
    batching: Batching = True,
    preferred_batch_sizes: PreferredBatchSizes = None,
    max_queue_delay_us: MaxQueueDelayUs = 0,
    instances: Annotated[int, typer.Option(help="Copies of the model on each device.")] = 1,
    gpus: Annotated[str | None, typer.Option(help="GPUs to run on, as 0,1.", show_default="CPU")] = None,
    keep_versions: Annotated[int, typer.Option(help="How many of the latest versions are served; 0 serves all.")] = 1,
    max_batch_size: MaxBatchSize = None,
    max_queue_size: Annotated[int | None, typer.Option(help="How many requests may wait.", show_default="any")] = None,
    queue_timeout_us: Annotated[
        int | None, typer.Option(help="How long a request may wait before it is refused.", show_default="any")
    ] = None,
    response_cache: Annotated[bool, typer.Option(help="Let the server answer equal requests from its cache.")] = False,
    warmup: Warmup = True,
    client: Client = True,
    dims: options.Dims = None,
    data: options.Data = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Write a Triton model repository; versions that are there already stay.

    Example: optkit package triton model.onnx -o model_repository --name digits
    """
    from optkit.api.package import package_files
    from optkit.report import packages_text
    from optkit.serving import Instances, QueuePolicy, TritonServing, VersionPolicy

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    if name and len(artifacts) > 1 and any(path.suffix != ".plan" for path in artifacts):
        raise RecipeError(f"--name {name}: names one model, but {len(artifacts)} were given. Package them one by one.")
    on = parse_sizes("--gpus", gpus)
    serving = settings(
        TritonServing,
        name=name,
        version=version,
        batching=batching,
        preferred_batch_sizes=parse_sizes("--preferred-batch-sizes", preferred_batch_sizes),
        max_queue_delay_us=max_queue_delay_us,
        instances=settings(Instances, count=instances, kind="gpu" if on else "cpu", gpus=on),
        version_policy=settings(VersionPolicy, latest=keep_versions or None, all=keep_versions == 0),
        max_batch_size=max_batch_size,
        queue=settings(QueuePolicy, max_size=max_queue_size or 0, timeout_us=queue_timeout_us or 0)
        if max_queue_size or queue_timeout_us
        else None,
        response_cache=response_cache,
        warmup=warmup,
        client=client,
    )
    with out.working():
        record = package_files([open_file(path, dims) for path in artifacts], output, serving, data, force)
    out.answer(record, packages_text(record))
    out.hint(*(f"next: {packaged.command}" for packaged in record.packages[:1]))


def triton_python(
    function: Annotated[
        str,
        typer.Argument(help="file.py:function that takes and gives a mapping of name to array.", show_default=False),
    ],
    output: options.Output,
    inputs: options.Inputs = None,
    returns: Annotated[
        list[str] | None,
        typer.Option(
            "--returns", help='One output as "name:dtype[dim,...]"; give it once for each.', show_default=False
        ),
    ] = None,
    dims: options.Dims = None,
    data: options.Data = None,
    extra_files: Annotated[
        list[Path] | None,
        typer.Option("--extra-file", help="A file that the function reads beside its code.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name on the server.", show_default="of the function")
    ] = None,
    version: Version = 1,
    batching: Batching = True,
    max_batch_size: MaxBatchSize = None,
    preferred_batch_sizes: PreferredBatchSizes = None,
    max_queue_delay_us: MaxQueueDelayUs = 0,
    instances: Annotated[int, typer.Option(help="Copies of the model.")] = 1,
    warmup: Warmup = True,
    client: Client = True,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Write a Python function as a model of a Triton repository, after proving that it keeps what is declared.

    Example: optkit package triton-python steps.py:scale --input "pixels:uint8[batch,8,8]" --returns "image:float32[batch,1,8,8]"
    --dim batch=1:8:64 -o model_repository
    """
    from optkit.api.package import package_python
    from optkit.report import packages_text
    from optkit.serving import Instances, TritonPythonServing

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    if not inputs or not returns:
        raise RecipeError('triton-python: expected --input "x:float32[batch,4]" and --returns "y:float32[batch,2]"')
    serving = settings(
        TritonPythonServing,
        function=function,
        inputs={spec.name: spec.type_text for spec in parse_inputs(inputs)},
        outputs={spec.name: spec.type_text for spec in parse_inputs(returns, "--returns")},
        data=data,
        extra_files=tuple(map(str, extra_files or ())),
        name=name,
        version=version,
        batching=batching,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=parse_sizes("--preferred-batch-sizes", preferred_batch_sizes),
        max_queue_delay_us=max_queue_delay_us,
        instances=settings(Instances, count=instances),
        warmup=warmup,
        client=client,
    ).with_absolute_paths(Path())
    with out.working():
        record = package_python(serving, output, parse_dims(dims), force)
    out.answer(record, packages_text(record))
    out.hint(*(f"next: {packaged.command}" for packaged in record.packages))


def torchserve(
    artifact: Annotated[Path, typer.Argument(help="A TorchScript or ONNX model.", show_default=False)],
    output: options.Output,
    name: Name = None,
    version: Annotated[str, typer.Option(help="The version of the model.")] = "1.0",
    handler: Annotated[Path | None, typer.Option(help="Your own handler.", show_default="generated")] = None,
    extra_files: Annotated[
        list[Path] | None, typer.Option("--extra-file", help="A file to add.", show_default=False)
    ] = None,
    requirements: Annotated[Path | None, typer.Option(help="A requirements.txt to add.", show_default=False)] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            help="Requests are images: how one becomes the input, as resize=256, crop=224, mode=RGB, mean=[...], std=[...].",
            show_default=False,
        ),
    ] = None,
    class_names: Annotated[Path | None, typer.Option(help="A text file, one class a line.", show_default=False)] = None,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    batch_size: Annotated[int, typer.Option(help="How many requests are put together.")] = 1,
    max_batch_delay_ms: Annotated[int, typer.Option(help="How long a request may wait for others.")] = 100,
    client: Client = True,
    dims: options.Dims = None,
    data: options.Data = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Write a TorchServe archive (.mar) and its config.properties.

    Example: optkit package torchserve model.pt -o model_store --name digits
    """
    from optkit.api.package import package_files
    from optkit.report import packages_text
    from optkit.serving import TorchServeServing

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    serving = settings(
        TorchServeServing,
        name=name,
        version=version,
        handler=str(handler.absolute()) if handler else None,
        extra_files=tuple(str(path.absolute()) for path in extra_files or ()),
        requirements=str(requirements.absolute()) if requirements else None,
        image=parse_image(image),
        class_names=_lines(class_names) if class_names else None,
        workers=workers,
        batch_size=batch_size,
        max_batch_delay_ms=max_batch_delay_ms,
        client=client,
    )
    with out.working():
        record = package_files([open_file(artifact, dims)], output, serving, data, force)
    out.answer(record, packages_text(record))
    out.hint(*(f"next: {packaged.command}" for packaged in record.packages))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"--class-names {path}: cannot be read ({e}); expected a text file, one class a line") from e
