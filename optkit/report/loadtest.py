"""The record of a load test as a table and text."""

from typing import TYPE_CHECKING

from rich.table import Table

from optkit.report.numbers import ms_text
from optkit.report.table import plain_table

if TYPE_CHECKING:
    from optkit.loadtest import Advice, LoadPoint, LoadRecord


def loadtest_table(record: "LoadRecord") -> Table:
    """Return one row for each load."""
    title = f"{record.model} at {record.url}"
    table = plain_table(
        title, "load", ">sent", ">failed", ">samples/s", ">p50 ms", ">p90 ms", ">p99 ms", ">batch", ">queue ms"
    )
    for point in record.points:
        table.add_row(
            f"{point.concurrency} callers" if point.concurrency else f"{point.rate_per_s:g}/s",
            f"{point.sent}",
            f"{point.failed}" if point.failed else "",
            f"{point.samples_per_s:,.0f}",
            *("" if ms is None else ms_text(ms) for ms in (point.p50_ms, point.p90_ms, point.p99_ms)),
            f"{point.server.mean_batch:.2f}" if point.server else "",
            ms_text(point.server.queue_ms) if point.server else "",
        )
    return table


def loadtest_text(record: "LoadRecord") -> str:
    """Return the lines below the table: batches, knees, requests, the load generator and notes."""
    tool = "optkit's client" if record.tool == "asyncio" else record.tool
    lines = [f"batches at {point.load}: {_batches(point)}" for point in record.points if point.server]
    lines += [f"knee: {knee.load}, {knee.rule}" for knee in record.knees]
    lines.append(
        f"requests: batch {record.settings.batch}, data: {record.data}, {record.request_bytes} bytes, sent by {tool} ({record.tool_reason})"
    )
    if any(point.latency_from == "scheduled" for point in record.points):
        lines.append(f"rates: {record.settings.arrivals} arrivals, latencies count from the scheduled time")
    busiest = max((point.client_cpu_share for point in record.points), default=0)
    lines.append(f"client: up to {busiest:.0%} of a core")
    lines += [f"note: {note}" for note in record.notes]
    return "\n".join(lines)


def advice_text(advice: "Advice") -> str:
    """Return the advice, its reasons, and the lines for a recipe and for config.pbtxt."""
    if advice.pays:
        size = advice.preferred_batch_size or "none"
        head = f"advice: preferred_batch_size {size}, max_queue_delay_microseconds {advice.max_queue_delay_us}"
    else:
        head = "advice: dynamic batching does not help this model"
    pasted = [f"  {line}" for line in (*advice.recipe.splitlines(), *advice.config.splitlines())]
    return "\n".join([head, *(f"  reason: {reason}" for reason in advice.reasons), *pasted])


def _batches(point: "LoadPoint") -> str:
    assert point.server
    formed = [
        f"{batch.executions} of batch {batch.size} ({ms_text(batch.execution_ms)} ms)" for batch in point.server.batches
    ]
    return ", ".join(formed) or "none"
