"""Show records: in a terminal, as an HTML page, in a notebook and in CI.

showing         tables and lines for each kind of record, for the commands and for a notebook
notebook        tables as HTML
table, text, measured, quantization, calibration, comparison, choice, ab, loadtest, lint, smoke, verify     for a terminal
html            the page of a run; `view` prepares its content, `page/` is its template
int8            its sections on layers and calibration
pictures, svg, axes, heat       its pictures
markdown, cases, junit, github  for CI
numbers, verdict, provenance    numbers, verdicts and commands as text
"""

from optkit.report.choice import choice_text
from optkit.report.table import run_tables
from optkit.report.text import next_commands, run_summary

__all__ = ["choice_text", "next_commands", "run_summary", "run_tables"]
