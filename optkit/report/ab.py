"""Two running variants, compared: for a terminal."""

from rich.table import Table
from rich.text import Text

from optkit.api.ab import AbRecord, difference
from optkit.report.measured import STYLES, interval_text
from optkit.report.numbers import ms_text
from optkit.report.table import plain_table


def ab_tables(record: AbRecord) -> list[Table]:
    """Return the latencies of both, and what they say."""
    columns = (">p50 ms", ">p90 ms", ">p99 ms", ">mean ms", ">calls", ">connect ms", ">first ms")
    table = plain_table("latency", "", *columns)
    for name, found in (("a", record.a), ("b", record.b)):
        times = found.latencies
        shown = ("" if t is None else ms_text(t) for t in (times.p50_ms, times.p90_ms, times.p99_ms, times.mean_ms))
        table.add_row(name, *shown, str(times.calls), ms_text(found.connect_ms), ms_text(found.first_call_ms))
    s = record.speed_up
    verdict = plain_table("how many times faster b is", ">speed-up", "95 %", "distribution-free", "verdict")
    spans = (interval_text(s.low, s.high), interval_text(s.free_low, s.free_high))
    verdict.add_row(f"{s.ratio:.3f}x", *spans, Text(s.verdict_text, "yellow" if s.busy else STYLES[s.verdict]))
    return [table, verdict]


def ab_notes(record: AbRecord) -> str:
    """Return what was compared, whether the answers agree, and why it stopped."""
    asked = "1 request" if record.requests == 1 else f"{record.requests} requests"
    largest = max((output.max_abs or 0.0 for output in record.answers), default=0.0)
    differs = difference(record.answers)
    answered = f"they differ: {differs}" if differs else f"the same within {record.tolerance}, max abs {largest:.3g}"
    load = "" if record.load_before is None else f", a load of {record.load_before:.1f} before"
    lines = [
        f"a: {record.a.url}",
        f"b: {record.b.url}",
        f"answers to {asked} ({record.values}): {answered}",
        f"asked from {record.machine.cpu}{load}; latencies hold the network and the server's queue",
        f"{len(record.order)} blocks in random order (seed {record.settings.seed}): {record.speed_up.stopped}",
    ]
    if record.interrupted:
        lines.append("interrupted: these are the blocks that were whole")
    return "\n".join(lines)
