"""A benchmark as tables for a terminal of 80 columns: the measurements, their conditions, and the verdicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from optkit.artifact.findings import Measurement, SpeedUp, Stopped, Verdict
from optkit.report.numbers import ms_text, provider_text
from optkit.report.table import plain_table
from optkit.report.verdict import busy_machine, included, parts_on_cpu

if TYPE_CHECKING:
    from optkit.benchmark.bench_record import BenchRecord, SelfTestRecord

STYLES = {Verdict.FASTER: "green", Verdict.SLOWER: "red", Verdict.TOO_NOISY: "yellow", Verdict.NO_DIFFERENCE: ""}


def bench_tables(record: "BenchRecord") -> list[Table]:
    """Return the latencies at each batch size, the comparisons, the conditions, and the throughput of several callers."""
    batches = sorted({m.batch for m in record.measurements})
    tables = [_latencies(batch, [m for m in record.measurements if m.batch == batch]) for batch in batches]
    if record.speed_ups:
        tables.append(_comparisons(record.speed_ups))
    tables.append(_included(record.measurements))
    tables += [_gpu(record.measurements)] if any(m.gpu or m.parts for m in record.measurements) else []
    return [*tables, *([_concurrency(record)] if record.concurrency else [])]


def bench_notes(record: "BenchRecord") -> list[str]:
    """Return how the benchmark measured, why it stopped, and the warnings on its results."""
    first = record.measurements[0]
    where = record.machine.cpu if first.device == "cpu" else record.machine.gpu
    cores = f" (processors {_ranges(first.affinity)})" if first.affinity else ""
    load = "" if record.load_before is None else f", load average {record.load_before:.1f} at the start"
    governor = f", governor {record.machine.governor}" if record.machine.governor else ""
    lines = [
        f"measured: {where}, {included(first)}, after warmup{cores}{governor}{load}",
        f"{len(record.order)} blocks in random order (seed {record.settings.seed}), each model loaded again for every block",
    ]
    lines += [f"{reason}: {_of(record, reason)}" for reason in dict.fromkeys(s.stopped for s in record.speed_ups)]
    lines += [f"{knee.artifact}: knee at batch {knee.batch}, {knee.rule}" for knee in record.knees]
    lines += parts_on_cpu(record)
    lines += [f"not run: {missing.artifact}: {missing.reason}" for missing in record.not_run]
    if record.interrupted:
        lines.append("interrupted: the numbers are those of the complete blocks")
    return ["\n".join([*lines, *busy_machine(record)])]


def self_test_table(record: "SelfTestRecord") -> Table:
    """Return how often the comparison of a model with itself gave the correct result."""
    found = record.found
    table = plain_table(
        f"{record.artifact} against a copy of itself, {len(found.trials)} comparisons", "", "found", "expected"
    )
    coverage = f"{found.coverage:.0%} ({found.coverage_low:.0%}-{found.coverage_high:.0%})"
    table.add_row("95 % interval contains 1", Text(coverage, "green" if found.passed else "red"), "95 %")
    free = "too few blocks" if found.free_coverage is None else f"{found.free_coverage:.0%}"
    table.add_row("distribution-free interval contains 1", free, "at least 95 %")
    table.add_row("verdict faster or slower", f"{found.false_verdicts:.0%}", "5 %")
    table.add_row("sd of the log ratio", "" if found.sd_log_ratio is None else f"{found.sd_log_ratio:.4f}", "")
    return table


def _latencies(batch: int, measured: Sequence[Measurement]) -> Table:
    columns = (">p50 ms", ">p90 ms", ">p95 ms", ">p99 ms", ">mean ms", ">min ms", ">samples/s")
    table = plain_table(f"batch {batch}", "artifact", *columns)
    for m in measured:
        times = (m.p50_ms, m.p90_ms, m.p95_ms, m.p99_ms, m.mean_ms, m.min_ms)
        table.add_row(m.artifact, *("" if t is None else ms_text(t) for t in times), f"{m.samples_per_s:,.0f}")
    return table


def _comparisons(speed_ups: Sequence[SpeedUp]) -> Table:
    title = f"speed-up over {speed_ups[0].reference}"
    table = plain_table(title, "artifact", ">batch", ">speed-up", "95 %", "distribution-free", "verdict")
    for s in speed_ups:
        ratio, t, free = f"{s.ratio:.3f}x", interval_text(s.low, s.high), interval_text(s.free_low, s.free_high)
        style = "yellow" if s.busy else STYLES[s.verdict]
        table.add_row(s.candidate, str(s.batch), ratio, t, free, Text(s.verdict_text, style))
    return table


def _included(measured: Sequence[Measurement]) -> Table:
    table = plain_table(
        "conditions",
        "artifact",
        ">batch",
        "ran on",
        "type",
        ">calls",
        ">dropped",
        ">load ms",
        ">first call ms",
    )
    for m in measured:
        cold = ("" if ms is None else ms_text(ms) for ms in (m.load_ms, m.first_call_ms))
        table.add_row(
            m.artifact,
            str(m.batch),
            provider_text(m.provider),
            m.precision or "",
            str(m.calls),
            str(m.dropped_calls),
            *cold,
        )
    return table


def _gpu(measured: Sequence[Measurement]) -> Table:
    """Return the parts of a call on the GPU, and the state of the GPU during the calls."""
    columns = (">enqueue ms", ">copy in ms", ">compute ms", ">copy out ms", ">mJ", ">W", ">C", "throttled")
    table = plain_table("one call on the GPU: its parts overlap; energy per call", "artifact", ">batch", *columns)
    for m in measured:
        parts = m.parts.model_dump().values() if m.parts else (None,) * 4
        gpu = m.gpu
        found = (gpu.energy_mj_per_inference, gpu.mean_power_w, gpu.max_temperature_c) if gpu else (None,) * 3
        table.add_row(
            m.artifact,
            str(m.batch),
            *("" if ms is None else ms_text(ms) for ms in parts),
            *("" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in found),
            gpu.throttled_text if gpu else "",
        )
    return table


def _concurrency(record: "BenchRecord") -> Table:
    streams = ", each on its own CUDA stream" if any(load.streams for load in record.concurrency) else ""
    table = plain_table(
        f"several callers at once{streams}",
        "artifact",
        ">batch",
        ">callers",
        ">p50 ms",
        ">p90 ms",
        ">p95 ms",
        ">p99 ms",
        ">samples/s",
    )
    for load in record.concurrency:
        times = (load.p50_ms, load.p90_ms, load.p95_ms, load.p99_ms)
        shown = ("" if t is None else ms_text(t) for t in times)
        table.add_row(load.artifact, str(load.batch), str(load.callers), *shown, f"{load.samples_per_s:,.0f}")
    return table


def _of(record: "BenchRecord", reason: Stopped) -> str:
    """Return the comparisons that ended for this reason."""
    mine = [s for s in record.speed_ups if s.stopped is reason]
    if len(mine) == len(record.speed_ups):
        return "every comparison"
    return ", ".join(f"{s.candidate} at batch {s.batch}" for s in mine)


def interval_text(low: float | None, high: float | None) -> str:
    """Return both ends, or an empty text if there were too few blocks."""
    return "" if low is None or high is None else f"{low:.3f}-{high:.3f}"


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as ranges, such as 0-3,6."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
