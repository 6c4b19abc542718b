"""`optkit compare`: compare two runs or benchmarks and check gates."""

from pathlib import Path

from optkit.api.arguments import StrPath, as_share, settings
from optkit.benchmark.bench_record import BenchRecord
from optkit.benchmark.changes import Comparison, Limits
from optkit.pipeline.baseline import Snapshot, of_bench, of_run, read_snapshot
from optkit.pipeline.compare import compare as compare_snapshots
from optkit.pipeline.records import RunRecord

Measured = StrPath | RunRecord | BenchRecord


def compare(
    old: Measured,
    new: Measured,
    *,
    max_regression: float | str | None = None,
    max_drop: float | None = None,
    across_machines: bool = False,
) -> Comparison:
    """Compare two runs or benchmarks by the names of their artifacts.

    Args:
        old: baseline: a run.json, a saved benchmark, or a record returned by `run` or `bench`.
        new: run or benchmark to compare with the baseline, in the same forms.
        max_regression: largest allowed regression of latency, throughput and size, relative, for example 0.05 or "5%"; None sets no limit.
        max_drop: largest allowed drop in accuracy, in the unit of the evaluation; None sets no limit.
        across_machines: compare times although they were measured on different machines.

    Returns:
        all changes, each with its verdict; `failures` lists the gates that failed.

    Raises:
        ArtifactError: the two cannot be compared: different models or machines, no measurements, or no artifact in common.
    """
    limits = settings(Limits, max_regression=as_share("--max-regression", max_regression), max_accuracy_drop=max_drop)
    return compare_snapshots(_snapshot(old, "old"), _snapshot(new, "new"), limits, across_machines=across_machines)


def _snapshot(measured: Measured, title: str) -> Snapshot:
    if isinstance(measured, RunRecord):
        return of_run(measured, Path(title))
    return of_bench(measured, Path(title)) if isinstance(measured, BenchRecord) else read_snapshot(Path(measured))
