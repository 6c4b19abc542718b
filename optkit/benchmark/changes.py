"""The changes of a run against an earlier one, as records."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from optkit.record import Document, Record


class Metric(StrEnum):
    """A compared metric."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SIZE = "size"
    ACCURACY = "accuracy"
    PARITY = "parity"
    AVAILABLE = "available"  # whether the artifact could be made and measured


class Trend(StrEnum):
    """The trend of a metric."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "the same"
    TOO_NOISY = "too noisy"


class Limits(Record):
    """The gates of a comparison; None leaves one out. An artifact that lost parity always fails."""

    max_regression: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # of latency, throughput and size
    max_accuracy_drop: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class MetricChange(Record):
    """One metric of one artifact, before and now."""

    artifact: str
    metric: Metric
    batch: int | None = None
    old: float | None
    new: float | None
    worse_by: float | None  # share by which it is worse, negative when better; for accuracy, the drop itself
    low: float | None = (
        None  # 95 % interval of `worse_by`; None for a metric without noise, and where there are too few blocks
    )
    high: float | None = None
    verdict: Trend
    failure: str | None = None  # the broken gate
    warning: str | None = None  # the gate that may be broken: the measurement is too noisy to say


class Comparison(Document):
    """A run compared with an earlier one."""

    schema_id: ClassVar[str] = "optkit/comparison/2"

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
        """The broken gates, with the artifact's name."""
        return tuple(f"{c.artifact}: {c.failure}" for c in self.changes if c.failure)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The gates that may be broken: the measurement is too noisy to say."""
        return tuple(f"{c.artifact}: {c.warning}" for c in self.changes if c.warning)
