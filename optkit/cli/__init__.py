"""The command line: each command builds arguments, calls one function of `optkit.api` and shows one record.

app             the commands, and the one place where errors become text and an exit code
options         options that several commands share
values          from the text of options to arguments
output          the one place that prints
making          what is shown after a file was made
run, export, quantize, quantize_torch, build_engine, check, bench, compare, inspect, package, lint, serve, loadtest, migrate, ab, report,
schema, verify          the commands, as their names say
ci              JUnit files, annotations and job summaries
"""

from optkit.cli.app import main

__all__ = ["main"]
