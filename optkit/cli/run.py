"""`optkit run`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output
from optkit.cli.values import pairs


def run(
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Make everything anew.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Carry out a recipe: export, optimize, prove, measure, package.

    Example: optkit run recipes/digits.yaml
    """
    from optkit.pipeline.plan import make_plan
    from optkit.pipeline.run import run as carry_out
    from optkit.recipe import load_recipe
    from optkit.report import choice_text, next_commands, plan_table, run_summary, run_tables

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    read = load_recipe(recipe, pairs("--set", overrides))
    plan = make_plan(read, output or Path("build") / read.name, step)
    if dry_run:
        out.answer(plan, plan_table(plan))
        return
    with out.working():
        record = carry_out(plan, fresh=fresh, finish=step is None)
    shown = [choice_text(record)] if explain else []
    out.answer(record, *run_tables(record), *shown, run_summary(record, plan.out_dir))
    out.verdict(record.failures)
    out.hint(*next_commands(record, plan.out_dir))
    raise typer.Exit(record.exit_code)
