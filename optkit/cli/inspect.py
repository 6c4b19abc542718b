"""`optkit inspect` and `optkit doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output


def inspect(
    model: Annotated[Path, typer.Argument(help="A model file.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Show what a model file is: its contract, precision, operators, and what was found about it.

    Example: optkit inspect model.onnx
    """
    from optkit.api.inspect import inspect as run

    Output(as_json=as_json).answer(run(model))


def doctor(
    engines: Annotated[
        list[Path] | None, typer.Argument(help="Engines: would they load here?", show_default=False)
    ] = None,
    triton: Annotated[
        str | None, typer.Option(help="A Triton release, as 25.10: would they load there?", show_default=False)
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="The GPU of that server, as A10 or sm86.", show_default="this one")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what this machine has, what is missing for which command, and which engines would load here or in Triton.

    Example: optkit doctor model.plan --triton 25.10 --gpu A10
    """
    from optkit.api.inspect import doctor as run

    record = run(engines or (), triton=triton, gpu=gpu)
    Output(as_json=as_json).answer(record)
    raise typer.Exit(0 if record.healthy else 2)
