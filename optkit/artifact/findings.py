"""What was found about an artifact: parity, batch independence, accuracy and measurements, as records.

They hold numbers and verdicts and know nothing of how these were obtained: `check` and `bench` make them, the passport
and the report keep them. A number that is not finite is None, because JSON has no NaN; the verdict says why.
"""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from optkit.artifact.calibration import Moments
from optkit.record import Record

TRIMMED = 0.1  # of the blocks of a comparison, at either end, that its mean leaves out
# Of the time in which the threads of a block wanted to run, the share from which on they were starved of processors. Measured on two
# cores: alone they wait for 0 to 3 % of it, beside two processes at work for 15 to 55 %, with a load of 10 for 60 to 90 %. From a fifth
# on a mean is a quarter too long at least, and PyTorch's threads, which wait for each other, may take 100 times as long.
STARVED = 0.2


class Tolerance(Record):
    """How far a candidate may be from the reference.

    With `atol` and `rtol` every element must satisfy |candidate - reference| <= atol + rtol * |reference|, as in
    `numpy.allclose`; with `min_cosine` the cosine of each whole output must reach it, with `min_sqnr_db` its ratio of signal to quantization noise.
    None leaves a rule out.
    """

    atol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rtol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    min_cosine: float | None = Field(default=None, ge=-1, le=1)
    min_sqnr_db: float | None = Field(default=None, allow_inf_nan=False)

    def __str__(self) -> str:
        rules = {"atol": self.atol, "rtol": self.rtol, "cosine": self.min_cosine, "SQNR": self.min_sqnr_db}
        return ", ".join(f"{name} {value:g}" for name, value in rules.items() if value is not None)


class OutputParity(Record):
    """One output at one point: the largest absolute and relative difference, and over all elements the cosine and the SQNR.

    SQNR: the variance of the reference over the mean square of the difference, in decibels; None where one of them is zero. Unlike the
    cosine it is not hidden by a large constant in the output.
    """

    output: str
    sizes: dict[str, int]
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    sqnr_db: float | None = None
    failure: str | None = None


class Parity(Record):
    """A candidate against the reference, at every point that was tried."""

    reference: str
    candidate: str
    tolerance: Tolerance
    values: str  # where the values of the inputs came from
    outputs: tuple[OutputParity, ...]

    @property
    def passed(self) -> bool:
        """Whether every output was within tolerance at every point; nothing compared is no pass."""
        return bool(self.outputs) and all(o.failure is None for o in self.outputs)

    @property
    def failure(self) -> str | None:
        """The first failure, with the number of others."""
        failures = [f"output {o.output!r}{at(o.sizes)}: {o.failure}" for o in self.outputs if o.failure]
        if not failures:
            return None if self.outputs else "nothing was compared"
        return failures[0] + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else "")

    @property
    def max_abs(self) -> float | None:
        """The largest absolute difference; None when one of them is not finite."""
        values = _all_finite([o.max_abs for o in self.outputs])
        return max(values) if values else None

    @property
    def sqnr_db(self) -> float | None:
        """The smallest ratio of signal to quantization noise; None where every output is equal or constant."""
        return min((o.sqnr_db for o in self.outputs if o.sqnr_db is not None), default=None)

    @property
    def cosine(self) -> float | None:
        """The smallest cosine; None when one of them is not finite."""
        values = _all_finite([o.cosine for o in self.outputs])
        return min(values) if values else None


class BatchIndependence(Record):
    """Whether f([a, b]) = [f(a), f(b)], which a server's batching takes for granted."""

    dim: str | None  # the batch dimension; None when the inputs share none
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether requests may be put together into one batch."""
        return self.dim is not None and self.failure is None


class Accuracy(Record):
    """What the user's evaluation function returned; larger is better."""

    value: float
    function: str
    inputs: tuple[Moments, ...] = ()  # of the data that it was measured on


class GpuConditions(Record):
    """What a GPU did while one artifact was measured, sampled through NVML; None where it does not tell."""

    sm_clock_mhz: float | None  # median of the samples
    memory_clock_mhz: float | None
    max_temperature_c: float | None
    mean_power_w: float | None
    energy_mj_per_inference: float | None  # of one call, not of one sample of its batch
    throttle_reasons: tuple[str, ...]  # seen in any sample
    throttled_calls: int
    throttled_calls_kept: int  # of blocks in which every call was throttled; the others are left out of every number

    @property
    def throttled_text(self) -> str:
        """What became of the calls that were made while it was throttled, and why it was."""
        if not self.throttled_calls:
            return "no"
        kept, dropped = self.throttled_calls_kept, self.throttled_calls - self.throttled_calls_kept
        told = [f"{dropped} dropped"] * bool(dropped) + [f"{kept} in the numbers"] * bool(kept)
        return f"{', '.join(told)}: {', '.join(self.throttle_reasons)}"


class CallParts(Record):
    """Where the time of one call on a GPU goes: medians in ms. The parts overlap, so their sum is no latency."""

    enqueue_ms: float
    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float


class Latencies(Record):
    """The times of the counted calls, of all blocks.

    A percentile is there only where at least five calls lie above it: p90 from 50 calls, p95 from 100, p99 from 500.
    """

    calls: int  # that the numbers below are made of
    dropped_calls: int  # made and left out: the first ones after every switch, and those of a throttled GPU
    blocks_p50_ms: tuple[float, ...]  # the median of each block; the blocks of all that is compared alternate
    blocks_waited: tuple[
        float | None, ...
    ] = ()  # share (0 to 1) of the time that its threads wanted to run and had to wait
    times_ms: tuple[tuple[float, ...], ...]  # of each block, some hundred of its calls spread evenly over it
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float
    min_ms: float

    @property
    def starved(self) -> tuple[bool, ...]:
        """For each block, whether others took so much of the processors that its times are theirs too."""
        waited = self.blocks_waited or (None,) * len(self.blocks_p50_ms)
        return tuple(share is not None and share >= STARVED for share in waited)

    @property
    def busy(self) -> bool:
        """Whether more of its blocks were starved than may meet a bad moment."""
        return _too_many(sum(self.starved), len(self.starved))

    @property
    def tail(self) -> tuple[str, float]:
        """The highest percentile that the number of calls supports, and its name."""
        known = {"p99": self.p99_ms, "p95": self.p95_ms, "p90": self.p90_ms, "p50": self.p50_ms}
        return next((name, value) for name, value in known.items() if value is not None)


class Measurement(Latencies):
    """The latency of one artifact at one batch size, and all that the number includes."""

    artifact: str
    precision: str | None  # of the file, as its graph says; None where it was not told
    device: str
    provider: str  # what really ran it, such as CPUExecutionProvider
    threads: int
    affinity: tuple[int, ...] | None  # the processors that it could run on; None where the system does not say
    batch: int
    sizes: dict[str, int]
    includes_copies: bool  # whether a time holds copies between host and device
    cuda_graph: bool  # whether a call replayed a captured CUDA graph
    load_ms: float | None  # cold start: from the file to a session that is ready, median over the blocks
    first_call_ms: float | None  # cold start: the first call after loading, median over the blocks
    samples_per_s: float
    gpu: GpuConditions | None = None
    parts: CallParts | None = None
    # Operator -> the number of its nodes that ran on the CPU, though a GPU was asked for.
    on_cpu: dict[str, int] = Field(default_factory=dict)
    nodes: int | None = None  # all of them; None where the runtime does not tell

    @property
    def on_cpu_text(self) -> str:
        """What ran on the CPU, though a GPU was asked for, in one sentence."""
        ops = ", ".join(f"{number} {op}" for op, number in sorted(self.on_cpu.items(), key=lambda item: -item[1]))
        return f"{sum(self.on_cpu.values())} of its {self.nodes} nodes ran on the CPU: {ops}"


class Verdict(StrEnum):
    """What a comparison says of the candidate."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    TOO_NOISY = "too noisy to say"


class Stopped(StrEnum):
    """Why a comparison took no more blocks."""

    PRECISE = "the interval is narrow enough"
    TIME = "the time limit was reached"
    BLOCKS = "the largest number of blocks was reached"
    INTERRUPTED = "it was interrupted"


class SpeedUp(Record):
    """How many times faster a candidate is than the reference, at one batch size.

    The unit is the log of the ratio of the two medians of one block; `ratio` is the exponential of the mean over the blocks without
    the tenth at either end. An interval is None where there are too few blocks for it: two for `low` and `high`, six for the other.
    """

    reference: str
    candidate: str
    batch: int
    ratio: float
    low: float | None  # its 95 % interval by Student's t
    high: float | None
    free_low: float | None  # distribution-free interval of the median ratio, of at least 95 %, by order statistics
    free_high: float | None
    verdict: Verdict
    blocks: int
    starved_blocks: int = 0  # of these, where one of the two had to wait for processors that others used
    stopped: Stopped

    @property
    def busy(self) -> bool:
        """Whether the ratio is that of a busy machine: more blocks were starved than the mean leaves out."""
        return _too_many(self.starved_blocks, self.blocks)

    @property
    def verdict_text(self) -> str:
        """The verdict, never without the condition that it holds under."""
        return f"{self.verdict}, busy" if self.busy else str(self.verdict)


class ConcurrentLoad(Record):
    """One artifact called by several threads at once, each with a binding of its own: throughput against latency."""

    artifact: str
    batch: int
    callers: int
    streams: int | None = None  # CUDA streams: one for each caller; None on a CPU
    cuda_graph: bool = False  # whether each caller replayed a CUDA graph of its own
    calls: int
    samples_per_s: float
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Knee(Record):
    """The batch size after which larger ones bring little, and the rule by which it was found."""

    artifact: str
    batch: int
    samples_per_s: float
    rule: str


class NotRun(Record):
    """An artifact that was asked for and could not be measured here."""

    artifact: str
    reason: str


class TriedTypes(Record):
    """One choice of INT8 types that was tried, and what became of it."""

    name: str  # such as u8s8 qdq
    p50_ms: float | None = None  # at opt, in a quick measurement
    sqnr_db: float | None = None  # of the worst output, on the same samples as the others
    verdict: str


class LayerEffect(Record):
    """What quantizing one layer alone does to the outputs, on samples that nothing is judged on."""

    layer: str
    op: str
    sqnr_db: float | None  # of the worst output; the smaller, the more it harms; None where it changes nothing
    size_bytes: int  # of its weight in FP32
    kept: bool  # in float


class FrontierPoint(Record):
    """The accuracy with the most harmful layers left in float."""

    kept: int  # layers in float
    value: float
    float_share: float  # of the time that all layers take in float, what those left in float take (0 to 1)
    predicted_ms: float | None = None  # between the latencies of INT8 and FP32, by that share


class Quantization(Record):
    """What was tried and measured when a model was quantized."""

    chosen: str
    tried: tuple[TriedTypes, ...] = ()
    judged_by: str | None = None  # the evaluation function, or the cosine
    limit: float | None = None  # the value that had to be reached
    value: float | None = None  # that was reached
    failure: str | None = None  # why the limit could not be reached
    layers: tuple[LayerEffect, ...] = ()  # most harmful first; none where no layer had to stay in float
    frontier: tuple[FrontierPoint, ...] = ()
    size_before_bytes: int
    size_after_bytes: int
    p50_before_ms: float | None = None  # at opt
    p50_after_ms: float | None = None
    speed_up: SpeedUp | None = None  # None for a model that is not for this processor

    @property
    def exclude(self) -> tuple[str, ...]:
        """The layers that were left in float."""
        return tuple(layer.layer for layer in self.layers if layer.kept)


def at(sizes: dict[str, int]) -> str:
    """Return ` at batch=8`, or nothing for a model without dynamic dimensions."""
    return f" at {', '.join(f'{name}={size}' for name, size in sizes.items())}" if sizes else ""


def _too_many(starved: int, blocks: int) -> bool:
    return starved > int(TRIMMED * blocks)


def _all_finite(values: Sequence[float | None]) -> list[float]:
    """Return the values, or none of them when one is not finite."""
    finite = [value for value in values if value is not None]
    return finite if len(finite) == len(values) else []
