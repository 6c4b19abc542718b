"""The documents of a benchmark: of several artifacts, and of a model compared with itself."""

from typing import ClassVar

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

    schema_id: ClassVar[str] = "optkit/bench/3"

    key: str | None = None  # hash of the artifacts and settings; None outside a recipe, and after an interruption
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
