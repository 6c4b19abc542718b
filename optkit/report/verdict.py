"""The verdict of a run in one sentence, and the conditions of its measurements."""

import math
from typing import TYPE_CHECKING

from optkit.artifact.findings import Measurement
from optkit.messages import count
from optkit.report.numbers import size_text

if TYPE_CHECKING:
    from optkit.benchmark.bench_record import BenchRecord
    from optkit.pipeline.records import RunRecord


def verdict_sentence(record: "RunRecord") -> str:
    """Return the verdict of a run in one sentence."""
    if record.bench_error:
        return f"There is no winner, because the benchmark failed: {record.bench_error}"
    made = [step for step in record.steps if step.made]
    if record.bench is None:
        return f"{len(made)} of {len(record.steps)} artifacts were made; this run has no benchmark."
    if record.winner is None:
        return "No artifact passed every gate, so there is no winner."
    best = next(step for step in (record.source, *record.steps) if step.name == record.winner.artifact)
    ups = [s for s in record.bench.speed_ups if s.candidate == best.name]
    parts = []
    if ups:
        mean = math.exp(sum(math.log(s.ratio) for s in ups) / len(ups))
        batches = ", ".join(str(s.batch) for s in ups)
        noisy = "" if all(s.low is not None for s in ups) else "; too few blocks for an interval"
        parts.append(f"runs {mean:.2f}x as fast as {ups[0].reference} (mean over batch {batches}{noisy})")
    if best.accuracy and record.source.accuracy:
        change = best.accuracy.value - record.source.accuracy.value
        parts.append("keeps its accuracy" if change == 0 else f"changes the accuracy by {change:+.4f}")
    if best.size_bytes is not None and best.parent:
        parts.append(f"takes {size_text(best.size_bytes)}")
    listed = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else "won"
    if record.failures:
        return f"The run failed. The best artifact that passed every gate is {best.name}: it {listed}."
    if record.bench.busy:
        return f"{best.name} wins, but the machine was busy during the measurement: it {listed}. It passed every gate."
    return f"{best.name} wins: it {listed}, and passed every gate."


def included(m: Measurement) -> str:
    """Return the conditions of a latency: threads, copies, and whether a CUDA graph was replayed."""
    copies = "with" if m.includes_copies else "without"
    graph = "" if m.device == "cpu" else ", replayed from a CUDA graph" if m.cuda_graph else ", without a CUDA graph"
    stream = "" if m.device == "cpu" else ", one caller on one stream"
    return f"{count(m.threads, 'thread')}, {copies} copies between host and device{graph}{stream}"


def conditions(record: "RunRecord") -> str:
    """Return the conditions of the latencies and the machine."""
    bench = record.bench
    if bench is None or not bench.measurements:
        return ""
    first = bench.measurements[0]
    where = bench.machine.cpu if first.device == "cpu" else bench.machine.gpu
    text = f"Measured on {where} with {included(first)}, after warmup."
    if record.bench_reused:
        text += " The measurements are from an earlier run of the same artifacts on this machine."
    return text


def parts_on_cpu(bench: "BenchRecord") -> list[str]:
    """Return a line for each artifact of which parts ran on the CPU although the device was a GPU."""
    found = dict.fromkeys((m.artifact, m.on_cpu_text) for m in bench.measurements if m.on_cpu)
    return [f"{artifact}: {text}" for artifact, text in found]


def busy_machine(bench: "BenchRecord") -> list[str]:
    """Return a warning if other processes competed for the CPU, or the number of blocks that were repeated for this reason."""
    load = (
        ""
        if bench.load_before is None
        else f" (load average {bench.load_before:.1f} on {bench.machine.cores} cores at the start)"
    )
    if not bench.busy:
        repeated = f"{count(bench.left_out, 'block')} measured again, because the machine was busy{load}"
        return [repeated] if bench.left_out else []
    if not bench.cpu_contended_blocks:
        return [f"measured while the machine was busy{load}; measure again on a quiet machine"]
    worst = max(
        (m for m in bench.measurements if any(m.cpu_contended)), key=lambda m: max(s or 0 for s in m.blocks_waited)
    )
    waited = max(share or 0 for share in worst.blocks_waited)
    return [
        f"measured while the machine was busy: in {bench.cpu_contended_blocks} of {count(len(bench.order), 'block')} other "
        f"processes competed for the CPU, and {worst.artifact} waited for up to {waited:.0%} of the time that it was ready to run{load}. "
        "Speed-ups marked * may be very different on a quiet machine, most of all with several threads; measure again on a quiet machine"
    ]
