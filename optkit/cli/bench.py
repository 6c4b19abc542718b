"""`optkit bench`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.ci import against, tell_ci
from optkit.cli.output import Output
from optkit.cli.values import open_file, parse_device, parse_sizes, samples_of, settings


def bench(
    artifacts: Annotated[
        list[Path], typer.Argument(help="The models; the first one is the reference.", show_default=False)
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
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Measure models in alternating blocks: percentiles, throughput, and how much faster each is than the first, with intervals.

    Example: optkit bench model.onnx model.int8.onnx --batch 1,8
    """
    from optkit.api.check import bench_files, self_test_file
    from optkit.bench import BenchSettings
    from optkit.report import bench_notes, bench_tables, self_test_table
    from optkit.report.cases import cases_of_comparison
    from optkit.report.comparison import comparison_markdown, comparison_shown

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    asked = settings(
        BenchSettings,
        batches=parse_sizes("--batch", batches),
        concurrency=parse_sizes("--concurrency", concurrency),
        device=parse_device(device),
        cuda_graph=cuda_graph,
        threads=threads,
        half_width=half_width,
        time_limit_s=time_limit_s,
        seed=seed,
    )
    before, limits = against(baseline, max_regression, wanted=bool(junit or github))
    opened = [open_file(path, dims) for path in artifacts]
    samples = samples_of(opened[0], data)
    if self_test:
        with out.working():
            tested = self_test_file(opened[0], samples, asked, trials)
        out.answer(tested, self_test_table(tested))
        raise typer.Exit(0 if tested.found.passed else 1)
    with out.working():
        record = bench_files(opened, samples, asked, before, limits, across_machines=across_machines)
    found = record.comparison
    out.answer(record, *bench_tables(record), *bench_notes(record), *comparison_shown(found))
    if found:
        out.verdict(found.failures, found.warnings)
        tell_ci(cases_of_comparison(found), str(artifacts[0]), comparison_markdown(found), junit, github)
    raise typer.Exit(130 if record.interrupted else 1 if found and found.failures else 0)
