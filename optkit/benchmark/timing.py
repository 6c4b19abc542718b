"""The timing loop: it times any function, and knows nothing of models."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optkit.artifact.findings import CPU_CONTENDED
from optkit.benchmark.processor import ProcessorTime
from optkit.benchmark.settings import BenchSettings


@dataclass(frozen=True)
class GpuSample:
    """The state of a GPU at one moment, by the clock that times the calls; None where NVML does not report a value."""

    at_s: float
    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    throttles: tuple[str, ...]  # the throttle reasons


@dataclass(frozen=True)
class Block:
    """The times of the counted calls of one block, in ms, and the number of dropped calls before them."""

    times_ms: np.ndarray  # (calls,)
    dropped_calls: int
    began_s: float = 0.0  # the start of the first counted call
    samples: tuple[GpuSample, ...] = ()
    throttled_calls: int = 0  # left out of `times_ms`, unless every call was throttled
    all_throttled: bool = False
    waited: float | None = (
        None  # share (0 to 1) of the time in which its runnable threads waited for a processor; None where not reported
    )

    @property
    def cpu_contended(self) -> bool:
        """Whether other processes took so much processor time that the times are too long."""
        return self.waited is not None and self.waited >= CPU_CONTENDED

    @functools.cached_property
    def p50_ms(self) -> float:
        """The median."""
        return float(np.median(self.times_ms))


def time_block(
    call: Callable[[], object], settings: BenchSettings, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> Block:
    """Drop the first calls after a switch, then time one call after the other until the block is long enough.

    Both the dropped and the counted calls continue until their shortest time and their fewest calls are reached. The counted calls have
    no pause between them, so the caches contain only the model's own data. Only the clock is read between two calls.
    """
    dropped = _calls(call, settings.drop_s, settings.drop_calls, clock_ns)
    before = ProcessorTime.now()
    began_s = clock_ns() / 1e9
    counted = _calls(call, settings.block_s, settings.block_calls, clock_ns)
    waited = _waited(before, ProcessorTime.now())
    return Block(np.array(counted) / 1e6, len(dropped), began_s, waited=waited)


def _waited(before: ProcessorTime | None, after: ProcessorTime | None) -> float | None:
    return after.waited_since(before) if before and after else None


def _calls(call: Callable[[], object], shortest_s: float, fewest: int, clock: Callable[[], int]) -> list[int]:
    """Call until both limits are reached; return the time of each call in ns."""
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
