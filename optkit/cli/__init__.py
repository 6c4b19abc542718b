"""The command line: each command parses its arguments, calls one function of `optkit.api` and prints one record.

app             the application: commands, error messages and exit codes
options         options that several commands share
values          parsing of option values
output          printing of results, hints, verdicts and progress
passport        the output of commands that make one file
run, export, quantize, quantize_torch, build_engine, compile, check, bench, compare, inspect, package, lint, serve, loadtest, migrate, ab, report,
schema, verify  the commands of the same names
ci              JUnit files, annotations and job summaries
"""

from optkit.cli.app import main, start

__all__ = ["main", "start"]
