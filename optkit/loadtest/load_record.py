"""The record of a load test; both load generators write the same record."""

from typing import ClassVar, Literal

from optkit.benchmark import Machine
from optkit.loadtest.settings import LoadSettings
from optkit.record import Document, Record


class FormedBatch(Record):
    """One batch size that the server formed: the number of executions and their mean time."""

    size: int  # in samples
    executions: int
    execution_ms: float  # mean, including gathering of inputs and scattering of outputs


class ServerSide(Record):
    """Triton's statistics for one point."""

    inferences: int  # samples
    executions: int
    mean_batch: float
    batches: tuple[FormedBatch, ...]
    queue_ms: float  # mean time of a request in the queue
    compute_ms: float  # mean time of a request in the model; equal for all requests of a batch
    failed: int
    includes_warmup: bool  # whether these numbers include the warm-up


class LoadPoint(Record):
    """One load. Closed loop: `concurrency` callers send their next request after each response. Open loop: `rate_per_s` requests per second.

    Only `warmup` counts the requests of the warm-up. For all others, sent = answered + failed. Latencies are those of answered requests.
    A percentile is given only if at least five latencies lie above it: p90 from 50 latencies, p95 from 100, p99 from 500.
    """

    concurrency: int | None
    rate_per_s: float | None
    latency_from: Literal["sent", "scheduled"]
    warmup: int
    sent: int
    answered: int
    failed: int
    failures: dict[str, int]  # reason -> count
    duration_s: float  # from the end of the warm-up to the last response
    requests_per_s: float  # answered
    samples_per_s: float
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    client_cpu_share: float  # of one core, over the point
    client_late_mean_ms: float | None  # scheduling delay of the client; None if the load generator does not report it
    client_late_max_ms: float | None
    client_limited: str | None  # why the client may be the bottleneck
    server: ServerSide | None
    interrupted: bool = False

    @property
    def load(self) -> str:
        """The load as text."""
        return f"concurrency {self.concurrency}" if self.concurrency else f"rate {self.rate_per_s:g}/s"


class Batching(Record):
    """The batching settings in the configuration of a Triton model."""

    max_batch_size: int
    dynamic: bool
    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_us: int
    instances: int


class LoadKnee(Record):
    """The load above which throughput hardly grows or requests fail, and the rule that defines it."""

    load: str
    samples_per_s: float
    rule: str


class Advice(Record):
    """Whether dynamic batching pays for a model, the settings for it, and the measurements behind them."""

    pays: bool
    preferred_batch_size: int | None
    max_queue_delay_us: int | None
    reasons: tuple[str, ...]
    curve: tuple[FormedBatch, ...]  # the measured executions
    recipe: str  # lines for `serve:` in a recipe
    config: str  # lines for config.pbtxt


class LoadRecord(Document):
    """A sweep of loads on one model on one server."""

    schema_id: ClassVar[str] = "optkit/loadtest/1"

    url: str
    server: Literal["triton", "torchserve"]
    protocol: Literal["http", "grpc"]
    model: str
    version: str | None  # None: the server chose it
    batching: Batching | None  # None for TorchServe, which does not report it
    tool: Literal["asyncio", "perf-analyzer"]
    tool_reason: str
    data: str  # the source of the input values
    settings: LoadSettings
    request_bytes: int  # size of the largest request
    points: tuple[LoadPoint, ...]
    knees: tuple[LoadKnee, ...] = ()
    advice: Advice | None = None
    notes: tuple[str, ...] = ()
    stopped: str | None = None  # why the sweep ended early
    machine: Machine  # the client's machine
    load_average: float | None  # of the client's machine, before the test
    interrupted: bool = False

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each point with failed requests, and one line if the sweep ended early."""
        lines = []
        for point in self.points:
            if point.failed:
                reasons = ", ".join(f"{reason} ({count})" for reason, count in point.failures.items())
                lines.append(f"{point.load}: {point.failed} of {point.sent} requests failed: {reasons}")
        return (*lines, *([self.stopped] if self.stopped else []))
