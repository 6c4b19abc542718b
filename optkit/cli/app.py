"""The application: commands, error messages and exit codes."""

import atexit
import errno
import gc
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from optkit.cli import (
    ab,
    bench,
    build_engine,
    check,
    compare,
    compile,
    export,
    inspect,
    lint,
    loadtest,
    migrate,
    package,
    quantize,
    quantize_torch,
    report,
    run,
    schema,
    serve,
    verify,
)
from optkit.cli.output import print_error, print_note, print_traceback
from optkit.errors import OptkitError, interrupted, out_of_memory
from optkit.system.supervisor import ProcessDied, exit_at_once, supervised

_BUG = 3
_INTERRUPTED = 130
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_LONG = {
    "run",
    "export",
    "convert",
    "quantize",
    "quantize-torch",
    "build-engine",
    "check",
    "bench",
    "package",
    "migrate",
    "inspect",
    "smoke",
}
_GC_THRESHOLD = 10_000  # new objects


def _typer(help_text: str, epilog: str | None = None) -> typer.Typer:
    """Return an application that prints help without rich, because rich would double the time."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=epilog,
    )


app = _typer(
    "Export, quantize, verify, measure and package a PyTorch model: optkit finds the fastest artifact whose outputs are "
    "still correct.",
    epilog="Example: optkit run recipes/digits.yaml",
)
_export = _typer("Export a PyTorch model, and verify the file against the model.")
_convert = _typer("Convert a model to another precision, and verify the file against the model.")
_package = _typer("Package a model for a server.")

app.command("run")(run.run)
_export.command("torchscript")(export.torchscript)
_export.command("onnx")(export.onnx)
_convert.command("fp16")(quantize.fp16)
app.add_typer(_export, name="export")
app.add_typer(_convert, name="convert")
app.command("quantize")(quantize.quantize)
app.command("quantize-torch")(quantize_torch.quantize_torch)
app.command("build-engine")(build_engine.build_engine)
app.command("compile")(compile.compile_aoti)
app.command("check")(check.check)
app.command("bench")(bench.bench)
_package.command("triton")(package.triton)
_package.command("triton-python")(package.triton_python)
_package.command("torchserve")(package.torchserve)
app.add_typer(_package, name="package")
app.command("ab")(ab.ab)
app.command("compare")(compare.compare)
app.command("verify")(verify.verify)
app.command("diff")(verify.diff)
app.command("report")(report.report)
app.command("schema")(schema.schema)
app.command("lint")(lint.lint)
app.command("smoke")(serve.smoke)
app.command("serve")(serve.serve)
app.command("loadtest")(loadtest.loadtest)
app.command("migrate")(migrate.migrate)
app.command("inspect")(inspect.inspect)
app.command("doctor")(inspect.doctor)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback if an error occurs.")] = False,  # noqa: ARG001 - read by main
) -> None:
    if version:
        from optkit._version import __version__

        typer.echo(f"optkit {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 negative verdict, 2 could not run, 3 a bug in optkit, 130 Ctrl-C or SIGTERM."""
    _tune_garbage_collection()
    _handle_termination()
    try:
        app()
    except SystemExit as e:
        if e.code == _INTERRUPTED:
            _exit_interrupted()
        raise
    except Exception as e:
        _exit_with(e)
    sys.exit(0)


def start() -> NoReturn:
    """Run the command line as `main` does; a command that works for long runs in a child process, which may die without harm."""
    try:
        if _works_long(sys.argv[1:]):
            supervised(main)
        main()
    except ProcessDied as e:
        print_error(str(e))
        sys.exit(2)
    except KeyboardInterrupt:
        _exit_interrupted()


def _works_long(arguments: list[str]) -> bool:
    return bool(arguments) and arguments[0] in _LONG and not {"--help", "--dry-run"} & set(arguments)


def _exit_with(error: Exception) -> NoReturn:
    """Print an error and exit: of the user, of the machine, or a bug."""
    if "--debug" in sys.argv and isinstance(error, OptkitError):
        print_traceback()
    if interrupted(error):
        _exit_interrupted()
    if isinstance(error, OptkitError):
        print_error(f"{error}{_command_with_options(error.add)}")
    elif isinstance(error, MemoryError):
        print_error(out_of_memory(error))
    elif isinstance(error, OSError) and error.errno in _NO_ROOM:
        print_error(
            f"{error.filename or 'a file'}: cannot be written ({error.strerror}). Free some space, or write elsewhere."
        )
    else:
        print_traceback()
        print_error("this is a bug in optkit. Please report it with the lines above.")
        sys.exit(_BUG)
    sys.exit(2)


def _exit_interrupted() -> NoReturn:
    """Say how to go on after Ctrl-C, and exit."""
    from optkit.untrusted.quoting import shell_line

    kept = "Finished steps are kept; to continue, run" if sys.argv[1:2] == ["run"] else "To start again, run"
    print_note(f"interrupted. {kept}: {shell_line('optkit', *sys.argv[1:])}")
    exit_at_once(_INTERRUPTED)


def _command_with_options(options: str) -> str:
    """Return a line with the failed command and the added options, ready to paste; empty without options."""
    from optkit.untrusted.quoting import shell_line

    return f"\nRun: {shell_line('optkit', *sys.argv[1:])} {options}" if options else ""


def _tune_garbage_collection() -> None:
    """Collect garbage less often, and not at exit: torch's modules and an exported model live as long as the process.

    With Python's defaults, garbage collection takes 8 % of the time of a ResNet-18 export, and the same time again at exit.
    """
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def _handle_termination() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that child processes are stopped and no incomplete file is left.

    Containers, CI systems, `timeout` and a closed terminal send them.
    """
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no SIGHUP
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores SIGHUP
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice; the second signal must not interrupt the cleanup
    raise KeyboardInterrupt
