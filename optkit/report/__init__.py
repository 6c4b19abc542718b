"""Records, shown to a person.

table, text, measured, quantization, calibration, comparison, choice, ab, loadtest, lint, smoke     for a terminal
html            the page of a run; `view` says what is in it, `page/` is its template
int8            its sections on layers and calibration
pictures, svg, axes, heat       its drawings
markdown, cases, junit, github  for CI
numbers, verdict, provenance    figures, verdicts and commands in words
"""

from optkit.report.calibration import calibration_tables
from optkit.report.choice import choice_text
from optkit.report.measured import bench_notes, bench_tables, self_test_table
from optkit.report.quantization import quantization_parts
from optkit.report.table import parity_table, run_tables
from optkit.report.text import (
    doctor_table,
    engines_text,
    inspection_text,
    next_commands,
    packages_text,
    passport_text,
    plan_table,
    run_summary,
)

__all__ = [
    "bench_notes",
    "bench_tables",
    "calibration_tables",
    "choice_text",
    "doctor_table",
    "engines_text",
    "inspection_text",
    "next_commands",
    "packages_text",
    "parity_table",
    "passport_text",
    "plan_table",
    "quantization_parts",
    "run_summary",
    "run_tables",
    "self_test_table",
]
