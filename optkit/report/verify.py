"""What `optkit verify` and `optkit diff` say."""

from typing import TYPE_CHECKING

from rich.table import Table

from optkit.messages import count
from optkit.report.table import plain_table

if TYPE_CHECKING:
    from optkit.pipeline.diff import BuildDiff
    from optkit.pipeline.verify import Verification


def verification_text(record: "Verification") -> str:
    """Return what was checked, and what was not; the differences are the verdict."""
    n = len(record.differences)
    verdict = count(n, "difference") if n else "everything is as the records say"
    lines = [f"{record.path}: {count(len(record.checked), 'file')} checked: {verdict}"]
    lines += [f"not checked: {text}" for text in record.unchecked]
    return "\n".join(lines)


def diff_parts(record: "BuildDiff") -> list[Table | str]:
    """Return a table of the changes, and which artifacts are equal."""
    table = plain_table(f"{record.old} -> {record.new}", "step", "kind", "change")
    for change in record.changes:
        table.add_row(change.step, change.kind, change.text)
    equal = f"the same files: {', '.join(record.same)}" if record.same else "no artifact has the same files"
    return [table, equal] if record.changes else [f"{record.old} and {record.new}: no change", equal]
