"""The output of commands: results on stdout, everything else on stderr, as -q, -v and --json select.

rich is imported on first use, so that --help does not wait for it.
"""

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from optkit.cli import options
from optkit.errors import OutputError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

    from optkit.record import Document
    from optkit.untrusted.console import PlainConsole


P = ParamSpec("P")
R = TypeVar("R")


class Output:
    """The output of one command; no other module prints."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: int = 0) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._stdout = sys.stdout
        _log_to(self, logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO, verbose > 1)

    @functools.cached_property
    def _out(self) -> "PlainConsole":
        from optkit.untrusted.console import PlainConsole

        return PlainConsole(self._stdout)

    @functools.cached_property
    def err(self) -> "PlainConsole":
        """The console on stderr, for everything except the result."""
        from optkit.untrusted.console import PlainConsole

        return PlainConsole()

    @contextlib.contextmanager
    def show_progress(self) -> Iterator[None]:
        """Show progress on stderr while the block runs, if stderr is a terminal; redirect the output of user code to stderr."""
        with contextlib.redirect_stdout(sys.stderr), self._progress():
            yield

    @contextlib.contextmanager
    def _progress(self) -> Iterator[None]:
        if self.quiet or self.as_json or not self.err.is_terminal:
            yield
            return
        from optkit.progress import reporting

        with _bars(self.err) as bars, reporting(_Bars(bars)):
            yield

    def result(self, record: "Document", *parts: "RenderableType") -> None:
        """Print a record as one JSON document, or as text; `parts`, if given, replace the default text."""
        self._write(record, lambda: self._show(record, parts))

    def commands(self, record: "Document", lines: str) -> None:
        """Print a record as one JSON document, or as workflow commands, whose texts the caller has escaped."""
        self._write(record, lambda: self._stdout.write(f"{lines}\n"))

    def _write(self, record: "Document", show: Callable[[], object]) -> None:
        try:
            if self.as_json:
                self._stdout.write(record.to_json() + "\n")
            else:
                show()
            self._stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, closed the pipe; the exit code stays valid
            self._discard_output()
        except OSError as e:
            self._discard_output()  # otherwise Python writes again at exit, fails, and exits with code 120
            raise OutputError(f"standard output: cannot be written ({e.strerror or e})") from e

    def _discard_output(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())

    def _show(self, record: "Document", parts: "Sequence[RenderableType]") -> None:
        from optkit.report.showing import print_parts, shown

        print_parts(self._out, parts or shown(record))

    def hint(self, *lines: str) -> None:
        """Print hints, such as the next commands, on stderr."""
        if not (self.quiet or self.as_json):
            for line in lines:
                self.err.print(line, style="dim", soft_wrap=True)

    def verdict(self, failures: Sequence[str], warnings: Sequence[str] = ()) -> None:
        """Print on stderr the failures, and the warnings about undecided gates."""
        for warning in warnings:
            self.err.print(f"warning: {warning}", style="yellow", soft_wrap=True)
        for failure in failures:
            self.err.print(f"failed: {failure}", style="red", soft_wrap=True)


class _Bars:
    """A progress sink that draws bars with rich; loops may be nested."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: list[TaskID] = []

    def begin(self, description: str, total: int | None) -> None:
        of, left = (f"/{total}", "left") if total else ("", "")
        self._tasks.append(self._progress.add_task(description, total=total, done=0, of=of, left=left))

    def advance(self) -> None:
        fields = self._progress.tasks[-1].fields
        self._progress.update(self._tasks[-1], advance=1, done=fields["done"] + 1)

    def end(self) -> None:
        self._progress.remove_task(self._tasks.pop())


def _bars(console: "PlainConsole") -> "Progress":
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn(
            "{task.description}", markup=False
        ),  # the text may contain a file name with brackets, such as m[a].py
        BarColumn(20),
        TextColumn("{task.fields[done]}{task.fields[of]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


class _Handler(logging.Handler):
    """Prints log messages on the console of the progress bars, so that they appear above the bars."""

    def __init__(self, output: Output, level: int) -> None:
        super().__init__(level)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        word = "warning: " if record.levelno == logging.WARNING else ""
        self._output.err.print(word + self.format(record), style=style, soft_wrap=True)


def _log_to(output: Output, level: int, libraries: bool) -> None:
    log = logging.getLogger() if libraries else logging.getLogger("optkit")
    log.handlers = [h for h in log.handlers if not isinstance(h, _Handler)]
    log.addHandler(_Handler(output, level))
    log.setLevel(level)
    log.propagate = False  # some libraries add a handler to the root logger


def with_output(command: Callable[Concatenate[Output, P], R]) -> Callable[..., R]:
    """Add the options --json, -q and -v to a command, and pass the `Output` that they configure as its first argument."""

    @functools.wraps(command)
    def shown(*args: Any, as_json: bool, quiet: bool, verbose: int, **given: Any) -> R:
        return command(Output(as_json=as_json, quiet=quiet, verbose=verbose), *args, **given)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    # Typer derives the options of a command from its signature.
    shown.__signature__ = inspect.Signature([*own, *inspect.signature(_shared).parameters.values()])  # type: ignore[attr-defined]
    return shown


def _shared(as_json: options.Json = False, quiet: options.Quiet = False, verbose: options.Verbose = 0) -> None:
    """Defines the options that `with_output` adds."""


def print_error(text: str) -> None:
    """Print on stderr why a command could not run."""
    from optkit.untrusted.console import PlainConsole

    PlainConsole().print(f"error: {text}", style="red", soft_wrap=True)


def print_note(text: str) -> None:
    """Print a line on stderr that is neither an error nor the answer."""
    from optkit.untrusted.console import PlainConsole

    PlainConsole().print(text, soft_wrap=True)


def print_traceback() -> None:
    """Print on stderr the traceback of the current error."""
    import traceback

    from optkit.untrusted.console import PlainConsole

    PlainConsole().print(traceback.format_exc(), soft_wrap=True, end="")
