"""The timing loop, on a clock that only the calls move: no test here depends on how fast the machine is."""

from optkit.benchmark import BenchSettings
from optkit.benchmark.timing import Block, time_block


class Clock:
    """A clock in ns, and a call that takes the next of these durations in ms, the last one for ever."""

    def __init__(self, *durations_ms: float) -> None:
        self.now = 0
        self.durations = list(durations_ms)
        self.calls = 0

    def read(self) -> int:
        return self.now

    def call(self) -> None:
        duration = self.durations[min(self.calls, len(self.durations) - 1)]
        self.now += round(duration * 1e6)
        self.calls += 1


def block(clock: Clock, **settings: float) -> Block:
    short = {"block_s": 0, "block_calls": 1, "drop_s": 0, "drop_calls": 0}
    return time_block(clock.call, BenchSettings.model_validate(short | settings), clock.read)


def test_it_goes_on_until_the_shortest_time_is_over() -> None:
    assert block(Clock(100), block_s=1, block_calls=3).times_ms.tolist() == [100] * 10


def test_it_goes_on_until_there_are_enough_calls() -> None:
    assert block(Clock(100), block_s=0.2, block_calls=7).times_ms.tolist() == [100] * 7


def test_both_are_needed_when_the_calls_change_their_speed() -> None:
    found = block(Clock(1, 1, 1, 500), block_s=1, block_calls=2)
    assert found.times_ms.tolist() == [1, 1, 1, 500, 500]


def test_the_first_calls_after_a_switch_are_dropped_by_number_and_by_time() -> None:
    found = block(Clock(700, 500, 2), drop_calls=2, block_calls=3)
    assert (found.times_ms.tolist(), found.dropped_calls) == ([2, 2, 2], 2)
    found = block(Clock(5, 5, 5, 5, 2), drop_s=0.02, drop_calls=1)
    assert (found.times_ms.tolist(), found.dropped_calls) == ([2], 4)


def test_the_median_of_a_block_is_that_of_its_counted_calls() -> None:
    assert block(Clock(99, 1, 3, 50), drop_calls=1, block_calls=3).p50_ms == 3
