"""`optkit compare`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.ci import report_to_ci
from optkit.cli.output import Output


def compare(
    old: Annotated[
        Path, typer.Argument(help="Baseline: a run.json or the output of bench --json.", show_default=False)
    ],
    new: Annotated[
        Path,
        typer.Argument(help="Run or benchmark to compare with the baseline, in the same form.", show_default=False),
    ],
    max_regression: options.MaxRegression = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="Largest allowed drop in accuracy, in the unit of the evaluation.",
            show_default="no limit",
        ),
    ] = None,
    across_machines: options.AcrossMachines = False,
    markdown: options.Markdown = False,
    junit: options.Junit = None,
    github: options.Github = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two runs or benchmarks by the names of their artifacts.

    Exit code 1: a gate failed.

    Example: optkit compare baseline.json build/digits/run.json --max-regression 5%
    """
    from optkit.api.compare import compare as run
    from optkit.report.cases import cases_of_comparison
    from optkit.report.comparison import comparison_markdown

    out = Output(as_json=as_json, quiet=quiet)
    found = run(old, new, max_regression=max_regression, max_drop=max_drop, across_machines=across_machines)
    text = comparison_markdown(found)
    out.result(found, *([text] if markdown else []))
    out.verdict(found.failures, found.warnings)
    report_to_ci(cases_of_comparison(found), str(new), text, junit, github)
    raise typer.Exit(1 if found.failures else 0)
