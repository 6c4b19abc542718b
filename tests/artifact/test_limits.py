"""One rule for every comparison of a measured figure with a limit that a person typed."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest

import optkit
from optkit.artifact import Artifact, Format, Passport, Precision
from optkit.artifact.findings import Accuracy, Tolerance
from optkit.artifact.gates import Gates
from optkit.artifact.limits import at_least, at_most, fell_at_most
from optkit.benchmark.changes import Limits
from optkit.checks import compare_outputs
from optkit.choose.int8.sensitivity import AccuracyMetric
from optkit.pipeline.compare import _accuracy, _size, regression
from optkit.pipeline.gates import gate_failures, over_budget

DECIMAL = [
    (0.785, 0.78, 0.005),
    (0.3, 0.1, 0.2),
    (0.97, 0.96, 0.01),
    (1.1, 1.0, 0.1),
    (91.7, 91.6, 0.1),
    (0.005, 0.0, 0.005),
]


@pytest.mark.parametrize(("before", "now", "drop"), DECIMAL)
def test_a_drop_that_is_the_limit_in_decimal_is_allowed_everywhere(before: float, now: float, drop: float) -> None:
    assert fell_at_most(before, now, drop)
    assert fell_at_most(float(np.float32(before)), float(np.float32(now)), drop)
    assert AccuracyMetric("accuracy", lambda _: now, before - drop).accepts(now)  # the step that keeps the same limit
    assert _accuracy("int8", before, now, Limits(max_accuracy_drop=drop)).failure is None
    assert gate_failures(passport(now), Accuracy(value=before, function="f"), Gates(max_accuracy_drop=drop)) == ()


@pytest.mark.parametrize(("before", "now", "drop"), DECIMAL)
def test_a_drop_beyond_the_limit_fails_everywhere(before: float, now: float, drop: float) -> None:
    now -= 1e-5 * before
    assert not fell_at_most(before, now, drop)
    assert not AccuracyMetric("accuracy", lambda _: now, before - drop).accepts(now)
    assert _accuracy("int8", before, now, Limits(max_accuracy_drop=drop)).failure
    assert gate_failures(passport(now), Accuracy(value=before, function="f"), Gates(max_accuracy_drop=drop))


def passport(accuracy: float) -> Passport:
    artifact = Artifact(
        path=Path("/nowhere/model.onnx"),
        format=Format.ONNX,
        precision=Precision.INT8,
        inputs=(),
        outputs=(),
        dims={},
        sha256="",
    )
    return Passport(artifact=artifact, accuracy=Accuracy(value=accuracy, function="f"))


def test_no_number_is_within_any_limit() -> None:
    assert not at_most(math.nan, 1)
    assert not at_least(math.nan, 1)
    assert not fell_at_most(math.nan, 1, 1)
    assert not fell_at_most(1, math.nan, 1)
    assert at_most(-math.inf, 0)
    assert not at_least(-math.inf, 0)


@pytest.mark.parametrize(
    ("old", "new", "allowed", "fails"), [(100, 105, 0.05, False), (100, 106, 0.05, True), (1000, 1100, 0.1, False)]
)
def test_a_growth_of_the_allowed_share_is_allowed(old: int, new: int, allowed: float, fails: bool) -> None:
    assert (_size("a", old, new, Limits(max_regression=allowed)).failure is not None) is fails
    worse = new / old - 1
    assert (regression("latency", worse, worse, worse, allowed)[0] is not None) is fails


def test_a_size_that_is_the_limit_is_within_the_budget() -> None:
    assert over_budget("a", 1_100_000, None, Gates(max_size_mb=1.1)) == ()
    assert over_budget("a", 1_100_010, None, Gates(max_size_mb=1.1))


@pytest.mark.parametrize(("candidate", "passes"), [(1.1, True), (1.10001, False)])
def test_a_difference_of_the_tolerance_is_within_it(candidate: float, passes: bool) -> None:
    ones, others = np.ones(3, np.float32), np.full(3, candidate, np.float32)
    (found,) = compare_outputs({"y": ones}, {"y": others}, {}, Tolerance(atol=0.1, rtol=0.0))
    assert (found.failure is None) is passes


def test_no_typed_limit_is_compared_in_another_way() -> None:
    """Find every comparison with a field that a person sets as a limit; integers are exact and stay."""
    limits = {"max_accuracy_drop", "max_drop", "max_latency_ms", "min_samples_per_s", "min_speedup", "max_size_mb",
              "max_regression", "min_cosine", "min_sqnr_db", "limit", "most", "least", "drop", "allowed"}  # fmt: skip
    exact = {
        ("loops.py", "limit"),
        ("search.py", "most"),
        ("search.py", "least"),
        ("heat.py", "limit"),
        ("reading.py", "limit"),
        ("repository.py", "least"),
        ("far_values.py", "allowed"),
    }  # fmt: skip - counts, and bounds of our own
    found = set()
    for file in Path(optkit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare) and any(
                isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops
            ):
                names = {n.attr if isinstance(n, ast.Attribute) else n.id for n in (node.left, *node.comparators)
                         if isinstance(n, ast.Attribute | ast.Name)}  # fmt: skip
                found |= {(file.name, name) for name in names & limits if file.name != "limits.py"}
    assert found <= exact
