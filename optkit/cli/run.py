"""`optkit run`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.ci import tell_ci
from optkit.cli.output import Output, with_output
from optkit.cli.values import pairs


@with_output
def run(
    out: Output,
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder of the run.", show_default="build/<name>")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", help="Make only this step and what it needs.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A key of the recipe as key.key=value.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe, print the plan, do nothing.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say of every artifact why it won or lost.")] = False,
    history: options.History = None,
    junit: options.Junit = None,
    github: options.Github = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail where versions, hashes or seeds are not those of run.lock.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make everything anew.")] = False,
) -> None:
    """Carry out a recipe: export, optimize, prove, measure, package.

    Example: optkit run recipes/digits.yaml
    """
    from optkit.api import run as api
    from optkit.report import choice_text, next_commands, run_summary, run_tables
    from optkit.report.cases import cases_of_run
    from optkit.report.markdown import run_markdown

    given = pairs("--set", overrides)
    if dry_run:
        plan = api.plan(recipe, output, step=step, overrides=given)
        out.answer(plan)
        return
    with out.working():
        record = api.run(recipe, output, step=step, overrides=given, fresh=fresh, locked=locked, history=history)
    folder = (output or Path("build") / record.recipe).absolute()
    shown = [choice_text(record)] if explain else []
    out.answer(record, *run_tables(record), *shown, run_summary(record, folder))
    out.verdict(record.failures)
    tell_ci(cases_of_run(record), str(recipe), run_markdown(record), junit, github)
    out.hint(*next_commands(record, folder))
    raise typer.Exit(record.exit_code)
