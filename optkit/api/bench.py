"""`optkit bench`: measure models in alternating blocks, or test the benchmark with two copies of one model."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optkit.api.arguments import (
    Call,
    Data,
    Dims,
    ModelFile,
    Progress,
    StrPath,
    ToFeed,
    as_device,
    as_share,
    call,
    is_model_file,
    open_model_file,
    samples_of,
    settings,
)
from optkit.api.check import check_same_inputs, open_any
from optkit.artifact import Artifact, Format
from optkit.benchmark import BenchSettings, load_average, this_machine
from optkit.benchmark import self_test as run_self_test
from optkit.benchmark.bench_record import BenchRecord, ModelContract, SelfTestRecord
from optkit.benchmark.changes import Limits
from optkit.data import Samples
from optkit.errors import ArtifactError, RecipeError
from optkit.pipeline.baseline import Snapshot, check_comparable, of_bench, read_snapshot
from optkit.pipeline.bench import bench_record
from optkit.pipeline.remeasure import compare_with
from optkit.pytorch.source import ModelSource
from optkit.system.temporary import temporary_folder

if TYPE_CHECKING:
    import torch


def bench(
    models: "Sequence[ModelFile | torch.nn.Module]",
    *,
    batches: Sequence[int] = (),
    concurrency: Sequence[int] = (),
    device: Literal["cpu", "cuda"] = "cpu",
    cuda_graph: bool = False,
    threads: int | None = None,
    half_width: float = 0.015,
    time_limit_s: float = 30.0,
    seed: int = 0,
    baseline: StrPath | None = None,
    max_regression: float | str | None = None,
    across_machines: bool = False,
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    progress: Progress | None = None,
) -> BenchRecord:
    """Measure models in alternating blocks: latency percentiles, throughput, and the speed-up over the first model with confidence intervals.

    Args:
        models: model files and modules in memory with the same inputs; the first one is the reference. A module gets the contract of the
            first file.
        batches: batch sizes; empty uses min, opt and max of the declared range.
        concurrency: numbers of concurrent callers; empty does not measure concurrency.
        device: device to run on, without fallback to another device.
        cuda_graph: replay a captured CUDA graph; needs device cuda.
        threads: threads of each runtime; None uses all cores.
        half_width: target half-width of the 95 % confidence interval of a speed-up, relative; measurement stops when it is reached.
        time_limit_s: time in seconds after which no new block starts.
        seed: seed of the random order of blocks.
        baseline: earlier run to compare with: a run.json or a saved record of this function.
        max_regression: largest allowed regression of latency, throughput and size, relative, for example 0.05 or "5%"; None sets no limit; needs `baseline`.
        across_machines: compare times although they were measured on different machines.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; needed only if the passport has none.
        data: real samples; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the measurements; `comparison.failures` lists the gates that failed.

    Raises:
        OptkitError: the models do not take the same inputs, one of them cannot be run, or the baseline is not comparable.
    """
    measured = settings(
        BenchSettings,
        batches=tuple(batches),
        concurrency=tuple(concurrency),
        device=as_device(device),
        cuda_graph=cuda_graph,
        threads=threads,
        half_width=half_width,
        time_limit_s=time_limit_s,
        seed=seed,
    )
    limits = settings(Limits, max_regression=as_share("--max-regression", max_regression))
    if baseline is None and max_regression is not None:
        raise RecipeError("--max-regression: needs an earlier run to compare with. Give --baseline run.json.")
    before = read_snapshot(Path(baseline)) if baseline is not None else None
    with call(progress) as api_call, temporary_folder() as folder:
        opened = _open_all(api_call, models, folder, dims)
        samples = samples_of(opened[0], api_call.data(data, to_feed))
        return bench_files(opened, samples, measured, before, limits, across_machines=across_machines)


def self_test(
    model: ModelFile,
    *,
    trials: int = 20,
    batches: Sequence[int] = (),
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    half_width: float = 0.015,
    time_limit_s: float = 30.0,
    seed: int = 0,
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    progress: Progress | None = None,
) -> SelfTestRecord:
    """Test the benchmark: compare a model with a copy of itself, and count the comparisons that correctly find no difference.

    Args:
        model: model file.
        trials: number of comparisons.
        batches: batch sizes; empty uses min, opt and max of the declared range.
        device: device to run on, without fallback to another device.
        threads: threads of the runtime; None uses all cores.
        half_width: target half-width of the 95 % confidence interval, relative.
        time_limit_s: time in seconds after which no new block of a comparison starts.
        seed: seed of the random order of blocks.
        dims: range of each named dimension as (min, opt, max); needed only if the passport has none.
        data: real samples; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the number of correct comparisons; `found.passed` is whether they are enough.

    Raises:
        OptkitError: the model cannot be run, or `trials` is less than 1.
    """
    measured = settings(
        BenchSettings,
        batches=tuple(batches),
        device=as_device(device),
        threads=threads,
        half_width=half_width,
        time_limit_s=time_limit_s,
        seed=seed,
    )
    with call(progress) as api_call:
        artifact = open_model_file(model, dims)
        return self_test_file(artifact, samples_of(artifact, api_call.data(data, to_feed)), measured, trials)


def _open_all(
    api_call: Call, models: "Sequence[ModelFile | torch.nn.Module]", folder: Path, dims: Dims | None
) -> list[Artifact]:
    """Open all models; modules get the contract of the first file.

    Raises:
        RecipeError: there is no model file that declares the inputs of the modules.
    """
    files = [model for model in models if is_model_file(model)]
    if not files:
        raise RecipeError(
            "bench: no model file declares the inputs. Give at least one model file in addition to the modules."
        )
    like = open_model_file(files[0], dims)
    found = []
    for i, model in enumerate(models):
        own = folder / str(i)
        own.mkdir()
        found.append(open_any(api_call, model, like, own, dims))
    return found


def bench_files(
    artifacts: Sequence[Artifact],
    samples: Samples,
    settings: BenchSettings,
    baseline: Snapshot | None = None,
    limits: Limits | None = None,
    *,
    across_machines: bool = False,
) -> BenchRecord:
    """Measure models with the same inputs; the first one is the reference of the speed-ups.

    Args:
        artifacts: models to measure.
        samples: input values.
        settings: settings of the benchmark.
        baseline: earlier run to compare with.
        limits: gates of the comparison; None sets no limit.
        across_machines: compare times although they were measured on different machines.

    Raises:
        ArtifactError: the baseline is from another model or machine, or has no artifact in common.
        FeedError: the models do not take the same inputs, or a batch size is outside the declared range.
        RunnerError: a model cannot be loaded on the device.
    """
    for artifact in artifacts[1:]:
        check_same_inputs(artifacts[0], artifact)
    paths = [_shown_path(artifact) for artifact in artifacts]
    named = dict(zip(_names(paths), artifacts, strict=True))
    machine = this_machine()
    if baseline:
        named = dict(zip(_names_from_baseline(baseline, paths), artifacts, strict=True))
        check_comparable(baseline, None, ModelContract.of(artifacts[0]), machine, across_machines=across_machines)
    record = bench_record(named, samples, settings, machine, reference=next(iter(named)))
    if baseline is None or record.interrupted:
        return record
    now = of_bench(record, Path("this benchmark"))
    found = compare_with(baseline, now, named, samples, settings, limits or Limits(), across_machines=across_machines)
    return record.model_copy(update={"comparison": found})


def self_test_file(artifact: Artifact, samples: Samples, settings: BenchSettings, trials: int) -> SelfTestRecord:
    """Compare a model with a copy of itself, and count the correct comparisons.

    Raises:
        FeedError: `trials` is less than 1, or a batch size is outside the declared range.
        RunnerError: the model cannot be run on the device.
    """
    load = load_average()
    found = run_self_test(artifact, samples, settings, trials)
    return SelfTestRecord(
        artifact=artifact.path.name, machine=this_machine(), settings=settings, load_before=load, found=found
    )


def _names_from_baseline(baseline: Snapshot, paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: the name in the baseline if it equals the name of the file or of its folder (a step's name).

    Raises:
        ArtifactError: no name is in the baseline.
    """
    names = _names(paths)
    known = [
        next((name for name in (short, path.name, path.parent.name) if name in baseline.variants), short)
        for short, path in zip(names, paths, strict=True)
    ]
    if not set(known) & set(baseline.variants):
        raise ArtifactError(
            f"{baseline.path}: no artifact in common: {', '.join(baseline.variants)} before, {', '.join(known)} now. "
            "An artifact is matched by the name of its file or of its folder."
        )
    return known if len(set(known)) == len(known) else names


def _shown_path(artifact: Artifact) -> Path:
    """Return the path to show for an artifact: the path of its file, or for a Python source the name of the object, such as `Net`."""
    if artifact.format is not Format.PYTORCH:
        return artifact.path
    return artifact.path.with_name(ModelSource.read(artifact.path).target.rpartition(":")[2])


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path: the file names if they differ, else the paths without their common part."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    if len(set(paths)) < len(paths):
        return [f"{path.name}#{i + 1}" for i, path in enumerate(paths)]
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) for path in paths]
