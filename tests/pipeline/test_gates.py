"""The budget of a recipe: what is right but too slow or too large may not win."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from optkit.artifact.gates import Gates
from optkit.errors import RecipeError
from optkit.pipeline.gates import over_budget
from optkit.pipeline.measured_gates import check_budget
from optkit.pipeline.plan import make_plan
from optkit.recipe import load_recipe
from tests.support.project import ONNX, carry_out, write_project
from tests.support.runs import bench, step

BENCH = bench({"source": 1.0, "fast": 0.25})  # at batch 8 2.828 times as long


@pytest.mark.parametrize(
    ("gates", "found"),
    [
        (Gates(), ()),
        (Gates(max_size_mb=1.0), ()),
        (Gates(max_size_mb=0.9), ("size: 1 MB; at most 0.9 MB is allowed",)),
        (Gates(max_latency_ms=0.8), ()),
        (Gates(max_latency_ms=0.3), ("latency at batch 8: p50 0.707 ms; at most 0.3 ms is allowed",)),
        (Gates(max_latency_ms={1: 0.3}), ()),
        (Gates(max_latency_ms={1: 0.2, 8: 0.8}), ("latency at batch 1: p50 0.25 ms; at most 0.2 ms is allowed",)),
        (Gates(max_latency_ms={2: 1.0}), ("latency at batch 2: not measured",)),
        (Gates(min_samples_per_s=4000), ()),
        (Gates(min_samples_per_s=5000), ("throughput at batch 1: 4,000.0 samples/s; at least 5000 is required",)),
        (Gates(min_samples_per_s={8: 11000}), ()),
        (
            Gates(min_samples_per_s={2: 1, 8: 12000}),
            (
                "throughput at batch 2: not measured",
                "throughput at batch 8: 11,313.7 samples/s; at least 12000 is required",
            ),
        ),
        (Gates(min_speedup=3.9), ()),
        (
            Gates(min_speedup=5),
            tuple(f"speed-up at batch {b}: 4.00x source; at least 5x is required" for b in (1, 8)),
        ),
    ],
)
def test_a_budget_is_held(gates: Gates, found: tuple[str, ...]) -> None:
    assert over_budget("fast", 1_000_000, BENCH, gates) == found


def test_what_was_not_measured_is_over_a_budget_of_time() -> None:
    assert over_budget("other", 1, BENCH, Gates(max_latency_ms=1)) == ("latency: not measured",)
    assert over_budget("other", 1, BENCH, Gates(min_samples_per_s=1)) == ("latency: not measured",)
    assert over_budget("other", 1, BENCH, Gates()) == ()
    assert over_budget("other", 2_000_000, None, Gates(max_latency_ms=1, max_size_mb=1)) == (
        "size: 2 MB; at most 1 MB is allowed",
    )


def test_a_share_is_written_as_per_cent_or_as_a_number() -> None:
    assert Gates(max_regression="5%").max_regression == 0.05
    assert Gates(max_regression=0.05).max_regression == 0.05
    for bad in ("five%", "-5%", -0.1, float("nan")):
        with pytest.raises(ValidationError):
            Gates(max_regression=bad)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Gates(max_size_mb=bad)
        with pytest.raises(ValidationError):
            Gates(min_samples_per_s={1: bad})


def test_a_run_in_which_nothing_is_within_the_budget_fails_and_says_why(tmp_path: Path) -> None:
    serve = [{"target": "triton"}]
    record = carry_out(write_project(tmp_path, steps=[ONNX], gates={"max_latency_ms": 1e-6}, serve=serve))
    assert record.exit_code == 1
    assert record.winner is None
    assert record.failures[0].startswith("export-onnx: latency at batch 2: p50 ")
    assert record.failures[1] == "serve.0 (triton): not packaged: no artifact passed its gates"
    assert record.steps[0].failures == ()  # it is right, only too slow


def test_an_engine_that_could_not_be_run_does_not_keep_the_budget_for_the_others() -> None:
    engine = step("engine", unproven="no NVIDIA driver here", parity=None, accuracy=None, size_bytes=1)
    results = {"fast": step("fast"), "engine": engine}
    _, failures = check_budget(results, BENCH, Gates(max_size_mb=0.9))
    assert failures == ("fast: size: 1 MB; at most 0.9 MB is allowed",)
    _, failures = check_budget(results | {"engine": step("engine", size_bytes=1)}, BENCH, Gates(max_size_mb=0.9))
    assert failures == ()


def test_what_is_over_the_budget_does_not_win_and_does_not_fail_the_run(tmp_path: Path) -> None:
    half = {"stage": "convert-fp16", "after": "export-onnx"}
    both = carry_out(write_project(tmp_path / "a", steps=[ONNX, half]))
    sizes = [step.size_bytes or 0 for step in both.steps]
    limit = (min(sizes) + 1) / 1e6
    assert sizes[0] != sizes[1]
    record = carry_out(write_project(tmp_path / "b", steps=[ONNX, half], gates={"max_size_mb": limit}))
    small = min(record.steps, key=lambda step: step.size_bytes or 0)
    assert record.exit_code == 0
    assert record.winner is not None
    assert record.winner.artifact == small.name
    assert record.winner.lost[0].reason.startswith("size: ")


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"max_regression": "5%"}, "gates.max_regression: there is nothing to compare with"),
        ({"baseline": "run.json", "max_regression": "5%"}, "run.json: no such file. Keep the run.json of a good run"),
        ({"baseline": "model.py"}, "gates.baseline: no gate uses it"),
        ({"max_latency_ms": {3: 1.0}}, "gates.max_latency_ms: batch 3 is not among bench.batches"),
        ({"min_samples_per_s": {3: 1.0}}, "gates.min_samples_per_s: batch 3 is not among bench.batches"),
    ],
)
def test_gates_that_cannot_be_held_are_told_before_the_work(
    gates: dict[str, object], message: str, tmp_path: Path
) -> None:
    recipe = load_recipe(write_project(tmp_path, gates=gates))
    with pytest.raises(RecipeError) as error:
        make_plan(recipe, tmp_path / "out")
    assert message in str(error.value)
