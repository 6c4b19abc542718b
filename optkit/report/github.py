"""What GitHub Actions shows of a command: annotations, and the summary of the job."""

import os
from collections.abc import Sequence
from pathlib import Path

from optkit.errors import OutputError
from optkit.report.cases import Case, Outcome

SUMMARY = "GITHUB_STEP_SUMMARY"


def annotations(cases: Sequence[Case], file: str | None) -> list[str]:
    """Return a workflow command for each case that failed, and a warning for each that was not run or is too noisy to say.

    Args:
        cases: in their order.
        file: that the annotations stand at, relative to the repository; None for none.
    """
    levels = {Outcome.FAILED: "error", Outcome.SKIPPED: "warning"}
    found = []
    for case in cases:
        if case.outcome in levels:
            properties = ({"file": file} if file else {}) | {"title": f"{case.artifact}: {case.question}"}
            listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
            found.append(f"::{levels[case.outcome]} {listed}::{_data(case.message)}")
    return found


def add_summary(markdown: str) -> None:
    """Add to the summary of the job.

    Raises:
        OutputError: this is no job of GitHub Actions, or its summary cannot be written.
    """
    path = os.environ.get(SUMMARY)
    if not path:
        raise OutputError(
            f"--github: {SUMMARY} is not set; expected to run in a job of GitHub Actions. Leave --github out."
        )
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(markdown + "\n")
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e


def _data(text: str) -> str:
    """Escape the message of a workflow command: one that held a line break could give commands of its own."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
