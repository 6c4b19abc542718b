"""Numbers and lists as a person reads them."""

from pathlib import Path

import pytest

from optkit.benchmark.changes import Limits
from optkit.pipeline.baseline import of_run
from optkit.pipeline.compare import compare
from optkit.report.comparison import comparison_text
from optkit.report.numbers import ratio_text
from tests.support.runs import run_record


@pytest.mark.parametrize(
    ("ratio", "ends", "text"),
    [
        (1.234, (1.0, 1.5), "1.23x (1.00-1.50)"),
        (99.9, (None, None), "99.90x"),
        (4438.58, (4300.12, 4600.9), "4439x (4300-4601)"),
    ],
)
def test_a_large_ratio_has_no_decimals(ratio: float, ends: tuple[float | None, float | None], text: str) -> None:
    assert ratio_text(ratio, *ends) == text


def test_what_is_in_one_run_only_is_told_in_one_line() -> None:
    old, new = (
        of_run(run_record({"source": 1.0, "same": 0.5, **others}), Path("run.json"))
        for others in ({"a": 0.4, "b": 0.3}, {"c": 0.2})
    )
    lines = comparison_text(compare(old, new, Limits())).splitlines()
    assert lines[-2:] == ["only before: a, b", "only now: c"]
