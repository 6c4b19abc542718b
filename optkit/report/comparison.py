"""A comparison with an earlier run, as a table for a terminal and as Markdown."""

from rich.table import Table
from rich.text import Text

from optkit.benchmark.changes import Comparison, Metric, MetricChange, Trend
from optkit.report.markdown import cell, listed
from optkit.report.markdown import table as markdown_table
from optkit.report.numbers import change_text, ms_text, size_text
from optkit.report.table import plain_table

_STYLES = {Trend.BETTER: "green", Trend.WORSE: "red", Trend.SAME: "", Trend.TOO_NOISY: "yellow"}
_WIDTHS = (15, 9, 9, 9, 17, 13)  # the columns of all tables are aligned


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return a table for each artifact with its metrics before and now; `@8` means batch 8."""
    tables = []
    for artifact in dict.fromkeys(change.artifact for change in comparison.changes):
        table = plain_table(artifact, "metric", "before", "now", "worse by", "95 %", "verdict")
        for column, width in zip(table.columns, _WIDTHS, strict=True):
            column.min_width = width
        for change in comparison.changes:
            if change.artifact == artifact:
                style = "bold red" if change.failure else _STYLES[change.verdict]
                table.add_row(*cells(change), Text(verdict_text(change), style))
        tables.append(table)
    return tables


def comparison_shown(comparison: Comparison | None) -> list[Table | str]:
    """Return the tables and the text of a comparison; an empty list if there is none."""
    return [*comparison_tables(comparison), comparison_text(comparison)] if comparison else []


def comparison_text(comparison: Comparison) -> str:
    """Return the method of the comparison, and the artifacts that only one of the runs has."""
    return "\n".join(_facts(comparison))


def _facts(comparison: Comparison) -> list[str]:
    lines = [f"compared: {comparison.method}"]
    lines += [f"differs: {fact}" for fact in comparison.differing]
    lines += [f"only before: {', '.join(comparison.only_old)}"] if comparison.only_old else []
    lines += [f"only now: {', '.join(comparison.only_new)}"] if comparison.only_new else []
    return lines


def comparison_markdown(comparison: Comparison) -> str:
    """Return a comparison for a comment on a pull request."""
    sign = "❌" if comparison.failures else "⚠️" if comparison.warnings else "✅"
    head = ["artifact", "metric", "before", "now", "worse by", "95 %", "verdict"]
    rows = [
        [cell(change.artifact), *cells(change), ("❌ " if change.failure else "") + verdict_text(change)]
        for change in comparison.changes
    ]
    parts = [f"### {sign} {cell(comparison.recipe or 'benchmark')} against the baseline", markdown_table(head, rows)]
    parts += [listed("Failed", comparison.failures)] if comparison.failures else []
    parts += [listed("Too noisy to say", comparison.warnings)] if comparison.warnings else []
    parts += [f"<sub>{cell(line)}</sub>" for line in _facts(comparison)]
    return "\n\n".join(parts) + "\n"


def verdict_text(change: MetricChange) -> str:
    """Return the verdict, and whether a gate failed."""
    return f"{change.verdict}, failed" if change.failure else str(change.verdict)


def cells(change: MetricChange) -> tuple[str, str, str, str, str]:
    """Return metric, before, now, change and interval as text."""
    name = f"{change.metric}" + (f" @{change.batch}" if change.batch is not None else "")
    values = _value(change.metric, change.old), _value(change.metric, change.new)
    return name, *values, _difference(change), _interval(change)


def _value(metric: Metric, value: float | None) -> str:
    if value is None:
        return ""
    match metric:
        case Metric.LATENCY:
            return f"{ms_text(value)} ms"
        case Metric.THROUGHPUT:
            return f"{value:,.0f}/s"
        case Metric.SIZE:
            return size_text(value)
        case Metric.ACCURACY:
            return f"{value:.4f}"
        case Metric.PARITY:
            return "equal" if value else "not equal"
        case Metric.AVAILABLE:
            return "yes" if value else "no"


def _difference(change: MetricChange) -> str:
    if change.worse_by is None or change.metric is Metric.PARITY:
        return ""
    if change.metric is Metric.ACCURACY:
        return f"{change.worse_by:+.4f}"
    return change_text(change.worse_by)


def _interval(change: MetricChange) -> str:
    if change.low is None or change.high is None:
        return ""
    return f"{change_text(change.low)} to {change_text(change.high)}"
