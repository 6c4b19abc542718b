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
        Path, typer.Argument(help="A TorchServe archive: .mar, .tar.gz, or a folder.", show_default=False)
    ],
    output: options.Output,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name on the server.", show_default="name in the archive")
    ] = None,
    inputs: options.Inputs = None,
    dims: options.Dims = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The config.properties of the server.", show_default="the one beside the archive"),
    ] = None,
    batching: Annotated[bool, typer.Option(help="Let the server batch requests, if TorchServe did.")] = True,
    force: options.Force = False,
) -> None:
    """Turn a TorchServe archive into a Triton model repository.

    Example: optkit migrate model_store/digits.mar -o model_repository
    """
    from optkit.api.migrate import migrate as run

    with out.working():
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
    out.answer(record)
    out.hint(*(f"next: {packaged.command}" for packaged in record.packages))
