"""`optkit migrate`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_dims


@with_output
def migrate(
    out: Output,
    archive: Annotated[
        Path,
        typer.Argument(help="TorchServe archive: .mar, .tar.gz, or a folder.", show_default=False),
    ],
    output: options.OutputFolder,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model on the server.", show_default="name in the archive")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Input of a TorchScript model that does not declare its inputs, for example "
            '"image:float32[batch,3,224,224]"; repeat for each input.',
            show_default=False,
        ),
    ] = None,
    dims: options.Dims = None,
    config: Annotated[
        Path | None,
        typer.Option(help="config.properties of the server.", show_default="the one in the folder of the archive"),
    ] = None,
    batching: Annotated[bool, typer.Option(help="Let the server batch requests, if TorchServe did.")] = True,
    force: options.Force = False,
) -> None:
    """Convert a TorchServe archive to a model in a Triton model repository.

    Example: optkit migrate model_store/digits.mar -o model_repository
    """
    from optkit.api.migrate import migrate as run

    with out.show_progress():
        record = run(
            archive,
            output,
            name=name,
            inputs=inputs,
            dims=parse_dims(dims),
            config=config,
            batching=batching,
            force=force,
        )
    out.result(record)
    out.hint(*(f"next: {packaged.command}" for packaged in record.packages))
