"""Parity and batch independence, on runners that answer what the test says."""

import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.findings import OutputParity, Parity, Tolerance
from optkit.artifact.tensors import DimRange, Feed
from optkit.checks import TOLERANCES, check_batch_independence, check_parity
from optkit.checks.parity import sqnr_db
from optkit.data import Samples, random_feed
from optkit.errors import RunnerError
from optkit.runners import Runner
from tests.support.zoo import specs

Answer = Callable[[np.ndarray], Mapping[str, np.ndarray]]
BATCH = {"batch": DimRange(min=1, opt=4, max=16)}
X = specs("x:float32[batch,2]")


class Fake(Runner):
    """Answers a feed of x by a function; records the sizes of its feeds."""

    provider = "fake"

    def __init__(
        self, answer: Answer, precision: Precision = Precision.FP32, dims: dict[str, DimRange] = BATCH
    ) -> None:
        path = Path("/nowhere/model.onnx")
        super().__init__(
            Artifact(
                path=path,
                format=Format.ONNX,
                precision=precision,
                inputs=X if dims else specs("x:float32[3,2]"),
                outputs=(),
                dims=dims,
                sha256="",
            )
        )
        self.answer = answer
        self.sizes_run: list[int] = []
        self._loaded = True

    def _load(self) -> None: ...
    def _free(self) -> None: ...

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        self.sizes_run.append(len(feed["x"]))
        return dict(self.answer(feed["x"]))

    def _bind(self, feed: Feed) -> Callable[[], None]:
        raise NotImplementedError


def banned(x: np.ndarray, column: int) -> np.ndarray:
    """Return x with -inf in one column, as a policy head gives for banned actions."""
    return np.where(np.arange(x.shape[1]) == column, np.float32(-np.inf), x)


FIRST = random_feed(X, {"batch": 4})["x"][0, 0]


def double(x: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"y": 2 * x}


def parity(
    reference: Answer, candidate: Answer, precision: Precision = Precision.FP32, tolerance: Tolerance | None = None
) -> Parity:
    samples = Samples(X, BATCH)
    return check_parity(Fake(reference), Fake(candidate, precision), samples, BATCH, tolerance)


def test_equal_answers_pass_with_their_numbers() -> None:
    found = parity(double, double)
    assert found.passed
    assert found.failure is None
    assert found.max_abs == 0
    assert found.cosine == pytest.approx(1)
    assert found.tolerance == TOLERANCES[Precision.FP32]
    assert found.values == "seeded random"


def test_every_corner_and_an_odd_point_are_visited_and_min_with_other_values_again() -> None:
    candidate = Fake(double)
    found = check_parity(Fake(double), candidate, Samples(X, BATCH), BATCH)
    assert candidate.sizes_run[:5] == [4, 1, 16, 3, 1]
    assert [o.sizes["batch"] for o in found.outputs] == candidate.sizes_run[:5]


def test_values_differ_everywhere_and_are_the_same_for_both_runners() -> None:
    seen: dict[str, list[bytes]] = {"reference": [], "candidate": []}

    def noting(name: str) -> Answer:
        def answer(x: np.ndarray) -> Mapping[str, np.ndarray]:
            seen[name].append(x.tobytes())
            return double(x)

        return answer

    parity(noting("reference"), noting("candidate"))
    assert seen["reference"] == seen["candidate"]
    assert len(set(seen["reference"])) == 6  # with one of far-reaching values


def test_a_model_without_dynamic_dimensions_has_one_point() -> None:
    candidate = Fake(double, dims={})
    found = check_parity(Fake(double, dims={}), candidate, Samples(candidate.artifact.inputs, {}), {})
    assert set(candidate.sizes_run) == {3}
    assert found.passed


@pytest.mark.parametrize(
    ("precision", "error", "passes"),
    [
        (Precision.FP32, 5e-5, True),
        (Precision.FP32, 5e-3, False),
        (Precision.FP16, 5e-3, True),
        (Precision.FP16, 5e-2, False),
        (Precision.INT8, 5e-2, True),
        (Precision.INT8, 5.0, False),
    ],
)
def test_the_tolerance_is_that_of_the_candidates_precision(precision: Precision, error: float, passes: bool) -> None:
    found = parity(double, lambda x: {"y": 2 * x + error}, precision)
    assert found.passed is passes
    assert found.max_abs == pytest.approx(error, rel=1e-2)


def test_an_offset_in_the_output_hides_no_int8_error() -> None:
    def offset(x: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"y": 2 * x + 1000}

    def useless(x: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"y": np.roll(2 * x, 1) + 1000}  # the values of others

    found = parity(offset, useless, Precision.INT8)
    assert not found.passed
    assert found.cosine is not None
    assert found.cosine > 0.99999  # which is all that was looked at once
    assert found.sqnr_db is not None
    assert found.sqnr_db < 3
    assert found.failure is not None
    assert "dB is below 10" in found.failure
    assert parity(offset, lambda x: {"y": 2.02 * x + 1000}, Precision.INT8).passed


def test_a_wrong_scale_is_found_though_it_keeps_the_direction() -> None:
    found = parity(double, lambda x: {"y": 3 * x}, Precision.INT8)
    assert found.cosine == pytest.approx(1)
    assert found.failure is not None
    assert "dB is below 10" in found.failure


def test_the_sqnr_of_equal_zero_and_constant_outputs() -> None:
    zeros, ones = np.zeros(4), np.ones(4)
    assert sqnr_db(ones, ones) is None
    assert sqnr_db(zeros, ones) is None
    assert sqnr_db(ones, ones * 1.1) == pytest.approx(20)  # a constant counts as it is
    assert sqnr_db(np.empty(0), np.empty(0)) is None
    assert parity(lambda x: {"y": 0 * x}, lambda x: {"y": 0 * x}, Precision.INT8).passed
    assert not parity(lambda x: {"y": 0 * x}, lambda x: {"y": 0 * x + 1}, Precision.INT8).passed


def test_one_element_that_is_off_is_found_and_counted() -> None:
    def off(x: np.ndarray) -> Mapping[str, np.ndarray]:
        y = 2 * x
        y[-1, 0] += 1
        return {"y": y}

    found = parity(double, off)
    assert found.failure is not None
    assert found.failure.startswith("output 'y' at batch=4: 1 of 8 elements are outside atol 0.0001, rtol 0.001, ")
    assert found.failure.endswith("(and 4 more)")


def test_a_given_tolerance_replaces_that_of_the_precision() -> None:
    wide = Tolerance(atol=0.1, rtol=0.0)
    assert parity(double, lambda x: {"y": 2 * x + 0.05}, tolerance=wide).passed
    assert not parity(double, lambda x: {"y": 2 * x + 0.05}, Precision.INT8, Tolerance(atol=0.0, rtol=0.0)).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "failure"),
    [
        pytest.param(
            lambda x: {"y": x, "z": x}, lambda x: {"y": x},
            "output 'z' at batch=4: the candidate does not have it (and 4 more)", id="missing-output",
        ),
        pytest.param(
            lambda x: {"y": x}, lambda x: {"y": x, "z": x},
            "output 'z' at batch=4: the reference does not have it (and 4 more)", id="extra-output",
        ),
        pytest.param(
            lambda x: {"y": x}, lambda x: {"y": x[:1]},
            "output 'y' at batch=4: has shape [1, 2]; the reference has [4, 2] (and 2 more)", id="wrong-shape",
        ),
        pytest.param(
            lambda x: {"y": x}, lambda x: {"y": x.ravel()},
            "output 'y' at batch=4: has shape [8]; the reference has [4, 2] (and 4 more)", id="same-values-in-another-shape",
        ),
        pytest.param(
            lambda x: {"y": x}, lambda x: {"y": np.where(np.arange(2) == 0, np.nan, x)},
            "output 'y' at batch=4: 4 of 8 elements are NaN or infinite (and 4 more)", id="nan-in-the-candidate",
        ),
        pytest.param(
            lambda x: {"y": x}, lambda x: {"y": x / 0},
            "output 'y' at batch=4: 8 of 8 elements are NaN or infinite (and 4 more)", id="infinity-in-the-candidate",
        ),
        pytest.param(
            lambda x: {"y": x * np.nan}, lambda x: {"y": x * np.nan},
            "output 'y' at batch=4: the samples are unusable: on them the model itself gives NaN in 8 of 8 elements. "
            "Give real samples with --data (and 4 more)",
            id="nan-in-both-on-random-values",
        ),
        pytest.param(
            lambda x: {"y": x * 0 - np.inf}, lambda x: {"y": x * 0 - np.inf},
            "output 'y' at batch=1: the samples are unusable: on them the model itself gives only NaN and infinities. "
            "Give real samples with --data",
            id="nothing-but-infinities",
        ),
        pytest.param(
            lambda x: {"y": banned(x, 0)}, lambda x: {"y": banned(x, 1)},
            "output 'y' at batch=4: 4 of 8 elements are NaN or infinite (and 4 more)", id="infinities-at-other-places",
        ),
        pytest.param(
            lambda x: {"y": banned(x, 0)}, lambda x: {"y": x},
            "output 'y' at batch=4: 4 of 8 elements of the reference are NaN or infinite; one of them is -1.54 for -inf (and 4 more)"
            .replace("-1.54", f"{FIRST:g}"),
            id="infinities-lost",
        ),
        pytest.param(
            lambda x: {"y": banned(x, 0)}, lambda x: {"y": np.where(np.arange(2) == 0, np.float32(np.inf), x)},
            "output 'y' at batch=4: 4 of 8 elements of the reference are NaN or infinite; one of them is inf for -inf (and 4 more)",
            id="infinities-of-the-other-sign",
        ),
        pytest.param(
            lambda x: {"y": banned(x, 0)}, lambda x: {"y": banned(x + 1, 0)},
            "output 'y' at batch=4: 4 of 4 elements are outside atol 0.0001, rtol 0.001, cosine 0.9999: max abs 1, max rel RATIO (and 4 more)",
            id="wrong-beside-infinities",
        ),
        pytest.param(lambda x: {}, lambda x: {}, "nothing was compared", id="no-output"),
        pytest.param(
            lambda x: {"y": x * 0}, lambda x: {"y": x * 0 + 1},
            "output 'y' at batch=4: 8 of 8 elements are outside atol 0.0001, rtol 0.001, cosine 0.9999: "
            "max abs 1, max rel 1e+12 (and 4 more)",
            id="zero-against-one",
        ),
        pytest.param(
            lambda x: {"y": (x > 0).astype(np.int64)}, lambda x: {"y": (x > 0).astype(np.int64) + 1},
            "output 'y' at batch=4: 8 of 8 elements are outside atol 0.0001, rtol 0.001, cosine 0.9999: max abs 1, max rel 1e+12 (and 4 more)",
            id="integers",
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:(divide|invalid):RuntimeWarning")
def test_what_differs_is_a_failure(reference: Answer, candidate: Answer, failure: str) -> None:
    found = parity(reference, candidate)
    assert not found.passed
    assert found.failure is not None
    assert re.sub(r"max rel \S+ ", "max rel RATIO ", found.failure) == failure or found.failure == failure


def test_infinities_at_the_same_places_are_equal_and_the_rest_is_compared() -> None:
    found = parity(lambda x: {"y": banned(2 * x, 1)}, lambda x: {"y": banned(2 * x, 1)})
    assert found.passed
    assert found.max_abs == 0


@pytest.mark.parametrize(("shift", "passes"), [(0, True), (1, False)])
def test_nan_of_the_reference_on_real_samples_must_stand_at_its_places(
    shift: int, passes: bool, tmp_path: Path
) -> None:
    def answer(x: np.ndarray, shift: int = 0) -> Mapping[str, np.ndarray]:
        return {"y": np.where(np.arange(2) == shift, np.float32(np.nan), x)}

    np.savez(tmp_path / "0.npz", x=np.ones((16, 2), np.float32))
    samples = Samples.of(str(tmp_path), X, BATCH)
    found = check_parity(Fake(answer), Fake(lambda x: answer(x, shift)), samples, BATCH)
    assert found.passed is passes
    assert not found.unusable


def test_numbers_that_are_not_finite_are_none_since_json_has_no_nan() -> None:
    found = parity(double, lambda x: {"y": x * np.nan})
    assert found.max_abs is None
    assert found.cosine is None
    assert "NaN" not in found.model_dump_json(exclude={"outputs"})


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.uint8])
def test_zero_outputs_and_integer_outputs_are_equal_to_themselves(dtype: type[np.generic]) -> None:
    for answer in (lambda x: {"y": np.zeros(x.shape, dtype)}, lambda x: {"y": (x > 0).astype(dtype)}):
        found = parity(answer, answer)
        assert found.passed
        assert found.cosine == pytest.approx(1)


def test_large_integers_do_not_wrap_around() -> None:
    found = parity(lambda x: {"y": np.zeros(x.shape, np.uint8)}, lambda x: {"y": np.full(x.shape, 255, np.uint8)})
    assert found.max_abs == 255


def test_int8_holds_the_direction_of_the_whole_output() -> None:
    found = parity(double, lambda x: {"y": -2 * x}, Precision.INT8)
    assert found.failure == "output 'y' at batch=4: cosine -1.00000 is below 0.98 (and 4 more)"
    zero = parity(double, lambda x: {"y": 0 * x}, Precision.INT8)
    assert zero.failure == "output 'y' at batch=4: cosine 0.00000 is below 0.98 (and 4 more)"


def test_a_candidate_that_cannot_run_at_a_point_fails_there() -> None:
    def only_four(x: np.ndarray) -> Mapping[str, np.ndarray]:
        if len(x) != 4:
            raise ValueError("baked in")
        return double(x)

    found = parity(double, only_four)
    assert [o.failure is None for o in found.outputs] == [True, False, False, False, False]
    assert found.failure == "output 'y' at batch=1: model.onnx: failed on x [1, 2]: baked in (and 3 more)"


def test_a_reference_that_cannot_run_is_an_error() -> None:
    def fails(x: np.ndarray) -> Mapping[str, np.ndarray]:
        raise ValueError("out of memory")

    with pytest.raises(RunnerError, match="out of memory"):
        parity(fails, double)


def test_a_finding_that_a_comparison_is_not_a_number_is_no_pass() -> None:
    one = OutputParity(output="y", sizes={}, max_abs=None, max_rel=None, cosine=None, failure="NaN")
    found = Parity(reference="a", candidate="b", tolerance=Tolerance(), values="", outputs=(one,))
    assert not found.passed
    assert operator.attrgetter("max_abs", "cosine")(found) == (None, None)


# Batch independence: f([a, b]) = [f(a), f(b)].


def independence(answer: Answer, dims: dict[str, DimRange] = BATCH) -> tuple[bool, str | None, list[int]]:
    runner = Fake(answer, dims=dims)
    found = check_batch_independence(runner, Samples(X, dims), dims)
    return found.passed, found.failure, runner.sizes_run


def test_an_independent_model_passes() -> None:
    passed, failure, sizes_run = independence(double)
    assert passed
    assert failure is None
    assert sizes_run == [3, 1, 2]


def test_a_model_that_folds_its_batch_is_refuted() -> None:
    passed, failure, _ = independence(lambda x: {"y": x.reshape(1, -1)})
    assert not passed
    assert failure == (
        "output 'y' has shape [1, 6] for 3 samples: it folds the batch into another dimension, "
        "so a server that batches requests would return wrong outputs"
    )


def test_a_scalar_output_is_refuted() -> None:
    _, failure, _ = independence(lambda x: {"y": np.asarray(x.sum())})
    assert failure is not None
    assert failure.startswith("output 'y' has shape [] for 3 samples: it folds the batch")


def test_a_model_that_normalises_over_the_batch_is_refuted() -> None:
    passed, failure, _ = independence(lambda x: {"y": x - x.mean(axis=0)})
    assert not passed
    assert failure is not None
    assert failure.startswith("output 'y' of a sample depends on the other samples in its batch: ")


def test_a_model_that_depends_on_the_order_is_refuted() -> None:
    passed, _, _ = independence(lambda x: {"y": x + np.arange(len(x), dtype=np.float32)[:, None]})
    assert not passed


def test_a_model_that_is_right_for_the_first_request_only_is_refuted() -> None:
    assert not independence(lambda x: {"y": np.repeat(x[:1], len(x), axis=0)})[0]


@pytest.mark.parametrize(
    ("low", "usual", "high", "sizes_run"),
    [(1, 1, 2, [2, 1, 1]), (2, 4, 8, [5, 2, 3]), (3, 3, 6, [6, 3, 3]), (1, 8, 8, [3, 1, 2])],
)
def test_the_sizes_stay_inside_the_range(low: int, usual: int, high: int, sizes_run: list[int]) -> None:
    assert independence(double, {"batch": DimRange(min=low, opt=usual, max=high)}) == (True, None, sizes_run)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (3, 5), (4, 7)])
def test_a_range_that_cannot_be_added_up_is_no_pass(low: int, high: int) -> None:
    passed, failure, sizes_run = independence(double, {"batch": DimRange(min=low, opt=low, max=high)})
    assert not passed
    assert failure == f"not checked: no two sizes of 'batch' in {low} to {high} have a sum in this range"
    assert sizes_run == []


def test_inputs_without_a_shared_first_dimension_are_no_pass() -> None:
    runner = Fake(double, dims={})
    found = check_batch_independence(runner, Samples(runner.artifact.inputs, {}), {})
    assert found.dim is None
    assert not found.passed
    assert found.failure == "the inputs do not share a first dimension that varies"
