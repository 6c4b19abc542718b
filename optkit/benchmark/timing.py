"""The timing loop: it knows nothing of models, only of something to call."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optkit.artifact.findings import STARVED
from optkit.benchmark.processor import ProcessorTime
from optkit.benchmark.settings import BenchSettings


@dataclass(frozen=True)
class GpuSample:
    """What a GPU was doing at one moment, of the clock that calls are timed with; None where it does not tell."""

    at_s: float
    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    throttles: tuple[str, ...]  # why it ran slower than it could


@dataclass(frozen=True)
class Block:
    """The times of the counted calls of one block, in ms, and how many calls before them were dropped."""

    times_ms: np.ndarray  # (calls,)
    dropped_calls: int
    began_s: float = 0.0  # of the first counted call
    samples: tuple[GpuSample, ...] = ()
    throttled_calls: int = 0  # left out of `times_ms`, unless every call was throttled
    all_throttled: bool = False
    waited: float | None = (
        None  # for a processor: the share of the time that its threads wanted to run; None where it is not told
    )

    @property
    def starved(self) -> bool:
        """Whether others took so much of the processors that the times are theirs too."""
        return self.waited is not None and self.waited >= STARVED

    @functools.cached_property
    def p50_ms(self) -> float:
        """The median."""
        return float(np.median(self.times_ms))


def time_block(call: Callable[[], object], settings: BenchSettings) -> Block:
    """Drop the first calls after a switch, then time one call after the other until the block is long enough.

    Both the dropped and the counted calls go on until their shortest time and their fewest calls are reached. The counted ones follow
    each other without a pause: the caches hold what the model itself leaves in them. Nothing but the clock is read between two calls.
    """
    dropped = _calls(call, settings.drop_s, settings.drop_calls)
    asked = ProcessorTime.now()
    began_s = time.perf_counter_ns() / 1e9
    counted = _calls(call, settings.block_s, settings.block_calls)
    waited = _waited(asked, ProcessorTime.now())
    return Block(np.array(counted) / 1e6, len(dropped), began_s, waited=waited)


def _waited(before: ProcessorTime | None, after: ProcessorTime | None) -> float | None:
    return after.waited_since(before) if before and after else None


def _calls(call: Callable[[], object], shortest_s: float, fewest: int) -> list[int]:
    """Call until both limits are reached; return the time of each call in ns."""
    clock = time.perf_counter_ns
    times: list[int] = []
    before = clock()
    end = before + int(shortest_s * 1e9)
    while len(times) < fewest or before < end:
        before = clock()
        call()
        after = clock()
        times.append(after - before)
        before = after
    return times
