"""The comparison of two running servers, for a terminal."""

from rich.table import Table
from rich.text import Text

from optkit.api.ab import AbRecord, difference
from optkit.report.measured import STYLES, interval_text
from optkit.report.numbers import ms_text
from optkit.report.table import plain_table


def ab_tables(record: AbRecord) -> list[Table]:
    """Return the latencies of both, and the speed-up with its verdict."""
    columns = (">p50 ms", ">p90 ms", ">p99 ms", ">mean ms", ">calls", ">connect ms", ">first ms")
    table = plain_table("latency", "", *columns)
    for name, found in (("a", record.a), ("b", record.b)):
        times = found.latencies
        shown = ("" if t is None else ms_text(t) for t in (times.p50_ms, times.p90_ms, times.p99_ms, times.mean_ms))
        table.add_row(name, *shown, str(times.calls), ms_text(found.connect_ms), ms_text(found.first_call_ms))
    s = record.speed_up
    verdict = plain_table("speed-up of b over a", ">speed-up", "95 %", "distribution-free", "verdict")
    spans = (interval_text(s.low, s.high), interval_text(s.free_low, s.free_high))
    verdict.add_row(f"{s.ratio:.3f}x", *spans, Text(s.verdict_text, "yellow" if s.busy else STYLES[s.verdict]))
    return [table, verdict]


def ab_notes(record: AbRecord) -> str:
    """Return the URLs, whether the outputs agree, the conditions, and why the measurement stopped."""
    requests = "1 request" if record.requests == 1 else f"{record.requests} requests"
    largest = max((output.max_abs or 0.0 for output in record.answers), default=0.0)
    differs = difference(record.answers)
    outputs = f"different: {differs}" if differs else f"equal within {record.tolerance}, max abs {largest:.3g}"
    load = "" if record.load_before is None else f", load average {record.load_before:.1f} at the start"
    lines = [
        f"a: {record.a.url}",
        f"b: {record.b.url}",
        f"outputs for {requests} ({record.values}): {outputs}",
        f"client: {record.machine.cpu}{load}; latencies include the network and the server's queue",
        f"{len(record.order)} blocks in random order (seed {record.settings.seed}): {record.speed_up.stopped}",
    ]
    if record.interrupted:
        lines.append("interrupted: the numbers are those of the complete blocks")
    return "\n".join(lines)
