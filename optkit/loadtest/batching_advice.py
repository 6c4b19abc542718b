"""Settings of Triton's dynamic batcher, derived from what its executions took at each size of batch.

An execution of b samples takes s(b), so one instance can do b / s(b) samples a second. Where that grows with b, batching pays. What comes
while an execution is under way goes together after it: so batches grow by themselves until b / s(b) keeps up with the arrivals, nobody waits
at an idle instance, and no delay is advised. A preferred size is, where larger batches that form are slower again.

With a limit on latency, waiting up to it buys fewer executions. The preferred size is then the smallest with 90 % of the largest rate, and
a request may wait as long as such a batch takes to fill at the rate of arrivals, (b - 1) / rate, and no longer than the limit leaves after
two executions, the one that may be under way and its own. NVIDIA's own process
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/batcher.html) likewise begins with no delay and no
preferred size, and raises the delay while the latency allows.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from optkit.benchmark.summary import KNEE
from optkit.errors import RecipeError
from optkit.loadtest.record import Advice, FormedBatch, LoadRecord

_MIN_EXECUTIONS = 10  # of one size, below which its mean is left out
_WORTH = 1.1  # times the samples a second of lone ones
_WORTH_AS_A_WHOLE = 1.05  # times the throughput of the server without batching
_OFF = "serve:\n  - target: triton\n    batching: false"


@dataclasses.dataclass(frozen=True)
class Found:
    """What was measured, in ms and samples a second."""

    curve: tuple[FormedBatch, ...]  # ascending sizes, from the smallest request on
    arrivals_per_s: float
    arrivals_are: str
    max_latency_ms: float | None
    as_a_whole: float | None  # throughput with batching over that without

    def rate(self, size: int) -> float:
        """Samples a second of one instance at a size of batch."""
        return size * 1000 / self.time_ms(size)

    def time_ms(self, size: int) -> float:
        """What an execution of a size took."""
        return next(one.execution_ms for one in self.curve if one.size == size)


def advise(
    records: Sequence[LoadRecord], *, max_latency_ms: float | None = None, arrivals_per_s: float | None = None
) -> Advice:
    """Return what the measurements of one model say about dynamic batching.

    Args:
        records: load tests of the model, with dynamic batching and, better, without it too.
        max_latency_ms: what a request may take on the server.
        arrivals_per_s: the samples a second that are expected; None takes the throughput at the knee of the test with batching.

    Raises:
        RecipeError: none of them is of a Triton model with dynamic batching, or they cannot be compared.
    """
    batched, plain = _sorted(records)
    curve = curve_of(records)
    if len(curve) < 2:
        raise RecipeError(
            f"{batched.url}: model {batched.model!r} formed no two sizes of batch often enough to compare; expected at least "
            f"{_MIN_EXECUTIONS} executions of each. Raise --concurrency or --duration-s."
        )
    rate, what = arrivals_per_s, "as given"
    if rate is None:
        rate, what = _usual_rate(batched)
    found = Found(curve, rate, what, max_latency_ms, _as_a_whole(batched, plain))
    return _judge(found)


def curve_of(records: Sequence[LoadRecord]) -> tuple[FormedBatch, ...]:
    """Return the mean time of an execution at each size of batch, over all points of all records."""
    sums: dict[int, tuple[int, float]] = {}
    servers = [point.server for record in records for point in record.points if point.server]
    for batch in (batch for server in servers for batch in server.batches):
        executions, ms = sums.get(batch.size, (0, 0.0))
        sums[batch.size] = executions + batch.executions, ms + batch.executions * batch.execution_ms
    return tuple(
        FormedBatch(size=size, executions=executions, execution_ms=ms / executions)
        for size, (executions, ms) in sorted(sums.items())
        if executions >= _MIN_EXECUTIONS
    )


def _judge(found: Found) -> Advice:
    alone = found.curve[0].size
    best = max(found.curve, key=lambda one: found.rate(one.size)).size
    gain = found.rate(best) / found.rate(alone)
    reasons = [
        f"an execution takes {found.time_ms(alone):.3g} ms at {alone} and {found.time_ms(best):.3g} ms at {best}: "
        f"{found.rate(alone):,.0f} and {found.rate(best):,.0f} samples/s of one instance, {gain:.2f}x"
    ]
    if gain < _WORTH:
        return _refused(found, reasons, f"that is less than {_WORTH:g}x: an execution costs what its samples cost")
    if found.as_a_whole is not None:
        reasons.append(f"the server as a whole has {found.as_a_whole:.2f}x the throughput of the one without batching")
        if found.as_a_whole < _WORTH_AS_A_WHOLE:
            return _refused(found, reasons, f"that is less than {_WORTH_AS_A_WHOLE:g}x: something else limits it")
    else:
        reasons.append("not known: what the server as a whole gains; compare with a test of it without batching")
    if found.max_latency_ms is None:
        return _undelayed(found, reasons, best)
    return _delayed(found, reasons, best, found.max_latency_ms)


def _undelayed(found: Found, reasons: list[str], best: int) -> Advice:
    """Return the advice where nobody is to wait: batches are what comes meanwhile."""
    arrivals = f"at {found.arrivals_per_s:,.0f} samples/s ({found.arrivals_are})"
    enough = next((one.size for one in found.curve if found.rate(one.size) >= found.arrivals_per_s), None)
    if enough is None:
        reasons.append(f"{arrivals} no size that formed keeps up in one instance: a queue fills the batches")
    elif enough == found.curve[0].size:
        reasons.append(f"{arrivals} lone executions keep up: batches form in bursts only")
    else:
        reasons.append(f"{arrivals} batches of {enough} keep up, and they form while an execution is under way")
    reasons.append(
        "so no delay: at an idle instance it only adds to the latency (--max-latency-ms N says that requests may wait)"
    )
    largest = found.curve[-1].size
    slower = found.rate(largest) < KNEE * found.rate(best)
    if slower:
        reasons.append(f"{largest} has {found.rate(largest) / found.rate(best):.0%} of the samples/s of {best}")
    return _accepted(found, reasons, best if slower else None, 0)


def _delayed(found: Found, reasons: list[str], best: int, limit_ms: float) -> Advice:
    """Return the advice where a request may take `limit_ms`."""
    allowed_ms = {one.size: limit_ms - 2 * found.time_ms(one.size) for one in found.curve}
    size = _size(found, KNEE * found.rate(best), allowed_ms)
    if size is None:
        smallest = found.curve[1].size
        return _refused(
            found,
            reasons,
            f"two executions at {smallest} take {2 * found.time_ms(smallest):.3g} ms, and {limit_ms:g} ms are allowed",
        )
    return _waiting(found, reasons, size, best, allowed_ms[size])


def _size(found: Found, enough: float, allowed_ms: Mapping[int, float]) -> int | None:
    """Return the smallest size with enough samples a second, or the best that the limit on latency allows and that is worth it."""
    fitting = [one.size for one in found.curve[1:] if allowed_ms[one.size] >= 0]
    worth = [size for size in fitting if found.rate(size) >= _WORTH * found.rate(found.curve[0].size)]
    reached = [size for size in worth if found.rate(size) >= enough]
    return min(reached) if reached else max(worth, key=found.rate, default=None)


def _waiting(found: Found, reasons: list[str], size: int, best: int, allowed_ms: float) -> Advice:
    alone = found.curve[0].size
    if size != best:
        reasons.append(f"{size} has {found.rate(size) / found.rate(best):.0%} of the samples/s of {best}")
    if best == found.curve[-1].size:
        reasons.append(f"{best} is the largest size that formed often: more callers may find a larger one better")
    fill_ms = (size - alone) / found.arrivals_per_s * 1000
    delay_ms = min(fill_ms, allowed_ms)
    reasons.append(
        f"at {found.arrivals_per_s:,.0f} samples/s ({found.arrivals_are}) a batch of {size} fills in {fill_ms:.3g} ms; "
        f"of {found.max_latency_ms:g} ms two executions of {found.time_ms(size):.3g} ms leave {allowed_ms:.3g} ms to wait"
    )
    joining = found.arrivals_per_s * (found.time_ms(alone) + delay_ms) / 1000
    if joining < alone:
        return _refused(
            found, reasons, f"meanwhile {joining:.2g} more samples arrive: requests would wait and mostly stay alone"
        )
    return _accepted(found, reasons, size, round(delay_ms * 1000))


def _accepted(found: Found, reasons: Sequence[str], size: int | None, delay_us: int) -> Advice:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig()
    config.dynamic_batching.SetInParent()
    if size:
        config.dynamic_batching.preferred_batch_size.append(size)
    if delay_us:
        config.dynamic_batching.max_queue_delay_microseconds = delay_us
    lines = ["serve:", "  - target: triton", f"    max_queue_delay_us: {delay_us}"]
    return Advice(
        pays=True,
        preferred_batch_size=size,
        max_queue_delay_us=delay_us,
        reasons=tuple(reasons),
        curve=found.curve,
        recipe="\n".join([*lines, *([f"    preferred_batch_sizes: [{size}]"] if size else [])]),
        config=text_format.MessageToString(config).rstrip(),
    )


def _refused(found: Found, reasons: Sequence[str], last: str) -> Advice:
    return Advice(
        pays=False,
        preferred_batch_size=None,
        max_queue_delay_us=None,
        reasons=(*reasons, last),
        curve=found.curve,
        recipe=_OFF,
        config="# no dynamic_batching",
    )


def _sorted(records: Sequence[LoadRecord]) -> tuple[LoadRecord, LoadRecord | None]:
    """Return the record with dynamic batching and the one without."""
    batched = [record for record in records if record.batching and record.batching.dynamic]
    plain = [record for record in records if record.batching and not record.batching.dynamic]
    if not batched:
        models = ", ".join(f"{record.model!r} at {record.url}" for record in records)
        raise RecipeError(f"advice: {models}: no Triton model with dynamic batching was measured; expected one")
    if plain and _conditions(batched[0]) != _conditions(plain[0]):
        raise RecipeError(
            f"advice: {batched[0].model!r} was measured with {_conditions(batched[0])} and {plain[0].model!r} with "
            f"{_conditions(plain[0])}; expected the same. Measure both alike."
        )
    return batched[0], plain[0] if plain else None


def _conditions(record: LoadRecord) -> str:
    return f"{record.tool} over {record.protocol} at batch {record.settings.batch}"


def _as_a_whole(batched: LoadRecord, plain: LoadRecord | None) -> float | None:
    """Return the ratio of the largest throughputs, over the loads that both were put under."""
    if plain is None:
        return None
    rates = [{point.load: point.samples_per_s for point in record.points} for record in (batched, plain)]
    shared = rates[0].keys() & rates[1].keys()
    if not shared or not max(rates[1][load] for load in shared):
        return None
    return max(rates[0][load] for load in shared) / max(rates[1][load] for load in shared)


def _usual_rate(record: LoadRecord) -> tuple[float, str]:
    """Return the throughput at the knee, or the largest where there is none."""
    if record.knees:
        return record.knees[0].samples_per_s, f"measured at {record.knees[0].load}, the knee"
    best = max(record.points, key=lambda point: point.samples_per_s)
    return best.samples_per_s, f"measured at {best.load}"
