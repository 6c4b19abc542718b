"""`optkit inspect` and `optkit doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output


def inspect(
    model: Annotated[Path, typer.Argument(help="Model file.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Describe a model file: contract, precision, operators, and recorded measurements.

    Example: optkit inspect model.onnx
    """
    from optkit.api.inspect import inspect as run

    Output(as_json=as_json).result(run(model))


def doctor(
    engines: Annotated[list[Path] | None, typer.Argument(help="Engine files to check.", show_default=False)] = None,
    triton: Annotated[
        str | None, typer.Option(help="Triton release to check the engines for, for example 25.10.", show_default=False)
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="GPU of the Triton server, for example A10 or sm86.", show_default="GPU of this machine"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Describe this machine and its libraries, and check which engines can be loaded here or in Triton.

    Exit code 2: a required library has a problem.

    Example: optkit doctor model.plan --triton 25.10 --gpu A10
    """
    from optkit.api.inspect import doctor as run

    record = run(engines or (), triton=triton, gpu=gpu)
    Output(as_json=as_json).result(record)
    raise typer.Exit(0 if record.healthy else 2)
