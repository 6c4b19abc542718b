"""Compare two runs: changes of latency, throughput, size, accuracy and parity, and the gates that fail.

A gate on a time fails only when the whole interval is beyond the limit. When the limit is inside the interval, the gate is undecided, and
the report has a warning.
"""

import math
import statistics
from collections.abc import Iterator, Sequence

from optkit.artifact.findings import Measurement
from optkit.artifact.limits import at_most, fell_at_most
from optkit.benchmark.changes import Comparison, Limits, Metric, MetricChange, Trend
from optkit.benchmark.sessions import BETWEEN_RUNS, BETWEEN_RUNS_ANCHORED, Change, change, paired
from optkit.errors import ArtifactError
from optkit.pipeline.baseline import Snapshot, Variant, check_comparable, differing_versions

_EQUAL_WITHIN = 0.01  # share of a time: an interval inside +-1 % means no change


def compare(
    old: Snapshot, new: Snapshot, limits: Limits, *, across_machines: bool = False, together: bool = False
) -> Comparison:
    """Compare two runs by the names of their artifacts.

    Args:
        old: the baseline.
        new: the run that is compared with it.
        limits: the gates.
        across_machines: allow different machines.
        together: both were measured in one benchmark, in the same blocks, so there is no spread between two runs.

    Raises:
        ArtifactError: the two cannot be compared: different models or machines, no measurement, or no artifact in both.
    """
    differing = check_comparable(old, new.recipe, new.contract, new.machine, across_machines=across_machines)
    if not set(old.variants) & set(new.variants):
        names = ", ".join(old.variants), ", ".join(new.variants)
        raise ArtifactError(f"{old.path}: no artifact is in both runs: {names[0]} before, {names[1]} now")
    anchors = () if together else _unchanged(old, new)
    changes: list[MetricChange] = []
    for name in old.variants:
        if name in new.variants:
            changes += _of_one(old.variants[name], new.variants[name], limits)
            changes += _times(old, new, name, anchors, limits, together)
    return Comparison(
        old=str(old.path),
        new=str(new.path),
        recipe=new.recipe,
        method=_method(anchors, together),
        limits=limits,
        changes=tuple(changes),
        only_old=tuple(name for name in old.variants if name not in new.variants),
        only_new=tuple(name for name in new.variants if name not in old.variants),
        differing=(*differing, *differing_versions(old, new)),
    )


def _unchanged(old: Snapshot, new: Snapshot) -> tuple[str, ...]:
    """Return the artifacts that both runs measured and whose files are identical."""
    return tuple(
        name
        for name, variant in old.variants.items()
        if name in new.variants and variant.sha256 and variant.sha256 == new.variants[name].sha256
        if old.measured(name) and new.measured(name)
    )


def _method(anchors: Sequence[str], together: bool) -> str:
    if together:
        return "the baseline's files were measured again, in the same blocks as the new ones"
    if anchors:
        return (
            f"two stored runs; times are relative to unchanged files of the same runtime ({', '.join(anchors)}) with "
            f"{BETWEEN_RUNS_ANCHORED:.0%} spread between runs, otherwise {BETWEEN_RUNS:.0%}"
        )
    return (
        f"two stored runs that share no file, with {BETWEEN_RUNS:.0%} spread between runs. "
        "Measuring both together gives narrower intervals: keep the baseline's files where they were measured"
    )


def _of_one(old: Variant, new: Variant, limits: Limits) -> Iterator[MetricChange]:
    """Yield the changes that have no noise: availability, parity, accuracy and size."""
    if old.missing is None and new.missing is not None:
        failure = f"was measured before; now: {new.missing}" if limits.max_regression is not None else None
        yield MetricChange(
            artifact=new.name,
            metric=Metric.AVAILABLE,
            old=1,
            new=0,
            worse_by=None,
            verdict=Trend.WORSE,
            failure=failure,
        )
        return
    if old.parity is not None and new.parity is not None:
        worse = old.parity and not new.parity
        yield MetricChange(
            artifact=new.name,
            metric=Metric.PARITY,
            old=float(old.parity),
            new=float(new.parity),
            worse_by=float(old.parity) - float(new.parity),
            verdict=_exact(float(old.parity) - float(new.parity)),
            failure=f"parity: passed before, now {new.parity_failure}" if worse else None,
        )
    if old.accuracy is not None and new.accuracy is not None:
        yield _accuracy(new.name, old.accuracy, new.accuracy, limits)
    if old.size_bytes and new.size_bytes:
        yield _size(new.name, old.size_bytes, new.size_bytes, limits)


def _accuracy(name: str, old: float, new: float, limits: Limits) -> MetricChange:
    drop, allowed = old - new, limits.max_accuracy_drop
    failure = None
    if allowed is not None and not fell_at_most(old, new, allowed):
        failure = f"accuracy: {new:.4f}, {drop:.4f} below {old:.4f}; at most {allowed:g} is allowed"
    return MetricChange(
        artifact=name, metric=Metric.ACCURACY, old=old, new=new, worse_by=drop, verdict=_exact(drop), failure=failure
    )


def _size(name: str, old: int, new: int, limits: Limits) -> MetricChange:
    growth, allowed = new / old - 1, limits.max_regression
    failure = None
    if allowed is not None and not at_most(growth, allowed):
        failure = f"size: {growth:.1%} larger than before; at most {allowed:.1%} is allowed"
    return MetricChange(
        artifact=name, metric=Metric.SIZE, old=old, new=new, worse_by=growth, verdict=_exact(growth), failure=failure
    )


def _exact(worse_by: float) -> Trend:
    return Trend.WORSE if worse_by > 0 else Trend.BETTER if worse_by < 0 else Trend.SAME


def _times(
    old: Snapshot, new: Snapshot, name: str, anchors: Sequence[str], limits: Limits, together: bool
) -> Iterator[MetricChange]:
    """Yield latency and throughput at every batch size that both runs measured."""
    was, now = old.measured(name), new.measured(name)
    others = [anchor for anchor in anchors if anchor != name and _runtime(old, anchor) == _runtime(old, name)]
    doubt = None if together else _doubt(old, new, name)
    for batch in sorted(set(was) & set(now)):
        for metric in (Metric.LATENCY, Metric.THROUGHPUT):
            values = [m.p50_ms if metric is Metric.LATENCY else m.samples_per_s for m in (was[batch], now[batch])]
            if together:
                found = paired(_logs(metric, was[batch]), _logs(metric, now[batch]))
            else:
                logs = [_anchored(metric, run, name, others, batch) for run in (old, new)]
                found = change(logs[0], logs[1], BETWEEN_RUNS_ANCHORED if others else BETWEEN_RUNS)
            yield _time(name, metric, batch, values, found, limits, doubt)


def _doubt(old: Snapshot, new: Snapshot, name: str) -> str | None:
    """Return why the times of two stored runs cannot decide a gate, even if their interval does; None if they can."""
    if old.busy or new.busy:
        return "the machine was busy"
    if old.variants[name].sha256 == new.variants[name].sha256 and dict(old.versions) == dict(new.versions):
        return "the file and the libraries are the same, so the machine must have changed"
    return None


def _runtime(run: Snapshot, name: str) -> str | None:
    """Return the runtime of an artifact. Other load on the CPU affects each runtime differently, so an anchor has the same one."""
    return next((m.provider for m in run.measurements if m.artifact == name), None)


def _anchored(metric: Metric, run: Snapshot, name: str, anchors: Sequence[str], batch: int) -> list[float]:
    """Return the log of each block's time, relative to the median of the anchors' times in the same block."""
    mine = _logs(metric, run.measured(name)[batch])
    beside = [_logs(metric, found) for anchor in anchors if (found := run.measured(anchor).get(batch))]
    if not beside:
        return mine
    return [x - statistics.median(block) for x, *block in zip(mine, *beside, strict=True)]


def _logs(metric: Metric, measured: Measurement) -> list[float]:
    """Return the log of each block's time per call: the median for latency, the mean for throughput (its inverse)."""
    if metric is Metric.LATENCY:
        return [math.log(ms) for ms in measured.blocks_p50_ms]
    return [math.log(sum(block) / len(block)) for block in measured.times_ms if block]


def _time(
    name: str,
    metric: Metric,
    batch: int,
    values: Sequence[float],
    found: Change | None,
    limits: Limits,
    doubt: str | None,
) -> MetricChange:
    """Return the change of a latency or throughput; a throughput divided by 1.25 is worse by 25 %, as is a latency times 1.25.

    With a `doubt`, the gate is undecided.
    """
    worse_by = values[1] / values[0] - 1 if metric is Metric.LATENCY else values[0] / values[1] - 1
    low = high = None
    if found:
        worse_by, low, high = found.ratio - 1, found.low - 1, found.high - 1
    verdict = _noisy(low, high) if not doubt else Trend.TOO_NOISY
    failure, warning = regression(f"{metric} at batch {batch}", worse_by, low, high, limits.max_regression, doubt)
    return MetricChange(
        artifact=name,
        metric=metric,
        batch=batch,
        old=values[0],
        new=values[1],
        worse_by=worse_by,
        low=low,
        high=high,
        verdict=verdict,
        failure=failure,
        warning=warning,
    )


def regression(
    what: str, worse_by: float, low: float | None, high: float | None, allowed: float | None, doubt: str | None = None
) -> tuple[str | None, str | None]:
    """Return the failure of a gate on a time, and the warning if noise or a doubt leaves the gate undecided.

    Args:
        what: the metric, for the message.
        worse_by: the share by which it became worse.
        low: the lower end of the interval; None if there were too few blocks.
        high: the upper end.
        allowed: the limit; None if there is no gate.
        doubt: why the interval cannot decide the gate.
    """
    if allowed is None or (high is not None and at_most(high, allowed)):
        return None, None
    span = f" (95 %: {low:+.1%} to {high:+.1%})" if low is not None and high is not None else " (too few blocks)"
    text = f"{what}: worse by {worse_by:+.1%}{span}; at most {allowed:.1%} is allowed"
    if low is not None and not at_most(low, allowed) and not doubt:
        return text, None
    if not at_most(worse_by, allowed):
        return None, f"{text}; too noisy to say" + (f", {doubt}" if doubt else "")
    return None, None


def _noisy(low: float | None, high: float | None) -> Trend:
    if low is None or high is None:
        return Trend.TOO_NOISY
    if low > 0:
        return Trend.WORSE
    if high < 0:
        return Trend.BETTER
    return Trend.SAME if low >= -_EQUAL_WITHIN and high <= _EQUAL_WITHIN else Trend.TOO_NOISY
