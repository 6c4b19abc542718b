"""`optkit inspect` and `optkit doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output


def inspect(
    artifact: Annotated[Path, typer.Argument(help="A model file.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Show what a model file is: its contract, precision, operators, and what was found about it.

    Example: optkit inspect model.onnx
    """
    from optkit.pipeline.inspecting import inspect_file
    from optkit.report import inspection_text

    record = inspect_file(artifact)
    Output(as_json=as_json).answer(record, inspection_text(record))


def doctor(as_json: options.Json = False) -> None:
    """Show what this machine has, and what is missing for which command.

    Example: optkit doctor
    """
    from optkit.pipeline.inspecting import examine
    from optkit.report import doctor_table

    record = examine()
    Output(as_json=as_json).answer(record, doctor_table(record))
    raise typer.Exit(0 if record.healthy else 2)
