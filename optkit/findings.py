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
    `numpy.allclose`; with `min_cosine` the cosine of each whole output must reach it. None leaves a rule out.
    """

    atol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rtol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    min_cosine: float | None = Field(default=None, ge=-1, le=1)

    def __str__(self) -> str:
        rules = {"atol": self.atol, "rtol": self.rtol, "cosine": self.min_cosine}
        return ", ".join(f"{name} {value:g}" for name, value in rules.items() if value is not None)


class OutputParity(Record):
    """One output at one point: the largest absolute and relative difference, and the cosine over all elements."""

    output: str
    sizes: dict[str, int]
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
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


def at(sizes: dict[str, int]) -> str:
    """Return ` at batch=8`, or nothing for a model without dynamic dimensions."""
    return f" at {', '.join(f'{name}={size}' for name, size in sizes.items())}" if sizes else ""


def _all_finite(values: Sequence[float | None]) -> list[float]:
    """Return the values, or none of them when one is not finite."""
    finite = [value for value in values if value is not None]
    return finite if len(finite) == len(values) else []
