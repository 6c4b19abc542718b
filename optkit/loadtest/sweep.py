"""A load test: all points of a sweep on one target, with knees, notes and advice."""

from collections.abc import Sequence
from pathlib import Path

from optkit.benchmark import load_average, this_machine
from optkit.errors import RecipeError, RunnerError
from optkit.loadtest import asyncio_driver, perf_analyzer
from optkit.loadtest.batching_advice import advise
from optkit.loadtest.counters import LoadLevel
from optkit.loadtest.job import Job, run
from optkit.loadtest.knee import knees_of
from optkit.loadtest.load_record import LoadPoint, LoadRecord
from optkit.loadtest.prepare import Source, prepare, probe
from optkit.loadtest.settings import LoadSettings
from optkit.loadtest.target import Target
from optkit.progress import track


def load_test(target: Target, settings: LoadSettings, source: Source) -> LoadRecord:
    """Send one probe request, then run every load of a sweep on one model.

    If the user presses Ctrl-C or the server stops responding, the record holds the results so far.

    Raises:
        RunnerError: no server responds within the limit, it does not have the model, or it refuses the first request.
        RecipeError: the requests cannot be made with these settings.
        FeedError: the data does not fit the model's inputs.
        MissingDependency: the settings require perf_analyzer, which is not installed.
    """
    average = load_average()
    target, batching, job = prepare(target, settings, source)
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
        data=job.values.origin if job.values else "given request body",
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
    """Return the record with advice on dynamic batching, or with a note that says why there is no advice.

    Without other arguments, a test of a model without dynamic batching gets no advice: it has no data about batches.
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
    """Return the points, the reason why the sweep ended early (or None), and whether Ctrl-C ended it."""
    levels = [LoadLevel(concurrency=callers) for callers in job.settings.concurrency]
    levels += [LoadLevel(rate_per_s=rate) for rate in job.settings.rate]
    points: list[LoadPoint] = []
    try:
        for level in track(levels, f"load {job.target.url}", len(levels)):
            if program:
                points.append(perf_analyzer.drive(program, job, level))
                continue
            point, hopeless = asyncio_driver.drive(job, level)
            points.append(point)
            if point.interrupted:
                return points, None, True
            if hopeless:
                return points, f"{level}: the server stopped responding, so the sweep ended", False
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
            "the requests hold random values: if the work of the model depends on the values, real data gives other times"
        )
    if any(point.latency_from == "sent" and point.rate_per_s for point in points):
        notes.append(
            "perf_analyzer measures latency from the time of sending: it leaves out the wait that a stalled server causes"
        )
    notes += [
        f"{point.load}: {point.client_limited}: the client may be the bottleneck"
        for point in points
        if point.client_limited
    ]
    return notes
