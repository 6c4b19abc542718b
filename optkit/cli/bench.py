"""`optkit bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from optkit.cli import options
from optkit.cli.ci import check_baseline, report_to_ci
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
        typer.Argument(
            help="Model files or file.py:build, with the same inputs; the first one is the reference.",
            show_default=False,
        ),
    ],
    batches: Annotated[
        str | None, typer.Option("--batch", help="Batch sizes, for example 1,8,64.", show_default="min, opt and max")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Numbers of concurrent callers, for example 1,2,4.", show_default="not measured")
    ] = None,
    device: options.DeviceName = "cpu",
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Replay a captured CUDA graph; needs --device cuda.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of each runtime.", show_default="all cores")] = None,
    half_width: options.HalfWidth = 0.015,
    time_limit_s: options.TimeLimitS = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the random order of blocks.")] = 0,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Test the benchmark: compare the first model with a copy of itself, and count the correct comparisons.",
        ),
    ] = False,
    trials: Annotated[int, typer.Option(help="Number of comparisons of --self-test.")] = 20,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Earlier run to compare with: a run.json or the output of bench --json.", show_default=False),
    ] = None,
    max_regression: options.MaxRegression = None,
    across_machines: options.AcrossMachines = False,
    junit: options.Junit = None,
    github: options.Github = False,
    dims: options.ModelFileDims = None,
    data: options.Data = None,
) -> None:
    """Measure models in alternating blocks: latency percentiles, throughput, and the speed-up over the first model with confidence intervals.

    Exit code 1: a gate failed.

    Example: optkit bench model.onnx model.int8.onnx --batch 1,8
    """
    sizes, ranges = parse_sizes("--batch", batches), parse_dims(dims)
    if self_test:
        _self_test(out, models[0], trials, sizes, device, threads, half_width, time_limit_s, seed, ranges, data)
    check_baseline(baseline, max_regression, needs_comparison=bool(junit or github))
    from optkit.api.bench import bench as run

    with out.show_progress():
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
    """Print a benchmark and the comparison with its baseline, and exit with the verdict."""
    from optkit.report.cases import cases_of_comparison
    from optkit.report.comparison import comparison_markdown

    found = record.comparison
    out.result(record)
    if found:
        out.verdict(found.failures, found.warnings)
        report_to_ci(cases_of_comparison(found), name, comparison_markdown(found), junit, github)
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
    """Compare a model with a copy of itself, print the number of correct comparisons, and exit with the verdict."""
    from optkit.api.bench import self_test

    with out.show_progress():
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
    out.result(tested)
    raise typer.Exit(0 if tested.found.passed else 1)
