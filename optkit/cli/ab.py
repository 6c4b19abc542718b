"""`optkit ab`."""

from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output

_URL = "http:// or grpc://host:port/models/NAME[/versions/N] on Triton, http://host:port/predictions/NAME[/VERSION] on TorchServe"


@with_output
def ab(
    out: Output,
    a: Annotated[str, typer.Argument(help=f"The reference: {_URL}.", show_default=False)],
    b: Annotated[str, typer.Argument(help="What is compared with it.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(
            help="Requests. Triton: file.py:function, .npz files, a golden sample. TorchServe: bodies as files.",
            show_default="seeded random on Triton",
        ),
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option("--max-regression", help="How much slower b may be, as 5%.", show_default=False)
    ] = None,
    same_answers: Annotated[bool, typer.Option("--same-answers", help="Fail where the answers differ.")] = False,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="OPTKIT_TOKEN", help="The inference key of TorchServe.", show_default=False),
    ] = None,
    half_width: Annotated[float, typer.Option(help="Of the 95 % interval, relative, to measure to.")] = 0.015,
    time_limit_s: Annotated[float, typer.Option(help="No new block begins after so many seconds.")] = 30.0,
    limit_s: Annotated[float, typer.Option("--limit-s", min=0.1, help="How long an answer may take.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of the random order and of random values.")] = 0,
) -> None:
    """Compare two running models or versions: whether they answer the same, and which is faster, with intervals.

    Example: optkit ab http://127.0.0.1:8000/models/digits/versions/1 http://127.0.0.1:8000/models/digits/versions/2
    """
    from optkit.api.ab import ab as run

    with out.working():
        record = run(
            a,
            b,
            data=data,
            max_regression=max_regression,
            same_answers=same_answers,
            atol=atol,
            rtol=rtol,
            token=token,
            half_width=half_width,
            time_limit_s=time_limit_s,
            limit_s=limit_s,
            seed=seed,
        )
    out.answer(record)
    out.verdict(record.failures, record.warnings)
    raise typer.Exit(130 if record.interrupted else 1 if record.failures else 0)
