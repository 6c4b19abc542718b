"""What happened to the requests of one load, and the point of the record that it makes, whatever tool counted."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from optkit.benchmark.statistics import percentile
from optkit.loadtest.record import LoadPoint, ServerSide

_HOPELESS = 40  # failures in a row, after which nothing more is sent
_REASONS = 20  # different ones that are told apart
_MAX_SHARE = 0.85  # of a core: an event loop that is busier has requests waiting for it
_MAX_LATENESS = 0.1  # of the median latency


@dataclasses.dataclass
class Tally:
    """Counts; times in seconds of the clock of whoever counts."""

    latencies_s: list[float] = dataclasses.field(default_factory=list)
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    warmup: int = 0
    sent: int = 0  # after the warm-up
    failed: int = 0
    failed_in_a_row: int = 0  # also during the warm-up
    last_answer: float = 0.0
    late_s: list[float] = dataclasses.field(default_factory=list)
    cpu_s: float = 0.0
    began: float = 0.0  # with the warm-up
    counting_from: float = 0.0
    ended: float = 0.0

    @property
    def all_sent(self) -> int:
        """The requests, those of the warm-up included."""
        return self.warmup + self.sent

    @property
    def hopeless(self) -> bool:
        """Whether so many requests have failed in a row that more would only repeat it."""
        return self.failed_in_a_row >= _HOPELESS

    def send(self, counted: bool) -> None:
        """A request is sent, or due."""
        if counted:
            self.sent += 1
        else:
            self.warmup += 1

    def answer(self, counted: bool, since: float, now: float) -> None:
        """It was answered."""
        self.failed_in_a_row = 0
        if counted:
            self.latencies_s.append(now - since)
            self.last_answer = now

    def fail(self, counted: bool, reason: str) -> None:
        """It was not."""
        self.failed_in_a_row += 1
        if counted:
            self.failed += 1
            self.failures[reason if reason in self.failures or len(self.failures) < _REASONS else "other"] += 1

    def forget_unanswered(self) -> None:
        """Count only what has come to an end, because the load was interrupted."""
        self.sent = len(self.latencies_s) + self.failed


@dataclasses.dataclass(frozen=True)
class Asked:
    """The load of one point: so many callers, or so many requests a second."""

    concurrency: int | None = None
    rate_per_s: float | None = None

    def __str__(self) -> str:
        return f"concurrency {self.concurrency}" if self.concurrency else f"rate {self.rate_per_s:g}/s"


def point_of(
    tally: Tally,
    asked: Asked,
    *,
    batch: int,
    latency_from: str,
    server: ServerSide | None = None,
    interrupted: bool = False,
    client_threads: int = 1,
) -> LoadPoint:
    """Return the point of the record that a tally makes."""
    times_ms = np.array(tally.latencies_s) * 1000  # (answered,) ms
    answered = len(times_ms)
    duration_s = max((tally.last_answer if answered else tally.ended) - tally.counting_from, 1e-9)
    share = tally.cpu_s / max(tally.ended - tally.began, 1e-9)
    late_ms = np.array(tally.late_s) * 1000
    p50 = float(np.median(times_ms)) if answered else None
    mean_late = float(late_ms.mean()) if len(late_ms) else None
    return LoadPoint.model_validate(
        {
            **dataclasses.asdict(asked),
            "latency_from": latency_from,
            "warmup": tally.warmup,
            "sent": tally.sent,
            "answered": answered,
            "failed": tally.failed,
            "failures": dict(tally.failures.most_common()),
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
    """Return why the client may be what was measured; None where nothing says so."""
    if late_ms is not None and p50_ms is not None and late_ms > _MAX_LATENESS * p50_ms:
        return f"the client acted {late_ms:.2g} ms late on average, more than a tenth of the median latency"
    if share > _MAX_SHARE:
        return f"the client used {share:.0%} of a core for each of its threads"
    return None
