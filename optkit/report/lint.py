"""The findings of `optkit lint` as text and as GitHub annotations."""

import os
from collections.abc import Iterable

from rich.table import Table

from optkit.report.table import plain_table
from optkit.report.text import path_text
from optkit.serving.triton.lint import Finding, LintRecord, Rule, Severity


def lint_text(record: LintRecord) -> str:
    """Return each finding with its file and line, and the number of findings."""
    lines = [f"{_place(record, f)}: fixed {f.rule}: {f.message}" for f in record.fixed]
    for finding in record.findings:
        lines.append(f"{_place(record, finding)}: {finding.severity} {finding.rule}: {finding.message}")
        lines.append(f"  {finding.advice}{' (--fix fixes it)' if finding.fixable else ''}")
    errors = sum(finding.severity is Severity.ERROR for finding in record.findings)
    warnings = len(record.findings) - errors
    models = f"{len(record.models)} model{'s' if len(record.models) != 1 else ''}"
    found = f"{errors} error{'s' if errors != 1 else ''}, {warnings} warning{'s' if warnings != 1 else ''}"
    lines.append(f"{models}: {found}" if record.findings else f"{models}: no findings")
    return "\n".join(lines)


def github_annotations(record: LintRecord) -> str:
    """Return each finding as a workflow command, with a path relative to the current folder."""
    from optkit.report.github import workflow_command

    lines = []
    for finding in record.findings:
        file = os.path.relpath(record.repository / finding.file)
        where = {"file": file, "line": str(finding.line or 1), "title": finding.rule}
        lines.append(workflow_command(finding.severity, where, f"{finding.message}. {finding.advice}"))
    return "\n".join(lines)


def rules_table(rules: Iterable[Rule]) -> Table:
    """Return the rules as a table."""
    table = plain_table("rules", "rule", "severity", "fix", "problem")
    for rule in rules:
        table.add_row(rule.id, str(rule.severity), "yes" if rule.fixable else "", rule.summary)
    return table


def _place(record: LintRecord, finding: Finding) -> str:
    line = f":{finding.line}" if finding.line else ""
    return f"{path_text(record.repository / finding.file)}{line}"
