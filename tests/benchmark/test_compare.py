import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Protocol, Self

import numpy as np
import pytest

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import Measurement, Stopped, Verdict
from optkit.artifact.tensors import DimRange, Feed, TensorSpec
from optkit.benchmark import BenchSettings, Measured, bench_points, measure, this_machine
from optkit.benchmark.compare import Instruments
from optkit.benchmark.machine import affinity, usable_cores
from optkit.benchmark.summary import Turn, knees, measurement
from optkit.benchmark.timing import Block
from optkit.data import Samples
from optkit.errors import FeedError, RunnerError
from tests.support.measured import measurement as measurement_of
from tests.support.zoo import specs


class Stage:
    """Stands in for the runners, the timing loop and the clock: notes who was opened for what, and gives times by the script."""

    def __init__(self, times: dict[str, Iterator["Times"]], seconds_a_turn: float) -> None:
        self.times = times
        self.played: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self.open = 0
        self.now = 0.0
        self.seconds_a_turn = seconds_a_turn

    def open_runner(
        self, artifact: Artifact, device: str, threads: int, streams: int = 1, cuda_graph: bool = False
    ) -> "Actor":
        self.threads.add(threads)
        return Actor(self, artifact.sha256)

    def time_block(self, call: Callable[[], None], settings: BenchSettings) -> Block:
        name = self.played[-1][0]
        found = next(self.times[name])
        ms, waited = found if isinstance(found, tuple) else (found, 0.0)
        if not isinstance(ms, float):
            raise ms
        return Block(np.array([ms]), dropped_calls=2, waited=waited)

    def clock(self) -> float:
        return self.now


class Actor:
    provider = "FakeProvider"
    title = "model.onnx"

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name

    def __enter__(self) -> Self:
        self.stage.now += self.stage.seconds_a_turn
        self.stage.open += 1
        assert self.stage.open == 1, "two models were loaded at once"
        return self

    def __exit__(self, *_: object) -> None:
        self.stage.open -= 1

    def calling(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def own_times(self, feed: Feed, plan: object) -> None:
        """As most runners: it leaves the timing to the caller."""

    def parts(self, feed: Feed) -> tuple[()]:
        return ()

    def placement(self) -> None:
        """Like most runners: not reported."""

    def bind(self, feed: Feed) -> Callable[[], None]:
        self.stage.played.append((self.name, len(feed["input"])))
        return lambda: None


Times = float | Exception | type[BaseException] | tuple[float, float]  # a time, with the share of it that was waited


class Play(Protocol):
    def __call__(
        self, times: dict[str, Iterable[Times]], seconds_a_turn: float = 0, **settings: object
    ) -> tuple[Stage, Measured]: ...


@pytest.fixture
def play(onnx_linear: Artifact) -> Play:
    """Return play(median of each block of each artifact, settings...): what was done, and what came of it."""

    def played(
        times: dict[str, Iterable[Times]], seconds_a_turn: float = 0, **settings: object
    ) -> tuple[Stage, Measured]:
        stage = Stage({name: iter(blocks) for name, blocks in times.items()}, seconds_a_turn)
        instruments = Instruments(stage.open_runner, stage.time_block, stage.clock)
        artifacts = {name: onnx_linear.model_copy(update={"sha256": name}) for name in times}
        usual = {"batches": (2,), "threads": 1, "min_blocks": 1, "max_blocks": 1}
        samples = Samples(onnx_linear.inputs, onnx_linear.dims)
        return stage, measure(
            artifacts, samples, BenchSettings.model_validate(usual | settings), instruments=instruments
        )

    return played


def noisy(seed: int, sd: float) -> Iterator[float]:
    """Yield the medians of blocks of a model of 1 ms, for ever."""
    random = np.random.default_rng(seed)
    while True:
        yield float(np.exp(random.normal(0, sd)))


def test_every_block_has_a_turn_of_each_in_an_order_of_its_own(play: Play) -> None:
    stage, found = play({name: repeat(1.0) for name in "abc"}, min_blocks=30, max_blocks=30)
    orders = ["".join(name for name, _ in stage.played[i : i + 3]) for i in range(0, 90, 3)]
    assert orders == ["".join(order) for order in found.order]
    assert {*map("".join, orders)} == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_the_order_follows_the_seed(play: Play) -> None:
    def order(seed: int) -> object:
        return play({name: repeat(1.0) for name in "abc"}, min_blocks=9, max_blocks=9, seed=seed)[1].order

    assert order(1) == order(1) != order(2)


def test_a_turn_visits_every_batch_size(play: Play) -> None:
    stage, found = play({"a": repeat(1.0), "b": repeat(1.0)}, batches=(1, 8))
    first, second = found.order[0]
    assert stage.played == [(first, 1), (first, 8), (second, 1), (second, 8)]
    assert [(m.batch, m.artifact) for m in found.measurements] == [(1, "a"), (1, "b"), (8, "a"), (8, "b")]


def test_a_ratio_is_taken_within_blocks_and_each_is_held_against_the_first(play: Play) -> None:
    _, found = play({"a": [4.0, 8.0], "b": [2.0, 1.0], "c": [8.0, 16.0]}, min_blocks=2, max_blocks=2)
    assert [(s.reference, s.candidate, s.ratio) for s in found.speed_ups] == [
        ("a", "b", pytest.approx(4)), ("a", "c", pytest.approx(0.5)),
    ]  # fmt: skip
    b, c = found.speed_ups
    assert (c.low, c.high, c.verdict) == (pytest.approx(0.5), pytest.approx(0.5), Verdict.SLOWER)
    assert b.low is not None
    assert b.low < 1  # 2 and 8: two blocks that disagree are not enough
    assert (b.verdict, b.blocks) == (Verdict.TOO_NOISY, 2)


def test_blocks_end_when_every_interval_is_narrow_enough(play: Play) -> None:
    models = {"a": noisy(1, 0.01), "b": noisy(2, 0.01), "c": noisy(3, 0.03)}
    _, found = play(models, min_blocks=5, max_blocks=1000, half_width=0.01)
    assert 5 < len(found.order) < 1000
    for s in found.speed_ups:
        assert (s.stopped, s.blocks) == (Stopped.PRECISE, len(found.order))
        assert s.low is not None
        assert np.log(s.ratio / s.low) <= 0.01


def test_the_fewest_blocks_are_taken_though_the_interval_is_narrow(play: Play) -> None:
    _, found = play({"a": repeat(1.0), "b": repeat(1.0)}, min_blocks=7, max_blocks=40)
    assert len(found.order) == 7
    assert found.speed_ups[0].verdict is Verdict.NO_DIFFERENCE


def test_no_block_begins_after_the_time_limit(play: Play) -> None:
    models = {"a": noisy(1, 0.5), "b": noisy(2, 0.5)}
    _, found = play(models, seconds_a_turn=1, min_blocks=5, max_blocks=40, time_limit_s=3)
    assert len(found.order) == 2  # of 2 s each; fewer than min_blocks, for a limit is a limit
    assert {(s.stopped, s.verdict) for s in found.speed_ups} == {(Stopped.TIME, Verdict.TOO_NOISY)}


def test_a_comparison_that_is_done_says_so_though_another_runs_into_the_limit(play: Play) -> None:
    models = {"a": repeat(1.0), "b": repeat(2.0), "c": noisy(2, 0.5)}
    _, found = play(models, min_blocks=2, max_blocks=12)
    assert {s.candidate: s.stopped for s in found.speed_ups} == {"b": Stopped.PRECISE, "c": Stopped.BLOCKS}


def test_one_artifact_alone_takes_the_fewest_blocks(play: Play) -> None:
    _, found = play({"a": noisy(1, 0.5)}, min_blocks=6, max_blocks=40)
    assert len(found.order) == 6
    assert found.speed_ups == ()


CONTENDED = (100.0, 0.6)  # two threads of PyTorch, where another process uses a core: a hundredfold


def test_a_block_of_a_busy_machine_is_left_out_and_another_one_measured(play: Play) -> None:
    _, found = play({"a": [1.0, CONTENDED, 1.0, 1.0], "b": repeat(0.5)}, min_blocks=3, max_blocks=9)
    assert (len(found.order), found.left_out) == (3, 1)
    assert found.measurements[0].blocks_p50_ms == (1.0, 1.0, 1.0)
    (s,) = found.speed_ups
    assert (s.ratio, s.cpu_contended_blocks, s.verdict_text) == (pytest.approx(2), 0, "faster")


def test_where_every_block_was_busy_the_verdict_says_so(play: Play) -> None:
    _, found = play({"a": repeat(CONTENDED), "b": repeat(1.0)}, min_blocks=3, max_blocks=8)
    assert (len(found.order), found.left_out) == (6, 0)  # twice the fewest, in the hope of quiet ones
    (s,) = found.speed_ups
    assert (s.verdict, s.cpu_contended_blocks, s.busy, s.verdict_text) == (Verdict.FASTER, 6, True, "faster, busy")
    assert [m.busy for m in found.measurements] == [True, False]
    assert found.measurements[0].blocks_waited == (0.6,) * 6


def test_a_few_quiet_blocks_do_not_stand_for_many_busy_ones(play: Play) -> None:
    """Three of nine were quiet, and happened to be slow; the six others agree."""
    _, found = play(
        {"a": [1.0, *[(1.0, 0.6)] * 2] * 3, "b": [2.0, *[0.5] * 2] * 3}, min_blocks=3, max_blocks=9, half_width=1e-6
    )
    (s,) = found.speed_ups
    assert (s.blocks, s.cpu_contended_blocks, found.left_out) == (9, 6, 0)
    assert s.ratio > 1  # that of the three alone is 0.5


def test_one_block_in_ten_may_meet_a_bad_moment(play: Play) -> None:
    models: dict[str, Iterable[Times]] = {"a": [CONTENDED, *[1.0] * 9], "b": repeat(0.5)}
    _, found = play(models, min_blocks=10, max_blocks=10)
    assert (len(found.order), found.speed_ups[0].cpu_contended_blocks, found.speed_ups[0].busy) == (10, 1, False)
    assert found.speed_ups[0].ratio == pytest.approx(2)  # the mean leaves it out
    models["a"] = [CONTENDED, CONTENDED, *[1.0] * 8]
    assert play(models, min_blocks=10, max_blocks=10)[1].speed_ups[0].busy


def test_waiting_a_little_is_no_fault(play: Play) -> None:
    _, found = play({"a": repeat((1.0, 0.19)), "b": repeat((0.5, 0.05))}, min_blocks=3, max_blocks=8)
    assert (len(found.order), found.speed_ups[0].busy, found.left_out) == (3, False, 0)


def test_an_artifact_that_cannot_run_is_told_and_the_others_are_measured(play: Play) -> None:
    broken = [RunnerError("b: no such operator")]
    _, found = play({"a": repeat(1.0), "b": broken, "c": repeat(2.0)}, min_blocks=3, max_blocks=3)
    assert [(n.artifact, n.reason) for n in found.not_run] == [("b", "b: no such operator")]
    assert [m.artifact for m in found.measurements] == ["a", "c"]
    assert [len(m.blocks_p50_ms) for m in found.measurements] == [3, 3]
    assert [s.candidate for s in found.speed_ups] == ["c"]


def test_one_that_fails_later_loses_what_was_measured_of_it(play: Play) -> None:
    _, found = play({"a": repeat(1.0), "b": [1.0, ValueError("out of memory")]}, min_blocks=3, max_blocks=3)
    (missing,) = found.not_run
    assert missing.artifact == "b"
    assert missing.reason.endswith("failed on input [2, 4]: out of memory")
    assert [m.artifact for m in found.measurements] == ["a"]
    assert found.speed_ups == ()


def test_without_the_reference_nothing_is_compared(play: Play) -> None:
    _, found = play({"a": [RunnerError("no")], "b": repeat(1.0), "c": repeat(2.0)}, min_blocks=2, max_blocks=9)
    assert [m.artifact for m in found.measurements] == ["b", "c"]
    assert (found.speed_ups, len(found.order)) == ((), 2)


def test_where_nothing_can_run_it_is_an_error(play: Play) -> None:
    with pytest.raises(RunnerError, match=r"^a: no\nb: neither$"):
        play({"a": [RunnerError("a: no")], "b": [RunnerError("b: neither")]}, seed=1)


def test_ctrl_c_keeps_the_blocks_that_were_whole(play: Play) -> None:
    _, found = play({"a": [1.0, 1.0, KeyboardInterrupt], "b": repeat(2.0)}, min_blocks=9, max_blocks=9)
    assert found.interrupted
    assert [m.blocks_p50_ms for m in found.measurements] == [(1.0, 1.0), (2.0, 2.0)]
    assert found.speed_ups[0].stopped is Stopped.INTERRUPTED


def test_ctrl_c_before_the_first_whole_block_passes_on(play: Play) -> None:
    with pytest.raises(KeyboardInterrupt):
        play({"a": [KeyboardInterrupt], "b": [1.0]})


def test_the_threads_are_those_asked_for_or_every_core(play: Play) -> None:
    stage, found = play({"a": [1.0]}, threads=3)
    assert stage.threads == {3} == {found.measurements[0].threads}
    stage, found = play({"a": [1.0]}, threads=None)
    assert stage.threads == {usable_cores()} == {found.measurements[0].threads}


def test_real_models_are_measured(onnx_linear: Artifact) -> None:
    settings = BenchSettings(batches=(1, 4), concurrency=(1, 2), block_s=0, block_calls=300, min_blocks=2, max_blocks=2)
    found = measure({"m": onnx_linear}, Samples(onnx_linear.inputs, onnx_linear.dims), settings)
    assert [m.sizes for m in found.measurements] == [{"batch": 1}, {"batch": 4}]
    for m in found.measurements:
        assert (m.provider, m.precision, m.affinity) == ("CPUExecutionProvider", "fp32", affinity())
        assert (m.calls, [len(times) for times in m.times_ms]) == (600, [200, 200])
        assert m.dropped_calls >= 2
        assert m.tail == ("p99", m.p99_ms)
        assert 0 < m.min_ms <= m.p50_ms <= (m.p90_ms or 0) <= (m.p95_ms or 0) <= (m.p99_ms or 0)
        assert m.load_ms is not None
        assert m.load_ms > 0
    assert [(c.batch, c.callers) for c in found.concurrency] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert all(c.calls > 0 and c.samples_per_s > 0 for c in found.concurrency)


def test_the_numbers_of_a_measurement_are_of_all_calls(onnx_linear: Artifact) -> None:
    times = np.arange(1.0, 101)  # 1 to 100 ms
    turns = [Turn("P", load_ms, 7, (Block(part, 3),)) for load_ms, part in ((1, times[:60]), (5, times[60:]))]
    found = measurement("a", onnx_linear, turns, 0, {"batch": 4}, BenchSettings())
    assert (found.p50_ms, found.p90_ms, found.p95_ms) == (50.5, pytest.approx(90.1), pytest.approx(95.05))
    assert found.p99_ms is None
    assert found.tail == ("p95", found.p95_ms)
    assert (found.calls, found.dropped_calls, found.mean_ms, found.min_ms) == (100, 6, 50.5, 1)
    assert found.blocks_p50_ms == (30.5, 80.5)
    assert (found.load_ms, found.first_call_ms) == (3, 7)
    assert found.samples_per_s == pytest.approx(4 * 1000 / 50.5)


def test_a_model_in_python_has_no_load_time(onnx_linear: Artifact) -> None:
    in_python = onnx_linear.model_copy(update={"format": Format.PYTORCH})
    turns = [Turn("P", 1, 7, (Block(np.array([1.0]), 3),))]
    assert measurement("a", in_python, turns, 0, {"batch": 4}, BenchSettings()).load_ms is None


def swept(*rates: tuple[int, float]) -> list[Measurement]:
    return [measurement_of("a", [batch / rate], batch=batch) for batch, rate in rates]


def test_the_knee_is_the_smallest_batch_near_the_largest_throughput() -> None:
    (knee,) = knees(swept((1, 10), (4, 30), (8, 46), (16, 50), (32, 49)))
    assert (knee.artifact, knee.batch, knee.samples_per_s) == ("a", 8, pytest.approx(46_000))
    assert knee.rule == "the smallest batch with at least 90% of the largest throughput, 50,000 samples/s by medians"


def test_two_batches_are_no_sweep() -> None:
    assert knees(swept((1, 10), (4, 30))) == []


def model(onnx_linear: Artifact, inputs: tuple[TensorSpec, ...], **dims: str) -> Artifact:
    ranges = {name: DimRange.parse(text) for name, text in dims.items()}
    return onnx_linear.model_copy(update={"inputs": inputs, "dims": ranges})


def test_batches_default_to_min_opt_and_max_with_the_others_at_opt(onnx_linear: Artifact) -> None:
    artifact = model(onnx_linear, specs("x:int64[batch,length]"), batch="1:4:8", length="1:5:9")
    assert bench_points(artifact, ()) == [{"batch": b, "length": 5} for b in (1, 4, 8)]
    assert bench_points(artifact, (3,)) == [{"batch": 3, "length": 5}]
    assert bench_points(model(onnx_linear, specs("x:int64[batch]"), batch="4:4:4"), ()) == [{"batch": 4}]


def test_a_batch_outside_the_range_is_refused(onnx_linear: Artifact) -> None:
    with pytest.raises(FeedError, match=r"^bench: batch 0, 17; 'batch' is declared from 1 to 16$"):
        bench_points(onnx_linear, (0, 4, 17))


def test_a_model_without_a_batch_is_measured_once(onnx_linear: Artifact) -> None:
    artifact = model(onnx_linear, specs("x:int64[2,length]"), length="1:5:9")
    assert bench_points(artifact, ()) == [{"length": 5}] == bench_points(artifact, (1,))
    with pytest.raises(
        FeedError,
        match=r"^bench: batch sizes 1, 8; the model's inputs share no batch dimension\. Leave out the batch sizes\.$",
    ):
        bench_points(artifact, (1, 8))


def test_the_machine_is_named() -> None:
    machine = this_machine()
    assert machine.cores == usable_cores() >= 1
    assert machine.cpu
    assert machine == this_machine()  # measurements are reused on the same one
