"""One point of a sweep by optkit's own client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from optkit.errors import RunnerError
from optkit.loadtest.counters import LoadCounters, LoadLevel, point_of
from optkit.loadtest.job import Job, connector_to, run
from optkit.loadtest.load_record import LoadPoint
from optkit.loadtest.loops import Load, closed_loop, open_loop, schedule
from optkit.loadtest.triton_statistics import StatisticsSnapshot, TritonQueries


def drive(job: Job, level: LoadLevel) -> tuple[LoadPoint, bool]:
    """Run one load and return its point, and whether the server stopped responding.

    Ctrl-C ends the load early; the point then holds the counts so far.
    """
    counters, snapshots = LoadCounters(), list[StatisticsSnapshot]()
    interrupted = False
    try:
        run(_drive(job, level, counters, snapshots))
    except KeyboardInterrupt:
        interrupted = True
        counters.forget_unanswered()
    point = point_of(
        counters,
        level,
        batch=job.settings.batch,
        latency_from="sent" if level.concurrency else "scheduled",
        server=snapshots[1].since(snapshots[0], includes_warmup=False) if len(snapshots) == 2 else None,
        interrupted=interrupted,
    )
    return point, counters.hopeless


async def _drive(job: Job, level: LoadLevel, counters: LoadCounters, snapshots: list[StatisticsSnapshot]) -> None:
    connector = connector_to(job.target)
    load = Load(connector, job.payloads, job.settings, counters)
    try:
        async with _statistics(job, snapshots):
            if level.concurrency:
                await closed_loop(load, level.concurrency)
            else:
                await open_loop(load, schedule(job.settings, level.rate_per_s or 0))
    finally:
        await connector.close()


@contextlib.asynccontextmanager
async def _statistics(job: Job, snapshots: list[StatisticsSnapshot]) -> AsyncIterator[None]:
    """Append Triton's statistics at the end of the warm-up and after the load; skip a snapshot if the server does not respond."""
    if job.target.server != "triton":
        yield
        return
    connector = connector_to(job.target)
    queries = TritonQueries(job.target, connector, job.settings.limit_s)

    async def take(after_s: float) -> None:
        await asyncio.sleep(after_s)
        with contextlib.suppress(RunnerError):
            snapshots.append(await queries.snapshot())

    first = asyncio.create_task(take(job.settings.warmup_s))
    try:
        yield
        await first
        await take(0)
    finally:
        first.cancel()
        await connector.close()
