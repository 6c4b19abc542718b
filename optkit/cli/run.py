"""`optkit run`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.ci import report_to_ci
from optkit.cli.output import Output, with_output
from optkit.cli.values import pairs


@with_output
def run(
    out: Output,
    recipe: Annotated[Path, typer.Argument(help="Recipe: a YAML file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run.", show_default="build/<name>")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", help="Run only this step and the steps that it needs.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Value for a key of the recipe, for example model.weights=w.pt; repeat for each key.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe and print its plan, without running it.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Explain for every artifact why it was or was not chosen.")
    ] = False,
    history: options.History = None,
    junit: options.Junit = None,
    github: options.Github = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail if a version, a hash or a seed differs from run.lock.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run all steps again, without reuse.")] = False,
) -> None:
    """Run a recipe: export, optimize, verify, measure and package; write the records and the report.

    Exit code 1: a gate failed.

    Example: optkit run recipes/digits.yaml
    """
    from optkit.api import run as api
    from optkit.report import choice_text, next_commands, run_summary, run_tables
    from optkit.report.cases import cases_of_run
    from optkit.report.markdown import run_markdown

    given = pairs("--set", overrides)
    if dry_run:
        plan = api.plan(recipe, output, step=step, overrides=given)
        out.result(plan)
        return
    with out.show_progress():
        record = api.run(recipe, output, step=step, overrides=given, fresh=fresh, locked=locked, history=history)
    folder = (output or Path("build") / record.recipe).absolute()
    shown = [choice_text(record)] if explain else []
    out.result(record, *run_tables(record), *shown, run_summary(record, folder))
    out.verdict(record.failures)
    report_to_ci(cases_of_run(record), str(recipe), run_markdown(record), junit, github)
    out.hint(*next_commands(record, folder))
    raise typer.Exit(record.exit_code)
