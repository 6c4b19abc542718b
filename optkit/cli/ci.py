"""Output for CI systems: JUnit files, annotations and job summaries."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import RecipeError

if TYPE_CHECKING:
    from optkit.report.cases import Case


def check_baseline(baseline: Path | None, max_regression: str | None, *, needs_comparison: bool) -> None:
    """Raise an error if an option needs a comparison and there is no baseline.

    Args:
        baseline: earlier run to compare with.
        max_regression: gate, for example 5%.
        needs_comparison: whether another option needs a comparison.

    Raises:
        RecipeError: an option needs a baseline, and none is given.
    """
    if baseline is None and (needs_comparison or max_regression):
        raise RecipeError(
            "--max-regression, --junit and --github: need an earlier run to compare with. Give --baseline run.json."
        )


def report_to_ci(cases: "Sequence[Case]", name: str, markdown: str, junit: Path | None, github: bool) -> None:
    """Write the output of --junit and --github.

    Args:
        cases: test cases, passed and failed.
        name: name of the test suite, and the file of the annotations.
        markdown: text of the job summary.
        junit: JUnit file to write; None writes none.
        github: write annotations and the job summary for GitHub Actions.

    Raises:
        OutputError: a file cannot be written, or `github` is set outside a GitHub Actions job.
    """
    if junit:
        from optkit.report.junit import write_junit

        write_junit(junit, name, cases)
    if github:
        from optkit.report.github import add_summary, annotations

        add_summary(markdown)
        # Not through rich: a workflow command must stand alone at the start of a line.
        sys.stderr.writelines(f"{line}\n" for line in annotations(cases, name))
