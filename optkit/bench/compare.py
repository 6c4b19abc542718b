"""The benchmark: several artifacts at several batch sizes, measured in alternating rounds."""

import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from optkit.artifact import Artifact
from optkit.bench.machine import usable_cores
from optkit.bench.statistics import intervals, percentile, verdict
from optkit.bench.timing import StopRule, time_calls
from optkit.data import Samples
from optkit.errors import FeedError
from optkit.findings import Measurement, SpeedUp, Stopped
from optkit.progress import track
from optkit.runners import Device, open_runner
from optkit.tensors import batch_dim


class BenchSettings(StopRule):
    """What is measured, and how long; the `bench` key of a recipe."""

    batches: tuple[int, ...] = Field(default=(), description="none: min, opt and max of the batch dimension")
    rounds: int = Field(default=3, ge=1)
    threads: int | None = Field(default=None, ge=1)  # of each runtime; None takes every usable core
    device: Device = Device.CPU


def measure(artifacts: Mapping[str, Artifact], samples: Samples, settings: BenchSettings) -> list[Measurement]:
    """Measure every artifact at every batch size.

    A round measures each artifact once, freshly loaded, one after the other; the next round starts with another one, so that a
    slow moment of the machine does not always meet the same. Copies between host and device are not included.

    Args:
        artifacts: name -> artifact; all of one contract.
        samples: where the values come from.
        settings: batch sizes, rounds, threads, device and stop rule.

    Raises:
        FeedError: a batch size lies outside the declared range.
        RunnerError: an artifact cannot be loaded or run on the device.
    """
    names = list(artifacts)
    points = bench_points(next(iter(artifacts.values())), settings.batches)
    threads = settings.threads or usable_cores()
    times: dict[tuple[str, int], list[tuple[float, ...]]] = {(n, i): [] for n in names for i in range(len(points))}
    providers: dict[str, str] = {}
    turns = [(r, names[(r + i) % len(names)]) for r in range(settings.rounds) for i in range(len(names))]
    for _, name in track(turns, "bench", len(turns)):
        with open_runner(artifacts[name], settings.device, threads) as runner:
            providers[name] = runner.provider
            for i, sizes in enumerate(points):
                times[name, i].append(time_calls(runner.bind(samples.at(sizes)), settings))
    return [
        _measurement(name, artifacts[name], points[i], settings, threads, providers[name], times[name, i])
        for i in range(len(points))
        for name in names
    ]


def bench_points(artifact: Artifact, batches: Sequence[int]) -> list[dict[str, int]]:
    """Return the sizes to measure at: each batch size, the other dimensions at opt.

    Raises:
        FeedError: a batch size outside the declared range, or batch sizes for a model without a batch dimension.
    """
    opt = {name: r.opt for name, r in artifact.dims.items()}
    dim = batch_dim(artifact.inputs)
    if dim is None or dim not in artifact.dims:
        if set(batches) - {1}:
            raise FeedError(
                f"bench: batch sizes {', '.join(map(str, batches))} for a model whose inputs share no batch dimension"
            )
        return [opt]
    r = artifact.dims[dim]
    outside = [batch for batch in batches if not r.min <= batch <= r.max]
    if outside:
        raise FeedError(f"bench: batch {', '.join(map(str, outside))}; {dim!r} is declared from {r.min} to {r.max}")
    return [opt | {dim: batch} for batch in batches or sorted({r.min, r.opt, r.max})]


def _measurement(
    name: str,
    artifact: Artifact,
    sizes: Mapping[str, int],
    settings: BenchSettings,
    threads: int,
    provider: str,
    rounds: Sequence[tuple[float, ...]],
) -> Measurement:
    every = np.concatenate([np.asarray(times) for times in rounds])  # (calls,) ms
    batch = sizes.get(batch_dim(artifact.inputs) or "", 1)
    return Measurement(
        artifact=name,
        precision=str(artifact.precision),
        device=settings.device,
        provider=provider,
        threads=threads,
        affinity=tuple(sorted(os.sched_getaffinity(0))) if sys.platform == "linux" else None,
        batch=batch,
        sizes=dict(sizes),
        includes_copies=False,
        cuda_graph=False,
        load_ms=None,
        first_call_ms=None,
        calls=len(every),
        dropped_calls=settings.warmup_calls * len(rounds),
        blocks_p50_ms=tuple(statistics.median(times) for times in rounds),
        times_ms=tuple(rounds),
        p50_ms=float(np.median(every)),
        p90_ms=percentile(every, 90),
        p95_ms=percentile(every, 95),
        p99_ms=percentile(every, 99),
        mean_ms=float(every.mean()),
        min_ms=float(every.min()),
        samples_per_s=float(batch * 1000 / every.mean()),
    )


def speed_ups(measurements: Sequence[Measurement], reference: str) -> list[SpeedUp]:
    """Return the speed-up of every artifact over the reference at each batch size."""
    found = []
    by_batch = {m.batch: m for m in measurements if m.artifact == reference}
    for m in measurements:
        base = by_batch.get(m.batch)
        if base is None or m.artifact == reference:
            continue
        logs = [math.log(a / b) for a, b in zip(base.blocks_p50_ms, m.blocks_p50_ms, strict=True)]
        known = intervals(logs)
        found.append(
            SpeedUp(
                reference=reference,
                candidate=m.artifact,
                batch=m.batch,
                ratio=known.ratio,
                low=known.low,
                high=known.high,
                free_low=known.free_low,
                free_high=known.free_high,
                verdict=verdict(known, 0.02),
                blocks=len(logs),
                stopped=Stopped.BLOCKS,
            )
        )
    return found
