"""`optkit bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from optkit.cli import options
from optkit.cli.ci import check_baseline, tell_ci
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_dims, parse_sizes

if TYPE_CHECKING:
    from optkit.artifact.tensors import DimRange
    from optkit.benchmark.bench_record import BenchRecord


@with_output
def bench(
    out: Output,
    models: Annotated[
        list[str],
        typer.Argument(help="Model files, or file.py:build; the first one is the reference.", show_default=False),
    ],
    batches: Annotated[
        str | None, typer.Option("--batch", help="Batch sizes, as 1,8,64.", show_default="min, opt and max")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Numbers of callers at once, as 1,2,4.", show_default="not measured")
    ] = None,
    device: options.DeviceName = "cpu",
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Replay a captured CUDA graph; with --device cuda.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Of each runtime.", show_default="all cores")] = None,
    half_width: Annotated[float, typer.Option(help="Of a speed-up's 95 % interval, relative, to measure to.")] = 0.015,
    time_limit_s: Annotated[float, typer.Option(help="No new block begins after so many seconds.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of the random order of the blocks.")] = 0,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test", help="Compare the first model with a copy of itself, and count how often that is right."
        ),
    ] = False,
    trials: Annotated[int, typer.Option(help="Comparisons of --self-test.")] = 20,
    baseline: Annotated[
        Path | None,
        typer.Option(help="A run.json, or the output of bench --json, to compare with.", show_default=False),
    ] = None,
    max_regression: options.MaxRegression = None,
    across_machines: options.AcrossMachines = False,
    junit: options.Junit = None,
    github: options.Github = False,
    dims: options.Dims = None,
    data: options.Data = None,
) -> None:
    """Measure models in alternating blocks: percentiles, throughput, and how much faster each is than the first, with intervals.

    Example: optkit bench model.onnx model.int8.onnx --batch 1,8
    """
    sizes, ranges = parse_sizes("--batch", batches), parse_dims(dims)
    if self_test:
        _self_test(out, models[0], trials, sizes, device, threads, half_width, time_limit_s, seed, ranges, data)
    check_baseline(baseline, max_regression, wanted=bool(junit or github))
    from optkit.api.bench import bench as run

    with out.working():
        record = run(
            models,
            batches=sizes,
            concurrency=parse_sizes("--concurrency", concurrency),
            device=device,
            cuda_graph=cuda_graph,
            threads=threads,
            half_width=half_width,
            time_limit_s=time_limit_s,
            seed=seed,
            baseline=baseline,
            max_regression=max_regression,
            across_machines=across_machines,
            dims=ranges,
            data=data,
        )
    _show(out, record, str(models[0]), junit, github)


def _show(out: Output, record: "BenchRecord", name: str, junit: Path | None, github: bool) -> NoReturn:
    """Show a benchmark and what it came to beside its baseline, and exit with its verdict."""
    from optkit.report.cases import cases_of_comparison
    from optkit.report.comparison import comparison_markdown

    found = record.comparison
    out.answer(record)
    if found:
        out.verdict(found.failures, found.warnings)
        tell_ci(cases_of_comparison(found), name, comparison_markdown(found), junit, github)
    raise typer.Exit(130 if record.interrupted else 1 if found and found.failures else 0)


def _self_test(
    out: Output,
    model: str,
    trials: int,
    batches: tuple[int, ...],
    device: options.Device,
    threads: int | None,
    half_width: float,
    time_limit_s: float,
    seed: int,
    dims: "dict[str, DimRange]",
    data: str | None,
) -> NoReturn:
    """Compare a model with a copy of itself, show how often that was right, and exit with the verdict."""
    from optkit.api.bench import self_test

    with out.working():
        tested = self_test(
            model,
            trials=trials,
            batches=batches,
            device=device,
            threads=threads,
            half_width=half_width,
            time_limit_s=time_limit_s,
            seed=seed,
            dims=dims,
            data=data,
        )
    out.answer(tested)
    raise typer.Exit(0 if tested.found.passed else 1)
