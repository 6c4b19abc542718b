"""A load test: every point of a sweep on one target, and what the figures come to."""

from collections.abc import Sequence
from pathlib import Path

from optkit.benchmark import load_average, this_machine
from optkit.errors import RecipeError, RunnerError
from optkit.loadtest import asyncio_driver, perf_analyzer
from optkit.loadtest.batching_advice import advise
from optkit.loadtest.counters import Asked
from optkit.loadtest.job import Job, run
from optkit.loadtest.knee import knees_of
from optkit.loadtest.prepare import Source, prepared, probe
from optkit.loadtest.record import LoadPoint, LoadRecord
from optkit.loadtest.settings import LoadSettings
from optkit.loadtest.target import Target
from optkit.progress import track


def load_test(target: Target, settings: LoadSettings, source: Source) -> LoadRecord:
    """Put every load of a sweep on one model, after one request that must be answered.

    Ctrl-C ends it with what was measured until then; a server that stops answering, likewise.

    Raises:
        RunnerError: no server answers there within the limit, it does not have the model, or it refuses the first request.
        RecipeError: the requests cannot be made as asked.
        FeedError: the data does not fit the model's inputs.
        MissingDependency: perf_analyzer was asked for and is not here.
    """
    average = load_average()
    target, batching, job = prepared(target, settings, source)
    program, why = perf_analyzer.choose(job)
    run(probe(job))
    points, stopped, interrupted = _points(job, program)
    return LoadRecord(
        url=target.url,
        server=target.server,
        protocol=target.scheme,
        model=target.model,
        version=target.version or None,
        batching=batching,
        tool="perf-analyzer" if program else "asyncio",
        tool_reason=why,
        data=job.values.origin if job.values else "a body as given",
        settings=settings,
        request_bytes=max(map(len, job.payloads)),
        points=tuple(points),
        knees=tuple(knees_of(points, settings.duration_s)),
        notes=tuple(_notes(job, points)),
        stopped=stopped,
        machine=this_machine(),
        load_average=average,
        interrupted=interrupted,
    )


def with_advice(
    record: LoadRecord,
    earlier: LoadRecord | None = None,
    max_latency_ms: float | None = None,
    arrivals_per_s: float | None = None,
) -> LoadRecord:
    """Return the record with the advice that it gives, together with an earlier one; a note says why there is none.

    A test without dynamic batching is not asked by itself: it says nothing about batches.
    """
    records = [one for one in (record, earlier) if one is not None]
    wanted = earlier is not None or max_latency_ms is not None or arrivals_per_s is not None
    if record.server != "triton" or not (wanted or (record.batching and record.batching.dynamic)):
        return record
    try:
        found = advise(records, max_latency_ms=max_latency_ms, arrivals_per_s=arrivals_per_s)
    except RecipeError as e:
        return record.model_copy(update={"notes": (*record.notes, f"no advice: {e}")})
    return record.model_copy(update={"advice": found})


def _points(job: Job, program: Path | None) -> tuple[list[LoadPoint], str | None, bool]:
    """Return the points, why the sweep was given up, and whether Ctrl-C ended it."""
    asked = [Asked(concurrency=callers) for callers in job.settings.concurrency]
    asked += [Asked(rate_per_s=rate) for rate in job.settings.rate]
    points: list[LoadPoint] = []
    try:
        for one in track(asked, f"load {job.target.url}", len(asked)):
            if program:
                points.append(perf_analyzer.drive(program, job, one))
                continue
            point, hopeless = asyncio_driver.drive(job, one)
            points.append(point)
            if point.interrupted:
                return points, None, True
            if hopeless:
                return points, f"{one}: the server stopped answering, and the sweep ended there", False
    except KeyboardInterrupt:
        return points, None, True
    except RunnerError as e:
        if not points:
            raise
        return points, str(e), False
    return points, None, False


def _notes(job: Job, points: Sequence[LoadPoint]) -> list[str]:
    notes = []
    if job.values and job.values.random:
        notes.append(
            "the requests hold random values: their times are not those of real data where the values decide the work"
        )
    if any(point.latency_from == "sent" and point.rate_per_s for point in points):
        notes.append(
            "perf_analyzer counts from the sending: waiting that a stalled server causes is not in its latencies"
        )
    notes += [
        f"{point.load}: {point.client_limited}: the client may be what was measured"
        for point in points
        if point.client_limited
    ]
    return notes
