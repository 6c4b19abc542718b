"""The settings of a load test, with limits on its duration and its number of requests."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from optkit.record import Record

MAX_CONNECTIONS = 256  # at the same time; the event loop waits with select(), which takes no file descriptor above 1023
Callers = Annotated[int, Field(ge=1, le=MAX_CONNECTIONS)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Tool(StrEnum):
    """The load generator."""

    AUTO = "auto"
    PERF_ANALYZER = "perf-analyzer"
    ASYNCIO = "asyncio"


class Arrivals(StrEnum):
    """The distribution of the arrival times in an open loop."""

    POISSON = "poisson"
    CONSTANT = "constant"


class LoadSettings(Record):
    """The points of a sweep and the limits of each point.

    A point takes at most `warmup_s` + `duration_s` + `limit_s`, and `max_requests` requests.
    """

    concurrency: tuple[Callers, ...] = ()
    rate: tuple[Rate, ...] = Field(default=(), description="requests per second")
    arrivals: Arrivals = Arrivals.POISSON
    tool: Tool = Tool.AUTO
    batch: int = Field(default=1, ge=1, description="samples in one request")
    warmup_s: float = Field(default=1.0, ge=0, le=600)
    duration_s: float = Field(default=5.0, gt=0, le=3600)
    limit_s: float = Field(default=10.0, gt=0, le=600, description="time limit for one response")
    max_requests: int = Field(default=200_000, ge=1, le=10_000_000, description="of one point, including the warm-up")
    seed: int = Field(default=0, ge=0, description="of random inputs and of Poisson arrivals")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not self.concurrency and not self.rate:
            raise ValueError(
                "concurrency: neither concurrency nor rate is given; expected one of them, for example 1,2,4"
            )
        for rate in self.rate:
            total = round(rate * (self.warmup_s + self.duration_s))
            if total > self.max_requests:
                raise ValueError(
                    f"rate: {rate:g} requests/s are {total} requests in total; expected at most max_requests {self.max_requests}. "
                    f"Lower the rate or duration_s, or raise max_requests."
                )
        return self
