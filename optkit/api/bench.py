"""`optkit bench`: models measured in alternating blocks, and one model against a copy of itself."""

import os
import tempfile
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
from optkit.benchmark import self_test as test_itself
from optkit.benchmark.bench_record import BenchRecord, ModelContract, SelfTestRecord
from optkit.benchmark.changes import Limits
from optkit.data import Samples
from optkit.errors import ArtifactError, RecipeError
from optkit.pipeline.baseline import Snapshot, check_comparable, of_bench, read_snapshot
from optkit.pipeline.bench import bench_record
from optkit.pipeline.remeasure import compare_with
from optkit.pytorch.source import ModelSource

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
    """Measure models in alternating blocks: percentiles, throughput, and how much faster each is than the first, with intervals.

    Args:
        models: model files and modules in memory that take the same inputs; the first one is the reference. A module gets the contract of
            the first file.
        batches: batch sizes; none: min, opt and max of the declared range.
        concurrency: numbers of callers at once; none: not measured.
        device: where all run; never another one in its place.
        cuda_graph: replay a captured CUDA graph; on cuda.
        threads: of each runtime; None takes all cores.
        half_width: of the 95 % interval of a speed-up, relative, to measure to.
        time_limit_s: no new block begins after so many seconds.
        seed: of the random order of the blocks.
        baseline: a run.json, or a saved record of this function, to compare with.
        max_regression: how much worse latency, throughput and size may become, as 0.05 or "5%"; needs `baseline`.
        across_machines: compare with a baseline of another machine all the same.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`, where no passport has it.
        data: real samples; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        the measurements; `comparison.failures` are the gates that are not held.

    Raises:
        OptkitError: they do not take the same inputs, one of them cannot be run, or the baseline does not fit.
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
        raise RecipeError("--max-regression: is held against an earlier run. Give --baseline run.json.")
    before = read_snapshot(Path(baseline)) if baseline is not None else None
    with call(progress) as given, tempfile.TemporaryDirectory(prefix="optkit-source-") as folder:
        opened = _open_all(given, models, Path(folder), dims)
        samples = samples_of(opened[0], given.data(data, to_feed))
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
    """Compare a model with a copy of itself, and count how often the benchmark is right.

    Args:
        model: a model file.
        trials: how many comparisons.
        batches: as `bench` takes them, like all that follow.
        device: where it runs.
        threads: of the runtime.
        half_width: of the 95 % interval, relative.
        time_limit_s: of one comparison.
        seed: of the random order of the blocks.
        dims: the range of each named dimension, where no passport has it.
        data: real samples; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        how often it was right; `found.passed` says whether that is often enough.

    Raises:
        OptkitError: it cannot be run, or no trial is asked for.
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
    with call(progress) as given:
        artifact = open_model_file(model, dims)
        return self_test_file(artifact, samples_of(artifact, given.data(data, to_feed)), measured, trials)


def _open_all(
    given: Call, models: "Sequence[ModelFile | torch.nn.Module]", folder: Path, dims: Dims | None
) -> list[Artifact]:
    """Open every model; modules get the contract of the first file.

    Raises:
        RecipeError: there is no file, so that nothing declares the inputs of a module.
    """
    files = [model for model in models if is_model_file(model)]
    if not files:
        raise RecipeError("bench: nothing declares the inputs. Give at least one model file beside the modules.")
    like = open_model_file(files[0], dims)
    found = []
    for i, model in enumerate(models):
        own = folder / str(i)
        own.mkdir()
        found.append(open_any(given, model, like, own, dims))
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
    """Measure models that take the same inputs; the first one is the reference of the speed-ups.

    Args:
        artifacts: the models.
        samples: where the values come from.
        settings: of the benchmark.
        baseline: an earlier run to compare with.
        limits: the gates of that comparison; None for none.
        across_machines: compare with a baseline of another machine all the same.

    Raises:
        ArtifactError: the baseline is of another model or machine, or has no artifact in common.
        FeedError: they do not take the same inputs, or a batch size lies outside the declared range.
        RunnerError: one of them cannot be loaded on the device.
    """
    for artifact in artifacts[1:]:
        check_same_inputs(artifacts[0], artifact)
    paths = [_shown_path(artifact) for artifact in artifacts]
    named = dict(zip(_names(paths), artifacts, strict=True))
    machine = this_machine()
    if baseline:
        named = dict(zip(_names_in(baseline, paths), artifacts, strict=True))
        check_comparable(baseline, None, ModelContract.of(artifacts[0]), machine, across_machines=across_machines)
    record = bench_record(named, samples, settings, machine, reference=next(iter(named)))
    if baseline is None or record.interrupted:
        return record
    now = of_bench(record, Path("this benchmark"))
    found = compare_with(baseline, now, named, samples, settings, limits or Limits(), across_machines=across_machines)
    return record.model_copy(update={"comparison": found})


def self_test_file(artifact: Artifact, samples: Samples, settings: BenchSettings, trials: int) -> SelfTestRecord:
    """Compare a model with a copy of itself, and return how often the benchmark was right.

    Raises:
        FeedError: no trial is asked for, or a batch size lies outside the declared range.
        RunnerError: it cannot be run on the device.
    """
    load = load_average()
    found = test_itself(artifact, samples, settings, trials)
    return SelfTestRecord(
        artifact=artifact.path.name, machine=this_machine(), settings=settings, load_before=load, found=found
    )


def _names_in(baseline: Snapshot, paths: Sequence[Path]) -> list[str]:
    """Return a name for each path, that of the baseline where its file or its folder has one of these; a step's folder has its name.

    Raises:
        ArtifactError: none of them is in the baseline.
    """
    names = _names(paths)
    known = [
        next((name for name in (short, path.name, path.parent.name) if name in baseline.variants), short)
        for short, path in zip(names, paths, strict=True)
    ]
    if not set(known) & set(baseline.variants):
        raise ArtifactError(
            f"{baseline.path}: no artifact in common: {', '.join(baseline.variants)} before, {', '.join(known)} now. "
            "A file is known by its name, or by that of its folder."
        )
    return known if len(set(known)) == len(known) else names


def _shown_path(artifact: Artifact) -> Path:
    """Return the path that names an artifact: its file's, or what a source names in Python, such as `Net`."""
    if artifact.format is not Format.PYTORCH:
        return artifact.path
    return artifact.path.with_name(ModelSource.read(artifact.path).target.rpartition(":")[2])


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path: its file name where these differ, else the path as far as it differs."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    if len(set(paths)) < len(paths):
        return [f"{path.name}#{i + 1}" for i, path in enumerate(paths)]
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) for path in paths]
