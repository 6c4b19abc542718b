"""`optkit compare`: two runs or benchmarks, held against gates."""

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
        old: the baseline: a run.json, a saved benchmark, or the record that `run` or `bench` returned.
        new: what is compared with it, likewise.
        max_regression: how much worse latency, throughput and size may become, as 0.05 or "5%".
        max_drop: how far accuracy may fall, in the unit of the evaluation.
        across_machines: compare times though they were measured on different machines.

    Returns:
        every change with its verdict; `failures` are the gates that are not held.

    Raises:
        ArtifactError: they cannot be compared: other models, other machines, nothing measured, no artifact in common.
    """
    limits = settings(Limits, max_regression=as_share("--max-regression", max_regression), max_accuracy_drop=max_drop)
    return compare_snapshots(_snapshot(old, "old"), _snapshot(new, "new"), limits, across_machines=across_machines)


def _snapshot(measured: Measured, title: str) -> Snapshot:
    if isinstance(measured, RunRecord):
        return of_run(measured, Path(title))
    return of_bench(measured, Path(title)) if isinstance(measured, BenchRecord) else read_snapshot(Path(measured))
