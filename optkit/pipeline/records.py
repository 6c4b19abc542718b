"""The records of a run: one for each step, and `run.json` for the whole."""

from typing import ClassVar, Literal

from optkit.artifact import Artifact, Passport, Precision
from optkit.artifact.calibration import Diagnosis, Shift
from optkit.artifact.findings import (
    Accuracy,
    BatchIndependence,
    Parity,
    Quantization,
)
from optkit.benchmark import Machine
from optkit.benchmark.bench_record import BenchRecord, ModelContract
from optkit.benchmark.changes import Comparison
from optkit.choose.winner import Winner
from optkit.pipeline.plan import Origin
from optkit.record import Document, Record
from optkit.serving import Packaged


class StepResult(Record):
    """The result of one step. `failures` are the gates that its artifact did not pass."""

    name: str
    stage: str
    parent: str | None
    status: Literal["built", "reused", "skipped", "failed"]
    optional: bool = False
    reason: str | None = None  # why it was skipped or failed
    passport: Passport | None = None  # of its artifact, without measurements: these are in the run's benchmark
    size_bytes: int | None = None  # of all files of the artifact at the end of the run
    failures: tuple[str, ...] = ()
    over_budget: tuple[str, ...] = ()  # correct, but too slow or too large to be chosen

    @classmethod
    def of(
        cls,
        passport: Passport,
        *,
        name: str,
        stage: str,
        parent: str | None,
        reused: bool,
        optional: bool = False,
        failures: tuple[str, ...] = (),
    ) -> "StepResult":
        """Return the result of a step that has an artifact."""
        return cls(
            name=name,
            stage=stage,
            parent=parent,
            status="reused" if reused else "built",
            optional=optional,
            passport=passport.model_copy(update={"measurements": ()}),
            size_bytes=passport.artifact.size_bytes,
            failures=failures,
        )

    @property
    def made(self) -> bool:
        """Whether there is an artifact."""
        return self.passport is not None

    @property
    def passed(self) -> bool:
        """Whether there is an artifact that passes every gate."""
        return self.made and not self.failures and not self.over_budget

    @property
    def artifact(self) -> Artifact | None:
        """The artifact; its path is the path at the end of the run."""
        return self.passport.artifact if self.passport else None

    @property
    def file(self) -> str | None:
        """The model file, relative to the run's folder."""
        return f"{self.name}/{self.artifact.path.name}" if self.artifact else None

    @property
    def precision(self) -> Precision | None:
        """The lowest precision that the model file computes in."""
        return self.artifact.precision if self.artifact else None

    @property
    def sha256(self) -> str | None:
        """The hash of the artifact's content."""
        return self.artifact.sha256 if self.artifact else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the artifact was made."""
        return self.artifact.notes if self.artifact else ()

    @property
    def quantization(self) -> Quantization | None:
        """The choices and measurements of the quantization."""
        return self.artifact.quantization if self.artifact else None

    @property
    def calibration(self) -> Diagnosis | None:
        """The findings on the calibration data."""
        return self.artifact.calibration.diagnosis if self.artifact and self.artifact.calibration else None

    @property
    def seconds(self) -> float | None:
        """The time that it took to make the artifact."""
        return self.passport.seconds if self.passport else None

    @property
    def parity(self) -> Parity | None:
        """The comparison of its outputs with those of the source."""
        return self.passport.parity if self.passport else None

    @property
    def batch_independence(self) -> BatchIndependence | None:
        """Whether its outputs depend on the other samples of a batch."""
        return self.passport.batch_independence if self.passport else None

    @property
    def accuracy(self) -> Accuracy | None:
        """The value of the user's evaluation function."""
        return self.passport.accuracy if self.passport else None

    @property
    def unproven(self) -> str | None:
        """Why the artifact could not be checked on this machine."""
        return self.passport.unproven if self.passport else None

    @property
    def shifts(self) -> tuple[Shift, ...]:
        """The inputs whose calibration data differs from the evaluation data."""
        return self.passport.shifts if self.passport else ()


class RunRecord(Document):
    """A whole run; `run.json`."""

    schema_id: ClassVar[str] = "optkit/run/4"
    sealed: ClassVar[bool] = True

    recipe: str
    origin: Origin | None = None  # None if the run was not started from the command line
    created: str  # UTC, ISO 8601
    optkit: str
    versions: dict[str, str]  # library -> version
    contract: ModelContract
    machine: Machine
    source: StepResult
    steps: tuple[StepResult, ...]
    bench: BenchRecord | None
    bench_reused: bool = False
    comparison: Comparison | None = None  # with the baseline of the gates
    winner: Winner | None
    packaged: tuple[Packaged, ...]
    failures: tuple[str, ...]  # why the run did not pass
    bench_error: str | None = None  # why the benchmark could not be run
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: done and within limits; 1: a verdict is negative; 2: a step or the benchmark could not run."""
        if self.bench_error or any(step.status == "failed" and not step.optional for step in self.steps):
            return 2
        return 1 if self.failures else 0

    @property
    def rebuilt(self) -> int:
        """The number of artifacts that this run made."""
        return sum(step.status == "built" for step in self.steps)
