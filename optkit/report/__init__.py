"""The records of a run, shown to a person."""

from optkit.report.calibration import calibration_tables
from optkit.report.quantization import quantization_parts
from optkit.report.table import bench_tables, parity_table, run_tables
from optkit.report.text import (
    busy_machine,
    doctor_table,
    inspection_text,
    next_commands,
    packages_text,
    passport_text,
    plan_table,
    run_summary,
)

__all__ = [
    "bench_tables",
    "busy_machine",
    "calibration_tables",
    "doctor_table",
    "inspection_text",
    "next_commands",
    "packages_text",
    "parity_table",
    "passport_text",
    "plan_table",
    "quantization_parts",
    "run_summary",
    "run_tables",
]
