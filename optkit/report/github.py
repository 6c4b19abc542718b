"""Output for GitHub Actions: annotations, and the summary of the job."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit.errors import OutputError
from optkit.report.cases import Case, Outcome
from optkit.untrusted.quoting import visible

SUMMARY = "GITHUB_STEP_SUMMARY"


def annotations(cases: Sequence[Case], file: str | None) -> list[str]:
    """Return a workflow command for each case that failed, and a warning for each that was not run or is too noisy to say.

    Args:
        cases: in their order.
        file: the file that the annotations refer to, relative to the repository; None for no file.
    """
    levels = {Outcome.FAILED: "error", Outcome.SKIPPED: "warning"}
    found = []
    for case in cases:
        if case.outcome in levels:
            properties = ({"file": file} if file else {}) | {"title": f"{case.artifact}: {case.check}"}
            found.append(workflow_command(levels[case.outcome], properties, case.message))
    return found


def workflow_command(level: str, properties: Mapping[str, str], message: str) -> str:
    """Return one command on one line. Line breaks in the texts are escaped, so that a text cannot start another command.

    The format: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{level} {listed}::{_data(message)}"


def add_summary(markdown: str) -> None:
    """Append Markdown to the summary of the job.

    Raises:
        OutputError: this is not a job of GitHub Actions, or its summary cannot be written.
    """
    path = os.environ.get(SUMMARY)
    if not path:
        raise OutputError(
            f"--github: {SUMMARY} is not set; expected a job of GitHub Actions, which sets it. Leave --github out."
        )
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(markdown + "\n")
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e


def _data(text: str) -> str:
    """Escape the message of a workflow command; GitHub shows its line breaks."""
    return "%0A".join(visible(line).replace("%", "%25") for line in text.split("\n"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
