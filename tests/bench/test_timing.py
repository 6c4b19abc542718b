"""The timing loop, on a clock that only the calls move: no test here depends on how fast the machine is."""

import pytest

from optkit.bench import timing
from optkit.bench.timing import StopRule, time_calls


class Clock:
    """A clock in ns, and a call that takes the next of these durations in ms, the last one for ever."""

    def __init__(self, *durations_ms: float) -> None:
        self.now = 0
        self.durations = list(durations_ms)
        self.calls = 0

    def perf_counter_ns(self) -> int:
        return self.now

    def call(self) -> None:
        duration = self.durations[min(self.calls, len(self.durations) - 1)]
        self.now += round(duration * 1e6)
        self.calls += 1


def times(monkeypatch: pytest.MonkeyPatch, clock: Clock, **rule: float) -> tuple[float, ...]:
    monkeypatch.setattr(timing, "time", clock)
    return time_calls(clock.call, StopRule.model_validate({"warmup_calls": 0, "max_duration_s": 100} | rule))


def test_it_goes_on_until_the_shortest_duration_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(monkeypatch, Clock(100), min_duration_s=1, min_calls=3) == (100.0,) * 10


def test_it_goes_on_until_there_are_enough_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(monkeypatch, Clock(100), min_duration_s=0.2, min_calls=7) == (100.0,) * 7


def test_both_are_needed_when_the_calls_change_their_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(monkeypatch, Clock(1, 1, 1, 500), min_duration_s=1, min_calls=2) == (1.0, 1.0, 1.0, 500.0, 500.0)


def test_the_longest_duration_wins_over_the_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(monkeypatch, Clock(400), min_duration_s=0, min_calls=30, max_duration_s=1) == (400.0,) * 3


def test_one_call_is_measured_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(monkeypatch, Clock(9000), min_calls=30, max_duration_s=1) == (9000.0,)


def test_the_warm_up_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(700, 500, 2)
    assert times(monkeypatch, clock, warmup_calls=2, min_duration_s=0, min_calls=3) == (2.0,) * 3
    assert clock.calls == 5


def test_the_warm_up_is_bounded_by_the_longest_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(600)
    times(monkeypatch, clock, warmup_calls=100, min_duration_s=0, min_calls=1, max_duration_s=1)
    assert clock.calls == 2 + 1
