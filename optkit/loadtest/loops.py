"""The two kinds of load, over lines that carry one request at a time.

A closed loop keeps a number of requests under way, so it slows down with the server and shows what so many callers get. An open loop
sends on a schedule, as independent users do (Schroeder, Wierman and Harchol-Balter, "Open versus closed: a cautionary tale", NSDI 2006).
Its latencies count from the scheduled time: a request that had to wait because others hung has waited all the same, and a count from the
moment of sending would omit just that ("coordinated omission": Gil Tene, "How NOT to measure latency").
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np

from optkit.loadtest.connection import Line, Lines, RequestFailed
from optkit.loadtest.counters import Tally
from optkit.loadtest.settings import MAX_LINES, Arrivals, LoadSettings

_BACK_OFF_S = 0.05  # after a failure, so that a dead server does not fill the count
_WATCH_S = 0.01


@dataclasses.dataclass(frozen=True)
class Load:
    """What a loop needs: where requests go, what they are, how long, and where to count."""

    lines: Lines
    payloads: Sequence[bytes]
    settings: LoadSettings
    tally: Tally

    @property
    def too_late(self) -> str:
        """The reason of a request whose limit is over."""
        return f"no answer within {self.settings.limit_s:g} s"

    def begin(self) -> float:
        """Start the clock, and return the time at which nothing more is sent."""
        now = asyncio.get_running_loop().time()
        self.tally.began = now
        self.tally.counting_from = now + self.settings.warmup_s
        return self.tally.counting_from + self.settings.duration_s

    async def send(self, line: Line | None, payload: bytes, since: float) -> Line | None:
        """Send one request, by a new line where the last one is gone; return the line for the next, None after a failure.

        Its limit runs from `since`, and so does its latency.
        """
        clock = asyncio.get_running_loop().time
        counted = since >= self.tally.counting_from
        try:
            async with asyncio.timeout_at(since + self.settings.limit_s):
                if line is None or line.closed:
                    line = None
                    line = await self.lines.open()
                await line.ask(payload)
        except (RequestFailed, TimeoutError) as e:
            self.tally.fail(counted, self.too_late if isinstance(e, TimeoutError) else str(e))
            if line is not None:
                line.close()
            return None
        except asyncio.CancelledError:
            if line is not None:
                line.close()
            raise
        self.tally.answer(counted, since, clock())
        return line


async def closed_loop(load: Load, callers: int) -> None:
    """Keep `callers` requests under way until the time or the number is over, and wait for the last answers."""
    end = load.begin()
    clock, tally, most = asyncio.get_running_loop().time, load.tally, load.settings.max_requests

    async def call(number: int) -> None:
        line: Line | None = None
        for turn in itertools.count(number):
            now = clock()
            if now >= end or tally.all_sent >= most or tally.hopeless:
                break
            tally.send(now >= tally.counting_from)
            line = await load.send(line, load.payloads[turn % len(load.payloads)], now)
            if line is None:
                await asyncio.sleep(_BACK_OFF_S)
        if line is not None:
            line.close()

    async with _watched(tally), asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(call(number))


async def open_loop(load: Load, offsets_s: Sequence[float], most_lines: int = MAX_LINES) -> None:
    """Send a request at every offset from now, whatever has become of those before, and wait for the last answers.

    At most `most_lines` are under way; a request that is due and finds no line waits, and its latency grows.
    """
    load.begin()
    loop, tally = asyncio.get_running_loop(), load.tally
    places = asyncio.Semaphore(most_lines)
    idle: collections.deque[Line] = collections.deque()

    async def one(payload: bytes, due: float) -> None:
        try:
            async with asyncio.timeout_at(due + load.settings.limit_s):
                await places.acquire()
        except TimeoutError:
            tally.fail(due >= tally.counting_from, load.too_late)
            return
        try:
            line = await load.send(idle.pop() if idle else None, payload, due)
            if line is not None:
                idle.append(line)
        finally:
            places.release()

    async with _timed(tally), asyncio.TaskGroup() as group:
        for turn, offset in enumerate(offsets_s):
            due = tally.began + offset
            await asyncio.sleep(
                max(due - loop.time(), 0)
            )  # also when late: else nothing else would run until it is not
            if tally.hopeless:
                break
            tally.late_s.append(max(loop.time() - due, 0.0))
            tally.send(due >= tally.counting_from)
            group.create_task(one(load.payloads[turn % len(load.payloads)], due))
    for line in idle:
        line.close()


def schedule(settings: LoadSettings, rate: float) -> list[float]:
    """Return when the requests of an open loop are due, in seconds from its begin, the warm-up included."""
    length = settings.warmup_s + settings.duration_s
    if settings.arrivals is Arrivals.CONSTANT:
        return [i / rate for i in range(max(round(rate * length), 1))]
    rng = np.random.default_rng(settings.seed)
    offsets: list[float] = np.cumsum(rng.exponential(1 / rate, settings.max_requests)).tolist()
    return [0.0, *itertools.takewhile(lambda offset: offset < length, offsets)][: settings.max_requests]


@contextlib.asynccontextmanager
async def _timed(tally: Tally) -> AsyncIterator[None]:
    """Count the processor's time of this process, and when the load ended."""
    before = time.process_time()
    try:
        yield
    finally:
        tally.cpu_s = time.process_time() - before
        tally.ended = asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def _watched(tally: Tally) -> AsyncIterator[None]:
    """Also see how late this event loop comes to what is due, where no schedule shows it."""
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            due = loop.time() + _WATCH_S
            await asyncio.sleep(_WATCH_S)
            tally.late_s.append(max(loop.time() - due, 0.0))

    task = asyncio.create_task(watch())
    try:
        async with _timed(tally):
            yield
    finally:
        task.cancel()
