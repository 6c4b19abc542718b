"""Counts and latencies of one load, and the point of the record that they give. Both load generators use them."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from optkit.benchmark.statistics import percentile
from optkit.loadtest.load_record import LoadPoint, ServerSide

_HOPELESS = 40  # consecutive failures; the load ends after them
_REASONS = 20  # reasons that are counted separately
_MAX_SHARE = 0.85  # of a core; in a busier event loop, requests wait for the client
_MAX_LATENESS = 0.1  # of the median latency


@dataclasses.dataclass
class LoadCounters:
    """Counts and times. Times are seconds on the clock of the load generator."""

    latencies_s: list[float] = dataclasses.field(default_factory=list)
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    warmup: int = 0
    sent: int = 0  # after the warm-up
    failed: int = 0
    consecutive_failures: int = 0  # also during the warm-up
    last_answer: float = 0.0
    late_s: list[float] = dataclasses.field(default_factory=list)
    cpu_s: float = 0.0
    began: float = 0.0  # the begin of the warm-up
    counting_from: float = 0.0
    ended: float = 0.0

    @property
    def all_sent(self) -> int:
        """The number of requests, including the warm-up."""
        return self.warmup + self.sent

    @property
    def hopeless(self) -> bool:
        """Whether so many consecutive requests failed that the load should end."""
        return self.consecutive_failures >= _HOPELESS

    def send(self, counted: bool) -> None:
        """Count a request that is sent or due."""
        if counted:
            self.sent += 1
        else:
            self.warmup += 1

    def answer(self, counted: bool, since: float, now: float) -> None:
        """Count a response."""
        self.consecutive_failures = 0
        if counted:
            self.latencies_s.append(now - since)
            self.last_answer = now

    def fail(self, counted: bool, reason: str) -> None:
        """Count a failure."""
        self.consecutive_failures += 1
        if counted:
            self.failed += 1
            self.failures[reason if reason in self.failures or len(self.failures) < _REASONS else "other"] += 1

    def forget_unanswered(self) -> None:
        """Leave out requests that are still under way, because the load was interrupted."""
        self.sent = len(self.latencies_s) + self.failed


@dataclasses.dataclass(frozen=True)
class LoadLevel:
    """The load of one point: a number of concurrent callers, or a number of requests per second."""

    concurrency: int | None = None
    rate_per_s: float | None = None

    def __str__(self) -> str:
        return f"concurrency {self.concurrency}" if self.concurrency else f"rate {self.rate_per_s:g}/s"


def point_of(
    counters: LoadCounters,
    level: LoadLevel,
    *,
    batch: int,
    latency_from: str,
    server: ServerSide | None = None,
    interrupted: bool = False,
    client_threads: int = 1,
) -> LoadPoint:
    """Return the point of the record for the counts of one load."""
    times_ms = np.array(counters.latencies_s) * 1000  # (answered,) ms
    answered = len(times_ms)
    duration_s = max((counters.last_answer if answered else counters.ended) - counters.counting_from, 1e-9)
    share = counters.cpu_s / max(counters.ended - counters.began, 1e-9)
    late_ms = np.array(counters.late_s) * 1000
    p50 = float(np.median(times_ms)) if answered else None
    mean_late = float(late_ms.mean()) if len(late_ms) else None
    return LoadPoint.model_validate(
        {
            **dataclasses.asdict(level),
            "latency_from": latency_from,
            "warmup": counters.warmup,
            "sent": counters.sent,
            "answered": answered,
            "failed": counters.failed,
            "failures": dict(counters.failures.most_common()),
            "duration_s": duration_s,
            "requests_per_s": answered / duration_s,
            "samples_per_s": batch * answered / duration_s,
            "mean_ms": float(times_ms.mean()) if answered else None,
            "p50_ms": p50,
            **_percentiles(times_ms),
            "max_ms": float(times_ms.max()) if answered else None,
            "client_cpu_share": share,
            "client_late_mean_ms": mean_late,
            "client_late_max_ms": float(late_ms.max()) if len(late_ms) else None,
            "client_limited": _client_limited(share / client_threads, mean_late, p50),
            "server": server,
            "interrupted": interrupted,
        }
    )


def _percentiles(times_ms: np.ndarray) -> Mapping[str, float | None]:
    return {f"p{percent}_ms": percentile(times_ms, percent) for percent in (90, 95, 99)}


def _client_limited(share: float, late_ms: float | None, p50_ms: float | None) -> str | None:
    """Return why the client may be the bottleneck, or None."""
    if late_ms is not None and p50_ms is not None and late_ms > _MAX_LATENESS * p50_ms:
        return f"the client was {late_ms:.2g} ms late on average, more than a tenth of the median latency"
    if share > _MAX_SHARE:
        return f"the client used {share:.0%} of a core for each of its threads"
    return None
