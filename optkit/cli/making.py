"""What the commands that make one file have in common: show what was made, and the next useful commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.output import Output

if TYPE_CHECKING:
    from optkit.artifact import Passport

Source = Annotated[
    str,
    typer.Argument(
        help="file.py (its one model), file.py:build, package.module:factory, a TorchScript or .pt2 file, or a Hugging Face folder.",
        show_default=False,
    ),
]


def show_made(out: Output, made: "Passport", output: Path, hints: Sequence[Sequence[object]]) -> None:
    """Show the passport of what was made, and exit with 1 when it does not hold a limit.

    `hints` are the next commands, each as its words.
    """
    from optkit.untrusted.quoting import shell_line

    out.answer(made)
    out.verdict(made.failures)
    if made.failures:
        out.hint(f"{output} was not written")
        raise typer.Exit(1)
    out.hint(*(f"next: {shell_line('optkit', *words)}" for words in hints))
