"""The findings of a lint as text and as GitHub annotations."""

import os
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from optkit.report.table import plain_table
from optkit.serving.triton.lint import Finding, LintRecord, Rule, Severity


def lint_text(record: LintRecord, repository: Path) -> str:
    """Return each finding with its file and line, and the number of findings."""
    lines = [f"{repository / f.file}{_at(f)}: fixed {f.rule}: {f.message}" for f in record.fixed]
    for finding in record.findings:
        lines.append(f"{repository / finding.file}{_at(finding)}: {finding.severity} {finding.rule}: {finding.message}")
        lines.append(f"  {finding.advice}{' (--fix fixes it)' if finding.fixable else ''}")
    errors = sum(finding.severity is Severity.ERROR for finding in record.findings)
    warnings = len(record.findings) - errors
    models = f"{len(record.models)} model{'s' if len(record.models) != 1 else ''}"
    found = f"{errors} error{'s' if errors != 1 else ''}, {warnings} warning{'s' if warnings != 1 else ''}"
    lines.append(f"{models}: {found}" if record.findings else f"{models}: no findings")
    return "\n".join(lines)


def github_annotations(record: LintRecord) -> str:
    """Return each finding as a workflow command, with a path relative to the current folder.

    The format: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    lines = []
    for finding in record.findings:
        file = os.path.relpath(record.repository / finding.file)
        where = f"file={_property(file)},line={finding.line or 1},title={finding.rule}"
        lines.append(f"::{finding.severity} {where}::{_data(f'{finding.message}. {finding.advice}')}")
    return "\n".join(lines)


def rules_table(rules: Iterable[Rule]) -> Table:
    """Return the rules as a table."""
    table = plain_table("rules", "rule", "severity", "fix", "problem")
    for rule in rules:
        table.add_row(rule.id, str(rule.severity), "yes" if rule.fixable else "", rule.summary)
    return table


def _at(finding: Finding) -> str:
    return f":{finding.line}" if finding.line else ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
