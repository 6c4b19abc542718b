"""`optkit verify` and `optkit diff`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output


def verify(
    path: Annotated[
        Path,
        typer.Argument(help="An artifact, a run, a repository, an archive or a model store.", show_default=False),
    ],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Hash every file again, read inputs and precision from the files, and name every difference; exit with 1 where there is one.

    Example: optkit verify build/digits
    """
    from optkit.api.verify import verify as run

    out = Output(as_json=as_json, quiet=quiet)
    found = run(path)
    out.result(found)
    out.verdict(found.failures)
    raise typer.Exit(1 if found.failures else 0)


def diff(
    old: Annotated[Path, typer.Argument(help="The artifact or the folder of the run of before.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="The artifact or the folder of the run of now.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Explain what changed between two builds: code, weights, data, settings, versions, results.

    Example: optkit diff before/build/digits build/digits
    """
    from optkit.api.verify import diff as run

    Output(as_json=as_json).result(run(old, new))
