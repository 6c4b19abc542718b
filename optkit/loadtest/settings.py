"""What a load test does, and its bounds in time and in number."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from optkit.record import Record

MAX_LINES = 256  # connections at once: the event loop waits with select(), which takes no file above 1023
Callers = Annotated[int, Field(ge=1, le=MAX_LINES)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Tool(StrEnum):
    """What drives the load."""

    AUTO = "auto"
    PERF_ANALYZER = "perf-analyzer"
    ASYNCIO = "asyncio"


class Arrivals(StrEnum):
    """How the requests of an open loop follow each other."""

    POISSON = "poisson"
    CONSTANT = "constant"


class LoadSettings(Record):
    """The points of a sweep and the limits of each.

    A point takes at most `warmup_s` + `duration_s` + `limit_s`, and `max_requests` requests.
    """

    concurrency: tuple[Callers, ...] = ()
    rate: tuple[Rate, ...] = Field(default=(), description="requests per second")
    arrivals: Arrivals = Arrivals.POISSON
    tool: Tool = Tool.AUTO
    batch: int = Field(default=1, ge=1, description="samples in one request")
    warmup_s: float = Field(default=1.0, ge=0, le=600)
    duration_s: float = Field(default=5.0, gt=0, le=3600)
    limit_s: float = Field(default=10.0, gt=0, le=600, description="how long one answer may take")
    max_requests: int = Field(default=200_000, ge=1, le=10_000_000, description="of one point, the warm-up included")
    seed: int = Field(default=0, ge=0, description="of random inputs and of Poisson arrivals")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not self.concurrency and not self.rate:
            raise ValueError("concurrency: neither it nor rate is given; expected one of them, as in 1,2,4")
        for rate in self.rate:
            asked = round(rate * (self.warmup_s + self.duration_s))
            if asked > self.max_requests:
                raise ValueError(
                    f"rate: {rate:g} requests/s are {asked} requests in all, more than max_requests {self.max_requests}; "
                    f"lower the rate or duration_s, or raise max_requests"
                )
        return self
