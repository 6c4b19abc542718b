"""The output of commands that make one file: its passport, the verdict, and the next commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from optkit.cli.output import Output

if TYPE_CHECKING:
    from optkit.artifact import Passport


def show_passport(out: Output, passport: "Passport", output: Path, hints: Sequence[Sequence[object]]) -> None:
    """Print the passport of a file; exit with code 1 if a gate failed, and otherwise print the next commands.

    Args:
        out: output of the command.
        passport: passport of the file.
        output: path of the file.
        hints: next commands, each as a sequence of words.
    """
    from optkit.untrusted.quoting import shell_line

    out.result(passport)
    out.verdict(passport.failures)
    if passport.failures:
        out.hint(f"{output} was not written")
        raise typer.Exit(1)
    out.hint(*(f"next: {shell_line('optkit', *words)}" for words in hints))
