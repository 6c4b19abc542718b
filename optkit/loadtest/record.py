"""What a load test measured, the same record whatever tool drove it."""

from typing import ClassVar, Literal

from optkit.benchmark import Machine
from optkit.loadtest.settings import LoadSettings
from optkit.record import Document, Record


class FormedBatch(Record):
    """One size of batch that the server formed: how often, and how long an execution of it took."""

    size: int  # in samples
    executions: int
    execution_ms: float  # mean: inputs gathered, computed, outputs scattered


class ServerSide(Record):
    """What Triton's statistics counted during one point."""

    inferences: int  # samples
    executions: int
    mean_batch: float
    batches: tuple[FormedBatch, ...]
    queue_ms: float  # mean time of a request in the queue
    compute_ms: float  # mean time of a request in the model, of which its whole batch takes as long
    failed: int
    includes_warmup: bool  # whether the dropped requests are in these numbers


class LoadPoint(Record):
    """One load. Closed loop: `concurrency` callers, each sends when its last request is answered. Open loop: `rate` requests a second.

    Requests that were sent during the warm-up are `warmup` and in no other number; of the others, sent = answered + failed. Latencies
    are those of answered requests, and a percentile is there only where at least five lie above it: p90 from 50, p95 from 100, p99
    from 500.
    """

    concurrency: int | None
    rate_per_s: float | None
    latency_from: Literal["sent", "scheduled"]
    warmup: int
    sent: int
    answered: int
    failed: int
    failures: dict[str, int]  # reason -> how often
    duration_s: float  # from the end of the warm-up to the last answer
    requests_per_s: float  # answered
    samples_per_s: float
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    client_cpu_share: float  # of one core, over the point
    client_late_mean_ms: (
        float | None
    )  # how much later than it was due the client acted; None where the tool does not tell
    client_late_max_ms: float | None
    client_limited: str | None  # why the client may be what was measured
    server: ServerSide | None
    interrupted: bool = False

    @property
    def load(self) -> str:
        """The load in words."""
        return f"concurrency {self.concurrency}" if self.concurrency else f"rate {self.rate_per_s:g}/s"


class Batching(Record):
    """What a Triton model's configuration says of batching."""

    max_batch_size: int
    dynamic: bool
    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_us: int
    instances: int


class LoadKnee(Record):
    """The load after which more brings little, or is no longer served, and the rule by which it was found."""

    load: str
    samples_per_s: float
    rule: str


class Advice(Record):
    """Whether dynamic batching pays for a model, with what settings, and on which figures that rests."""

    pays: bool
    preferred_batch_size: int | None
    max_queue_delay_us: int | None
    reasons: tuple[str, ...]
    curve: tuple[FormedBatch, ...]  # the executions that it was derived from
    recipe: str  # lines for `serve:`
    config: str  # lines for config.pbtxt


class LoadRecord(Document):
    """A sweep of loads on one model of one server."""

    schema_id: ClassVar[str] = "optkit/loadtest/1"

    url: str
    server: Literal["triton", "torchserve"]
    protocol: Literal["http", "grpc"]
    model: str
    version: str | None  # None: the server chose
    batching: Batching | None  # None for TorchServe, which does not tell
    tool: Literal["asyncio", "perf-analyzer"]
    tool_reason: str
    data: str  # where the values of the requests came from
    settings: LoadSettings
    request_bytes: int  # of the largest
    points: tuple[LoadPoint, ...]
    knees: tuple[LoadKnee, ...] = ()
    advice: Advice | None = None
    notes: tuple[str, ...] = ()
    stopped: str | None = None  # why the sweep ended before its last point
    machine: Machine  # of the client
    load_average: float | None  # of the client's machine before the test
    interrupted: bool = False

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each point at which requests failed, and one where the sweep was given up."""
        lines = []
        for point in self.points:
            if point.failed:
                reasons = ", ".join(f"{reason} ({count})" for reason, count in point.failures.items())
                lines.append(f"{point.load}: {point.failed} of {point.sent} requests failed: {reasons}")
        return (*lines, *([self.stopped] if self.stopped else []))
