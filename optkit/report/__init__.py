"""Records shown to a person: in a terminal, in a notebook, as a page, and in CI."""

from optkit.report.choice import choice_text
from optkit.report.table import run_tables
from optkit.report.text import next_commands, run_summary

__all__ = ["choice_text", "next_commands", "run_summary", "run_tables"]
