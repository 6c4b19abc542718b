"""`optkit loadtest`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_sizes
from optkit.errors import RecipeError

Arrivals = Literal["poisson", "constant"]
Tool = Literal["auto", "perf-analyzer", "asyncio"]


@with_output
def loadtest(
    out: Output,
    url: Annotated[
        str,
        typer.Argument(
            help="http://host:port or grpc://host:port of Triton, http://host:port/predictions/NAME of TorchServe.",
            show_default=False,
        ),
    ],
    model: Annotated[str | None, typer.Option("--model", help="On Triton.", show_default="the only one")] = None,
    version: Annotated[str | None, typer.Option("--version", help="On Triton.", show_default="the server's")] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(help="Numbers of requests under way.", show_default="1,2,4,8,16 where no rate is given"),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests a second, whatever the server does, as 50,100.", show_default=False)
    ] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="poisson or constant, for --rate.")] = "poisson",
    tool: Annotated[Tool, typer.Option(help="auto, perf-analyzer or asyncio.")] = "auto",
    batch: Annotated[int, typer.Option("--batch", help="Samples in one request.")] = 1,
    duration_s: Annotated[float, typer.Option(help="How long each load is counted.")] = 5.0,
    warmup_s: Annotated[float, typer.Option(help="How long each load runs uncounted before.")] = 1.0,
    limit_s: Annotated[float, typer.Option("--limit-s", help="How long an answer may take.")] = 10.0,
    max_requests: Annotated[int, typer.Option(help="Of each load.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Of random inputs and Poisson arrivals.")] = 0,
    repository: Annotated[
        Path | None, typer.Option(help="A Triton repository with golden samples.", show_default=False)
    ] = None,
    data: options.Data = None,
    inputs: options.Inputs = None,
    body: Annotated[
        Path | None, typer.Option(help="A file to send to TorchServe as it is.", show_default=False)
    ] = None,
    content_type: Annotated[str, typer.Option(help="Of --body.")] = "application/json",
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="OPTKIT_TOKEN", help="The inference key of TorchServe.", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The output of --json for the model without, or with, batching.", show_default=False),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="What a request may take, for the advice.", show_default=False)
    ] = None,
    arrivals_per_s: Annotated[
        float | None, typer.Option(help="Expected samples a second, for the advice.", show_default="that at the knee")
    ] = None,
) -> None:
    """Put load on a running server: latencies, throughput, the batches that it formed, and what they say about batching.

    Exits with 1 when requests failed.

    Example: optkit loadtest http://127.0.0.1:8000 --model digits --concurrency 1,4,16 --repository model_repository
    """
    from optkit.api.load_test import load_test

    with out.working():
        record = load_test(
            url,
            model=model,
            version=version,
            concurrency=parse_sizes("--concurrency", concurrency),
            rate=_rates(rate),
            arrivals=arrivals,
            tool=tool,
            batch=batch,
            duration_s=duration_s,
            warmup_s=warmup_s,
            limit_s=limit_s,
            max_requests=max_requests,
            seed=seed,
            repository=repository,
            data=data,
            inputs=inputs,
            body=body,
            content_type=content_type,
            token=token,
            against=against,
            max_latency_ms=max_latency_ms,
            arrivals_per_s=arrivals_per_s,
        )
    out.answer(record)
    out.verdict(record.failures)
    raise typer.Exit(130 if record.interrupted else 1 if record.failures else 0)


def _rates(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as e:
        raise RecipeError(f"--rate {text}: expected numbers separated by commas, as in 50,100") from e
