import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from optkit.artifact import Artifact
from optkit.artifact.tensors import Feed
from optkit.errors import FeedError, StageError
from optkit.quantization.calibration.collect import calibrate
from optkit.quantization.calibration.ranges import Range
from optkit.quantization.calibration.settings import CalibrationMethod, CalibrationSettings
from optkit.stages import ExportOnnx
from tests.support import zoo
from tests.support.zoo import Make

OPS = ("Gemm", "Conv")


def collect_ranges(
    model: Path, ops: Sequence[str], feeds: Iterable[Feed], method: CalibrationMethod, percent: float = 99.999
) -> dict[str, Range]:
    return calibrate(model, ops, feeds, CalibrationSettings(method=method, percentile=percent)).ranges


@pytest.fixture(scope="module")
def model(make: Make) -> Artifact:
    return make("linear", ExportOnnx(exporter="torchscript", opset=17, name="for-calibration"))


@pytest.fixture(scope="module")
def feeds() -> list[Feed]:
    return list(zoo.linear_feeds())


def cut(feeds: list[Feed], size: int) -> list[Feed]:
    rows = np.concatenate([feed["input"] for feed in feeds])
    return [{"input": rows[i : i + size]} for i in range(0, len(rows), size)]


def test_min_max_is_the_smallest_and_the_largest(model: Artifact, feeds: list[Feed]) -> None:
    rows = np.concatenate([feed["input"] for feed in feeds])
    outputs = rows @ zoo.WEIGHT.T + zoo.BIAS
    assert collect_ranges(model.path, OPS, feeds, CalibrationMethod.MINMAX) == {
        "input": (rows.min(), rows.max()),
        "output": (outputs.min(), outputs.max()),
    }


@pytest.mark.parametrize("method", CalibrationMethod)
def test_ranges_do_not_depend_on_how_the_data_is_cut(
    model: Artifact, feeds: list[Feed], method: CalibrationMethod
) -> None:
    whole = collect_ranges(model.path, OPS, cut(feeds, 128), method, 90)
    for size in (1, 7, 64):
        assert collect_ranges(model.path, OPS, cut(feeds, size), method, 90) == whole
    if method is not CalibrationMethod.MOVING_AVERAGE:  # which forgets
        assert collect_ranges(model.path, OPS, cut(feeds, 7)[::-1], method, 90) == whole


def test_the_methods_differ_where_there_is_an_outlier(model: Artifact) -> None:
    rows = np.random.default_rng(0).standard_normal((100_000, 4)).astype(np.float32)
    rows[0, 0] = 100
    feeds = [{"input": rows[i : i + 4096]} for i in range(0, len(rows), 4096)]
    found = {method: collect_ranges(model.path, OPS, feeds, method)["input"].high for method in CalibrationMethod}
    assert found[CalibrationMethod.MINMAX] == 100
    assert found[CalibrationMethod.ENTROPY] < 80
    assert found[CalibrationMethod.PERCENTILE] < 10


def test_zeros_do_not_shrink_the_range_of_entropy(model: Artifact) -> None:
    rows = np.maximum(np.random.default_rng(0).standard_normal((100_000, 4)), 0).astype(np.float32)
    found = collect_ranges(model.path, OPS, [{"input": rows}], CalibrationMethod.ENTROPY)["input"]
    assert found.high > 0.9 * rows.max()


@pytest.mark.parametrize("method", CalibrationMethod)
def test_a_tensor_that_is_zero_throughout_has_a_range(model: Artifact, method: CalibrationMethod) -> None:
    found = collect_ranges(model.path, OPS, [{"input": np.zeros((4, 4), np.float32)}], method)
    assert found["input"] == (0, 0)
    assert found["output"] == (zoo.BIAS.min(), zoo.BIAS.max())


def test_one_batch_at_a_time_is_held(model: Artifact) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Data:
        def __iter__(self) -> Iterator[Feed]:
            nonlocal most
            for seed in range(20):
                most = max(most, sum(ref() is not None for ref in alive))
                rows = np.random.default_rng(seed).standard_normal((256, 4)).astype(np.float32)
                alive.append(weakref.ref(rows))
                feed = {"input": rows}
                del rows
                yield feed
                del feed

    collect_ranges(model.path, OPS, Data(), CalibrationMethod.ENTROPY)
    assert len(alive) == 20  # read once
    assert most <= 2  # the one just used and what the loop's name still holds


def test_a_model_without_such_operators_is_refused(model: Artifact, feeds: list[Feed]) -> None:
    with pytest.raises(StageError, match="the model has no operator that can be quantized"):
        collect_ranges(model.path, ("Conv",), feeds, CalibrationMethod.MINMAX)


def test_a_feed_that_the_model_cannot_run_is_told(model: Artifact) -> None:
    with pytest.raises(StageError, match="the model cannot be run on the calibration data: "):
        collect_ranges(model.path, OPS, [{"input": np.zeros((2, 5), np.float32)}], CalibrationMethod.MINMAX)


def test_a_tensor_that_is_not_finite_is_named(model: Artifact, feeds: list[Feed]) -> None:
    bad = {"input": np.full((2, 4), np.inf, np.float32)}
    with pytest.raises(FeedError, match=r"^sample 128: tensor 'input' is not finite; a range needs finite numbers$"):
        collect_ranges(model.path, OPS, [*feeds, bad], CalibrationMethod.MINMAX)


def test_a_model_that_cannot_be_loaded_is_told(model: Artifact, feeds: list[Feed], tmp_path: Path) -> None:
    broken = onnx.load(model.path)
    broken.graph.node[0].op_type = "Gemm"
    broken.graph.node[0].domain = "no.such.domain"
    onnx.save(broken, tmp_path / "model.onnx")
    with pytest.raises(StageError, match="the model cannot be run for calibration: "):
        collect_ranges(tmp_path / "model.onnx", OPS, feeds, CalibrationMethod.MINMAX)
