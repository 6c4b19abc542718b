"""Records, shown to a person.

showing         what a person is shown of each kind of record, by the commands and in a notebook
notebook        tables as HTML
table, text, measured, quantization, calibration, comparison, choice, ab, loadtest, lint, smoke, verify     for a terminal
html            the page of a run; `view` says what is in it, `page/` is its template
int8            its sections on layers and calibration
pictures, svg, axes, heat       its drawings
markdown, cases, junit, github  for CI
numbers, verdict, provenance    figures, verdicts and commands in words
"""

from optkit.report.choice import choice_text
from optkit.report.table import run_tables
from optkit.report.text import next_commands, run_summary

__all__ = ["choice_text", "next_commands", "run_summary", "run_tables"]
