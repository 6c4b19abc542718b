"""One point of a sweep by optkit's own client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from optkit.errors import RunnerError
from optkit.loadtest.counters import Asked, Tally, point_of
from optkit.loadtest.job import Job, lines_to, run
from optkit.loadtest.loops import Load, closed_loop, open_loop, schedule
from optkit.loadtest.record import LoadPoint
from optkit.loadtest.triton_statistics import Snapshot, TritonControl


def drive(job: Job, asked: Asked) -> tuple[LoadPoint, bool]:
    """Put one load on the server; also say whether the server has stopped answering.

    Ctrl-C ends it early, with what was counted until then.
    """
    tally, seen = Tally(), list[Snapshot]()
    interrupted = False
    try:
        run(_drive(job, asked, tally, seen))
    except KeyboardInterrupt:
        interrupted = True
        tally.forget_unanswered()
    point = point_of(
        tally,
        asked,
        batch=job.settings.batch,
        latency_from="sent" if asked.concurrency else "scheduled",
        server=seen[1].since(seen[0], includes_warmup=False) if len(seen) == 2 else None,
        interrupted=interrupted,
    )
    return point, tally.hopeless


async def _drive(job: Job, asked: Asked, tally: Tally, seen: list[Snapshot]) -> None:
    lines = lines_to(job.target)
    load = Load(lines, job.payloads, job.settings, tally)
    try:
        async with _statistics(job, seen):
            if asked.concurrency:
                await closed_loop(load, asked.concurrency)
            else:
                await open_loop(load, schedule(job.settings, asked.rate_per_s or 0))
    finally:
        await lines.close()


@contextlib.asynccontextmanager
async def _statistics(job: Job, seen: list[Snapshot]) -> AsyncIterator[None]:
    """Take Triton's statistics when the warm-up ends and after the load; without them where it does not answer."""
    if job.target.server != "triton":
        yield
        return
    lines = lines_to(job.target)
    control = TritonControl(job.target, lines, job.settings.limit_s)

    async def look(after_s: float) -> None:
        await asyncio.sleep(after_s)
        with contextlib.suppress(RunnerError):
            seen.append(await control.snapshot())

    first = asyncio.create_task(look(job.settings.warmup_s))
    try:
        yield
        await first
        await look(0)
    finally:
        first.cancel()
        await lines.close()
