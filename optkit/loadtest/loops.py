"""Closed and open loops over connections that carry one request at a time.

A closed loop keeps a fixed number of requests under way. It slows down with the server and shows the latency that this number of callers
gets. An open loop sends requests on a schedule, like independent users (Schroeder, Wierman and Harchol-Balter, "Open versus closed: a
cautionary tale", NSDI 2006). Its latencies count from the scheduled time, so they include the time that a request waits because earlier
requests are stuck. Latencies from the time of sending leave this wait out ("coordinated omission": Gil Tene, "How NOT to measure latency").
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np

from optkit.loadtest.connection import Connection, Connector, RequestFailed
from optkit.loadtest.counters import LoadCounters
from optkit.loadtest.settings import MAX_CONNECTIONS, Arrivals, LoadSettings

_BACK_OFF_S = 0.05  # after a failure, so that a stopped server does not use up max_requests at once
_WATCH_S = 0.01


@dataclasses.dataclass(frozen=True)
class Load:
    """The input of a loop: the connector, the requests, the settings and the counters."""

    connector: Connector
    payloads: Sequence[bytes]
    settings: LoadSettings
    counters: LoadCounters

    @property
    def timeout_reason(self) -> str:
        """The reason of a failure by timeout."""
        return f"no response within {self.settings.limit_s:g} s"

    def begin(self) -> float:
        """Start the clock and return the end time of sending."""
        now = asyncio.get_running_loop().time()
        self.counters.began = now
        self.counters.counting_from = now + self.settings.warmup_s
        return self.counters.counting_from + self.settings.duration_s

    async def send(self, connection: Connection | None, payload: bytes, since: float) -> Connection | None:
        """Send one request. Open a new connection if there is none or it is closed.

        Args:
            connection: of the last request, or None.
            payload: the request.
            since: the start of the latency and of the time limit.

        Returns:
            The connection for the next request; None after a failure.
        """
        clock = asyncio.get_running_loop().time
        counted = since >= self.counters.counting_from
        try:
            async with asyncio.timeout_at(since + self.settings.limit_s):
                if connection is None or connection.closed:
                    connection = None
                    connection = await self.connector.open()
                await connection.request(payload)
        except (RequestFailed, TimeoutError) as e:
            self.counters.fail(counted, self.timeout_reason if isinstance(e, TimeoutError) else str(e))
            if connection is not None:
                connection.close()
            return None
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        self.counters.answer(counted, since, clock())
        return connection


async def closed_loop(load: Load, callers: int) -> None:
    """Keep `callers` requests under way for the duration or until `max_requests`, and wait for the last responses."""
    end = load.begin()
    clock, counters, limit = asyncio.get_running_loop().time, load.counters, load.settings.max_requests

    async def call(number: int) -> None:
        connection: Connection | None = None
        for turn in itertools.count(number):
            now = clock()
            if now >= end or counters.all_sent >= limit or counters.hopeless:
                break
            counters.send(now >= counters.counting_from)
            connection = await load.send(connection, load.payloads[turn % len(load.payloads)], now)
            if connection is None:
                await asyncio.sleep(_BACK_OFF_S)
        if connection is not None:
            connection.close()

    async with _watched(counters), asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(call(number))


async def open_loop(load: Load, offsets_s: Sequence[float], max_connections: int = MAX_CONNECTIONS) -> None:
    """Send a request at every offset from now, whether or not earlier requests are complete, and wait for the last responses.

    At most `max_connections` requests are under way. If all connections are busy, a due request waits; the wait is part of its latency.
    """
    load.begin()
    loop, counters = asyncio.get_running_loop(), load.counters
    places = asyncio.Semaphore(max_connections)
    idle: collections.deque[Connection] = collections.deque()

    async def send_one(payload: bytes, due: float) -> None:
        try:
            async with asyncio.timeout_at(due + load.settings.limit_s):
                await places.acquire()
        except TimeoutError:
            counters.fail(due >= counters.counting_from, load.timeout_reason)
            return
        try:
            connection = await load.send(idle.pop() if idle else None, payload, due)
            if connection is not None:
                idle.append(connection)
        finally:
            places.release()

    async with _timed(counters), asyncio.TaskGroup() as group:
        for turn, offset in enumerate(offsets_s):
            due = counters.began + offset
            # Sleeps for 0 s if it is late, so that other tasks run.
            await asyncio.sleep(max(due - loop.time(), 0))
            if counters.hopeless:
                break
            counters.late_s.append(max(loop.time() - due, 0.0))
            counters.send(due >= counters.counting_from)
            group.create_task(send_one(load.payloads[turn % len(load.payloads)], due))
    for connection in idle:
        connection.close()


def schedule(settings: LoadSettings, rate: float) -> list[float]:
    """Return the scheduled times of an open loop, in seconds from the begin of the warm-up."""
    length = settings.warmup_s + settings.duration_s
    if settings.arrivals is Arrivals.CONSTANT:
        return [i / rate for i in range(max(round(rate * length), 1))]
    rng = np.random.default_rng(settings.seed)
    offsets: list[float] = np.cumsum(rng.exponential(1 / rate, settings.max_requests)).tolist()
    return [0.0, *itertools.takewhile(lambda offset: offset < length, offsets)][: settings.max_requests]


@contextlib.asynccontextmanager
async def _timed(counters: LoadCounters) -> AsyncIterator[None]:
    """Record the CPU time of this process and the end of the load."""
    before = time.process_time()
    try:
        yield
    finally:
        counters.cpu_s = time.process_time() - before
        counters.ended = asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def _watched(counters: LoadCounters) -> AsyncIterator[None]:
    """Also record how late this event loop runs its timers; a closed loop has no schedule that shows it."""
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            due = loop.time() + _WATCH_S
            await asyncio.sleep(_WATCH_S)
            counters.late_s.append(max(loop.time() - due, 0.0))

    task = asyncio.create_task(watch())
    try:
        async with _timed(counters):
            yield
    finally:
        task.cancel()
