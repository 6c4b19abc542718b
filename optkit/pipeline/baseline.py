"""Read a stored run as a baseline, and check that a new run can be compared with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optkit.artifact.findings import Measurement
from optkit.benchmark import Machine
from optkit.benchmark.bench_record import BenchRecord, MeasuredFile, ModelContract
from optkit.errors import ArtifactError
from optkit.pipeline.records import RunRecord, StepResult
from optkit.untrusted.documents import read_json
from optkit.untrusted.paths import is_folder

# A latency depends on these. The versions of Python and of the kernel are reported, but do not make it another machine.
_MACHINE = ("cpu", "cores", "gpu", "vnni")


@dataclass(frozen=True)
class Variant:
    """The values of one artifact that a comparison reads."""

    name: str
    sha256: str = ""
    size_bytes: int | None = None
    accuracy: float | None = None
    parity: bool | None = None
    parity_failure: str | None = None
    missing: str | None = None  # why it was not made or not measured


@dataclass(frozen=True)
class Snapshot:
    """The values of one run that a comparison reads."""

    path: Path
    recipe: str | None
    machine: Machine
    contract: ModelContract
    versions: Mapping[str, str]
    variants: Mapping[str, Variant]
    measurements: tuple[Measurement, ...]
    files: tuple[MeasuredFile, ...] = ()
    busy: bool = False  # whether other processes competed for the CPU

    def measured(self, name: str) -> dict[int, Measurement]:
        """Return the measurements of an artifact by batch size."""
        return {m.batch: m for m in self.measurements if m.artifact == name}


def read_snapshot(path: Path) -> Snapshot:
    """Read a run.json or the output of `optkit bench --json`.

    Raises:
        ArtifactError: the file is neither, has another version, is damaged or contains no measurement.
    """
    if is_folder(path):
        raise ArtifactError(f"{path}: is a folder; expected a file such as {path / 'run.json'}")
    content = read_json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema in (BenchRecord.schema_id, RunRecord.schema_id):
        found = (
            of_bench(BenchRecord.read(path), path)
            if schema == BenchRecord.schema_id
            else of_run(RunRecord.read(path), path)
        )
        _check_times(found)
        return found
    raise ArtifactError(
        f"{path}: schema {schema!r}; expected {RunRecord.schema_id!r}, the run.json of optkit run, or "
        f"{BenchRecord.schema_id!r}, the output of optkit bench --json. Make the file again with this version."
    )


def _check_times(snapshot: Snapshot) -> None:
    """Check what a comparison relies on: optkit writes times above 0, and as many blocks for each artifact of a batch size.

    Raises:
        ArtifactError: the file was edited or damaged.
    """
    blocks: dict[tuple[int, str], set[tuple[int, int]]] = {}  # of a batch size and a runtime
    for m in snapshot.measurements:
        times = (m.p50_ms, m.samples_per_s, *m.blocks_p50_ms, *(time for block in m.times_ms for time in block))
        if not all(time > 0 for time in times):
            raise ArtifactError(
                f"{snapshot.path}: {m.artifact} at batch {m.batch}: a time is 0 or less. Measure again."
            )
        blocks.setdefault((m.batch, m.provider), set()).add((len(m.blocks_p50_ms), sum(map(bool, m.times_ms))))
    for (batch, _), counts in blocks.items():
        if len(counts) > 1:
            raise ArtifactError(
                f"{snapshot.path}: batch {batch}: the artifacts have different numbers of blocks. Measure again."
            )


def of_run(record: RunRecord, path: Path) -> Snapshot:
    """Return the snapshot of a run.

    Raises:
        ArtifactError: the run contains no measurement.
    """
    if record.bench is None or not record.bench.measurements:
        why = record.bench_error or "only some of its steps were run"
        raise ArtifactError(f"{path}: nothing was measured in this run ({why}). Run the whole recipe.")
    steps = {step.name: step for step in (record.source, *record.steps)}
    return of_steps(steps, record.bench, path, recipe=record.recipe)


def of_steps(steps: Mapping[str, StepResult], bench: BenchRecord, path: Path, *, recipe: str) -> Snapshot:
    """Return the snapshot of a run whose record is not written yet."""
    missing = {m.artifact: m.reason for m in bench.not_run}
    return Snapshot(
        path=path,
        recipe=recipe,
        machine=bench.machine,
        contract=bench.contract,
        versions=bench.versions,
        variants={name: _of_step(step, missing) for name, step in steps.items()},
        measurements=bench.measurements,
        files=bench.files,
        busy=bench.busy,
    )


def of_bench(record: BenchRecord, path: Path) -> Snapshot:
    """Return the snapshot of a benchmark; it has no accuracy and no parity.

    Raises:
        ArtifactError: the benchmark contains no measurement.
    """
    if not record.measurements:
        raise ArtifactError(f"{path}: contains no measurement. Run the benchmark again.")
    variants = {f.artifact: Variant(f.artifact, f.sha256, f.size_bytes) for f in record.files}
    missing = {m.artifact: Variant(m.artifact, missing=m.reason) for m in record.not_run}
    return Snapshot(
        path=path,
        recipe=None,
        machine=record.machine,
        contract=record.contract,
        versions=record.versions,
        variants=variants | missing,
        measurements=record.measurements,
        files=record.files,
        busy=record.busy,
    )


def check_comparable(
    old: Snapshot, recipe: str | None, contract: ModelContract, machine: Machine, *, across_machines: bool
) -> tuple[str, ...]:
    """Refuse a baseline that cannot be compared with the new run; return the differences between the two machines.

    Args:
        old: the baseline.
        recipe: the name of the new run's recipe, if there is one.
        contract: the inputs and outputs of the new run's models.
        machine: the machine of the new run.
        across_machines: allow different machines.

    Raises:
        ArtifactError: the baseline was made from another recipe or model, or measured on another machine.
    """
    if old.recipe and recipe and old.recipe != recipe:
        raise ArtifactError(f"{old.path}: is a run of recipe {old.recipe!r}; expected a run of recipe {recipe!r}")
    for what, was, now in (
        ("inputs", old.contract.inputs, contract.inputs),
        ("outputs", old.contract.outputs, contract.outputs),
    ):
        if was != now:
            raise ArtifactError(
                f"{old.path}: was made from another model: its {what} are {', '.join(was)}; those of the new run are {', '.join(now)}"
            )
    facts = [
        f"{fact} {getattr(old.machine, fact)!r} before, {getattr(machine, fact)!r} now"
        for fact in _MACHINE
        if getattr(old.machine, fact) != getattr(machine, fact)
    ]
    if facts and not across_machines:
        raise ArtifactError(
            f"{old.path}: was measured on another machine ({'; '.join(facts)}), so the times cannot be compared. "
            "Measure a baseline on this machine, or compare anyway with --across-machines."
        )
    return tuple(facts)


def differing_versions(old: Snapshot, new: Snapshot) -> tuple[str, ...]:
    """Return the libraries that have different versions in the two runs."""
    return tuple(
        f"{name} {old.versions[name]} before, {version} now"
        for name, version in new.versions.items()
        if name in old.versions and old.versions[name] != version
    )


def _of_step(step: StepResult, missing: Mapping[str, str]) -> Variant:
    return Variant(
        name=step.name,
        sha256=step.sha256 or "",
        size_bytes=step.size_bytes if step.parent else None,
        accuracy=step.accuracy.value if step.accuracy else None,
        parity=step.parity.passed if step.parity else None,
        parity_failure=step.parity.failure if step.parity else None,
        missing=missing.get(step.name) if step.made else f"{step.status}: {step.reason}",
    )
