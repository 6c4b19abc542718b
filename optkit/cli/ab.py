"""`optkit ab`."""

from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output

_URL = "http:// or grpc://host:port/models/NAME[/versions/N] on Triton, http://host:port/predictions/NAME[/VERSION] on TorchServe"


@with_output
def ab(
    out: Output,
    a: Annotated[str, typer.Argument(help=f"Reference: {_URL}.", show_default=False)],
    b: Annotated[
        str, typer.Argument(help="Candidate to compare with the reference, in the same form.", show_default=False)
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Requests: for Triton file.py:function, .npz files or a golden sample; for TorchServe files with request bodies.",
            show_default="seeded random values on Triton",
        ),
    ] = None,
    max_regression: Annotated[
        str | None,
        typer.Option(
            "--max-regression",
            help="Largest allowed regression of latency, relative, for example 5%.",
            show_default="no limit",
        ),
    ] = None,
    same_answers: Annotated[bool, typer.Option("--same-answers", help="Fail if the outputs differ.")] = False,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    token: options.Token = None,
    half_width: options.HalfWidth = 0.015,
    time_limit_s: options.TimeLimitS = 30.0,
    limit_s: Annotated[float, typer.Option("--limit-s", min=0.1, help="Time limit for a response, in seconds.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the random order of blocks and of random values.")] = 0,
) -> None:
    """Compare the outputs and latencies of two running models or versions, with confidence intervals.

    Exit code 1: a gate failed.

    Example: optkit ab http://127.0.0.1:8000/models/digits/versions/1 http://127.0.0.1:8000/models/digits/versions/2
    """
    from optkit.api.ab import ab as run

    with out.show_progress():
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
    out.result(record)
    out.verdict(record.failures, record.warnings)
    raise typer.Exit(130 if record.interrupted else 1 if record.failures else 0)
