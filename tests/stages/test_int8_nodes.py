"""Nodes on which ONNX Runtime's quantizer or its INT8 kernels fail: they are found, left in float or given one scale, and said."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit import onnx_file
from optkit.artifact import Artifact, Precision
from optkit.artifact.tensors import DimRange
from optkit.checks.parity import sqnr_db
from optkit.errors import StageError
from optkit.quantization.ort_quantizer import quantize_without_failing
from optkit.stages import QuantizeDynamic, QuantizeStatic

RNG = np.random.default_rng(0)
N = helper.make_node


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


Model = tuple[list[onnx.NodeProto], Mapping[str, np.ndarray], Sequence[int], Sequence[int]]  # shapes without the batch
CONV = N("Conv", ["x", "c"], ["h"], name="conv")
MODELS: dict[str, Model] = {
    "transposed, 2 groups": ([CONV, N("ConvTranspose", ["h", "w", "b"], ["y"], name="up", group=2)],
        {"c": weights(4, 4, 1, 1), "w": weights(4, 2, 3, 3), "b": weights(4)}, (4, 6, 6), (4, 8, 8)),
    "transposed, alone": ([N("ConvTranspose", ["x", "w", "b"], ["h"], name="up", group=2), N("Relu", ["h"], ["y"], name="r")],
        {"w": weights(4, 2, 3, 3), "b": weights(4)}, (4, 6, 6), (4, 8, 8)),
    "transposed 1-D, 4 groups": ([N("ConvTranspose", ["x", "w", "b"], ["y"], name="up", group=4)],
        {"w": weights(4, 1, 3), "b": weights(4)}, (4, 6), (4, 8)),
    "transposed 3-D, 2 groups": ([N("ConvTranspose", ["x", "w", "b"], ["y"], name="up", group=2)],
        {"w": weights(4, 3, 2, 2, 2), "b": weights(6)}, (4, 3, 3, 3), (6, 4, 4, 4)),
    "transposed 3-D": ([N("ConvTranspose", ["x", "w", "b"], ["y"], name="up")],
        {"w": weights(4, 3, 2, 2, 2), "b": weights(3)}, (4, 3, 3, 3), (3, 4, 4, 4)),
    "transA": ([N("Transpose", ["x"], ["t"], perm=[1, 0], name="t"), N("Gemm", ["t", "w", "b"], ["y"], name="g", transA=1)],
        {"w": weights(4, 5), "b": weights(5)}, (4,), (5,)),
    "alpha and beta": ([N("Gemm", ["x", "w", "b"], ["h"], name="g", alpha=0.5, beta=2.0), N("MatMul", ["h", "v"], ["y"], name="m")],
        {"w": weights(4, 5), "b": weights(5), "v": weights(5, 3)}, (4,), (3,)),
    "3-D weight": ([N("MatMul", ["x", "w"], ["h"], name="batched"), N("MatMul", ["h", "v"], ["y"], name="m")],
        {"w": weights(3, 4, 5), "v": weights(5, 2)}, (3, 2, 4), (3, 2, 2)),
    "1-D weight": ([N("MatMul", ["x", "v"], ["h"], name="m"), N("MatMul", ["h", "w"], ["y"], name="vector")],
        {"v": weights(4, 5), "w": weights(5)}, (4,), ()),
    "empty tensor": ([N("Slice", ["x", "s", "s", "a"], ["z"], name="cut"), N("Relu", ["z"], ["e"], name="relu"),
        N("Concat", ["x", "e"], ["c"], axis=1, name="join"), N("MatMul", ["c", "w"], ["y"], name="m")],
        {"s": int64(0), "a": int64(1), "w": weights(4, 5)}, (4,), (5,)),
}  # fmt: skip
NOTES = {
    "transposed, 2 groups": "one scale for the whole weight of up: transposed convolution with groups and a bias",
    "transposed, alone": "one scale for the whole weight of up: ",
    "transposed 1-D, 4 groups": "one scale for the whole weight of up: ",
    "transposed 3-D, 2 groups": "one scale for the whole weight of up: ",
    "alpha and beta": "stays in float: 1 Gemm (its alpha and beta is not 1, which INT8 kernels ignore)",
    "3-D weight": "stays in float: 1 MatMul (its weight has 3 dimensions)",
    "1-D weight": "stays in float: 1 MatMul (its weight has 1 dimensions)",
    "empty tensor": "stays in float, because ONNX Runtime's quantizer fails on it: join: ",
}


def written(name: str, folder: Path, opset: int = 20) -> Artifact:
    nodes, tensors, x, y = MODELS[name]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["batch", *x])], [info("y", TensorProto.FLOAT, ["batch", *y])],
        [numpy_helper.from_array(array, key) for key, array in tensors.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    for i in range(4):
        np.savez(folder / f"{i}.npz", x=RNG.standard_normal((4, *x)).astype(np.float32))
    return onnx_file.describe(folder / "model.onnx", {"batch": DimRange(min=1, opt=2, max=4)})


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("name", MODELS)
def test_one_node_does_not_stop_the_others(name: str, target: str, tmp_path: Path) -> None:
    source = written(name, tmp_path)
    stage = QuantizeStatic.model_validate({"calibration": str(tmp_path), "target": target, "format": "qdq"})
    made = stage.run(source, tmp_path / "out")
    if target == "cpu" or not NOTES.get(name, "").startswith("one scale"):
        assert any(note.startswith(NOTES.get(name, "")) for note in made.notes), made.notes
    x = np.load(tmp_path / "0.npz")["x"]
    found, expected = (
        onnxruntime.InferenceSession(p, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for p in (made.path, source.path)
    )
    ratio = sqnr_db(expected, found)
    assert ratio is None or ratio > 20


@pytest.mark.parametrize(("name", "node"), [("3-D weight", "batched"), ("1-D weight", "vector")])
def test_nodes_without_an_int8_form_are_left_out_dynamically_too(name: str, node: str, tmp_path: Path) -> None:
    made = QuantizeDynamic().run(written(name, tmp_path), tmp_path / "out")
    assert node in [n.name for n in onnx_file.load(made.path).graph.node if n.op_type == "MatMul"]


def test_where_nothing_else_is_left_the_nodes_are_named(tmp_path: Path) -> None:
    source = written("3-D weight", tmp_path)
    stage = QuantizeStatic(calibration=str(tmp_path), exclude=("m",))
    with pytest.raises(StageError, match=r"nothing would become INT8: .*\(batched: its weight has 3 dimensions\)$"):
        stage.run(source, tmp_path / "out")


@pytest.mark.parametrize("failing", [set(), {"b"}, {"a", "g"}, set("abcdefg")])
def test_the_failing_nodes_are_found_by_halving(failing: set[str]) -> None:
    quantized: list[str] = []

    def quantize(nodes: Sequence[onnx.NodeProto]) -> None:
        quantized[:] = [node.name for node in nodes]
        if bad := failing.intersection(quantized):
            raise ValueError(f"shapes of {min(bad)}")

    nodes = [N("Relu", ["x"], ["y"], name=name) for name in "abcdefg"]
    if len(failing) == len(nodes):
        with pytest.raises(StageError, match=r"^node 'a' cannot be quantized: shapes of a$"):
            quantize_without_failing(quantize, nodes)
        return
    found = quantize_without_failing(quantize, nodes)
    assert found == {name: f"shapes of {name}" for name in failing}
    assert quantized == [node.name for node in nodes if node.name not in failing]


@pytest.mark.parametrize(("opset", "warned"), [(20, False), (22, True), (23, True)])
def test_an_opset_whose_layers_some_runtimes_compute_in_float_is_said(opset: int, warned: bool, tmp_path: Path) -> None:
    made = QuantizeStatic(calibration=str(tmp_path)).run(written("transposed 3-D", tmp_path, opset), tmp_path / "out")
    assert any(note.startswith(f"opset {opset}: some releases") for note in made.notes) is warned


def test_a_file_with_fake_quantization_is_refused_in_words(tmp_path: Path) -> None:
    info, scale, zero = helper.make_tensor_value_info, np.float32(0.1), np.int8(0)
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["d"]), N("MatMul", ["d", "w"], ["y"], name="m")
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(np.array(a), n) for n, a in (("s", scale), ("z", zero), ("w", weights(4, 4)))]
    graph = helper.make_graph(nodes, "g", [info("x", 1, [2, 4])], [info("y", 1, [2, 4])], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "m.onnx")
    )
    np.savez(tmp_path / "0.npz", x=np.ones((2, 4), np.float32))
    source = onnx_file.describe(tmp_path / "m.onnx", {}).model_copy(update={"precision": Precision.FP32})
    with pytest.raises(
        StageError, match="has Q/DQ nodes already, as FakeQuantize modules write them; expected a model in float"
    ):
        QuantizeStatic(calibration=str(tmp_path)).run(source, tmp_path / "out")
