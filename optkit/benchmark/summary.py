"""The records of a benchmark from its blocks: one measurement per artifact and batch size, one speed-up per comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import CallParts, Knee, Latencies, Measurement, SpeedUp, Stopped
from optkit.artifact.tensors import batch_dim
from optkit.benchmark.gpu import conditions
from optkit.benchmark.machine import affinity
from optkit.benchmark.settings import BenchSettings
from optkit.benchmark.statistics import Intervals, intervals, percentile, verdict
from optkit.benchmark.timing import Block
from optkit.runners.base import Placement

KEPT_CALLS = 200  # of each block in the record; percentiles use all calls
KNEE = 0.9


@dataclass(frozen=True)
class Turn:
    """The results of one session of one artifact: its start, and a block for each point."""

    provider: str
    load_ms: float
    first_call_ms: float
    blocks: tuple[Block, ...]
    parts: tuple[CallParts, ...] = ()  # the parts of a call's time for each point; empty where they are not known
    placement: Placement | None = None


def measurement(
    name: str, artifact: Artifact, turns: Sequence[Turn], point: int, sizes: Mapping[str, int], settings: BenchSettings
) -> Measurement:
    """Return the measurement of one artifact at one point, over all its sessions."""
    blocks = [turn.blocks[point] for turn in turns]
    found = latencies(blocks)
    placed = turns[0].placement
    batch = sizes.get(batch_dim(artifact.inputs) or "", 1)
    shared = artifact.format is Format.PYTORCH  # built once a process, so a session loads nothing
    return Measurement(
        artifact=name,
        precision=str(artifact.precision),
        device=settings.device,
        provider=turns[0].provider,
        threads=settings.threads_used,
        affinity=affinity(),
        batch=batch,
        sizes=dict(sizes),
        includes_copies=False,
        cuda_graph=settings.cuda_graph,
        load_ms=None if shared else float(np.median([turn.load_ms for turn in turns])),
        first_call_ms=float(np.median([turn.first_call_ms for turn in turns])),
        samples_per_s=float(batch * 1000 / found.mean_ms),
        gpu=conditions(blocks),
        parts=_median_parts([turn.parts[point] for turn in turns if turn.parts]),
        on_cpu=placed.on_cpu if placed else {},
        nodes=placed.nodes if placed else None,
        **dict(found),
    )


def latencies(blocks: Sequence[Block]) -> Latencies:
    """Return the statistics of all calls of the blocks."""
    every = np.concatenate([block.times_ms for block in blocks])  # (calls,) ms
    return Latencies(
        calls=len(every),
        dropped_calls=sum(block.dropped_calls + block.throttled_calls * (not block.all_throttled) for block in blocks),
        blocks_p50_ms=tuple(block.p50_ms for block in blocks),
        blocks_waited=tuple(block.waited for block in blocks),
        times_ms=tuple(_thinned(block.times_ms) for block in blocks),
        p50_ms=float(np.median(every)),
        p90_ms=percentile(every, 90),
        p95_ms=percentile(every, 95),
        p99_ms=percentile(every, 99),
        mean_ms=float(every.mean()),
        min_ms=float(every.min()),
    )


def _median_parts(parts: Sequence[CallParts]) -> CallParts | None:
    if not parts:
        return None
    return CallParts(
        **{name: float(np.median([getattr(part, name) for part in parts])) for name in CallParts.model_fields}
    )


def speed_up(reference: Measurement, candidate: Measurement, settings: BenchSettings, stopped: Stopped) -> SpeedUp:
    """Return the comparison of two artifacts measured in the same blocks."""
    return compared(
        (reference.artifact, candidate.artifact), candidate.batch, (reference, candidate), settings, stopped
    )


def compared(
    names: tuple[str, str], batch: int, times: tuple[Latencies, Latencies], settings: BenchSettings, stopped: Stopped
) -> SpeedUp:
    """Return the comparison of two candidates of the same blocks, the reference first."""
    medians = zip(times[0].blocks_p50_ms, times[1].blocks_p50_ms, strict=True)
    found = intervals([math.log(theirs / mine) for theirs, mine in medians])
    return SpeedUp(
        reference=names[0],
        candidate=names[1],
        batch=batch,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        free_low=found.free_low,
        free_high=found.free_high,
        verdict=verdict(found, settings.equal_within),
        blocks=len(times[0].blocks_p50_ms),
        cpu_contended_blocks=sum(a or b for a, b in zip(times[0].cpu_contended, times[1].cpu_contended, strict=True)),
        stopped=Stopped.PRECISE if stopped is not Stopped.INTERRUPTED and is_precise(found, settings) else stopped,
    )


def is_precise(found: Intervals, settings: BenchSettings) -> bool:
    """Whether an interval is narrow enough."""
    return found.low is not None and not math.log(found.ratio / found.low) > settings.half_width


def knees(measurements: Sequence[Measurement]) -> list[Knee]:
    """Return for each artifact the smallest batch that reaches 90 % of its largest throughput; none below three batch sizes.

    The throughput is that of the median call, because a mean includes the effect of other processes, which differs between batch sizes.
    """
    found = []
    for name in dict.fromkeys(m.artifact for m in measurements):
        rates = {m.batch: m.batch * 1000 / m.p50_ms for m in measurements if m.artifact == name}
        if len(rates) < 3:
            continue
        best = max(rates.values())
        knee = min(batch for batch, rate in rates.items() if rate >= KNEE * best)
        rule = (
            f"the smallest batch with at least {KNEE:.0%} of the largest throughput, {best:,.0f} samples/s by medians"
        )
        found.append(Knee(artifact=name, batch=knee, samples_per_s=rates[knee], rule=rule))
    return found


def _thinned(times_ms: np.ndarray) -> tuple[float, ...]:
    """Return at most `KEPT_CALLS` of the times, evenly spread over the block."""
    index = np.unique(np.linspace(0, len(times_ms) - 1, min(len(times_ms), KEPT_CALLS)).round().astype(int))
    return tuple(float(time) for time in times_ms[index])
