"""The advice for the batcher on measurements for which the right answer is known in closed form."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from optkit.benchmark import this_machine
from optkit.errors import RecipeError
from optkit.loadtest import LoadRecord, LoadSettings, advise, with_advice
from optkit.loadtest.knee import knees_of
from optkit.loadtest.load_record import Batching, FormedBatch, LoadPoint, ServerSide
from optkit.serving import TritonServing

MACHINE = this_machine()
SIZES = (1, 2, 4, 8, 16, 32)


def point(samples_per_s, batches=(), *, concurrency=None, rate=None, **fields):
    executions = sum(batch.executions for batch in batches)
    inferences = sum(batch.size * batch.executions for batch in batches)
    server = ServerSide(
        inferences=inferences,
        executions=executions,
        mean_batch=inferences / max(executions, 1),
        batches=tuple(batches),
        queue_ms=1,
        compute_ms=1,
        failed=0,
        includes_warmup=False,
    )
    given = {
        "concurrency": concurrency,
        "rate_per_s": rate,
        "latency_from": "scheduled" if rate else "sent",
        "warmup": 0,
        "sent": 1000,
        "answered": 1000,
        "failed": 0,
        "failures": {},
        "duration_s": 1,
        "requests_per_s": samples_per_s,
        "samples_per_s": samples_per_s,
        "client_cpu_share": 0.1,
        "client_late_mean_ms": 0,
        "client_late_max_ms": 0,
        "client_limited": None,
        "server": server if batches else None,
        **{f"{name}_ms": 1 for name in ("mean", "p50", "p90", "p95", "p99", "max")},
    }
    return LoadPoint.model_validate(given | fields)


def record(points, *, dynamic=True, **fields):
    batching = Batching(max_batch_size=32, dynamic=dynamic, preferred_batch_sizes=(), max_queue_delay_us=0, instances=1)
    given = {
        "url": "http://127.0.0.1:8000",
        "server": "triton",
        "protocol": "http",
        "model": "m",
        "version": None,
        "batching": batching,
        "tool": "asyncio",
        "tool_reason": "asked for",
        "data": "golden samples",
        "settings": LoadSettings(concurrency=(1, 4, 16)),
        "request_bytes": 100,
        "points": tuple(points),
        "machine": MACHINE,
        "load_average": None,
    }
    return LoadRecord.model_validate(given | fields)


def formed(time_ms, sizes=SIZES, executions=100):
    return [FormedBatch(size=size, executions=executions, execution_ms=time_ms(size)) for size in sizes]


def measured(time_ms, arrivals=1000.0, as_a_whole=2.0, sizes=SIZES, batch=1):
    """A pair of records: with batching, where batch b takes time_ms(b), and without it."""
    settings = LoadSettings(concurrency=(16,), batch=batch)
    batched = record([point(arrivals, formed(time_ms, sizes), concurrency=16)], settings=settings)
    plain = point(arrivals / as_a_whole, formed(time_ms, sizes[:1]), concurrency=16)
    return [batched, record([plain], dynamic=False, settings=settings)]


def fixed_cost(size):
    """4 ms for an execution and 1 ms for each sample: size / (4 + size) grows to 0.889 at 32, and 16 has 0.8, 90 % of it."""
    return 4 + size


@pytest.mark.parametrize(
    ("limit_ms", "size", "delay_us"),
    [
        (None, None, 0),  # nobody waits, and the largest size that forms is the fastest
        (100, 16, 15_000),  # 16 fill in 15 ms at 1000/s, and 60 ms are left
        (50, 16, 10_000),  # two executions of 20 ms leave 10 ms, less than the 15
        (30, 8, 6_000),  # 40 ms for two executions of 16 are too much; two of 8 leave 6 ms, less than the 7 ms to fill
        (20, 4, 3_000),  # two of 4 leave 4 ms, and 4 fill in 3
        (12, 2, 0),  # two of 2 leave nothing: what has come meanwhile goes together, and nobody waits
    ],
)
def test_a_fixed_cost_of_each_execution(limit_ms, size, delay_us):
    found = advise(measured(fixed_cost), max_latency_ms=limit_ms)
    assert (found.pays, found.preferred_batch_size, found.max_queue_delay_us) == (True, size, delay_us)


def test_the_delay_follows_the_rate_of_arrivals():
    for arrivals, delay_us in ((500, 30_000), (1000, 15_000), (5000, 3_000)):
        found = advise(measured(fixed_cost), arrivals_per_s=arrivals, max_latency_ms=100)
        assert found.max_queue_delay_us == delay_us
    found = advise(measured(fixed_cost, arrivals=2000), max_latency_ms=100)
    assert found.max_queue_delay_us == 7_500  # at the measured rate


@pytest.mark.parametrize(
    ("arrivals", "reason"),
    [
        (
            100,
            "at 100 samples/s (as given) executions without batching keep up: batches form only in bursts",
        ),  # 200/s alone
        (500, "at 500 samples/s (as given) batches of 4 keep up, and they form during executions"),
        (
            1000,
            "at 1,000 samples/s (as given) one instance keeps up at none of the measured batch sizes: the queue fills the batches",
        ),
    ],
)
def test_nobody_waits_where_no_limit_says_so(arrivals, reason):
    found = advise(measured(fixed_cost), arrivals_per_s=arrivals)
    assert (found.preferred_batch_size, found.max_queue_delay_us) == (None, 0)
    assert reason in found.reasons
    assert text_format.Parse(found.config, model_config_pb2.ModelConfig()).HasField("dynamic_batching")
    assert TritonServing.model_validate(pasted(found)).max_queue_delay_us == 0


def test_a_size_is_preferred_where_larger_batches_are_slower_again():
    """Beyond 8 an execution takes twice as long: 16 has 0.4 samples/ms, where 8 has 0.67, and 32 has 0.44."""
    found = advise(measured(lambda size: fixed_cost(size) * (1 if size <= 8 else 2)))
    assert (found.preferred_batch_size, found.max_queue_delay_us) == (8, 0)
    assert found.reasons[-1] == "batch 32 has 67% of the samples/s of batch 8"


def test_a_cost_that_grows_with_each_sample_is_refused():
    found = advise(measured(lambda size: 2.0 * size))
    assert (found.pays, found.preferred_batch_size, found.max_queue_delay_us) == (False, None, None)
    assert found.reasons[0] == (
        "an execution takes 2 ms at batch 1 and 2 ms at batch 1: 500 and 500 samples/s per instance, 1.00x"
    )
    assert found.reasons[-1] == "the gain is below 1.1x: execution time grows with the number of samples"
    assert TritonServing.model_validate(pasted(found)).batching is False


def test_a_server_that_gains_nothing_as_a_whole_is_refused():
    """The executions would gain, but something else, such as the network or the client, is the limit."""
    found = advise(measured(fixed_cost, as_a_whole=1.02))
    assert not found.pays
    assert found.reasons[-1] == "the gain is below 1.05x: something else limits the throughput"


def test_a_limit_that_leaves_no_batch_is_refused():
    found = advise(measured(fixed_cost), max_latency_ms=11)
    assert not found.pays
    assert found.reasons[-1] == "two executions at batch 2 take 12 ms; the latency limit is 11 ms"


def test_arrivals_too_few_to_meet_are_refused():
    """At 20/s one comes in 50 ms; a lone execution of 5 ms and the wait of 20 that 60 ms leave are 25, in which half a sample comes."""
    found = advise(measured(fixed_cost), arrivals_per_s=20, max_latency_ms=60)
    assert not found.pays
    assert found.reasons[-1] == "only 0.5 more samples arrive in this time: most requests would wait without a batch"


def test_requests_of_several_samples():
    """Requests of 4: the smallest batch is 4, and 16 fill with three more of them, 12 samples, in 12 ms."""
    found = advise(measured(fixed_cost, sizes=(4, 8, 16, 32), batch=4), max_latency_ms=100)
    assert (found.preferred_batch_size, found.max_queue_delay_us) == (16, 12_000)


def test_where_the_rate_still_grows_at_the_largest_size_it_says_so():
    found = advise(measured(fixed_cost, sizes=(1, 2, 4)), max_latency_ms=100)
    assert found.preferred_batch_size == 4
    assert any("4 is the largest size that formed often" in reason for reason in found.reasons)


def test_sizes_that_formed_too_rarely_do_not_count():
    points = [
        point(1000, [*formed(fixed_cost), FormedBatch(size=31, executions=9, execution_ms=0.001)], concurrency=16)
    ]
    assert advise([record(points)], max_latency_ms=100).preferred_batch_size == 16
    with pytest.raises(
        RecipeError, match=r"model 'm' formed fewer than two batch sizes often enough; .* Raise --concurrency"
    ):
        advise([record([point(1000, formed(fixed_cost, SIZES, executions=9), concurrency=16)])])


def test_the_times_of_a_size_are_weighed_by_its_executions():
    """A hundred executions of 10 ms and three hundred of 2 ms: 4 ms."""
    first = [
        FormedBatch(size=1, executions=100, execution_ms=10.0),
        FormedBatch(size=2, executions=10, execution_ms=5.0),
    ]
    second = [FormedBatch(size=1, executions=300, execution_ms=2.0)]
    found = advise([record([point(1000, first, concurrency=4), point(1000, second, concurrency=1)])])
    assert found.curve[0] == FormedBatch(size=1, executions=400, execution_ms=4.0)


def test_without_a_test_without_batching_it_is_not_known_what_the_server_gains():
    found = advise(measured(fixed_cost)[:1])
    assert found.pays
    assert (
        "the throughput gain of the server is unknown: compare with a test without batching (--against)"
        in found.reasons
    )


def test_what_cannot_be_compared_is_refused():
    batched, plain = measured(fixed_cost)
    with pytest.raises(RecipeError, match="no record is a test of a Triton model with dynamic batching"):
        advise([plain])
    other = plain.model_copy(update={"tool": "perf-analyzer"})
    with pytest.raises(
        RecipeError, match=r"'m' was measured with asyncio over http .* 'm' with perf-analyzer over http"
    ):
        advise([batched, other])
    noted = with_advice(batched, other)
    assert noted.advice is None
    assert noted.notes[-1].startswith("no advice: advice: 'm' was measured with")
    assert with_advice(plain).notes == ()  # nobody asked


def pasted(advice):
    import yaml

    [entry] = yaml.safe_load(advice.recipe)["serve"]
    return entry


def test_the_lines_to_paste_are_read_by_the_recipe_and_by_tritons_schema():
    found = advise(measured(fixed_cost), max_latency_ms=50)
    settings = TritonServing.model_validate(pasted(found))
    assert (settings.preferred_batch_sizes, settings.max_queue_delay_us) == ((16,), 10_000)
    config = text_format.Parse(found.config, model_config_pb2.ModelConfig())
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 10_000


def test_the_knee_of_the_callers():
    points = [point(rate, concurrency=n) for n, rate in ((1, 100), (2, 190), (4, 310), (8, 330), (16, 320))]
    [knee] = knees_of(points, 5)
    assert (knee.load, knee.samples_per_s) == ("concurrency 4", 310)  # 90 % of 330 is 297
    assert knees_of(points[:2], 5) == []


def test_the_knee_of_the_rates():
    def at(rate, duration_s, **fields):
        return point(rate, rate=rate, duration_s=duration_s, **fields)

    served = [at(50, 5.01), at(100, 5.02), at(200, 5.1)]
    [knee] = knees_of([*served, at(400, 7.5), at(300, 5.0, failed=1)], 5)
    assert knee.load == "rate 200/s"
    assert knees_of([at(50, 9), at(100, 9), at(200, 9)], 5) == []
