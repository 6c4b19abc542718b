"""`optkit compare`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.ci import tell_ci
from optkit.cli.output import Output


def compare(
    old: Annotated[Path, typer.Argument(help="The run.json of before.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="The run.json of now.", show_default=False)],
    max_regression: options.MaxRegression = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", help="How far accuracy may fall.", show_default=False)
    ] = None,
    across_machines: options.AcrossMachines = False,
    markdown: options.Markdown = False,
    junit: options.Junit = None,
    github: options.Github = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two runs, or two files of optkit bench --json; exit with 1 when a gate fails.

    Example: optkit compare baseline.json build/digits/run.json --max-regression 5%
    """
    from optkit.api.compare import compare as run
    from optkit.report.cases import cases_of_comparison
    from optkit.report.comparison import comparison_markdown

    out = Output(as_json=as_json, quiet=quiet)
    found = run(old, new, max_regression=max_regression, max_drop=max_drop, across_machines=across_machines)
    text = comparison_markdown(found)
    out.answer(found, *([text] if markdown else []))
    out.verdict(found.failures, found.warnings)
    tell_ci(cases_of_comparison(found), str(new), text, junit, github)
    raise typer.Exit(1 if found.failures else 0)
