"""What a run leaves: a record of every step, and of the whole."""

from typing import ClassVar, Literal

from optkit.artifact import Format, Passport, Precision
from optkit.artifact.calibration import Diagnosis, Shift
from optkit.artifact.findings import (
    Accuracy,
    BatchIndependence,
    Parity,
    Quantization,
)
from optkit.benchmark import Machine
from optkit.benchmark.changes import Comparison
from optkit.benchmark.record import BenchRecord, ModelContract
from optkit.choose.winner import Winner
from optkit.pipeline.plan import Origin
from optkit.record import Document, Record
from optkit.serving import Packaged


class StepResult(Record):
    """What became of one step. `failures` are the gates that its artifact did not pass."""

    name: str
    stage: str
    parent: str | None
    status: Literal["built", "reused", "skipped", "failed"]
    optional: bool = False
    reason: str | None = None  # why it was skipped or failed
    file: str | None = None  # relative to the run's folder
    format: Format | None = None
    precision: Precision | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    seconds: float | None = None  # that making it took, when it was made
    notes: tuple[str, ...] = ()
    parity: Parity | None = None
    batch_independence: BatchIndependence | None = None
    accuracy: Accuracy | None = None
    unproven: str | None = None  # why nothing could be found out by running it here
    calibration: Diagnosis | None = None  # of the data that its ranges were taken from
    shifts: tuple[Shift, ...] = ()  # inputs whose calibration data is unlike the evaluation data
    quantization: Quantization | None = None
    failures: tuple[str, ...] = ()
    over_budget: tuple[str, ...] = ()  # right, but too slow or too large to be chosen

    @property
    def made(self) -> bool:
        """Whether there is an artifact."""
        return self.status in ("built", "reused")

    @property
    def passed(self) -> bool:
        """Whether there is an artifact that holds every gate."""
        return self.made and not self.failures and not self.over_budget

    @classmethod
    def of(
        cls,
        passport: Passport,
        *,
        name: str,
        stage: str,
        parent: str | None,
        file: str,
        reused: bool,
        optional: bool = False,
        failures: tuple[str, ...] = (),
    ) -> "StepResult":
        """Return the result of a step that has an artifact."""
        artifact = passport.artifact
        return cls(
            name=name,
            stage=stage,
            parent=parent,
            status="reused" if reused else "built",
            optional=optional,
            file=file,
            format=artifact.format,
            precision=artifact.precision,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            seconds=passport.seconds,
            notes=artifact.notes,
            parity=passport.parity,
            batch_independence=passport.batch_independence,
            accuracy=passport.accuracy,
            unproven=passport.unproven,
            calibration=artifact.calibration.diagnosis if artifact.calibration else None,
            shifts=passport.shifts,
            quantization=artifact.quantization,
            failures=failures,
        )


class RunRecord(Document):
    """A whole run; `run.json`."""

    schema_id: ClassVar[str] = "optkit/run/3"

    recipe: str
    origin: Origin | None = None  # None for a run that was not started from the command line
    created: str  # UTC, ISO 8601
    optkit: str
    versions: dict[str, str]  # library -> version
    contract: ModelContract
    machine: Machine
    source: StepResult
    steps: tuple[StepResult, ...]
    bench: BenchRecord | None
    bench_reused: bool = False
    comparison: Comparison | None = None  # with the baseline that the gates name
    winner: Winner | None
    packaged: tuple[Packaged, ...]
    failures: tuple[str, ...]  # what keeps the run from having passed
    bench_error: str | None = None  # why the benchmark could not be run
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: done and within limits; 1: a verdict is negative; 2: a step could not run."""
        if self.bench_error or any(step.status == "failed" and not step.optional for step in self.steps):
            return 2
        return 1 if self.failures else 0

    @property
    def rebuilt(self) -> int:
        """How many artifacts were made in this run."""
        return sum(step.status == "built" for step in self.steps)
