"""What a run changed against an earlier one, as records."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from optkit.record import Document, Record


class Metric(StrEnum):
    """What is compared."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SIZE = "size"
    ACCURACY = "accuracy"
    PARITY = "parity"
    THERE = "there"  # whether the artifact could be made and measured


class Became(StrEnum):
    """What became of a metric."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "the same"
    TOO_NOISY = "too noisy"


class Limits(Record):
    """The gates of a comparison; None leaves one out. An artifact that no longer holds parity fails in any case."""

    max_regression: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # of latency, throughput and size
    max_accuracy_drop: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class MetricChange(Record):
    """One metric of one artifact, before and now."""

    artifact: str
    metric: Metric
    batch: int | None = None
    old: float | None
    new: float | None
    worse_by: float | None  # share by which it is worse, negative when better; of an accuracy, the drop itself
    low: float | None = (
        None  # 95 % interval of `worse_by`; None for what has no noise, and where there are too few blocks
    )
    high: float | None = None
    verdict: Became
    failure: str | None = None  # the gate that it breaks
    warning: str | None = None  # the gate that it may break: the noise does not let one say


class Comparison(Document):
    """A run against an earlier one."""

    schema_id: ClassVar[str] = "optkit/comparison/1"

    old: str
    new: str
    recipe: str | None
    method: str  # how the times were made comparable
    limits: Limits
    changes: tuple[MetricChange, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    differing: tuple[str, ...]  # facts of machine and versions that differ between the two

    def of(self, artifact: str) -> tuple[MetricChange, ...]:
        """Return the changes of one artifact."""
        return tuple(change for change in self.changes if change.artifact == artifact)

    @property
    def failures(self) -> tuple[str, ...]:
        """The gates that are broken, with the artifact's name."""
        return tuple(f"{c.artifact}: {c.failure}" for c in self.changes if c.failure)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The gates of which the noise does not let one say whether they hold."""
        return tuple(f"{c.artifact}: {c.warning}" for c in self.changes if c.warning)
