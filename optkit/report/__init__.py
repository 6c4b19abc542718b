"""The records of a run, shown to a person."""

from optkit.report.choice import choice_text
from optkit.report.measured import bench_notes, bench_tables, self_test_table
from optkit.report.table import parity_table, run_tables
from optkit.report.text import (
    doctor_table,
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
    "choice_text",
    "doctor_table",
    "inspection_text",
    "next_commands",
    "packages_text",
    "parity_table",
    "passport_text",
    "plan_table",
    "run_summary",
    "run_tables",
    "self_test_table",
]
