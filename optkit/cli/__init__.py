"""The command line: builds a settings value, calls one function of the API, shows one record."""

from optkit.cli.app import main

__all__ = ["main"]
