"""What a run leaves: a record of every step, and of the whole."""

from typing import ClassVar, Literal

from optkit.artifact import Artifact, Format, Passport, Precision
from optkit.bench import BenchSettings, Machine, SelfTest
from optkit.choose.winner import Winner
from optkit.diagnosis import Diagnosis, Shift
from optkit.findings import (
    Accuracy,
    BatchIndependence,
    ConcurrentLoad,
    Knee,
    Measurement,
    NotRun,
    Parity,
    Quantization,
    SpeedUp,
)
from optkit.pipeline.changes import Comparison
from optkit.pipeline.plan import Origin
from optkit.record import Document, Record
from optkit.serving import Packaged
from optkit.tensors import DimRange


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


class Contract(Record):
    """What the models of a run take and return; two runs with different ones are about different models."""

    inputs: tuple[str, ...]  # as in image:float32[batch,1,8,8]
    outputs: tuple[str, ...]
    dims: dict[str, DimRange]

    @classmethod
    def of(cls, artifact: Artifact) -> "Contract":
        """Return the contract of an artifact."""
        return cls(
            inputs=tuple(map(str, artifact.inputs)), outputs=tuple(map(str, artifact.outputs)), dims=artifact.dims
        )


class MeasuredFile(Record):
    """A file that was measured, so that it can be found and measured again."""

    artifact: str
    path: str  # absolute, on the machine that measured it
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, name: str, artifact: Artifact) -> "MeasuredFile":
        """Return the facts of an artifact under the name that it was measured by."""
        return cls(artifact=name, path=str(artifact.path), sha256=artifact.sha256, size_bytes=artifact.size_bytes)


class BenchRecord(Document):
    """Measurements of several artifacts, made together on one machine."""

    schema_id: ClassVar[str] = "optkit/bench/2"

    key: str | None = None  # hash of what was measured and how; None outside a recipe, and when it was interrupted
    machine: Machine
    settings: BenchSettings
    versions: dict[str, str]  # library -> version
    contract: Contract
    files: tuple[MeasuredFile, ...]
    load_before: float | None = None  # processes that wanted to run in the minute before
    order: tuple[tuple[str, ...], ...] = ()  # the artifacts in the order of their turns, one row for each block
    measurements: tuple[Measurement, ...]
    speed_ups: tuple[SpeedUp, ...]
    concurrency: tuple[ConcurrentLoad, ...] = ()
    knees: tuple[Knee, ...] = ()
    not_run: tuple[NotRun, ...] = ()  # with the reason; never measured in another way in its place
    comparison: Comparison | None = None  # with the baseline that was given
    interrupted: bool = False  # Ctrl-C: the blocks that were whole are here
    left_out: int = 0  # blocks in which a model was starved of processors, where there were enough others

    @property
    def starved_blocks(self) -> int:
        """In how many blocks a model had to wait for processors that others used."""
        return sum(any(block) for block in zip(*(m.starved for m in self.measurements), strict=False))

    @property
    def busy(self) -> bool:
        """Whether others wanted the machine too, so that their work is in the numbers; by its load before where blocks do not tell."""
        if any(share is not None for m in self.measurements for share in m.blocks_waited):
            return any(m.busy for m in self.measurements) or any(s.busy for s in self.speed_ups)
        return self.load_before is not None and self.load_before >= 1.5 * self.machine.cores


class SelfTestRecord(Document):
    """How a benchmark fared that compared a model with itself."""

    schema_id: ClassVar[str] = "optkit/self-test/1"

    artifact: str
    machine: Machine
    settings: BenchSettings
    load_before: float | None
    found: SelfTest


class RunRecord(Document):
    """A whole run; `run.json`."""

    schema_id: ClassVar[str] = "optkit/run/2"

    recipe: str
    origin: Origin | None = None  # None for a run that was not started from the command line
    created: str  # UTC, ISO 8601
    optkit: str
    versions: dict[str, str]  # library -> version
    contract: Contract
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
