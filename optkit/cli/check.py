"""`optkit check` and `optkit bench`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output
from optkit.cli.values import open_file, parse_device, parse_sizes, samples_of, settings, tolerance


def check(
    reference: Annotated[
        str, typer.Argument(help="The model that is right: a file, or file.py:build.", show_default=False)
    ],
    candidate: Annotated[Path, typer.Argument(help="The model to prove.", show_default=False)],
    dims: options.Dims = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    device: options.DeviceName = "cpu",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Compare two models at every corner of their dimensions; exit with 1 when they differ.

    Example: optkit check model.onnx model.int8.onnx --data samples/
    """
    from optkit.pipeline.checking import check_pair, open_reference
    from optkit.report import parity_table

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    proven = open_file(candidate, dims)
    with tempfile.TemporaryDirectory(prefix="optkit-source-") as folder, out.working():
        right = (
            open_file(Path(reference), dims)
            if ":" not in reference
            else open_reference(reference, proven, Path(folder))
        )
        found = check_pair(right, proven, samples_of(proven, data), tolerance(atol, rtol), parse_device(device))
    out.answer(found, parity_table(found.parity))
    out.verdict(found.failures)
    raise typer.Exit(1 if found.failures else 0)


def bench(
    artifacts: Annotated[
        list[Path], typer.Argument(help="The models; the first one is the reference.", show_default=False)
    ],
    batches: Annotated[
        str | None, typer.Option("--batch", help="Batch sizes, as 1,8,64.", show_default="min, opt and max")
    ] = None,
    device: options.DeviceName = "cpu",
    threads: Annotated[int | None, typer.Option(help="Of each runtime.", show_default="all cores")] = None,
    rounds: Annotated[int, typer.Option(help="How often each model takes its turn.")] = 3,
    min_duration_s: Annotated[float, typer.Option(help="The shortest time of one turn, in seconds.")] = 0.2,
    min_calls: Annotated[int, typer.Option(help="The fewest calls of one turn.")] = 30,
    dims: options.Dims = None,
    data: options.Data = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Measure models in alternating turns: p50, p90, p99, throughput, speed-up over the first.

    Example: optkit bench model.onnx model.int8.onnx --batch 1,8
    """
    from optkit.bench import BenchSettings
    from optkit.pipeline.checking import bench_files
    from optkit.report import bench_tables, busy_machine

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    asked = settings(
        BenchSettings,
        batches=parse_sizes("--batch", batches),
        device=parse_device(device),
        threads=threads,
        rounds=rounds,
        min_duration_s=min_duration_s,
        min_calls=min_calls,
    )
    opened = [open_file(path, dims) for path in artifacts]
    with out.working():
        record = bench_files(opened, samples_of(opened[0], data), asked)
    out.answer(record, *bench_tables(record), *busy_machine(record))
