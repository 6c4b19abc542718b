"""`optkit lint`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output
from optkit.errors import RecipeError


class LintFormat(StrEnum):
    """The output format of findings."""

    TEXT = "text"
    GITHUB = "github"


def lint(
    repository: Annotated[Path | None, typer.Argument(help="A Triton model repository.", show_default=False)] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make safe fixes; the old file stays as config.pbtxt.orig.")
    ] = False,
    server_gpus: Annotated[
        int | None, typer.Option(min=0, help="Number of GPUs of the server.", show_default="unknown")
    ] = None,
    layout: Annotated[
        LintFormat, typer.Option("--format", help="text, or github: annotations for a workflow.")
    ] = LintFormat.TEXT,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and exit.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Find problems in a Triton model repository, without a server. Exit code 1: there are errors.

    Example: optkit lint model_repository
    """
    from optkit.api.lint import lint as run
    from optkit.report.lint import github_annotations, lint_text, rules_table
    from optkit.serving.triton.lint import RULES, RuleList

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    if rules:
        out.answer(RuleList(rules=tuple(RULES.values())), rules_table(RULES.values()))
        return
    if repository is None:
        raise RecipeError(
            "REPOSITORY: is missing; expected the folder of a Triton model repository. Give it, or use --rules."
        )
    with out.working():
        record = run(repository, fix=fix, server_gpus=server_gpus)
    shown = github_annotations(record) if layout is LintFormat.GITHUB else lint_text(record, repository)
    out.answer(record, shown)
    raise typer.Exit(0 if record.passed else 1)
