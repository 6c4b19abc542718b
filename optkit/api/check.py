"""Files that somebody has: compared with each other, and measured."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence, Parity, Tolerance
from optkit.artifact.tensors import batch_dim
from optkit.bench import BenchSettings, load_average, self_test, this_machine
from optkit.bench.changes import Limits
from optkit.bench.record import BenchRecord, Contract, SelfTestRecord
from optkit.check import check_batch_independence, check_parity
from optkit.data import Samples
from optkit.errors import ArtifactError, FeedError
from optkit.pipeline.baseline import Snapshot, check_comparable, of_bench
from optkit.pipeline.bench import bench_record
from optkit.pipeline.remeasure import compare_with
from optkit.pytorch.source import make_source
from optkit.record import Document
from optkit.runners import Device, open_runner


class CheckRecord(Document):
    """One model held against another."""

    schema_id: ClassVar[str] = "optkit/check/1"

    parity: Parity
    batch_independence: BatchIndependence | None
    failures: tuple[str, ...]


def check_pair(
    reference: Artifact, candidate: Artifact, samples: Samples, tolerance: Tolerance | None, device: Device
) -> CheckRecord:
    """Check parity of two models, and batch independence of the candidate where it has a batch dimension.

    Raises:
        FeedError: the two do not take the same inputs.
        RunnerError: one of them cannot be loaded on the device.
    """
    _same_inputs(reference, candidate)
    with open_runner(reference, device) as right, open_runner(candidate, device) as proven:
        parity = check_parity(right, proven, samples, candidate.dims, tolerance)
        comparable = parity.cosine is not None and batch_dim(candidate.inputs) is not None
        independence = check_batch_independence(proven, samples, candidate.dims, tolerance) if comparable else None
    failures = [f"parity: {parity.failure}"] if not parity.passed else []
    if independence and not independence.passed:
        failures.append(f"batch independence: {independence.failure}")
    return CheckRecord(parity=parity, batch_independence=independence, failures=tuple(failures))


def open_reference(target: str, candidate: Artifact, folder: Path) -> Artifact:
    """Return the source artifact of a model in Python, with the contract of the file that is held against it.

    Args:
        target: a factory, or what else a module can come from.
        candidate: gives the inputs, the ranges and the names of the outputs.
        folder: where the source artifact is written.

    Raises:
        ModelError: it cannot be built or run, or returns another number of outputs.
    """
    names = tuple(spec.name for spec in candidate.outputs)
    return make_source(target, folder, candidate.inputs, candidate.dims, outputs=names)


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
        _same_inputs(artifacts[0], artifact)
    paths = [a.path for a in artifacts]
    named = dict(zip(_names(paths), artifacts, strict=True))
    machine = this_machine()
    if baseline:
        named = dict(zip(_names_in(baseline, paths), artifacts, strict=True))
        check_comparable(baseline, None, Contract.of(artifacts[0]), machine, across_machines=across_machines)
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
    found = self_test(artifact, samples, settings, trials)
    return SelfTestRecord(
        artifact=artifact.path.name, machine=this_machine(), settings=settings, load_before=load, found=found
    )


def _same_inputs(a: Artifact, b: Artifact) -> None:
    if {(s.name, s.dtype, len(s.shape)) for s in a.inputs} != {(s.name, s.dtype, len(s.shape)) for s in b.inputs}:
        takes = " and ".join(f"{x.path.name} takes {', '.join(map(str, x.inputs))}" for x in (a, b))
        raise FeedError(f"the models do not take the same inputs: {takes}")


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


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path: its file name where these differ, else the path as far as it differs."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    if len(set(paths)) < len(paths):
        return [f"{path.name}#{i + 1}" for i, path in enumerate(paths)]
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) for path in paths]
