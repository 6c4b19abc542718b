"""Two runs held against each other: verdicts by their intervals, gates, and baselines that say nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from optkit.artifact.findings import Accuracy, NotRun
from optkit.benchmark.bench_record import BenchRecord
from optkit.benchmark.changes import Comparison, Limits, Metric, MetricChange, Trend
from optkit.errors import ArtifactError
from optkit.pipeline.baseline import Snapshot, of_run, read_snapshot
from optkit.pipeline.compare import compare
from optkit.pipeline.records import RunRecord
from tests.support.runs import CONTRACT, MACHINE, VERSIONS, bench, parity, run_record, step
from tests.support.seal import sealed

BEFORE = {"source": 1.0, "export-onnx": 0.5, "quantize-static": 0.25}


def snapshot(p50_ms: Mapping[str, float] | None = None, **changes: Any) -> Snapshot:
    return of_run(run_record(p50_ms or BEFORE, **changes), Path("run.json"))


def changed(name: str) -> Any:
    """Return the steps of a run in which one artifact is another file."""
    return tuple(step(each, sha256=f"{each}-{2 if each == name else 1}") for each in ("export-onnx", "quantize-static"))


def find(found: Comparison, name: str, metric: Metric, batch: int | None = None) -> MetricChange:
    return next(c for c in found.of(name) if c.metric is metric and c.batch == batch)


@pytest.mark.parametrize(
    ("factor", "verdict", "fails"),
    [
        (1.0, Trend.TOO_NOISY, False),
        (1.03, Trend.TOO_NOISY, False),
        (1.2, Trend.WORSE, True),
        (0.8, Trend.BETTER, False),
    ],
)
def test_a_file_that_changed_is_judged_beside_those_that_did_not(factor: float, verdict: Trend, fails: bool) -> None:
    slower = BEFORE | {"quantize-static": 0.25 * factor}
    now = snapshot(slower, steps=changed("quantize-static"))
    found = compare(snapshot(), now, Limits(max_regression=0.05))
    change = find(found, "quantize-static", Metric.LATENCY, 8)
    assert change.verdict is verdict
    assert change.worse_by == pytest.approx(factor - 1, abs=0.01)
    assert change.low is not None
    assert change.high is not None
    assert change.high - change.low > 0.08  # the spread between runs is in it, though the blocks agree within 1 %
    assert bool(found.failures) is fails
    if fails:
        assert found.failures[0].startswith("quantize-static: latency at batch 1: worse by +20.0% (95 %: ")
        assert all(failure.startswith("quantize-static: ") for failure in found.failures)


def test_a_slower_machine_is_no_slower_model() -> None:
    """All files are the same and all times twice as long: the neighbours did that."""
    found = compare(snapshot(), snapshot({name: 2 * ms for name, ms in BEFORE.items()}), Limits(max_regression=0.05))
    assert found.failures == ()
    assert find(found, "quantize-static", Metric.LATENCY, 1).worse_by == pytest.approx(0, abs=0.01)


def test_without_a_file_in_common_a_fifth_is_too_noisy_to_say() -> None:
    other = {name: ms * 1.2 for name, ms in BEFORE.items()}
    steps = tuple(step(name, sha256="other") for name in ("export-onnx", "quantize-static"))
    source = step("source", sha256="other", parent=None, parity=None)
    found = compare(snapshot(), snapshot(other, steps=steps, source=source), Limits(max_regression=0.05))
    assert found.failures == ()
    assert len(found.warnings) == 12
    assert "too noisy to say" in found.warnings[0]
    assert "Measuring both together gives narrower intervals" in found.method
    twice = {name: ms * 2 for name, ms in BEFORE.items()}
    assert compare(snapshot(), snapshot(twice, steps=steps, source=source), Limits(max_regression=0.05)).failures


def test_measured_together_a_fifth_is_beyond_doubt_and_noise_is_not() -> None:
    for factor, fails in ((1.2, True), (1.02, False)):
        now = snapshot({name: ms * factor for name, ms in BEFORE.items()})
        found = compare(snapshot(), now, Limits(max_regression=0.05), together=True)
        assert bool(found.failures) is fails


def test_a_busy_machine_fails_no_gate_but_says_so() -> None:
    slow = run_record(BEFORE | {"quantize-static": 1.0}, steps=changed("quantize-static"))
    assert slow.bench is not None
    busy = slow.model_copy(update={"bench": slow.bench.model_copy(update={"load_before": 40.0})})
    found = compare(snapshot(), of_run(busy, Path("run.json")), Limits(max_regression=0.05))
    assert found.failures == ()
    assert any("too noisy to say, the machine was busy" in warning for warning in found.warnings)
    assert compare(snapshot(), of_run(slow, Path("run.json")), Limits(max_regression=0.05)).failures


def test_the_same_file_under_the_same_libraries_fails_no_gate_but_under_others_it_may() -> None:
    slower = BEFORE | {"quantize-static": 1.0}
    found = compare(snapshot(), snapshot(slower), Limits(max_regression=0.05))
    assert found.failures == ()
    assert "the file and the libraries are the same, so the machine must have changed" in found.warnings[0]
    upgraded = snapshot(bench=bench(slower, versions=VERSIONS | {"onnxruntime": "1.32.0"}))
    assert compare(snapshot(), upgraded, Limits(max_regression=0.05)).failures[0].startswith("quantize-static: latency")


def test_throughput_is_worse_when_it_falls() -> None:
    now = snapshot(BEFORE | {"quantize-static": 0.5}, steps=changed("quantize-static"))
    change = find(compare(snapshot(), now, Limits()), "quantize-static", Metric.THROUGHPUT, 8)
    assert change.worse_by == pytest.approx(1.0, abs=0.05)
    assert change.verdict is Trend.WORSE
    assert change.failure is None  # no gate was asked for


def test_size_accuracy_and_parity_have_no_noise() -> None:
    worse = (
        step("export-onnx", size_bytes=1_200_000),
        step("quantize-static", accuracy=Accuracy(value=0.9, function="f"), parity=parity(passed=False)),
    )
    limits = Limits(max_regression=0.05, max_accuracy_drop=0.01)
    found = compare(snapshot(), snapshot(steps=worse), limits)
    assert found.failures == (
        "export-onnx: size: 20.0% larger than before; at most 5.0% is allowed",
        "quantize-static: parity: passed before, now output 'y' at batch=4: cosine 0.5 is below 0.99",
        "quantize-static: accuracy: 0.9000, 0.0500 below 0.9500; at most 0.01 is allowed",
    )
    lenient = compare(snapshot(), snapshot(steps=worse), Limits())
    assert [failure.partition(":")[0] for failure in lenient.failures] == ["quantize-static"]  # parity has no option


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan"])
def test_an_accuracy_that_is_no_number_cannot_be_recorded(value: object) -> None:
    """So that no gate has to decide on one; an evaluation that returns one is an error of its own."""
    with pytest.raises(ValidationError, match="finite number"):
        Accuracy.model_validate({"value": value, "function": "f"})


@pytest.mark.parametrize("how", ["failed", "not measured"])
def test_what_could_be_measured_before_and_not_now_fails_with_its_reason(how: str) -> None:
    if how == "failed":
        now = snapshot(steps=(step("export-onnx"), step("quantize-static", status="failed", reason="no data")))
    else:
        missing = (NotRun(artifact="quantize-static", reason="no such operator"),)
        now = snapshot(bench=bench({"source": 1.0, "export-onnx": 0.5}, not_run=missing))
    found = compare(snapshot(), now, Limits(max_regression=0.05))
    reason = "failed: no data" if how == "failed" else "no such operator"
    assert found.failures == (f"quantize-static: was measured before; now: {reason}",)


def test_what_is_in_one_run_only_is_named() -> None:
    found = compare(snapshot({"source": 1.0, "old": 1.0}), snapshot({"source": 1.0, "new": 1.0}), Limits())
    assert (found.only_old, found.only_new) == (("old",), ("new",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "other"}, "is a run of recipe 'tiny'; expected a run of recipe 'other'"),
        (
            {"bench": bench(BEFORE, contract=CONTRACT.model_copy(update={"inputs": ("z:float32[8]",)}))},
            "inputs are x:float32",
        ),
        (
            {"bench": bench(BEFORE, contract=CONTRACT.model_copy(update={"outputs": ("z:int64[1]",)}))},
            "outputs are y:float32",
        ),
        ({"bench": bench(BEFORE, machine=MACHINE.model_copy(update={"cores": 64}))}, "cores 4 before, 64 now"),
        ({"bench": bench(BEFORE, machine=MACHINE.model_copy(update={"gpu": "H200"}))}, "gpu None before, 'H200' now"),
    ],
)
def test_a_baseline_that_says_nothing_of_the_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json: ") as error:
        compare(snapshot(), snapshot(**changes), Limits())
    assert message in str(error.value)


def test_another_machine_is_compared_when_told_so_and_named() -> None:
    elsewhere = snapshot(bench=bench(BEFORE, machine=MACHINE.model_copy(update={"cores": 64})))
    assert compare(snapshot(), elsewhere, Limits(), across_machines=True).differing == ("cores 4 before, 64 now",)


def test_other_versions_are_named() -> None:
    now = snapshot(bench=bench(BEFORE, versions=VERSIONS | {"torch": "2.14.0"}))
    assert compare(snapshot(), now, Limits()).differing == ("torch 2.13.0 before, 2.14.0 now",)


def test_no_artifact_in_common_is_refused() -> None:
    with pytest.raises(ArtifactError, match="no artifact is in both runs: a, b before, c, d now"):
        compare(snapshot({"a": 1.0, "b": 1.0}), snapshot({"c": 1.0, "d": 1.0}), Limits())


def damaged(record: RunRecord, edit: Any) -> str:
    content = json.loads(record.to_json())
    edit(content)
    return json.dumps(sealed(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "schema None; expected 'optkit/run/"),
        (
            damaged(run_record(), lambda c: c.update(schema="optkit/run/1")),
            "schema 'optkit/run/1'; expected 'optkit/run/",
        ),
        (damaged(run_record(), lambda c: c.update(bench=None)), "nothing was measured in this run"),
        (damaged(run_record(), lambda c: c["bench"].update(measurements=[])), "nothing was measured in this run"),
        (
            damaged(run_record(), lambda c: c["bench"]["measurements"][0].update(p50_ms=float("nan"))),
            "NaN is not a JSON number",
        ),
        (damaged(run_record(), lambda c: c.pop("source")), "source: Field required"),
        (damaged(run_record(), lambda c: [m.pop("p50_ms") for m in c["bench"]["measurements"]]), "(and 5 more faults)"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ArtifactError) as error:
        read_snapshot(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_baseline_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        read_snapshot(tmp_path / "none.json")
    with pytest.raises(ArtifactError, match=r"is a folder; expected a file such as .*run\.json"):
        read_snapshot(tmp_path)


def test_a_run_and_a_benchmark_are_read_as_they_were_written(tmp_path: Path) -> None:
    run_record().write(tmp_path / "run.json")
    bench(BEFORE).write(tmp_path / "bench.json")
    both = [read_snapshot(tmp_path / name) for name in ("run.json", "bench.json")]
    assert [set(each.variants) for each in both] == [set(BEFORE), set(BEFORE)]
    assert compare(both[1], both[0], Limits(max_regression=0.05)).failures == ()


def test_blocks_that_waited_tell_a_busy_machine_better_than_its_load() -> None:
    slow = run_record(BEFORE | {"quantize-static": 1.0}, steps=changed("quantize-static"))
    assert slow.bench is not None

    def waiting(share: float) -> BenchRecord:
        assert slow.bench is not None
        changed = tuple(m.model_copy(update={"blocks_waited": (share,) * 10}) for m in slow.bench.measurements)
        return slow.bench.model_copy(update={"measurements": changed, "load_before": 40.0})

    assert (waiting(0.5).busy, waiting(0.0).busy) == (True, False)
    assert slow.bench.model_copy(update={"load_before": 40.0}).busy
    contended = slow.model_copy(update={"bench": waiting(0.5)})
    assert compare(snapshot(), of_run(contended, Path("run.json")), Limits(max_regression=0.05)).failures == ()
    fed = slow.model_copy(update={"bench": waiting(0.0)})
    assert compare(snapshot(), of_run(fed, Path("run.json")), Limits(max_regression=0.05)).failures
