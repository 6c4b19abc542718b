"""Throughput and latency with several callers of one session at once, as in a server."""

import threading
import time

import numpy as np

from optkit.artifact.findings import ConcurrentLoad
from optkit.artifact.tensors import Feed
from optkit.benchmark.settings import BenchSettings
from optkit.benchmark.statistics import percentile
from optkit.runners import Device, Runner

LOAD_BLOCKS = 10  # the duration of a load, in blocks


def concurrent_load(
    runner: Runner, feed: Feed, callers: int, settings: BenchSettings, *, artifact: str, batch: int
) -> ConcurrentLoad:
    """Call one loaded artifact from several threads, each as fast as possible with its own inputs and outputs.

    Every caller drops its first calls; then all start together and stop at the same time. A latency includes the time that a call waits
    for the others.

    Raises:
        Exception: the error of the runtime in a thread.
    """
    loops = [_Caller(runner, feed, settings) for _ in range(callers)]
    ready = threading.Barrier(callers)
    for loop in loops:
        loop.start(ready)
    for loop in loops:
        loop.join()
    times = np.concatenate([loop.times_ms for loop in loops])  # (calls,) ms
    seconds = max(loop.ended for loop in loops) - min(loop.began for loop in loops)
    return ConcurrentLoad(
        artifact=artifact,
        batch=batch,
        callers=callers,
        streams=None if settings.device is Device.CPU else callers,
        cuda_graph=settings.cuda_graph,
        calls=len(times),
        samples_per_s=batch * len(times) / seconds,
        p50_ms=float(np.median(times)),
        p90_ms=percentile(times, 90),
        p95_ms=percentile(times, 95),
        p99_ms=percentile(times, 99),
    )


class _Caller:
    """One calling thread, and the times of its calls."""

    def __init__(self, runner: Runner, feed: Feed, settings: BenchSettings) -> None:
        self.runner = runner
        self.call = runner.bind(feed)
        self.settings = settings
        self.times_ms = np.empty(0)
        self.began = self.ended = 0.0
        self.error: Exception | None = None

    def start(self, ready: threading.Barrier) -> None:
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()

    def join(self) -> None:
        self.thread.join()
        if self.error:
            raise self.error

    def _run(self, ready: threading.Barrier) -> None:
        try:
            with self.runner.calling():
                for _ in range(self.settings.drop_calls):
                    self.call()
                ready.wait()
                self._count()
        except threading.BrokenBarrierError:
            pass  # another caller failed and has the error
        except Exception as e:
            self.error = e
            ready.abort()

    def _count(self) -> None:
        clock, call = time.perf_counter, self.call
        times: list[float] = []
        self.began = before = clock()
        end = before + self.settings.block_s * LOAD_BLOCKS
        while not times or before < end:
            before = clock()
            call()
            after = clock()
            times.append(after - before)
            before = after
        self.ended = before
        self.times_ms = np.array(times) * 1000
