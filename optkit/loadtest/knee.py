"""The knee of a sweep: the load above which throughput hardly grows."""

from collections.abc import Sequence

from optkit.benchmark.summary import KNEE
from optkit.loadtest.load_record import LoadKnee, LoadPoint

KEPT_UP = 0.95  # of the requested rate


def knees_of(points: Sequence[LoadPoint], duration_s: float) -> list[LoadKnee]:
    """Return the knee of the closed loops and the knee of the open loops, each only if there are at least three points."""
    closed = [point for point in points if point.concurrency and not point.interrupted]
    opened = [point for point in points if point.rate_per_s and not point.interrupted]
    found = [_of_callers(closed)] if len(closed) > 2 else []
    return found + ([knee] if len(opened) > 2 and (knee := _of_rates(opened, duration_s)) else [])


def _of_callers(points: Sequence[LoadPoint]) -> LoadKnee:
    best = max(point.samples_per_s for point in points)
    enough = [point for point in points if point.samples_per_s >= KNEE * best]
    knee = min(enough, key=lambda point: point.concurrency or 0)
    rule = f"the fewest callers with at least {KNEE:.0%} of the largest throughput, {best:,.0f} samples/s"
    return LoadKnee(load=knee.load, samples_per_s=knee.samples_per_s, rule=rule)


def _of_rates(points: Sequence[LoadPoint], duration_s: float) -> LoadKnee | None:
    """Return the largest rate at which no request failed and no backlog grew, or None if even the smallest rate was too large.

    If the server keeps up, the last response comes one response time after the end of the schedule. Otherwise it comes later.
    """
    usual_s = min((point.p50_ms or 0 for point in points), default=0) / 1000
    served = None
    for point in sorted(points, key=lambda point: point.rate_per_s or 0):
        if point.failed or point.duration_s > duration_s / KEPT_UP + usual_s:
            break
        served = point
    if served is None:
        return None
    rule = f"the largest rate at which the server completes requests at {KEPT_UP:.0%} of the arrival rate or more, without a failure"
    return LoadKnee(load=served.load, samples_per_s=served.samples_per_s, rule=rule)
