"""Measurements and speed-ups with numbers of one's own, for the tests of what is done with them."""

import math
import statistics
from collections.abc import Sequence

from optkit.artifact.findings import Measurement, SpeedUp, Stopped
from optkit.benchmark.statistics import intervals, percentile, verdict


def measurement(name: str, *blocks: Sequence[float], batch: int = 1) -> Measurement:
    """Return the measurement that these times of each block, in ms, would give."""
    import numpy as np

    every = np.array([time for times in blocks for time in times])
    return Measurement(
        artifact=name, precision="fp32", device="cpu", provider="fake", threads=1, affinity=(0,), batch=batch,
        sizes={"batch": batch}, includes_copies=False, cuda_graph=False, load_ms=1.0, first_call_ms=1.0, calls=len(every),
        dropped_calls=0, blocks_p50_ms=tuple(statistics.median(times) for times in blocks),
        times_ms=tuple(map(tuple, blocks)), p50_ms=float(np.median(every)), p90_ms=percentile(every, 90),
        p95_ms=percentile(every, 95), p99_ms=percentile(every, 99), mean_ms=float(every.mean()), min_ms=float(every.min()),
        samples_per_s=batch * 1000 / float(every.mean()),
    )  # fmt: skip


def speed_up(name: str, *ratios: float, batch: int = 1, reference: str = "source") -> SpeedUp:
    """Return the speed-up that these ratios of the blocks would give."""
    found = intervals([math.log(ratio) for ratio in ratios])
    return SpeedUp(
        reference=reference, candidate=name, batch=batch, ratio=found.ratio, low=found.low, high=found.high,
        free_low=found.free_low, free_high=found.free_high, verdict=verdict(found, 0.02), blocks=len(ratios),
        stopped=Stopped.BLOCKS,
    )  # fmt: skip
