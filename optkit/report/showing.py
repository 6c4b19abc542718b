"""The tables and lines of each kind of record: the same in a terminal, in a notebook and as text.

Modules that show measurements are imported only if there are some, because numpy would take memory during the build of an engine.
"""

import io
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optkit.artifact import Passport
from optkit.record import Document
from optkit.report.calibration import calibration_tables
from optkit.report.notebook import html_of
from optkit.report.quantization import quantization_parts
from optkit.report.table import parity_table, run_tables
from optkit.report.text import (
    doctor_table,
    engines_text,
    inspection_text,
    packages_text,
    passport_text,
    plan_table,
    run_summary,
)
from optkit.untrusted.console import Plain, PlainConsole

if TYPE_CHECKING:
    from optkit.api.ab import AbRecord
    from optkit.benchmark.bench_record import BenchRecord, SelfTestRecord
    from optkit.benchmark.changes import Comparison
    from optkit.loadtest import LoadRecord
    from optkit.pipeline.diff import BuildDiff
    from optkit.pipeline.verify import Verification
    from optkit.serving.smoke import SmokeRecord
    from optkit.serving.triton.lint import LintRecord

Part = Table | str


def shown(record: Document) -> list[Part]:
    """Return the tables and lines of a command's record, from top to bottom."""
    return _PARTS[kind_of(type(record))](record)


def kind_of(document: type[Document]) -> str:
    """Return the kind of a document, without the version of its schema."""
    return document.schema_id.split("/")[1]


def verdict(record: Document) -> list[Text]:
    """Return the warnings and the failures; an empty list if there are none."""
    checked = getattr(record, "comparison", None) if kind_of(type(record)) == "bench" else record
    warnings = "\n".join(f"warning: {text}" for text in getattr(checked, "warnings", ()))
    failures = "\n".join(f"failed: {text}" for text in getattr(checked, "failures", ()))
    return [Text(text, style) for text, style in ((warnings, "yellow"), (failures, "red")) if text]


def print_parts(console: PlainConsole, parts: Sequence[RenderableType]) -> None:
    """Print parts with an empty line between them; texts are not wrapped, so that they can be copied."""
    for i, part in enumerate(parts):
        if i:
            console.print()
        console.print(part, soft_wrap=isinstance(part, (str, Text)))


def as_html(record: Document) -> str:
    """Return a record as HTML for a notebook: tables and texts, no script."""
    return html_of(_whole(record))


def as_rich(record: Document) -> RenderableType:
    """Return a record as an object that rich can print."""
    parts = [Text(part) if isinstance(part, str) else part for part in _whole(record)]
    return Plain(Group(*(piece for i, part in enumerate(parts) for piece in ((Text(), part) if i else (part,)))))


def as_text(record: Document) -> str:
    """Return a record as plain text in the terminal's width, with characters that standard output can encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    console = PlainConsole(io.TextIOWrapper(io.BytesIO(), encoding=encoding), colours=False)
    with console.capture() as text:
        print_parts(console, _whole(record))
    return text.get().rstrip("\n")


def _whole(record: Document) -> list[Part | Text]:
    return [*shown(record), *verdict(record)]


def _passport(record: Passport) -> list[Part]:
    diagnosed = calibration_tables(record) if record.settings.get("doctor") else []
    written = record.artifact.path if record.passed else None
    return [passport_text(record, written), *quantization_parts(record.artifact.quantization), *diagnosed]


def _ab(record: "AbRecord") -> list[Part]:
    from optkit.report.ab import ab_notes, ab_tables

    return [*ab_tables(record), ab_notes(record)]


def _bench(record: "BenchRecord") -> list[Part]:
    from optkit.report.measured import bench_notes, bench_tables

    return [*bench_tables(record), *bench_notes(record), *_comparison(record.comparison)]


def _comparison(record: "Comparison | None") -> list[Part]:
    from optkit.report.comparison import comparison_shown

    return comparison_shown(record)


def _self_test(record: "SelfTestRecord") -> list[Part]:
    from optkit.report.measured import self_test_table

    return [self_test_table(record)]


def _lint(record: "LintRecord") -> list[Part]:
    from optkit.report.lint import lint_text

    return [lint_text(record)]


def _load_test(record: "LoadRecord") -> list[Part]:
    from optkit.report.loadtest import advice_text, loadtest_table, loadtest_text

    advice = [advice_text(record.advice)] if record.advice else []
    return [loadtest_table(record), loadtest_text(record), *advice]


def _smoke(record: "SmokeRecord") -> list[Part]:
    from optkit.report.smoke import smoke_text

    return [smoke_text(record)]


def _verification(record: "Verification") -> list[Part]:
    from optkit.report.verify import verification_text

    return [verification_text(record)]


def _diff(record: "BuildDiff") -> list[Part]:
    from optkit.report.verify import diff_parts

    return diff_parts(record)


_PARTS: dict[str, Callable[[Any], list[Part]]] = {
    "ab": _ab,
    "bench": _bench,
    "check": lambda record: [parity_table(record.parity)],
    "comparison": _comparison,
    "diff": _diff,
    "doctor": lambda record: [doctor_table(record), *engines_text(record)],
    "inspection": lambda record: [inspection_text(record)],
    "lint": _lint,
    "loadtest": _load_test,
    "package": lambda record: [packages_text(record)],
    "passport": _passport,
    "plan": lambda record: [plan_table(record)],
    "run": lambda record: [*run_tables(record), run_summary(record)],
    "self-test": _self_test,
    "smoke": _smoke,
    "verification": _verification,
}
