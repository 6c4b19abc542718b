"""What a command leaves for CI besides its answer: a JUnit file, annotations, the summary of the job."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import RecipeError

if TYPE_CHECKING:
    from optkit.report.cases import Case


def check_baseline(baseline: Path | None, max_regression: str | None, *, wanted: bool) -> None:
    """Refuse options that report a comparison where nothing is compared.

    Args:
        baseline: an earlier run; None for none.
        max_regression: the gate, as 5%.
        wanted: whether another option asks for what only a comparison gives.

    Raises:
        RecipeError: an option needs a baseline, and there is none.
    """
    if baseline is None and (wanted or max_regression):
        raise RecipeError("--max-regression, --junit and --github tell of a comparison. Give --baseline run.json.")


def tell_ci(cases: "Sequence[Case]", name: str, markdown: str, junit: Path | None, github: bool) -> None:
    """Write what --junit and --github ask for.

    Args:
        cases: what passed and what failed.
        name: of the suite, and the file that the annotations stand at.
        markdown: for the summary of the job.
        junit: the file; None for none.
        github: whether this is a job of GitHub Actions.

    Raises:
        OutputError: a file cannot be written, or this is no such job.
    """
    if junit:
        from optkit.report.junit import write_junit

        write_junit(junit, name, cases)
    if github:
        from optkit.report.github import add_summary, annotations

        add_summary(markdown)
        # Not through rich: a workflow command must stand alone at the start of a line.
        sys.stderr.writelines(f"{line}\n" for line in annotations(cases, name))
