"""The results for an artifact as records: parity, batch independence, accuracy and measurements.

They have numbers and verdicts, and no code that obtains them: `checks` and `benchmark` make them, the passport and the report store
them. A number that is not finite is None, because JSON has no NaN; the verdict gives the reason.
"""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from optkit.artifact.calibration import Moments
from optkit.record import Record

TRIMMED = 0.1  # share of the blocks that the trimmed mean leaves out at either end
# A block is CPU-contended when its runnable threads waited for a processor for at least this share of their time. Measured on two
# cores: 0 to 3 % alone, 15 to 55 % beside two busy processes, 60 to 90 % with a load of 10. From a fifth on, a mean is at least a
# quarter too long, and PyTorch's threads, which wait for each other, may take 100 times as long.
CPU_CONTENDED = 0.2


class Tolerance(Record):
    """How far a candidate may be from the reference.

    With `atol` and `rtol` every element must satisfy |candidate - reference| <= atol + rtol * |reference|, as in
    `numpy.allclose`; with `min_cosine` the cosine of each whole output must reach it, with `min_sqnr_db` its ratio of signal to quantization noise.
    A rule that is None is not checked.
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

    SQNR: the variance of the reference over the mean square of the difference, in decibels; None where one of them is zero. A large
    constant in the output hides an error from the cosine, but not from the SQNR.
    """

    output: str
    sizes: dict[str, int]
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    sqnr_db: float | None = None
    failure: str | None = None
    unusable: bool = False  # the samples are at fault, not the candidate


class Parity(Record):
    """A candidate compared with the reference at every tested point."""

    reference: str
    candidate: str
    tolerance: Tolerance
    values: str  # the source of the input values
    outputs: tuple[OutputParity, ...]
    beyond: str | None = None  # a failure on values that reach further than the real samples

    @property
    def unusable(self) -> bool:
        """Whether nothing can be said of the candidate, because the reference gives no numbers on the samples."""
        return any(o.unusable for o in self.outputs)

    @property
    def passed(self) -> bool:
        """Whether every output was within tolerance at every point, and at least one output was compared."""
        return bool(self.outputs) and all(o.failure is None for o in self.outputs)

    @property
    def failure(self) -> str | None:
        """The first failure, and the number of others."""
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
    """Whether f([a, b]) = [f(a), f(b)]. A server that batches requests assumes it."""

    dim: str | None  # the batch dimension; None when the inputs share none
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether a server may batch requests."""
        return self.dim is not None and self.failure is None


class Accuracy(Record):
    """The number that the user's evaluation function returned; larger is better."""

    value: float
    function: str
    inputs: tuple[Moments, ...] = ()  # of the evaluation data


class GpuConditions(Record):
    """The state of a GPU during the measurement of one artifact, sampled through NVML; None where NVML does not report it."""

    sm_clock_mhz: float | None  # median of the samples
    memory_clock_mhz: float | None
    max_temperature_c: float | None
    mean_power_w: float | None
    energy_mj_per_inference: float | None  # of one call, not of one sample of its batch
    throttle_reasons: tuple[str, ...]  # of all samples
    throttled_calls: int
    throttled_calls_kept: int  # of blocks in which every call was throttled; no number includes the others

    @property
    def throttled_text(self) -> str:
        """How many throttled calls were dropped or kept, and the throttle reasons."""
        if not self.throttled_calls:
            return "no"
        kept, dropped = self.throttled_calls_kept, self.throttled_calls - self.throttled_calls_kept
        counts = [f"{dropped} dropped"] * bool(dropped) + [f"{kept} kept"] * bool(kept)
        return f"{', '.join(counts)}: {', '.join(self.throttle_reasons)}"


class CallParts(Record):
    """The parts of one call on a GPU: medians in ms. The parts overlap, so their sum is not the latency."""

    enqueue_ms: float
    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float


class Latencies(Record):
    """The times of the counted calls, of all blocks.

    A percentile needs at least five calls above it: p90 from 50 calls, p95 from 100, p99 from 500.
    """

    calls: int  # the counted calls
    dropped_calls: int  # not counted: the first ones after every switch, and those of a throttled GPU
    blocks_p50_ms: tuple[float, ...]  # the median of each block; the blocks of the compared artifacts alternate
    blocks_waited: tuple[
        float | None, ...
    ] = ()  # share (0 to 1) of the time in which runnable threads waited for a processor
    times_ms: tuple[tuple[float, ...], ...]  # of each block, at most 200 of its calls, spread evenly over it
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float
    min_ms: float

    @property
    def cpu_contended(self) -> tuple[bool, ...]:
        """For each block, whether other processes took so much processor time that its times are too long."""
        waited = self.blocks_waited or (None,) * len(self.blocks_p50_ms)
        return tuple(share is not None and share >= CPU_CONTENDED for share in waited)

    @property
    def busy(self) -> bool:
        """Whether more blocks were CPU-contended than the trimmed mean leaves out."""
        return _too_many(sum(self.cpu_contended), len(self.cpu_contended))

    @property
    def tail(self) -> tuple[str, float]:
        """The highest percentile that the number of calls supports, and its name."""
        known = {"p99": self.p99_ms, "p95": self.p95_ms, "p90": self.p90_ms, "p50": self.p50_ms}
        return next((name, value) for name, value in known.items() if value is not None)


class Measurement(Latencies):
    """The latency of one artifact at one batch size, and the conditions of the measurement."""

    artifact: str
    precision: str | None  # of the file, by its graph; None where it is not known
    device: str
    provider: str  # that ran it, such as CPUExecutionProvider
    threads: int
    affinity: tuple[int, ...] | None  # the processors that it could run on; None where the system does not report them
    batch: int
    sizes: dict[str, int]
    includes_copies: bool  # whether a time includes copies between host and device
    cuda_graph: bool  # whether a call replayed a captured CUDA graph
    load_ms: float | None  # cold start: from the file to a ready session, median over the blocks
    first_call_ms: float | None  # cold start: the first call after loading, median over the blocks
    samples_per_s: float
    gpu: GpuConditions | None = None
    parts: CallParts | None = None
    # Operator -> the number of its nodes that ran on the CPU, although the device is a GPU.
    on_cpu: dict[str, int] = Field(default_factory=dict)
    nodes: int | None = None  # all nodes; None where the runtime does not report them

    @property
    def on_cpu_text(self) -> str:
        """The nodes that ran on the CPU although the device is a GPU, in one sentence."""
        ops = ", ".join(f"{number} {op}" for op, number in sorted(self.on_cpu.items(), key=lambda item: -item[1]))
        return f"{sum(self.on_cpu.values())} of its {self.nodes} nodes ran on the CPU: {ops}"


class Verdict(StrEnum):
    """The verdict of a comparison on the candidate."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    TOO_NOISY = "too noisy to say"


class Stopped(StrEnum):
    """The reason why a comparison ended."""

    PRECISE = "the interval is narrow enough"
    TIME = "the time limit was reached"
    BLOCKS = "the largest number of blocks was reached"
    INTERRUPTED = "it was interrupted"


class SpeedUp(Record):
    """How many times faster a candidate is than the reference, at one batch size.

    Each block gives the log of the ratio of its two medians. `ratio` is the exponential of the trimmed mean of these logs, which leaves
    out a tenth at either end. `low` and `high` need two blocks, `free_low` and `free_high` six; with fewer they are None.
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
    cpu_contended_blocks: int = 0  # of these, blocks in which one of the two had to wait for processors
    stopped: Stopped

    @property
    def busy(self) -> bool:
        """Whether the machine was busy: more blocks were CPU-contended than the trimmed mean leaves out."""
        return _too_many(self.cpu_contended_blocks, self.blocks)

    @property
    def verdict_text(self) -> str:
        """The verdict, with `busy` where the machine was busy."""
        return f"{self.verdict}, busy" if self.busy else str(self.verdict)


class ConcurrentLoad(Record):
    """Throughput and latency of one artifact called by several threads at once, each with its own binding."""

    artifact: str
    batch: int
    callers: int
    streams: int | None = None  # CUDA streams: one for each caller; None on a CPU
    cuda_graph: bool = False  # whether each caller replayed its own CUDA graph
    calls: int
    samples_per_s: float
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Knee(Record):
    """The batch size beyond which throughput hardly grows, and the rule that found it."""

    artifact: str
    batch: int
    samples_per_s: float
    rule: str


class NotRun(Record):
    """An artifact that could not be measured here, and the reason."""

    artifact: str
    reason: str


class TriedTypes(Record):
    """One choice of INT8 types that was tried, and the verdict on it."""

    name: str  # such as u8s8 qdq
    p50_ms: float | None = None  # at opt, in a quick measurement
    sqnr_db: float | None = None  # of the worst output, on the same samples as the others
    verdict: str


class LayerEffect(Record):
    """The effect on the outputs when only this layer is quantized, on samples outside the holdout."""

    layer: str
    op: str
    sqnr_db: float | None  # of the worst output; a smaller value means more harm; None where it changes nothing
    size_bytes: int  # of its weight in FP32
    kept: bool  # in float


class FrontierPoint(Record):
    """The accuracy with the most harmful layers left in float."""

    kept: int  # layers in float
    value: float
    float_share: float  # the share of these layers in the time of all layers in float (0 to 1)
    predicted_ms: float | None = None  # interpolated between the latencies of INT8 and FP32 by that share


class Quantization(Record):
    """The types that were tried, and the measurements, when a model was quantized."""

    chosen: str
    tried: tuple[TriedTypes, ...] = ()
    metric: str | None = None  # the evaluation function, or the cosine
    limit: float | None = None  # the value to reach
    value: float | None = None  # the value of the chosen model
    failure: str | None = None  # why the limit was not reached
    layers: tuple[LayerEffect, ...] = ()  # most harmful first; empty where no layer has to stay in float
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


def _too_many(contended: int, blocks: int) -> bool:
    return contended > int(TRIMMED * blocks)


def _all_finite(values: Sequence[float | None]) -> list[float]:
    """Return the values, or an empty list when one of them is not finite."""
    finite = [value for value in values if value is not None]
    return finite if len(finite) == len(values) else []
