"""Compare a benchmark with an earlier one, and measure the earlier files again if they still exist."""

import dataclasses
import itertools
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import Measurement
from optkit.benchmark import BenchSettings
from optkit.benchmark.bench_record import BenchRecord, MeasuredFile
from optkit.benchmark.changes import Comparison, Limits
from optkit.data import Samples
from optkit.errors import ArtifactError
from optkit.pipeline.baseline import Snapshot
from optkit.pipeline.bench import bench_record
from optkit.pipeline.compare import compare
from optkit.pytorch.source import open_artifact
from optkit.untrusted.paths import path_fault

logger = logging.getLogger(__name__)

BASELINE = " (baseline)"  # suffix for the names of the earlier files


def compare_with(
    baseline: Snapshot,
    now: Snapshot,
    artifacts: Mapping[str, Artifact],
    samples: Samples,
    settings: BenchSettings,
    limits: Limits,
    *,
    across_machines: bool = False,
) -> Comparison:
    """Compare a run with an earlier one.

    If the baseline's files still exist, the changed files are measured again together with them, in the same blocks, so both versions are
    measured under the same conditions. Otherwise the stored times are compared; their intervals are wider.

    Args:
        baseline: the earlier run.
        now: the new one.
        artifacts: the artifacts of the new run.
        samples: the source of input values.
        settings: the settings of the benchmark.
        limits: the gates.
        across_machines: allow stored times of different machines.

    Raises:
        ArtifactError: the two cannot be compared.
        RunnerError: no artifact can run on the device.
    """
    stored = compare(baseline, now, limits, across_machines=across_machines)
    both = _pairs(baseline, artifacts)
    if not both:
        return stored
    logger.info("measure %d files of the baseline again, together with the new ones", len(both) // 2)
    record = bench_record(both, samples, settings, now.machine, reference=next(iter(both)))
    if record.interrupted:
        raise KeyboardInterrupt
    measured = {m.artifact for m in record.measurements}
    names = {name for name in artifacts if {name, f"{name}{BASELINE}"} <= measured}
    again = compare(
        dataclasses.replace(baseline, measurements=_named(record, names, BASELINE)),
        dataclasses.replace(now, measurements=_named(record, names, "")),
        limits,
        across_machines=True,  # both were just measured on this machine
        together=True,
    )
    changes = [(again if name in names else stored).of(name) for name in baseline.variants if name in now.variants]
    rest = [name for name in baseline.variants if name in now.variants and name not in names]
    method = again.method + (f"; {', '.join(rest)}: {stored.method}" if rest else "")
    return stored.model_copy(update={"changes": tuple(itertools.chain(*changes)), "method": method})


def _named(record: BenchRecord, names: Collection[str], suffix: str) -> tuple[Measurement, ...]:
    """Return the measurements of the old or the new files, without the suffix in their names."""
    return tuple(
        m.model_copy(update={"artifact": name})
        for m in record.measurements
        for name in names
        if m.artifact == f"{name}{suffix}"
    )


def _pairs(baseline: Snapshot, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Return the changed files and the baseline's files that they replace, if these still exist.

    A source model is left out: its file only contains the path of the code, and the old code no longer exists.
    """
    found: dict[str, Artifact] = {}
    for name, artifact in artifacts.items():
        old = baseline.variants.get(name)
        if old is None or old.sha256 == artifact.sha256 or artifact.format is Format.PYTORCH:
            continue
        kept = _baseline_file(baseline, name, artifact)
        if kept is not None and baseline.measured(name):
            found |= {f"{name}{BASELINE}": kept, name: artifact}
    return found


def _baseline_file(baseline: Snapshot, name: str, like: Artifact) -> Artifact | None:
    """Return the unchanged file of the baseline, from its old path or from the folder of the baseline's record; None if there is none."""
    file = next((file for file in baseline.files if file.artifact == name), None)
    for path in _places(file, baseline.path) if file else ():
        try:
            artifact = None if path_fault(path) else open_artifact(path, dict(like.dims))
        except ArtifactError:  # changed or damaged since
            continue
        if file and artifact and artifact.sha256 == file.sha256:
            return artifact
    return None


def _places(file: MeasuredFile, record: Path) -> tuple[Path, ...]:
    measured = Path(file.path)
    return (measured, record.absolute().parent / measured.parent.name / measured.name)
