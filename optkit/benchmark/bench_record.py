"""The documents of a benchmark: of several artifacts, and of a model compared with itself."""

from typing import TYPE_CHECKING, ClassVar

from optkit import deps
from optkit.artifact import Artifact
from optkit.artifact.findings import (
    ConcurrentLoad,
    Knee,
    Measurement,
    NotRun,
    SpeedUp,
)
from optkit.artifact.tensors import DimRange
from optkit.benchmark import BenchSettings, Machine, SelfTest
from optkit.benchmark.changes import Comparison
from optkit.record import Document, Record

if TYPE_CHECKING:
    from pandas import DataFrame

# What a row of a table cannot hold; `parts` and `gpu` become columns of their own.
_NOT_IN_A_FRAME = {"affinity", "blocks_p50_ms", "blocks_waited", "gpu", "nodes", "on_cpu", "parts", "sizes", "times_ms"}


class ModelContract(Record):
    """The inputs and outputs of the models of a run; runs with different contracts are about different models."""

    inputs: tuple[str, ...]  # as in image:float32[batch,1,8,8]
    outputs: tuple[str, ...]
    dims: dict[str, DimRange]

    @classmethod
    def of(cls, artifact: Artifact) -> "ModelContract":
        """Return the contract of an artifact."""
        return cls(
            inputs=tuple(map(str, artifact.inputs)), outputs=tuple(map(str, artifact.outputs)), dims=artifact.dims
        )


class MeasuredFile(Record):
    """A measured file, with its path, so that it can be measured again."""

    artifact: str
    path: str  # absolute, on the machine that measured it
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, name: str, artifact: Artifact) -> "MeasuredFile":
        """Return the facts of an artifact under its name in the benchmark."""
        return cls(artifact=name, path=str(artifact.path), sha256=artifact.sha256, size_bytes=artifact.size_bytes)


class BenchRecord(Document):
    """Measurements of several artifacts in one session on one machine."""

    schema_id: ClassVar[str] = "optkit/bench/4"
    sealed: ClassVar[bool] = True

    key: str | None = None  # hash of the artifacts and settings; None outside a recipe, and after an interruption
    reads: tuple[dict[str, str], ...] = ()  # what the user's code read while it made the samples
    machine: Machine
    settings: BenchSettings
    versions: dict[str, str]  # library -> version
    contract: ModelContract
    files: tuple[MeasuredFile, ...]
    load_before: float | None = None  # runnable processes in the minute before
    order: tuple[tuple[str, ...], ...] = ()  # the artifacts in the order of their turns, one row for each block
    measurements: tuple[Measurement, ...]
    speed_ups: tuple[SpeedUp, ...]
    concurrency: tuple[ConcurrentLoad, ...] = ()
    knees: tuple[Knee, ...] = ()
    not_run: tuple[NotRun, ...] = ()  # with the reason; another measurement never replaces it
    comparison: Comparison | None = None  # with the given baseline
    interrupted: bool = False  # by Ctrl-C; the complete blocks are here
    left_out: int = 0  # CPU-contended blocks, where there were enough others

    def to_frame(self) -> "DataFrame":
        """Return a pandas frame with one row for each artifact and batch size, units in the names of its columns.

        `times_faster` is the speed-up over the reference, between `times_faster_low` and `times_faster_high` with 95 % confidence; the
        reference itself has none.

        Raises:
            MissingDependency: pandas is not installed.
        """
        pandas = deps.require("pandas")
        frame: DataFrame = pandas.DataFrame([self._row(m) for m in self.measurements])
        return frame

    def _row(self, m: Measurement) -> dict[str, object]:
        speed_up = next((s for s in self.speed_ups if (s.candidate, s.batch) == (m.artifact, m.batch)), None)
        size_bytes = next((file.size_bytes for file in self.files if file.artifact == m.artifact), None)
        return {
            "artifact": m.artifact,
            "batch": m.batch,
            **m.model_dump(exclude=_NOT_IN_A_FRAME),
            "times_faster": speed_up.ratio if speed_up else None,
            "times_faster_low": speed_up.low if speed_up else None,
            "times_faster_high": speed_up.high if speed_up else None,
            "verdict": str(speed_up.verdict) if speed_up else None,
            "busy": m.busy,
            "size_bytes": size_bytes,
            **(m.parts.model_dump() if m.parts else {}),
            **(m.gpu.model_dump(exclude={"throttle_reasons"}) if m.gpu else {}),
        }

    @property
    def cpu_contended_blocks(self) -> int:
        """The number of blocks in which a model had to wait for processors."""
        return sum(any(block) for block in zip(*(m.cpu_contended for m in self.measurements), strict=False))

    @property
    def busy(self) -> bool:
        """Whether other processes competed for the CPU; by the load before where blocks do not report it."""
        if any(share is not None for m in self.measurements for share in m.blocks_waited):
            return any(m.busy for m in self.measurements) or any(s.busy for s in self.speed_ups)
        return self.load_before is not None and self.load_before >= 1.5 * self.machine.cores


class SelfTestRecord(Document):
    """The result of a benchmark that compared a model with itself."""

    schema_id: ClassVar[str] = "optkit/self-test/1"

    artifact: str
    machine: Machine
    settings: BenchSettings
    load_before: float | None
    found: SelfTest
