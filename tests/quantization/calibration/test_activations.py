from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optkit.quantization.calibration.activations import Activations
from optkit.quantization.calibration.collect import calibrate
from optkit.quantization.calibration.settings import CalibrationMethod, CalibrationSettings

OPS = ("Conv", "Relu", "Clip", "Add", "Gemm")


def value(name: str, *shape: object) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """x -> a (Relu alone reads it) -> b -> c (Clip and Add read it) -> d; e = b + c."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Add", ["b", "one"], ["c"], "add2"),
        helper.make_node("Clip", ["c", "", "six"], ["d"], "clip"),
        helper.make_node("Add", ["d", "c"], ["e"], "add3"),
    ]
    weights = [
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("six", TensorProto.FLOAT, [], [6.0]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", "batch", 3)], [value("e", "batch", 3)], weights)
    graph.value_info.extend(value(name, "batch", 3) for name in "abcd")
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_only_a_relu_reads_takes_its_range(model: Path) -> None:
    with Activations(model, OPS, symmetric=False) as run:
        assert run.same_as == {"a": "b"}
        assert run.names == ("x", "b", "c", "d", "e")
        assert run.has_batch
        found = run({"x": np.array([[-5, 0, 9]], np.float32)})
    assert found["b"].tolist() == [[0, 1, 10]]
    assert found["d"].tolist() == [[1, 2, 6]]


@pytest.mark.parametrize(("symmetric", "excluded"), [(True, ()), (False, ("relu",))])
def test_it_has_a_range_of_its_own_where_the_quantizer_takes_it(
    model: Path, symmetric: bool, excluded: tuple[str, ...]
) -> None:
    with Activations(model, OPS, symmetric=symmetric, excluded=excluded) as run:
        assert run.same_as == {}
        assert "a" in run.names


def test_ranges_are_those_that_onnxruntime_gives_the_quantized_model(model: Path) -> None:
    """ONNX Runtime's quantizer replaces the range before a Relu by that behind it; so do we."""
    feeds = [{"x": np.array([[-5, 0, 9], [1, 2, 3]], np.float32)}]
    found = calibrate(model, OPS, feeds, CalibrationSettings()).ranges
    assert found["a"] == found["b"] == (0, 10)
    symmetric = calibrate(model, OPS, feeds, CalibrationSettings(symmetric=True)).ranges
    assert symmetric["a"] == (-10, 10)
    assert symmetric["d"] == (-6, 6)


@pytest.mark.parametrize("method", CalibrationMethod)
def test_an_excluded_node_wants_nothing(model: Path, method: CalibrationMethod) -> None:
    feeds = [{"x": np.ones((2, 3), np.float32)}]
    settings = CalibrationSettings(method=method)
    found = calibrate(model, ("Clip", "Relu"), feeds, settings, excluded={"relu"}).ranges
    assert set(found) == {"c", "d"}
