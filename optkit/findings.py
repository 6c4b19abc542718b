"""What was found about an artifact: parity, batch independence, accuracy and measurements, as records.

They hold numbers and verdicts and know nothing of how these were obtained: `check` and `bench` make them, the passport
and the report keep them. A number that is not finite is None, because JSON has no NaN; the verdict says why.
"""

from collections.abc import Sequence

from pydantic import Field

from optkit.diagnosis import Moments
from optkit.record import Record


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


class Measurement(Record):
    """The latency of one artifact at one batch size; percentiles are derived from `times_ms`."""

    artifact: str
    device: str
    provider: str  # what really ran it, such as CPUExecutionProvider
    threads: int
    batch: int
    sizes: dict[str, int]
    includes_copies: bool  # whether a time holds copies between host and device
    warmup_calls: int
    times_ms: tuple[tuple[float, ...], ...]  # one tuple for each round; rounds of all artifacts alternate
    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_s: float


class SpeedUp(Record):
    """How many times faster a candidate is than the reference: median and range over the rounds of the ratio of median latencies."""

    reference: str
    candidate: str
    batch: int
    ratio: float
    low: float
    high: float


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


def _all_finite(values: Sequence[float | None]) -> list[float]:
    """Return the values, or none of them when one is not finite."""
    finite = [value for value in values if value is not None]
    return finite if len(finite) == len(values) else []
