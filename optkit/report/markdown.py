"""Records as Markdown, for a comment on a pull request and for the summary of a CI job."""

import re
from collections.abc import Iterable, Sequence

from optkit.pipeline.records import RunRecord
from optkit.report.verdict import busy_machine, conditions, verdict_sentence
from optkit.report.view import row_of, shown_batch
from optkit.untrusted.quoting import visible


def run_markdown(record: RunRecord) -> str:
    """Return a run: its verdict, its variants at one batch size, and the parts that failed or were not run."""
    batch = shown_batch(record)
    head = ["artifact", "type", "size", "verdict", "accuracy", *_latency_head(batch)]
    rows = []
    for step in (record.source, *record.steps):
        row = row_of(record, step, batch)
        name = f"**{cell(step.name)}**" if row.winner else cell(step.name)
        latency = [row.p50, row.tail, row.rate, row.speed_up] if batch else []
        rows.append([name, str(step.precision or ""), row.size, cell(row.verdict), row.accuracy, *latency])
    sign = "✅" if record.exit_code == 0 else "❌"
    parts = [f"### {sign} {cell(record.recipe)}", cell(verdict_sentence(record)), table(head, rows)]
    parts += [listed("Failed", record.failures)] if record.failures else []
    missing = [f"{step.name}: {step.status}: {step.reason}" for step in record.steps if not step.made]
    missing += [f"{m.artifact}: not measured: {m.reason}" for m in (record.bench.not_run if record.bench else ())]
    parts += [listed("Not run", missing)] if missing else []
    busy = busy_machine(record.bench) if record.bench else []
    parts += [f"<sub>{cell(text)}</sub>" for text in (conditions(record), *busy) if text]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown; the cells are already escaped."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def cell(text: str) -> str:
    """Escape a text of the user, so that GitHub shows it as it is on one line: no markup, no table, no mention.

    GitHub looks for mentions and issue numbers in the rendered page, where escapes have no effect. So a zero-width space separates the
    sign from the name.
    """
    return _SPECIAL.sub(_escaped, visible(" ".join(text.split())))


# Special characters of Markdown anywhere, and those that start a list or a heading at the start of a line.
_SPECIAL = re.compile(r"[\\`*_\[\]~<>|$&#@]|^[-+=]|^\d{1,9}[.)]")


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    if sign in "@#":
        return f"\\{sign}&#8203;" if sign == "#" else f"{sign}&#8203;"
    return f"&#{ord(sign)};" if sign in "<>|$&" else f"{sign[:-1]}\\{sign[-1]}"


def _latency_head(batch: int | None) -> list[str]:
    return [f"p50 ms at batch {batch}", "tail ms", "samples/s", "speed-up (95 %)"] if batch else []


def listed(title: str, lines: Iterable[str]) -> str:
    """Return a title and a list; this function escapes the lines."""
    return f"**{title}**\n\n" + "\n".join(f"- {cell(line)}" for line in lines)
