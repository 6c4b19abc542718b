"""Settings of Triton's dynamic batcher, derived from the measured execution times at each batch size.

An execution of b samples takes s(b), so one instance computes b / s(b) samples per second. If this rate grows with b, batching pays.
Requests that arrive during an execution form the next batch. Batches therefore grow by themselves until b / s(b) equals the arrival rate,
and no request waits for an idle instance, so the advice is a queue delay of 0. A preferred batch size is advised only if the largest
batches that formed are slower than smaller ones.

If there is a latency limit, requests may wait, which reduces the number of executions. The preferred batch size is then the smallest size
with 90 % of the largest rate. The queue delay is the time to fill such a batch at the arrival rate, (b - 1) / rate. It is at most the
latency limit minus two executions: the execution that may be under way, and the request's own. NVIDIA's process
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/batcher.html) also starts without a delay and
without a preferred size, and raises the delay while the latency allows it.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from optkit.artifact.limits import at_least
from optkit.benchmark.summary import KNEE
from optkit.errors import RecipeError
from optkit.loadtest.load_record import Advice, FormedBatch, LoadRecord

_MIN_EXECUTIONS = 10  # of one batch size; sizes with fewer executions are left out
_MIN_GAIN = 1.1  # over the samples per second of the smallest batch
_MIN_SERVER_GAIN = 1.05  # over the throughput of the server without batching
_OFF = "serve:\n  - target: triton\n    batching: false"


@dataclasses.dataclass(frozen=True)
class BatchingData:
    """The measurements, in ms and samples per second."""

    curve: tuple[FormedBatch, ...]  # ascending sizes, starting with the smallest request
    arrivals_per_s: float
    arrivals_source: str
    max_latency_ms: float | None
    server_gain: float | None  # throughput with batching / throughput without batching

    def rate(self, size: int) -> float:
        """Samples per second of one instance at a batch size."""
        return size * 1000 / self.time_ms(size)

    def time_ms(self, size: int) -> float:
        """Mean time of an execution at a batch size."""
        return next(one.execution_ms for one in self.curve if one.size == size)


def advise(
    records: Sequence[LoadRecord], *, max_latency_ms: float | None = None, arrivals_per_s: float | None = None
) -> Advice:
    """Return advice on dynamic batching for one model.

    Args:
        records: load tests of the model with dynamic batching and, for better advice, also without it.
        max_latency_ms: latency limit of a request on the server.
        arrivals_per_s: expected samples per second; None means the throughput at the knee of the test with batching.

    Raises:
        RecipeError: no record is a test of a Triton model with dynamic batching, or the records cannot be compared.
    """
    batched, plain = _sorted(records)
    curve = curve_of(records)
    if len(curve) < 2:
        raise RecipeError(
            f"{batched.url}: model {batched.model!r} formed fewer than two batch sizes often enough; expected at least "
            f"{_MIN_EXECUTIONS} executions of each of two sizes. Raise --concurrency or --duration-s."
        )
    rate, source = arrivals_per_s, "as given"
    if rate is None:
        rate, source = _usual_rate(batched)
    data = BatchingData(curve, rate, source, max_latency_ms, _server_gain(batched, plain))
    return _judge(data)


def curve_of(records: Sequence[LoadRecord]) -> tuple[FormedBatch, ...]:
    """Return the mean execution time at each batch size, over all points of all records."""
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


def _judge(data: BatchingData) -> Advice:
    alone = data.curve[0].size
    best = max(data.curve, key=lambda one: data.rate(one.size)).size
    gain = data.rate(best) / data.rate(alone)
    reasons = [
        f"an execution takes {data.time_ms(alone):.3g} ms at batch {alone} and {data.time_ms(best):.3g} ms at batch {best}: "
        f"{data.rate(alone):,.0f} and {data.rate(best):,.0f} samples/s per instance, {gain:.2f}x"
    ]
    if gain < _MIN_GAIN:
        return _refused(
            data, reasons, f"the gain is below {_MIN_GAIN:g}x: execution time grows with the number of samples"
        )
    if data.server_gain is not None:
        reasons.append(f"the throughput of the server is {data.server_gain:.2f}x the throughput without batching")
        if data.server_gain < _MIN_SERVER_GAIN:
            return _refused(
                data, reasons, f"the gain is below {_MIN_SERVER_GAIN:g}x: something else limits the throughput"
            )
    else:
        reasons.append("the throughput gain of the server is unknown: compare with a test without batching (--against)")
    if data.max_latency_ms is None:
        return _undelayed(data, reasons, best)
    return _delayed(data, reasons, best, data.max_latency_ms)


def _undelayed(data: BatchingData, reasons: list[str], best: int) -> Advice:
    """Return the advice without a latency limit: requests do not wait, and batches form during executions."""
    arrivals = f"at {data.arrivals_per_s:,.0f} samples/s ({data.arrivals_source})"
    enough = next((one.size for one in data.curve if data.rate(one.size) >= data.arrivals_per_s), None)
    if enough is None:
        reasons.append(
            f"{arrivals} one instance keeps up at none of the measured batch sizes: the queue fills the batches"
        )
    elif enough == data.curve[0].size:
        reasons.append(f"{arrivals} executions without batching keep up: batches form only in bursts")
    else:
        reasons.append(f"{arrivals} batches of {enough} keep up, and they form during executions")
    reasons.append(
        "no queue delay: at an idle instance it only adds latency (set --max-latency-ms if requests may wait)"
    )
    largest = data.curve[-1].size
    slower = data.rate(largest) < KNEE * data.rate(best)
    if slower:
        reasons.append(
            f"batch {largest} has {data.rate(largest) / data.rate(best):.0%} of the samples/s of batch {best}"
        )
    return _accepted(data, reasons, best if slower else None, 0)


def _delayed(data: BatchingData, reasons: list[str], best: int, limit_ms: float) -> Advice:
    """Return the advice for a latency limit."""
    allowed_ms = {one.size: limit_ms - 2 * data.time_ms(one.size) for one in data.curve}
    size = _size(data, KNEE * data.rate(best), allowed_ms)
    if size is None:
        smallest = data.curve[1].size
        return _refused(
            data,
            reasons,
            f"two executions at batch {smallest} take {2 * data.time_ms(smallest):.3g} ms; the latency limit is {limit_ms:g} ms",
        )
    return _waiting(data, reasons, size, best, allowed_ms[size])


def _size(data: BatchingData, enough: float, allowed_ms: Mapping[int, float]) -> int | None:
    """Return the smallest batch size with enough samples per second, otherwise the fastest size within the latency limit, or None."""
    fitting = [one.size for one in data.curve[1:] if at_least(allowed_ms[one.size], 0)]
    worth = [size for size in fitting if data.rate(size) >= _MIN_GAIN * data.rate(data.curve[0].size)]
    reached = [size for size in worth if data.rate(size) >= enough]
    return min(reached) if reached else max(worth, key=data.rate, default=None)


def _waiting(data: BatchingData, reasons: list[str], size: int, best: int, allowed_ms: float) -> Advice:
    alone = data.curve[0].size
    if size != best:
        reasons.append(f"batch {size} has {data.rate(size) / data.rate(best):.0%} of the samples/s of batch {best}")
    if best == data.curve[-1].size:
        reasons.append(
            f"batch {best} is the largest size that formed often: a test with more callers may find a better one"
        )
    fill_ms = (size - alone) / data.arrivals_per_s * 1000
    delay_ms = min(fill_ms, allowed_ms)
    reasons.append(
        f"at {data.arrivals_per_s:,.0f} samples/s ({data.arrivals_source}) a batch of {size} fills in {fill_ms:.3g} ms; "
        f"the latency limit of {data.max_latency_ms:g} ms minus two executions of {data.time_ms(size):.3g} ms leaves {allowed_ms:.3g} ms"
    )
    joining = data.arrivals_per_s * (data.time_ms(alone) + delay_ms) / 1000
    if joining < alone:
        return _refused(
            data,
            reasons,
            f"only {joining:.2g} more samples arrive in this time: most requests would wait without a batch",
        )
    return _accepted(data, reasons, size, round(delay_ms * 1000))


def _accepted(data: BatchingData, reasons: Sequence[str], size: int | None, delay_us: int) -> Advice:
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
        curve=data.curve,
        recipe="\n".join([*lines, *([f"    preferred_batch_sizes: [{size}]"] if size else [])]),
        config=text_format.MessageToString(config).rstrip(),
    )


def _refused(data: BatchingData, reasons: Sequence[str], last: str) -> Advice:
    return Advice(
        pays=False,
        preferred_batch_size=None,
        max_queue_delay_us=None,
        reasons=(*reasons, last),
        curve=data.curve,
        recipe=_OFF,
        config="# no dynamic_batching",
    )


def _sorted(records: Sequence[LoadRecord]) -> tuple[LoadRecord, LoadRecord | None]:
    """Return the record with dynamic batching, and the record without it or None."""
    batched = [record for record in records if record.batching and record.batching.dynamic]
    plain = [record for record in records if record.batching and not record.batching.dynamic]
    if not batched:
        models = ", ".join(f"{record.model!r} at {record.url}" for record in records)
        raise RecipeError(
            f"advice: {models}: no record is a test of a Triton model with dynamic batching; expected at least one. "
            f"Enable dynamic batching and run the load test again."
        )
    if plain and _conditions(batched[0]) != _conditions(plain[0]):
        raise RecipeError(
            f"advice: {batched[0].model!r} was measured with {_conditions(batched[0])} and {plain[0].model!r} with "
            f"{_conditions(plain[0])}; expected the same conditions. Run both tests with the same options."
        )
    return batched[0], plain[0] if plain else None


def _conditions(record: LoadRecord) -> str:
    return f"{record.tool} over {record.protocol} at batch {record.settings.batch}"


def _server_gain(batched: LoadRecord, plain: LoadRecord | None) -> float | None:
    """Return the ratio of the largest throughputs over the loads that both records contain, or None if there are none."""
    if plain is None:
        return None
    rates = [{point.load: point.samples_per_s for point in record.points} for record in (batched, plain)]
    shared = rates[0].keys() & rates[1].keys()
    if not shared or not max(rates[1][load] for load in shared):
        return None
    return max(rates[0][load] for load in shared) / max(rates[1][load] for load in shared)


def _usual_rate(record: LoadRecord) -> tuple[float, str]:
    """Return the throughput at the knee, or the largest throughput if there is no knee."""
    if record.knees:
        return record.knees[0].samples_per_s, f"measured at the knee, {record.knees[0].load}"
    best = max(record.points, key=lambda point: point.samples_per_s)
    return best.samples_per_s, f"measured at {best.load}"
