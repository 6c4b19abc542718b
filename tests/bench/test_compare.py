from collections.abc import Callable, Iterator
from typing import Self

import pytest
from measured import measurement
from zoo import specs

from optkit.artifact import Artifact
from optkit.bench import BenchSettings, bench_points, compare, measure, speed_ups, this_machine
from optkit.bench.machine import usable_cores
from optkit.data import Samples
from optkit.errors import FeedError
from optkit.findings import Measurement
from optkit.tensors import DimRange, Feed, TensorSpec


class Stage:
    """Stands in for the runners and the timing loop: notes who was opened for what, and gives times by the script."""

    def __init__(self, times: dict[str, Iterator[tuple[float, ...]]]) -> None:
        self.times = times
        self.played: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self.open = 0

    def open_runner(self, artifact: Artifact, device: str, threads: int) -> "Actor":
        self.threads.add(threads)
        return Actor(self, artifact.sha256)

    def time_calls(self, call: Callable[[], tuple[float, ...]], settings: BenchSettings) -> tuple[float, ...]:
        return call()


class Actor:
    provider = "FakeProvider"

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name

    def __enter__(self) -> Self:
        self.stage.open += 1
        assert self.stage.open == 1, "two models were loaded at once"
        return self

    def __exit__(self, *_: object) -> None:
        self.stage.open -= 1

    def bind(self, feed: Feed) -> Callable[[], tuple[float, ...]]:
        self.stage.played.append((self.name, len(feed["input"])))
        return lambda: next(self.stage.times[self.name])


@pytest.fixture
def play(onnx_linear: Artifact, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Stage, list[Measurement]]]:
    """Return play(times of each artifact in the order of the calls, settings...): what was done, and what came of it."""

    def played(
        times: dict[str, list[tuple[float, ...]]],
        batches: tuple[int, ...] = (2,),
        rounds: int = 1,
        threads: int | None = 1,
    ) -> tuple[Stage, list[Measurement]]:
        stage = Stage({name: iter(rows) for name, rows in times.items()})
        monkeypatch.setattr(compare, "open_runner", stage.open_runner)
        monkeypatch.setattr(compare, "time_calls", stage.time_calls)
        artifacts = {name: onnx_linear.model_copy(update={"sha256": name}) for name in times}
        samples = Samples(onnx_linear.inputs, onnx_linear.dims)
        return stage, measure(artifacts, samples, BenchSettings(batches=batches, rounds=rounds, threads=threads))

    return played


Play = Callable[..., tuple[Stage, list[Measurement]]]


def test_rounds_alternate_and_each_starts_with_another_artifact(play: Play) -> None:
    stage, _ = play({name: [(1.0,)] * 3 for name in "abc"}, rounds=3)
    assert [name for name, _ in stage.played] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_turn_visits_every_batch_size(play: Play) -> None:
    stage, found = play({"a": [(1.0,)] * 4, "b": [(1.0,)] * 4}, batches=(1, 8), rounds=2)
    assert stage.played == [("a", 1), ("a", 8), ("b", 1), ("b", 8), ("b", 1), ("b", 8), ("a", 1), ("a", 8)]
    assert [(m.batch, m.artifact) for m in found] == [(1, "a"), (1, "b"), (8, "a"), (8, "b")]


def test_all_raw_times_are_kept_by_round(play: Play) -> None:
    _, (found,) = play({"a": [(1.0, 2.0), (3.0,)]}, rounds=2)
    assert found.times_ms == ((1.0, 2.0), (3.0,))
    assert found.provider == "FakeProvider"
    assert not found.includes_copies


def test_percentiles_and_throughput_are_of_all_calls(play: Play) -> None:
    times = tuple(float(n) for n in range(1, 101))  # 1 to 100 ms
    _, (found,) = play({"a": [times[:60], times[60:]]}, batches=(4,), rounds=2)
    assert (found.p50_ms, found.p90_ms, found.p95_ms) == (50.5, pytest.approx(90.1), pytest.approx(95.05))
    assert found.p99_ms is None
    assert found.tail == ("p95", found.p95_ms)
    assert (found.calls, found.mean_ms, found.min_ms) == (100, 50.5, 1)
    assert found.samples_per_s == pytest.approx(4 * 1000 / 50.5)


def test_the_threads_are_those_asked_for_or_every_core(play: Play) -> None:
    stage, (found,) = play({"a": [(1.0,)]}, threads=3)
    assert stage.threads == {3} == {found.threads}
    stage, (found,) = play({"a": [(1.0,)]}, threads=None)
    assert stage.threads == {usable_cores()} == {found.threads}


def test_real_models_are_measured(onnx_linear: Artifact) -> None:
    settings = BenchSettings(batches=(1, 4), rounds=2, warmup_calls=1, min_duration_s=0, min_calls=3)
    found = measure({"m": onnx_linear}, Samples(onnx_linear.inputs, onnx_linear.dims), settings)
    assert [m.sizes for m in found] == [{"batch": 1}, {"batch": 4}]
    for m in found:
        assert m.provider == "CPUExecutionProvider"
        assert [len(times) for times in m.times_ms] == [3, 3]
        assert 0 < m.min_ms <= m.p50_ms
        assert (m.p90_ms, m.tail) == (None, ("p50", m.p50_ms))


def test_a_speed_up_is_the_mean_ratio_of_medians_of_blocks() -> None:
    (found,) = speed_ups([measurement("a", [4, 4, 9], [8, 8, 8]), measurement("b", [2, 2, 1], [1, 1, 3])], "a")
    assert (found.reference, found.candidate, found.batch, found.blocks) == ("a", "b", 1, 2)
    assert found.ratio == pytest.approx(4)  # of 2 and 8
    assert found.low is not None
    assert found.low < 2


def test_speed_ups_are_within_one_batch_size() -> None:
    found = speed_ups(
        [measurement("a", [1], batch=1), measurement("b", [2], batch=1), measurement("b", [1], batch=8)], "a"
    )
    assert [(s.batch, s.ratio) for s in found] == [(1, pytest.approx(0.5))]


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
    with pytest.raises(FeedError, match=r"^bench: batch sizes 1, 8 for a model whose inputs share no batch dimension$"):
        bench_points(artifact, (1, 8))


def test_the_machine_is_named() -> None:
    machine = this_machine()
    assert machine.cores == usable_cores() >= 1
    assert machine.cpu
    assert machine == this_machine()  # measurements are reused on the same one
