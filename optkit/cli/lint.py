"""`optkit lint`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli.output import Output, with_output
from optkit.errors import RecipeError


class LintFormat(StrEnum):
    """The output format of findings."""

    TEXT = "text"
    GITHUB = "github"


@with_output
def lint(
    out: Output,
    repository: Annotated[Path | None, typer.Argument(help="Triton model repository.", show_default=False)] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make safe fixes; the old file is kept as config.pbtxt.orig.")
    ] = False,
    server_gpus: Annotated[
        int | None, typer.Option(min=0, help="Number of GPUs of the server.", show_default="unknown")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="The server runs with --disable-auto-complete-config, so fields that Triton would complete are errors.",
        ),
    ] = False,
    layout: Annotated[
        LintFormat, typer.Option("--format", help="Output format: text, or github (annotations for a workflow).")
    ] = LintFormat.TEXT,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and exit.")] = False,
) -> None:
    """Find problems in a Triton model repository, without a server and without running its models.

    Exit code 1: there are errors.

    Example: optkit lint model_repository
    """
    from optkit.api.lint import lint as run
    from optkit.report.lint import github_annotations, rules_table
    from optkit.serving.triton.lint import RULES, RuleList

    if rules:
        out.result(RuleList(rules=tuple(RULES.values())), rules_table(RULES.values()))
        return
    if repository is None:
        raise RecipeError(
            "REPOSITORY: is missing; expected a Triton model repository. Give its folder, or use --rules."
        )
    with out.show_progress():
        record = run(repository, fix=fix, server_gpus=server_gpus, strict=strict)
    if layout is LintFormat.GITHUB:
        out.commands(record, github_annotations(record))
    else:
        out.result(record)
    raise typer.Exit(0 if record.passed else 1)
