"""The timing loop: it knows nothing of models, only of something to call."""

import time
from collections.abc import Callable

from pydantic import Field

from optkit.record import Record


class StopRule(Record):
    """When a block of calls ends: after both `min_duration_s` and `min_calls`, and at `max_duration_s` in any case."""

    warmup_calls: int = Field(default=10, ge=0)
    min_duration_s: float = Field(default=0.2, ge=0)
    min_calls: int = Field(default=30, ge=1)
    max_duration_s: float = Field(default=5.0, gt=0)


def time_calls(call: Callable[[], None], rule: StopRule) -> tuple[float, ...]:
    """Call again and again and return the time of each call in ms; warm-up calls are left out.

    A warm-up is bounded by `max_duration_s` too. Nothing but the clock is read between two calls.
    """
    clock = time.perf_counter_ns
    started = clock()
    for _ in range(rule.warmup_calls):
        call()
        if clock() - started > rule.max_duration_s * 1e9:
            break
    times: list[int] = []
    started = clock()
    earliest, latest = started + int(rule.min_duration_s * 1e9), started + int(rule.max_duration_s * 1e9)
    before = started
    while not (len(times) >= rule.min_calls and before >= earliest) and not (times and before >= latest):
        before = clock()
        call()
        after = clock()
        times.append(after - before)
        before = after
    return tuple(t / 1e6 for t in times)
