"""The application: its commands, and the one place where errors become text and an exit code."""

import atexit
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
from optkit.cli.output import print_error, print_traceback
from optkit.errors import OptkitError, interrupted

_BUG = 3
_INTERRUPTED = 130
_GARBAGE_AFTER = 10_000  # new objects


def _typer(help_text: str, epilog: str | None = None) -> typer.Typer:
    """Return an application whose help is drawn without rich, which would double its time."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=epilog,
    )


app = _typer(
    "From a PyTorch model to the fastest artifact that still gives the right answers: exported, quantized, proven, "
    "measured, packaged.",
    epilog="Example: optkit run recipes/digits.yaml",
)
_export = _typer("Export a PyTorch model, and prove the file equal to it.")
_convert = _typer("Convert a model to another precision, and prove the file against it.")
_package = _typer("Write what a server takes.")

app.command("run")(run.run)
_export.command("torchscript")(export.torchscript)
_export.command("onnx")(export.onnx)
_convert.command("fp16")(quantize.fp16)
app.add_typer(_export, name="export")
app.add_typer(_convert, name="convert")
app.command("quantize")(quantize.quantize)
app.command("quantize-torch")(quantize_torch.quantize_torch)
app.command("build-engine")(build_engine.build_engine)
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
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,  # noqa: ARG001 - read by main
) -> None:
    if version:
        from optkit._version import __version__

        typer.echo(f"optkit {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 negative verdict, 2 could not run, 3 a bug in optkit, 130 Ctrl-C or SIGTERM."""
    _expect_little_garbage()
    _clean_up_when_ended()
    try:
        app()
    except OptkitError as e:
        if "--debug" in sys.argv:
            print_traceback()
        if interrupted(e):
            sys.exit(_INTERRUPTED)
        print_error(f"{e}{_with_added(e.add)}")
        sys.exit(2)
    except Exception as e:
        if interrupted(e):
            sys.exit(_INTERRUPTED)
        print_traceback()
        print_error("this is a bug in optkit. Please report it with the lines above.")
        sys.exit(_BUG)
    sys.exit(0)


def _with_added(options: str) -> str:
    """Return the command that failed with options added, to paste; nothing where there are none."""
    from optkit.untrusted.quoting import shell_line

    return f"\nRun: {shell_line('optkit', *sys.argv[1:])} {options}" if options else ""


def _expect_little_garbage() -> None:
    """Look for garbage seldom, and not at all at the end: torch's modules and a captured model live as long as the process.

    Python's defaults spend 8 % of the time of an export of ResNet-18 on looking, and as much again when it ends.
    """
    gc.set_threshold(_GARBAGE_AFTER, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def _clean_up_when_ended() -> None:
    """Take as Ctrl-C what containers, CI, `timeout` and a terminal that closes send: no server stays, and no file half-written."""
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no SIGHUP
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice, and the second would cut the cleaning short
    raise KeyboardInterrupt
