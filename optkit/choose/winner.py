"""Which artifact wins: the fastest of those that passed."""

import math
from collections.abc import Collection, Sequence

from optkit.findings import Measurement, SpeedUp
from optkit.record import Record


class Lost(Record):
    """An artifact that was not kept, and why."""

    artifact: str
    reason: str


class Winner(Record):
    """The artifact that is kept, and why; and why each other one was not."""

    artifact: str
    reason: str
    lost: tuple[Lost, ...] = ()


def fastest(
    measurements: Sequence[Measurement], speed_ups: Sequence[SpeedUp], passed: Collection[str]
) -> Winner | None:
    """Return the artifact with the largest geometric mean of its speed-ups over all batch sizes; None where none passed.

    Args:
        measurements: of all artifacts, at the same batch sizes.
        speed_ups: over one reference.
        passed: the names of those that may win.
    """
    means = {name: _mean(speed_ups, name) for name in passed if any(m.artifact == name for m in measurements)}
    if not means:
        return None
    best, *others = sorted(means, key=lambda name: -means[name])
    batches = sorted({m.batch for m in measurements})
    over = f"batch {', '.join(map(str, batches))}"
    reference = speed_ups[0].reference if speed_ups else ""
    reason = f"the fastest of {len(means)} that passed every gate: {means[best]:.2f}x {reference} (geometric mean over {over})"
    if others:
        reason += f"; next is {others[0]} with {means[others[0]]:.2f}x"
    return Winner(artifact=best, reason=reason)


def _mean(speed_ups: Sequence[SpeedUp], name: str) -> float:
    ratios = [s.ratio for s in speed_ups if s.candidate == name]
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios)) if ratios else 1.0
