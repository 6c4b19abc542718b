"""The two loops against a server that is known in closed form, in an event loop whose clock jumps: exact, and without waiting."""

import asyncio
import selectors
import statistics

import numpy as np
import pytest

from optkit.loadtest.connection import Connection, Connector, RequestFailed
from optkit.loadtest.counters import LoadCounters, LoadLevel, point_of
from optkit.loadtest.http_connection import HttpConnector
from optkit.loadtest.job import run
from optkit.loadtest.loops import Load, closed_loop, open_loop, schedule
from optkit.loadtest.settings import LoadSettings
from tests.support.load_servers import Server, http_answer


class Jumping(asyncio.SelectorEventLoop):
    """A loop in which waiting takes no time and only the clock goes on."""

    def __init__(self):
        self.now = 0.0
        selector = selectors.SelectSelector()
        super().__init__(selector)
        real = selector.select

        def select(timeout=None):
            found = real(0)
            if not found and timeout:
                self.now += timeout
            return found

        selector.select = select  # type: ignore[method-assign]

    def time(self):
        return self.now


class Timed(Connection, Connector):
    """A server that takes `service(now)` seconds for a request and any number at once."""

    def __init__(self, service):
        self.service = service
        self.requested_at = []
        self.opened = self.under_way = self.most = 0

    async def open(self):
        self.opened += 1
        return self

    async def request(self, request):
        now = asyncio.get_running_loop().time()
        self.requested_at.append(now)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            wait = self.service(now)
            if isinstance(wait, Exception):
                raise wait
            await asyncio.sleep(wait)
        finally:
            self.under_way -= 1
        return b""

    closed = False

    def close(self):
        pass


def loaded(service, drive, **settings):
    """Put a load on a timed server; return the point and the server."""
    given = {"concurrency": (1,), "warmup_s": 0.5, "duration_s": 2.0, "limit_s": 5.0} | settings
    server, counters = Timed(service), LoadCounters()
    load = Load(server, [b"a", b"b", b"c"], LoadSettings(**given), counters)
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(drive(load))
    return counters, server


def test_a_closed_loop_has_as_many_under_way_as_callers_and_the_throughput_of_littles_law():
    counters, server = loaded(lambda _now: 0.010, lambda load: closed_loop(load, 4))
    point = point_of(counters, LoadLevel(concurrency=4), batch=3, latency_from="sent")
    assert server.most == 4
    assert point.warmup == pytest.approx(
        200, abs=4
    )  # 4 / 10 ms for 0.5 s; the sums of floats decide about the last four
    assert point.sent == pytest.approx(800, abs=4)
    assert (point.answered, point.failed) == (point.sent, 0)
    assert point.requests_per_s == pytest.approx(400, rel=0.01)
    assert point.samples_per_s == pytest.approx(3 * point.requests_per_s)
    assert point.mean_ms == pytest.approx(10)
    assert [point.p50_ms, point.p90_ms, point.p99_ms] == pytest.approx([10, 10, 10])


def test_percentiles_are_there_only_where_the_count_supports_them():
    for callers, supported in ((1, (False, False, False)), (4, (True, True, False))):
        counters, _ = loaded(lambda _now: 0.060, lambda load, n=callers: closed_loop(load, n))
        point = point_of(counters, LoadLevel(concurrency=callers), batch=1, latency_from="sent")
        assert point.p50_ms == pytest.approx(60)
        assert tuple(p is not None for p in (point.p90_ms, point.p95_ms, point.p99_ms)) == supported, point.answered


def test_the_number_of_requests_is_bounded():
    counters, _ = loaded(lambda _now: 0.010, lambda load: closed_loop(load, 4), max_requests=30)
    assert counters.all_sent == 30
    assert len(schedule(LoadSettings(rate=(10.0,), warmup_s=0, duration_s=3, max_requests=30), 10.0)) <= 30
    with pytest.raises(
        ValueError, match="rate: 11 requests/s are 33 requests in total; expected at most max_requests 30"
    ):
        LoadSettings(rate=(11.0,), warmup_s=0, duration_s=3, max_requests=30)


STALL = (1.5, 2.0)  # from one second after the warm-up on


def stalls(now):
    return STALL[1] - now + 0.001 if STALL[0] <= now < STALL[1] else 0.001


def beyond(times_s, limit_s=0.1):
    return sum(time > limit_s for time in times_s)


@pytest.mark.parametrize("lines", [1, 256], ids=["one line", "a line for each"])
def test_an_open_loop_counts_the_wait_of_requests_that_a_stall_holds_up(lines):
    """At 100 requests/s a stall of 0.5 s holds up 50; 41 of them by more than 0.1 s, whether they could be sent meanwhile or not."""
    settings = LoadSettings(rate=(100.0,), arrivals="constant", warmup_s=0.5, duration_s=2)
    offsets = schedule(settings, 100.0)
    counters, server = loaded(stalls, lambda load: open_loop(load, offsets, lines), rate=(100.0,))
    assert (counters.warmup, counters.sent) == (50, 200)
    assert beyond(counters.latencies_s) == (
        45 if lines == 1 else 41
    )  # behind one line, some wait for those before them too
    assert max(counters.latencies_s) == pytest.approx(0.501, abs=1e-6)
    if lines == 1:  # what a count from the sending would have shown: one slow request
        sent = sorted(server.requested_at)
        naive = [stalls(at) for at in sent]
        assert beyond(naive) == 1
        assert np.percentile(naive, 90) < 0.002 < 0.1 < np.percentile(counters.latencies_s, 90)


def test_a_loop_that_is_behind_its_schedule_still_lets_the_others_run():
    """All requests are due at once: the first ones reach the server before the last ones are sent."""
    counters, sent_before = LoadCounters(), []
    settings = LoadSettings(rate=(1.0,), warmup_s=0)
    load = Load(Timed(lambda _now: sent_before.append(counters.all_sent) or 0.01), [b"a"], settings, counters)
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(open_loop(load, [0.0] * 300))
    assert (counters.sent, len(counters.latencies_s)) == (300, 300)
    assert sent_before[0] < 10


def test_a_closed_loop_omits_them():
    """The same stall, seen by one caller: one slow request, and a p99 that hides it. This is why rates have a loop of their own."""
    counters, _ = loaded(stalls, lambda load: closed_loop(load, 1))
    assert beyond(counters.latencies_s) == 1
    assert np.percentile(counters.latencies_s, 99) < 0.002


def test_the_same_on_a_real_server_that_stalls():
    """Over real connections: the server answers nothing between its 20th and its 60th request, which only comes when all are sent."""
    released = []

    async def talk():
        stall = asyncio.Event()

        async def reply(_path, number):
            if number >= 60:
                stall.set()
            elif number >= 20:
                await stall.wait()
            return http_answer()

        counters = LoadCounters()
        settings = LoadSettings(rate=(100.0,), arrivals="constant", warmup_s=0, duration_s=1, limit_s=30)
        async with Server(reply) as server:
            load = Load(HttpConnector("127.0.0.1", server.port), [b"GET / HTTP/1.1\r\n\r\n"], settings, counters)
            await open_loop(load, schedule(settings, 100.0))
            released.append(server.connections)
        return counters

    counters = run(talk())
    assert (counters.sent, len(counters.latencies_s)) == (100, 100)
    assert beyond(counters.latencies_s) >= 30  # 40 are held, the first for 0.4 s; the machine can only add to it
    assert released[0] >= 40


def test_a_server_that_cannot_keep_up_shows_in_the_duration_and_the_latencies():
    """One line of 20 ms serves 50/s; at 100/s the backlog grows by one in 20 ms, and the last of 100 waits about a second."""
    settings = LoadSettings(rate=(100.0,), arrivals="constant", warmup_s=0, duration_s=1)
    offsets = schedule(settings, 100.0)
    counters, _ = loaded(lambda _now: 0.020, lambda load: open_loop(load, offsets, 1), rate=(100.0,), warmup_s=0)
    point = point_of(counters, LoadLevel(rate_per_s=100.0), batch=1, latency_from="scheduled")
    assert point.requests_per_s == pytest.approx(50, rel=0.01)
    assert point.duration_s == pytest.approx(2.0, rel=0.01)
    assert point.max_ms == pytest.approx(1010, rel=0.01)
    assert point.client_late_max_ms == 0


def test_what_is_not_answered_within_the_limit_fails_by_its_schedule():
    """A server that hangs for ever: every request fails by its own limit, those that found no line too, and the loop ends."""
    settings = LoadSettings(rate=(10.0,), arrivals="constant", warmup_s=0, duration_s=1, limit_s=2)
    offsets = schedule(settings, 10.0)
    counters, _ = loaded(
        lambda _now: 1e9, lambda load: open_loop(load, offsets, 4), rate=(10.0,), warmup_s=0, limit_s=2
    )
    assert (counters.sent, counters.failed, len(counters.latencies_s)) == (10, 10, 0)
    assert set(counters.failures) == {"no response within 2 s"}
    assert counters.ended == pytest.approx(0.9 + 2)


def test_a_dead_server_ends_the_load_and_not_the_count():
    counters, _ = loaded(lambda _now: RequestFailed("cannot connect"), lambda load: closed_loop(load, 2), warmup_s=0)
    assert counters.hopeless
    assert counters.failures == {"cannot connect": counters.failed}
    assert 40 <= counters.failed < 45
    assert counters.ended < 1.5  # after twenty pauses of each caller, before the two seconds are over
    point = point_of(counters, LoadLevel(concurrency=2), batch=1, latency_from="sent")
    assert (point.answered, point.requests_per_s, point.p50_ms) == (0, 0, None)


def test_failures_between_answers_are_counted_by_reason():
    def service(now):
        return RequestFailed("status 503") if 1 <= now < 1.2 else 0.01

    counters, _ = loaded(service, lambda load: closed_loop(load, 1))
    assert not counters.hopeless
    assert counters.failures == {"status 503": counters.failed}
    assert counters.sent == counters.failed + len(counters.latencies_s)
    assert 3 <= counters.failed <= 5  # one in 50 ms


def test_poisson_arrivals_have_the_rate_and_the_spread_of_poisson_and_repeat_with_the_seed():
    settings = LoadSettings(rate=(1000.0,), warmup_s=0, duration_s=20)
    offsets = schedule(settings, 1000.0)
    gaps = np.diff(offsets)
    assert len(offsets) == pytest.approx(20_000, rel=0.03)
    assert statistics.fmean(gaps) == pytest.approx(0.001, rel=0.03)
    assert np.std(gaps) == pytest.approx(0.001, rel=0.05)  # exponential: as large as the mean
    assert offsets == schedule(settings, 1000.0)
    assert offsets != schedule(settings.model_copy(update={"seed": 1}), 1000.0)


def test_a_busy_or_late_client_is_named():
    def counters(cpu_s, late_s):
        return LoadCounters(
            latencies_s=[0.010] * 100,
            sent=100,
            began=0,
            counting_from=0,
            ended=1,
            last_answer=1,
            cpu_s=cpu_s,
            late_s=late_s,
        )

    def limited(cpu_s, late_s, threads=1):
        asked = LoadLevel(concurrency=1)
        return point_of(
            counters(cpu_s, late_s), asked, batch=1, latency_from="sent", client_threads=threads
        ).client_limited

    assert limited(0.5, [0.0001]) is None
    assert limited(0.9, [0.0001]) == "the client used 90% of a core for each of its threads"
    assert limited(0.9, [], threads=2) is None
    assert limited(0.5, [0.002]) == "the client was 2 ms late on average, more than a tenth of the median latency"
