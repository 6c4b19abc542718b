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
            help="URL: http://host:port or grpc://host:port for Triton, http://host:port/predictions/NAME for TorchServe.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the model on Triton.", show_default="the only model")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", help="Version of the model on Triton.", show_default="chosen by the server"),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            help="Closed loop: numbers of concurrent callers, for example 1,4,16.",
            show_default="1,2,4,8,16 without --rate",
        ),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loop: requests per second, for example 50,100.", show_default=False)
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option(help="Distribution of arrivals for --rate: poisson or constant.")
    ] = "poisson",
    tool: Annotated[
        Tool,
        typer.Option(
            help="Load generator: auto (perf-analyzer if it is installed), perf-analyzer or asyncio (the client of optkit)."
        ),
    ] = "auto",
    batch: Annotated[int, typer.Option("--batch", help="Samples per request.")] = 1,
    duration_s: Annotated[float, typer.Option(help="Measured time of each load, in seconds.")] = 5.0,
    warmup_s: Annotated[float, typer.Option(help="Warm-up time of each load, in seconds; not measured.")] = 1.0,
    limit_s: Annotated[float, typer.Option("--limit-s", help="Time limit for a response, in seconds.")] = 10.0,
    max_requests: Annotated[int, typer.Option(help="Maximum number of requests of each load.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of random inputs and Poisson arrivals.")] = 0,
    repository: Annotated[
        Path | None, typer.Option(help="Triton model repository with golden samples.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Real samples: file.py:function, a .npz file or a folder of them, or images.yaml.",
            show_default="golden samples of --repository, else seeded random values",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help='Input of a model on TorchServe, for example "image:float32[batch,3,224,224]"; repeat for each input.',
            show_default=False,
        ),
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="File with the body of the requests to TorchServe.", show_default=False)
    ] = None,
    content_type: Annotated[str, typer.Option(help="Content type of --body.")] = "application/json",
    token: options.Token = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="For the advice: the --json output of a test of the same model without (or with) dynamic batching.",
            show_default=False,
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(help="For the advice: latency limit of a request, in milliseconds.", show_default="no limit"),
    ] = None,
    arrivals_per_s: Annotated[
        float | None,
        typer.Option(help="For the advice: expected samples per second.", show_default="throughput at the knee"),
    ] = None,
) -> None:
    """Load-test a model on a running server: latency, throughput, formed batches, and advice on dynamic batching.

    Exit code 1: requests failed.

    Example: optkit loadtest http://127.0.0.1:8000 --model digits --concurrency 1,4,16 --repository model_repository
    """
    from optkit.api.load_test import load_test

    with out.show_progress():
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
    out.result(record)
    out.verdict(record.failures)
    raise typer.Exit(130 if record.interrupted else 1 if record.failures else 0)


def _rates(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as e:
        raise RecipeError(f"--rate {text}: expected numbers separated by commas, for example 50,100") from e
